"""When outcomes are seen: by a consumer of the embeddings topic, and by a reader of the table."""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import lance
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from harness.process import HarnessError
from headrace.v1.embedding_pb2 import Embedding
from operators.records import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

__all__ = ["Seen", "TableWatch", "TopicWatch", "ends_of"]

_LOOK_S: Final = 0.005
_FENCE: Final = f"key = X'{bytes(16).hex()}'"


@dataclass(frozen=True, slots=True)
class Seen:
    """An embedding, as a consumer that reads committed records saw it.

    Attributes:
        lane: The source partition of its document.
        offset: The document's offset there.
        event_time: The document's timestamp, in seconds.
        at: When the consumer had it, in seconds.
    """

    lane: str
    offset: int
    event_time: float
    at: float


class TopicWatch:
    """Reads the embeddings topic from its beginning.

    Args:
        bootstrap_servers: The broker.
        topic: The embeddings topic.
        partitions: How many it has.
        check: Called about ten times a second; raises when there is nothing to wait for.
    """

    def __init__(
        self, bootstrap_servers: str, topic: str, partitions: int, check: Callable[[], None]
    ) -> None:
        self._check = check
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "benchmarks",
                "log_level": 3,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
        )
        self._consumer.assign(
            [TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)]
        )

    def collect(self, docs: int, timeout_s: float) -> list[Seen]:
        """The next embeddings.

        Raises:
            HarnessError: Fewer came in time, or one came twice.
        """
        seen: dict[tuple[str, int], Seen] = {}
        deadline = time.monotonic() + timeout_s
        while len(seen) < docs:
            message = self._consumer.poll(0.1)
            now = time.time()
            if message is None:
                self._check()
                if time.monotonic() > deadline:
                    raise HarnessError(f"flow: {len(seen)} of {docs} documents embedded in time")
                continue
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            one = _seen(message.value() or b"", now)
            if seen.setdefault((one.lane, one.offset), one) is not one:
                raise HarnessError(f"flow: {one.lane} offset {one.offset}: embedded twice")
        return list(seen.values())

    def close(self) -> None:
        """Leaves the broker."""
        self._consumer.close()


def ends_of(seen: Iterable[Seen]) -> dict[str, int]:
    """The offset behind the last document of each lane."""
    ends: defaultdict[str, int] = defaultdict(int)
    for one in seen:
        ends[one.lane] = max(ends[one.lane], one.offset + 1)
    return dict(ends)


@dataclass
class TableWatch:
    """Looks for a new version of the table every few milliseconds, and reads its progress.

    As a context manager it is started on entry, stopped on exit.

    Args:
        path: The table's own folder.
        check: As `TopicWatch`'s.
    """

    path: Path
    check: Callable[[], None]
    _seen: defaultdict[str, tuple[list[int], list[float]]] = field(init=False)

    def __post_init__(self) -> None:
        self._seen = defaultdict(lambda: ([], []))
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="table-watch", daemon=True)

    def wait_for(self, ends: Mapping[str, int], timeout_s: float) -> float:
        """Waits until the table holds all before some offsets.

        Returns:
            When it was seen to.

        Raises:
            HarnessError: It does not in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            with self._changed:
                times = [self._time(lane, end - 1) for lane, end in ends.items()]
                known = [at for at in times if at is not None]
                if len(known) == len(times):
                    return max(known)
                self._changed.wait(0.1)
            self.check()
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise HarnessError(f"table {self.path}: does not reach {dict(ends)} in time")

    def seen_at(self, one: Seen) -> float:
        """When a document that `wait_for` waited for was seen in the table."""
        with self._changed:
            at = self._time(one.lane, one.offset)
        assert at is not None
        return at

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _time(self, lane: str, offset: int) -> float | None:
        """When the table was first seen with a record; None while it was not."""
        ends, times = self._seen[lane]
        index = bisect_right(ends, offset)
        return times[index] if index < len(times) else None

    def _run(self) -> None:
        dataset = self._opened()
        version = -1
        while dataset is not None and not self._stopping.wait(_LOOK_S):
            newest = dataset.latest_version
            if newest == version:
                continue
            version = newest
            dataset.checkout_latest()  # type: ignore[no-untyped-call]  # Lance's own gap
            self._note(_progress(dataset))

    def _opened(self) -> lance.LanceDataset | None:
        while not self._stopping.wait(0.05):
            try:
                return lance.dataset(self.path)
            except (OSError, ValueError):
                continue  # not made yet
        return None

    def _note(self, progress: Mapping[str, int]) -> None:
        now = time.time()
        with self._changed:
            for lane, end in progress.items():
                ends, times = self._seen[lane]
                if not ends or end > ends[-1]:
                    ends.append(end)
                    times.append(now)
            self._changed.notify_all()


def _progress(dataset: lance.LanceDataset) -> dict[str, int]:
    """The next offset of each lane, as the table's fence row says."""
    # Each commit writes the row anew, so it is in the newest file unless that was compacted.
    for part in (dataset.get_fragments()[-1], dataset):
        found = part.to_table(columns=["metadata"], filter=_FENCE).column("metadata")
        if len(found):
            progress: dict[str, int] = json.loads(found[0].as_py())["progress"]
            return progress
    return {}


def _seen(value: bytes, now: float) -> Seen:
    embedding = Embedding.FromString(value)
    source = embedding.source
    lane = Lane(source.topic, source.partition)
    return Seen(lane.key, source.offset, embedding.event_time_ms / 1000, now)
