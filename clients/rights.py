"""What the broker's access control lets a user do, and what is missing where it refuses."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

__all__ = ["DENIED", "is_denied", "missing"]

DENIED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
"""The codes of a right that the user of `kafka.client` has not."""


def is_denied(error: KafkaError) -> bool:
    """Whether the broker refuses for want of a right."""
    return error.code() in DENIED


def missing(right: str) -> str:
    """What to say of a right that is missing.

    Args:
        right: An operation and a resource, as Kafka's tools name them: "Read on topic documents".
    """
    return f"no right to {right}: grant it to the user of kafka.client"
