"""Watches the broker from a thread of its own: whether it is there, and which partitions it has.

Not from the workers: a request waits behind the fetch that the broker holds open on the same
connection, half a second when a topic is quiet, and librdkafka does not report every outage.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import structlog
from confluent_kafka import KafkaException

from clients.kafka import CALL_TIMEOUT_S, REPORT_S
from sources.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from confluent_kafka import Consumer

    from clients.kafka import KafkaConfig
    from telemetry.clients import Meter

__all__ = ["BrokerWatch"]

log = structlog.get_logger(__name__)

QUIET_S: Final = 5.0
"""How often a broker that answers is asked, in seconds; new partitions are seen as often."""

AWAY_S: Final = 1.0
"""How often one is asked that did not, or of which librdkafka says that it is away."""


class BrokerWatch:
    """One thread a process that asks for the topics' partitions again and again.

    Args:
        kafka: The broker.
        topics: The topics to know the partitions of.
        on_look: Told after each look whether the broker is away.
        meter: Takes what the client tells of itself.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        topics: Collection[str],
        on_look: Callable[[bool], None] = lambda _: None,
        meter: Meter | None = None,
    ) -> None:
        self._kafka = kafka
        self._topics = tuple(topics)
        self._on_look = on_look
        self._options = meter.options if meter is not None else {}
        self._lock = threading.Lock()
        self._users = 0
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._done = threading.Event()
        self._partitions: dict[str, frozenset[int]] = {}
        self._since: float | None = None
        self._reported: float | None = None

    def join(self) -> None:
        """A lane uses the watch; the first one starts it."""
        with self._lock:
            self._users += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="broker watch", daemon=True)
                self._thread.start()

    def leave(self) -> None:
        """A lane uses it no more; the last one ends it."""
        with self._lock:
            self._users -= 1
            thread = self._thread if self._users == 0 else None
        if thread is not None:
            self._done.set()
            self._wake.set()
            thread.join(2 * CALL_TIMEOUT_S)

    def suspect(self) -> None:
        """Ask soon: a client was told that the broker is away."""
        self._wake.set()

    def partitions(self, topic: str) -> frozenset[int]:
        """The partitions that the topic was last seen to have; none before the first look."""
        return self._partitions.get(topic, frozenset())

    def check(self) -> None:
        """See that the broker has not been away for too long.

        Raises:
            SourceError: It has.
        """
        since = self._since
        if since is not None and time.monotonic() - since > self._kafka.outage_s:
            why = self._kafka.diagnosis()
            told = f"{self._kafka.outage_s:.0f} s{f': {why}' if why else ''}"
            raise SourceError(
                f"kafka.bootstrap_servers: {self._kafka.bootstrap_servers}: away for {told}; "
                "start again when it is back, nothing is lost"
            )

    def _run(self) -> None:
        consumer = self._kafka.observer(**self._options)
        while not self._done.is_set():
            self._look(consumer)
            self._on_look(self._since is not None)
            if self._options:
                consumer.poll(0)  # it has no partition: this is for what it tells of itself
            # No sooner, however often librdkafka says that the broker is away.
            self._done.wait(AWAY_S)
            self._wake.wait(0 if self._since else QUIET_S - AWAY_S)
            self._wake.clear()
        consumer.close()

    def _look(self, consumer: Consumer) -> None:
        asked = time.monotonic()
        try:
            for topic in self._topics:
                found = consumer.list_topics(topic, timeout=CALL_TIMEOUT_S).topics[topic]
                self._partitions[topic] = frozenset(found.partitions)
        except KafkaException:
            self._away(asked)
        else:
            self._back()

    def _away(self, asked: float) -> None:
        self._since = self._since or asked
        now = time.monotonic()
        if self._reported is None or now - self._reported > REPORT_S:
            self._reported = now
            log.warning(
                "broker away", stage="source", bootstrap_servers=self._kafka.bootstrap_servers
            )

    def _back(self) -> None:
        if self._since is not None:
            away = time.monotonic() - self._since
            log.info("broker back", stage="source", away_s=round(away, 1))
        self._since = self._reported = None
