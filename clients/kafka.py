"""The one place that makes librdkafka clients, so that all are set up alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclOperation
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from clients.diagnosis import diagnosis
from clients.errors import BrokerError
from clients.rights import is_denied, missing
from headrace.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from confluent_kafka.admin._topic import TopicDescription
    from tenacity import RetryCallState

__all__ = [
    "AWAY",
    "CALL_TIMEOUT_S",
    "REPORT_S",
    "KafkaConfig",
    "Option",
    "is_away",
    "reason",
    "without_values",
]

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
Client = TypeVar("Client")

Option = str | float | bool | Callable[..., None]
"""The value of a client's option."""

CALL_TIMEOUT_S: Final = 5.0
"""How long one call to the broker may take, in seconds."""

LISTEN_S: Final = 2.0
"""How long a connection that fails is listened to at least, in seconds."""

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
            # The default lets go of every broker when the last one goes away, but keeps the group's
            # coordinator by a handle that is then dead: offsets of a transaction are never sent
            # again, however long the broker has been back (librdkafka 2.16).
            "metadata.recovery.strategy": "none",
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

    def patiently(self, what: str, call: Callable[[], Result], right: str = "") -> Result:
        """Make a call to the broker; while it is away, try again with growing pauses.

        Args:
            what: What is being done, for the log and the error.
            call: The call.
            right: The right to a topic or to the cluster that it takes, for the error.

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
            told = f"kafka.bootstrap_servers: {self.bootstrap_servers}: {what}"
            raise BrokerError(f"{told}: {self._fault(error, right)}") from error

    def _fault(self, error: KafkaException, right: str) -> str:
        if is_away(error):
            why = self.diagnosis() or reason(error)
            return f"no answer for {self.outage_s:.0f} s: {why}"
        return self.denied(error, right) or f"refused: {reason(error)}"

    def diagnosis(self) -> str:
        """What a new connection says of why the broker is away; empty where it says nothing.

        Takes some seconds where the broker says nothing at all.
        """
        listen_s = max(LISTEN_S, min(CALL_TIMEOUT_S, self.outage_s))
        return diagnosis(self.consumer, self.bootstrap_servers, self.client, listen_s)

    def denied(self, error: KafkaException, right: str = "") -> str:
        """The right for whose want a call was refused; empty where that is not why.

        Args:
            error: The refusal.
            right: The right to a topic or to the cluster that the call takes.
        """
        kafka = error.args[0] if error.args else None
        if not isinstance(kafka, KafkaError) or not is_denied(kafka):
            return ""
        own = {
            KafkaError.GROUP_AUTHORIZATION_FAILED: f"Read on group {self.application_id}",
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
                f"Write on transactional ids {self.application_id}:*"
            ),
        }
        needed = own.get(kafka.code(), right)
        return missing(needed) if needed else ""

    def partitions(self, topics: Collection[str]) -> dict[str, list[int]]:
        """The partitions of those topics that exist.

        Raises:
            BrokerError: The broker can't be reached, or does not tell.
        """
        found = self._described(dict.fromkeys(topics, "Describe"))
        return {
            topic: sorted(partition.id for partition in told.partitions)
            for topic, told in found.items()
        }

    def demand(self, rights: Mapping[str, str]) -> None:
        """See that the user may do something to each of some topics, if the broker tells that.

        Args:
            rights: The operation for each topic, such as Read.

        Raises:
            BrokerError: A right is missing, or the broker can't be reached.
        """
        for topic, told in self._described(rights).items():
            allowed = told.authorized_operations
            operation = AclOperation[rights[topic].upper()]
            if allowed is not None and operation not in allowed:
                raise BrokerError(missing(f"{rights[topic]} on topic {topic}"))

    def _described(self, rights: Mapping[str, str]) -> dict[str, TopicDescription]:
        """What the broker tells of those topics that exist, and what is to be done to them."""
        admin = self.admin()
        found: dict[str, TopicDescription] = {}
        for topic, operation in rights.items():

            def ask(topic: str = topic) -> TopicDescription | None:
                return _described(admin, topic)

            told = self.patiently(f"reading topic {topic}", ask, f"{operation} on topic {topic}")
            if told is not None:
                found[topic] = told
        return found

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
            try:
                [found] = consumer.committed(wanted, timeout=CALL_TIMEOUT_S)
            except KafkaException as error:
                if is_away(error):
                    self._see_group()
                raise
            if found.error is not None:
                # Not the same as no offset, which would mean to begin anew.
                raise KafkaException(found.error)
            return found

        what = f"reading the committed offset of {topic}/{partition}"
        return self.patiently(what, ask, f"Read on topic {topic}")

    def _see_group(self) -> None:
        """Raise the refusal of a group that the user has no right to.

        A consumer looks for such a group's coordinator until its time is over, and says no more.
        """
        group, admin = self.application_id, self.admin()
        asked = admin.describe_consumer_groups([group], request_timeout=CALL_TIMEOUT_S)
        try:
            asked[group].result()
        except KafkaException as error:
            if is_denied(error.args[0]):
                raise


def _described(admin: AdminClient, topic: str) -> TopicDescription | None:
    """What the broker tells of a topic; None where there is no such topic.

    Asked by its name: a list of all topics leaves out those that the user has no right to.
    """
    asked = admin.describe_topics(
        TopicCollection([topic]),
        include_authorized_operations=True,
        request_timeout=CALL_TIMEOUT_S,
    )
    try:
        told: TopicDescription = asked[topic].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise
    return told


def _made(client: Callable[..., Client], config: Mapping[str, Any]) -> Client:
    """A client, or the error that names the option which librdkafka refuses, not its value."""
    try:
        return client(dict(config), logger=logging.getLogger("librdkafka"))
    except (KafkaException, ValueError) as error:
        raise UsageError(f"kafka.client: {without_values(reason(error), config)}") from error


def without_values(text: str, config: Mapping[str, Any]) -> str:
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
