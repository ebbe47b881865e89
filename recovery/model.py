"""Another model is noticed where progress is kept, before anything is written with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recovery.errors import RecoveryError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clients.kafka import KafkaConfig
    from operators.records import Lane

__all__ = ["check_model"]


def check_model(kafka: KafkaConfig, lanes: Iterable[Lane], name: str, fingerprint: str) -> None:
    """Check that what is on the embeddings topic was made by this model.

    The topic sink notes the fingerprint with each offset that it commits.

    Raises:
        RecoveryError: Another model's fingerprint is noted: going on would mix both.
        BrokerError: The broker can't be reached.
    """
    # Nothing is fenced yet: a dead run's transaction may be open, and must not be waited for.
    consumer = kafka.observer()
    try:
        for lane in lanes:
            noted = kafka.committed_note(consumer, lane.topic, lane.partition)
            if noted and noted != fingerprint:
                raise RecoveryError(
                    f"model.name: {name} has fingerprint {fingerprint}, but what "
                    f"kafka.application_id {kafka.application_id} wrote of {lane} is of another "
                    f"model ({noted}); set that model again, or embed anew: another "
                    "kafka.application_id, embeddings.topic and table.name"
                )
    finally:
        consumer.close()
