"""The one place that makes librdkafka clients, so that all are set up alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from clients.errors import BrokerError
from headrace.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tenacity import RetryCallState

__all__ = ["AWAY", "CALL_TIMEOUT_S", "KafkaConfig", "Option", "is_away", "reason"]

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
Client = TypeVar("Client")

Option = str | float | bool | Callable[..., None]
"""The value of a client's option."""

CALL_TIMEOUT_S: Final = 5.0
"""How long one call to the broker may take, in seconds."""

_PARTITIONER: Final = {"partitioner": "murmur2_random"}
"""Places a key as Java's clients do: a document stays in one partition whoever writes it."""

REPORT_S: Final = 60.0
"""How often a broker that stays away is named in the log, in seconds."""

AWAY: Final = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 - librdkafka's own codes are spelled so
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError._WAIT_COORD,  # noqa: SLF001
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.NETWORK_EXCEPTION,
    }
)
"""The codes of a broker that is away or still starting: to be tried again."""


def reason(error: BaseException) -> str:
    """What librdkafka says, in one line."""
    kafka = error.args[0] if error.args else None
    return str(kafka.str() if isinstance(kafka, KafkaError) else error).replace("\n", " ")


def is_away(error: BaseException) -> bool:
    """Whether the error means that the broker is away, and not that the call is wrong."""
    if not isinstance(error, KafkaException) or not error.args:
        return False
    kafka = error.args[0]
    return isinstance(kafka, KafkaError) and (kafka.retriable() or kafka.code() in AWAY)


@dataclass(frozen=True)
class KafkaConfig:
    """Which broker, under whose name, and how.

    Attributes:
        bootstrap_servers: As librdkafka takes them.
        application_id: The consumer group, and the prefix of the transactional ids.
        client: Settings passed on to librdkafka as they are.
        outage_s: How long a broker may be away, in seconds.
    """

    bootstrap_servers: str
    application_id: str
    client: Mapping[str, str] = field(default_factory=dict, repr=False)  # it may hold secrets
    outage_s: float = 120.0

    def _common(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": self.application_id,
            # A broker that comes back is found within a second, not within ten.
            "reconnect.backoff.max.ms": 1000,
            "socket.nagle.disable": True,
            **self.client,
        }

    def consumer(self, **extra: Option) -> Consumer:
        """A consumer of the application's group that commits nothing by itself."""
        config: dict[str, Any] = self._common() | {
            "group.id": self.application_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
        }
        return _made(Consumer, config | extra)

    def observer(self, **extra: Option) -> Consumer:
        """A consumer that reads committed offsets as they are now.

        One that is `read_committed` waits for open transactions, and so for up to a minute for
        that of a killed producer which nobody has fenced yet.
        """
        return self.consumer(**{"isolation.level": "read_uncommitted", **extra})

    def transactional_producer(self, name: str, **extra: Option) -> Producer:
        """A producer whose transactional id is the application's, for a part of that name."""
        config: dict[str, Any] = self._common() | {
            "transactional.id": f"{self.application_id}:{name}",
            # Left open by a crash, a transaction holds up read_committed readers for this long
            # unless its successor starts sooner and settles it.
            "transaction.timeout.ms": 60_000,
            "message.timeout.ms": 30_000,
            # A commit sends what is left at once. Until then requests should be large: a thread
            # that makes records one by one takes longer for them than the default of 5 ms.
            "linger.ms": 50,
            # The default of 100 ms is what back-to-back transactions otherwise wait for.
            "retry.backoff.ms": 5,
            **_PARTITIONER,
        }
        return _made(Producer, config | extra)

    def producer(self, **extra: Option) -> Producer:
        """An idempotent producer without transactions."""
        config: dict[str, Any] = self._common() | {
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
            **_PARTITIONER,
        }
        return _made(Producer, config | extra)

    def admin(self) -> AdminClient:
        """A client for topics and groups."""
        return _made(AdminClient, self._common())

    def patiently(self, what: str, call: Callable[[], Result]) -> Result:
        """Make a call to the broker; while it is away, try again with growing pauses.

        Args:
            what: What is being done, for the log and the error.
            call: The call.

        Raises:
            BrokerError: The broker was away for `outage_s`, or refused.
        """
        attempts = Retrying(
            retry=retry_if_exception(is_away),
            stop=stop_after_delay(self.outage_s),
            wait=wait_exponential_jitter(multiplier=0.1, max=5.0, jitter=0.1),
            before_sleep=_Report(self.bootstrap_servers, what),
            reraise=True,
        )
        try:
            return attempts(call)
        except KafkaException as error:
            verb = f"no answer for {self.outage_s:.0f} s" if is_away(error) else "refused"
            raise BrokerError(
                f"kafka.bootstrap_servers: {self.bootstrap_servers}: {what}: {verb}: "
                f"{reason(error)}"
            ) from error

    def partitions(self, topics: Collection[str]) -> dict[str, list[int]]:
        """The partitions of those topics that exist.

        Raises:
            BrokerError: The broker can't be reached.
        """
        admin = self.admin()
        found = self.patiently("reading topics", lambda: admin.list_topics(timeout=CALL_TIMEOUT_S))
        return {
            topic: sorted(found.topics[topic].partitions)
            for topic in topics
            if topic in found.topics and found.topics[topic].error is None
        }

    def committed(self, consumer: Consumer, topic: str, partition: int) -> int | None:
        """The group's committed offset, None where it has none.

        Raises:
            BrokerError: The broker can't be reached.
        """
        found = self._committed(consumer, topic, partition)
        return found.offset if found.offset >= 0 else None

    def committed_note(self, consumer: Consumer, topic: str, partition: int) -> str:
        """What was noted with the group's committed offset; empty where there is nothing.

        Raises:
            BrokerError: The broker can't be reached.
        """
        return self._committed(consumer, topic, partition).metadata or ""

    def commit(self, consumer: Consumer, offsets: list[TopicPartition]) -> None:
        """Commit offsets of the group, outside of a transaction.

        Raises:
            BrokerError: The broker can't be reached or refuses.
        """

        def ask() -> None:
            done = consumer.commit(offsets=offsets, asynchronous=False)
            for place in done or ():
                if place.error is not None:
                    raise KafkaException(place.error)

        self.patiently(f"committing offsets of {self.application_id}", ask)

    def _committed(self, consumer: Consumer, topic: str, partition: int) -> TopicPartition:
        def ask() -> TopicPartition:
            wanted = [TopicPartition(topic, partition)]
            [found] = consumer.committed(wanted, timeout=CALL_TIMEOUT_S)
            if found.error is not None:
                # Not the same as no offset, which would mean to begin anew.
                raise KafkaException(found.error)
            return found

        return self.patiently(f"reading the committed offset of {topic}/{partition}", ask)


def _made(client: Callable[..., Client], config: Mapping[str, Any]) -> Client:
    """A client, or the error that names the option which librdkafka refuses, not its value."""
    try:
        return client(dict(config), logger=logging.getLogger("librdkafka"))
    except (KafkaException, ValueError) as error:
        raise UsageError(f"kafka.client: {_without_values(reason(error), config)}") from error


def _without_values(text: str, config: Mapping[str, Any]) -> str:
    """The text without anything that an option was set to, which may be a secret."""
    for value in config.values():
        if isinstance(value, str) and len(value) > 3:
            text = text.replace(value, "…")
    return text


class _Report:
    """Names a broker that is away in the log: at once, then once a minute."""

    def __init__(self, servers: str, what: str) -> None:
        self._servers = servers
        self._what = what
        self._last = 0.0

    def __call__(self, state: RetryCallState) -> None:
        now = time.monotonic()
        if self._last and now - self._last < REPORT_S:
            return
        self._last = now
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "broker away",
            bootstrap_servers=self._servers,
            stage=self._what,
            error=reason(error) if error else "",
        )
