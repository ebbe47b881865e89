from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from clients.kafka import KafkaConfig
from clients.rights import is_denied, missing

KAFKA = KafkaConfig("nowhere:1", "app")


@pytest.mark.parametrize(
    ("code", "right"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "Read on topic t"),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, "Read on topic t"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "Read on group app"),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "Write on transactional ids app:*"),
    ],
)
def test_a_refusal_names_the_right(code: int, right: str) -> None:
    """Groups and transactional ids are the application's; a topic is the call's."""
    assert is_denied(KafkaError(code))
    assert KAFKA.denied(KafkaException(KafkaError(code)), "Read on topic t") == missing(right)


def test_other_errors_are_no_want_of_a_right() -> None:
    """What fails for another reason names no right; nor does a refusal of something unknown."""
    assert not is_denied(KafkaError(KafkaError.INVALID_PRODUCER_EPOCH))
    assert KAFKA.denied(KafkaException(KafkaError(KafkaError._TRANSPORT)), "Read on topic t") == ""
    assert KAFKA.denied(KafkaException("text"), "Read on topic t") == ""
    denied = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert KAFKA.denied(denied) == ""
