"""What commands need of the broker: to reach it, to read a partition to its end, to send."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin._resource import ResourceType

from clients.errors import BrokerError
from clients.kafka import CALL_TIMEOUT_S, KafkaConfig, reason
from clients.rights import is_denied, missing
from flows.access import kafka_of
from headrace.errors import UsageError
from sources.again import read_again
from sources.lane import LaneReader

if TYPE_CHECKING:
    from collections.abc import Generator

    from confluent_kafka import KafkaError, Message
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._config import ConfigEntry, ConfigResource

    from flows.settings import Settings
    from operators.records import Headers, Lane

__all__ = [
    "Record",
    "Sender",
    "connect",
    "first_at",
    "records",
    "resource_settings",
]

PATIENCE_S: Final = 10.0
"""How long a command waits for a broker that is away: somebody is watching, unlike a flow."""

DELIVERY_S: Final = 30.0
QUEUE_KBYTES: Final = 65_536
HEADER_BYTES: Final = 65_536
POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Record:
    """One record as Kafka holds it."""

    lane: Lane
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def connect(settings: Settings) -> KafkaConfig:
    """How the broker is reached by a command, which gives up sooner than a flow.

    Raises:
        UsageError: `kafka.client` is not what librdkafka takes.
    """
    # Its lines would stand beside the error that tells the same.
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)
    kafka = kafka_of(settings)
    kafka = replace(kafka, outage_s=min(kafka.outage_s, PATIENCE_S))
    try:
        kafka.admin()
    except KafkaException as error:
        raise UsageError(f"kafka.client: {reason(error)}") from error
    return kafka


def resource_settings(
    kafka: KafkaConfig, admin: AdminClient, resource: ConfigResource
) -> dict[str, str]:
    """The settings that a topic or a broker runs under.

    Raises:
        BrokerError: The broker can't be reached, or doesn't tell.
    """

    def ask() -> dict[str, ConfigEntry]:
        asked = admin.describe_configs([resource], request_timeout=CALL_TIMEOUT_S)
        entries: dict[str, ConfigEntry] = asked[resource].result()
        return entries

    whose = f"topic {resource.name}" if resource.restype == ResourceType.TOPIC else "the cluster"
    what = f"reading the settings of {resource.name}"
    found = kafka.patiently(what, ask, f"DescribeConfigs on {whose}")
    return {key: str(entry.value) for key, entry in found.items()}


def records(
    kafka: KafkaConfig, lane: Lane, start: int | None = None, end: int | None = None
) -> Generator[Record]:
    """The committed records of a partition, up to its end as it is at the first one.

    Args:
        kafka: The broker.
        lane: The partition.
        start: The first offset; the partition's own unless given, or where it begins later.
        end: The offset before which to stop.

    Raises:
        HeadraceError: The broker can't be reached.
    """
    for one in read_again(kafka, lane, start, end):
        yield Record(lane, one.start, one.timestamps[0], one.keys[0], one.values[0], one.headers[0])


def first_at(kafka: KafkaConfig, lane: Lane, time_ms: int) -> int:
    """The first offset of a partition whose record is as late as a time, or later.

    Args:
        kafka: The broker.
        lane: The partition.
        time_ms: In milliseconds since 1970.

    Returns:
        The offset; the end of the partition where there is no such record.

    Raises:
        BrokerError: The broker can't be reached.
    """
    reader = LaneReader(kafka, lane)
    try:
        where = TopicPartition(lane.topic, lane.partition, max(0, time_ms))
        [found] = kafka.patiently(
            f"looking for a time in {lane}",
            lambda: reader.consumer.offsets_for_times([where], timeout=CALL_TIMEOUT_S),
        )
        offset: int = found.offset
        return offset if offset >= 0 else reader.watermarks().high
    finally:
        reader.close()


class Sender:
    """Sends records, and counts those that the broker has acknowledged.

    Args:
        kafka: The broker.
        max_record_bytes: Key and value of the largest record.

    Attributes:
        acknowledged: How many have arrived.
    """

    def __init__(self, kafka: KafkaConfig, max_record_bytes: int) -> None:
        extra: dict[str, str | float] = {
            "message.timeout.ms": int(DELIVERY_S * 1000),
            "message.max.bytes": max(1_000_000, max_record_bytes + HEADER_BYTES),
            "queue.buffering.max.kbytes": QUEUE_KBYTES,
        }
        if "partitioner" not in kafka.client:
            # As the Java clients place keys: all of a document's records must share a partition.
            extra["partitioner"] = "murmur2_random"
        self._producer = kafka.producer(**extra)
        self._failure: str | None = None
        self._topic = ""
        self.acknowledged = 0

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int = -1,
    ) -> None:
        """Send a record, as soon as there is room for it.

        Raises:
            BrokerError: This one or one before it was refused.
        """
        while True:
            self._check()
            try:
                self._producer.produce(
                    topic, value, key, partition, headers=list(headers), on_delivery=self._delivered
                )
                self._producer.poll(0)
            except BufferError:
                self._wait(topic)
            except KafkaException as error:
                raise BrokerError(_not_sent(topic, error.args[0])) from error
            else:
                self._topic = topic
                return

    def finish(self) -> None:
        """Wait until all that was sent has arrived.

        Raises:
            BrokerError: Something has not; the text tells of the first.
        """
        # In short turns, between which Ctrl-C is heard.
        while self._wait(self._topic):
            pass
        self._check()

    def _wait(self, topic: str) -> int:
        """Wait a little; how many records are still on their way."""
        try:
            return self._producer.flush(POLL_S)
        except KafkaException as error:  # one that the client gives up for
            raise BrokerError(_not_sent(topic, error.args[0])) from error

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged += 1
        elif self._failure is None:
            self._failure = _not_sent(message.topic() or self._topic, error)

    def _check(self) -> None:
        if self._failure is not None:
            raise BrokerError(f"{self._failure}; {self.acknowledged:,} records were sent")


def _not_sent(topic: str, error: KafkaError) -> str:
    # Without any right to write, a producer gets no id of the cluster either.
    denied = missing(f"Write on topic {topic}") if is_denied(error) else ""
    return f"{topic}: not sent: {denied or error.str()}"
