"""When outcomes are seen: by a consumer of the embeddings topic, and by a reader of the table."""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import lance
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from harness.process import HarnessError
from operators.records import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from benchmarks.load import Written

__all__ = ["ProgressWatch", "RowsWatch", "TableWatch", "TopicWatch"]

_LOOK_S: Final = 0.005
_FENCE: Final = f"key = X'{bytes(16).hex()}'"


class TopicWatch:
    """Reads a topic of vectors from its beginning.

    Args:
        bootstrap_servers: The broker.
        topic: The topic.
        partitions: How many it has.
        once: Whether a document that comes twice is an error.
        check: Called about ten times a second; raises when there is nothing to wait for.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        partitions: int,
        *,
        once: bool,
        check: Callable[[], None],
    ) -> None:
        self._topic = topic
        self._once = once
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
        self._before: set[bytes] = set()

    def collect(self, docs: int, timeout_s: float) -> dict[bytes, float]:
        """When each of the next documents was first seen, by its key; in seconds.

        Raises:
            HarnessError: Fewer came in time, or one came twice that must not.
        """
        seen: dict[bytes, float] = {}
        deadline = time.monotonic() + timeout_s
        while len(seen) < docs:
            message = self._consumer.poll(0.1)
            now = time.time()
            if message is None:
                self._check()
                if time.monotonic() > deadline:
                    raise HarnessError(
                        f"topic {self._topic}: {len(seen)} of {docs} documents in time"
                    )
                continue
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            self._note(seen, message.key() or b"", now)
        self._before |= seen.keys()
        return seen

    def close(self) -> None:
        """Leaves the broker."""
        self._consumer.close()

    def _note(self, seen: dict[bytes, float], key: bytes | str, now: float) -> None:
        assert isinstance(key, bytes)
        again = key in seen or key in self._before
        if again and self._once:
            raise HarnessError(f"topic {self._topic}: {key.decode()} came twice")
        if not again:
            seen[key] = now


@dataclass
class TableWatch(ABC):
    """Looks for a new version of a table every few milliseconds, and notes what it holds.

    As a context manager it is started on entry, stopped on exit.

    Args:
        path: The table's own folder.
        check: As `TopicWatch`'s.
    """

    path: Path
    check: Callable[[], None]

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="table-watch", daemon=True)

    def wait_for(self, documents: Collection[Written], timeout_s: float) -> float:
        """Waits until the table holds some documents.

        Returns:
            When it was seen to.

        Raises:
            HarnessError: It does not in time.
        """
        deadline = time.monotonic() + timeout_s
        latest = 0.0
        missing = sorted(documents, key=lambda one: one.offset, reverse=True)
        while True:
            with self._changed:
                while missing and (at := self._time(missing[-1])) is not None:
                    latest = max(latest, at)
                    missing.pop()
                if not missing:
                    return latest
                self._changed.wait(0.1)
            self.check()
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise HarnessError(f"table {self.path}: {len(missing)} documents not in time")

    def seen_at(self, one: Written) -> float:
        """When a document that `wait_for` waited for was seen in the table."""
        with self._changed:
            at = self._time(one)
        assert at is not None
        return at

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    @abstractmethod
    def _time(self, one: Written) -> float | None:
        """When the table was first seen with a document; None while it was not."""

    @abstractmethod
    def _look(self, dataset: lance.LanceDataset) -> None:
        """Notes what a new version holds."""

    def _run(self) -> None:
        dataset = self._opened()
        version = -1
        while dataset is not None and not self._stopping.wait(_LOOK_S):
            newest = dataset.latest_version
            if newest == version:
                continue
            version = newest
            dataset.checkout_latest()  # type: ignore[no-untyped-call]  # Lance's own gap
            self._look(dataset)

    def _opened(self) -> lance.LanceDataset | None:
        while not self._stopping.wait(0.05):
            try:
                return lance.dataset(self.path)
            except (OSError, ValueError):
                continue  # not made yet
        return None


@dataclass
class ProgressWatch(TableWatch):
    """Reads the flow's progress in its table's fence row.

    Args:
        source: The source topic.
    """

    source: str
    _seen: defaultdict[str, tuple[list[int], list[float]]] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._seen = defaultdict(lambda: ([], []))

    def _time(self, one: Written) -> float | None:
        ends, times = self._seen[Lane(self.source, one.partition).key]
        index = bisect_right(ends, one.offset)
        return times[index] if index < len(times) else None

    def _look(self, dataset: lance.LanceDataset) -> None:
        progress = _progress(dataset)
        now = time.time()
        with self._changed:
            for lane, end in progress.items():
                ends, times = self._seen[lane]
                if not ends or end > ends[-1]:
                    ends.append(end)
                    times.append(now)
            self._changed.notify_all()


@dataclass
class RowsWatch(TableWatch):
    """Reads the ids of the rows that a new version brought, in a table of a column `id`."""

    _seen: dict[bytes, float] = field(init=False, default_factory=dict)
    _read: set[int] = field(init=False, default_factory=set)

    def _time(self, one: Written) -> float | None:
        return self._seen.get(one.key)

    def _look(self, dataset: lance.LanceDataset) -> None:
        new = [one for one in dataset.get_fragments() if one.fragment_id not in self._read]
        self._read.update(one.fragment_id for one in new)
        ids: Sequence[str] = [
            key for one in new for key in one.to_table(columns=["id"]).column("id").to_pylist()
        ]
        now = time.time()
        with self._changed:
            for key in ids:
                self._seen.setdefault(key.encode(), now)
            self._changed.notify_all()


def _progress(dataset: lance.LanceDataset) -> Mapping[str, int]:
    """The next offset of each lane, as the table's fence row says."""
    # Each commit writes the row anew, so it is in the newest file unless that was compacted.
    for part in (dataset.get_fragments()[-1], dataset):
        found = part.to_table(columns=["metadata"], filter=_FENCE).column("metadata")
        if len(found):
            progress: dict[str, int] = json.loads(found[0].as_py())["progress"]
            return progress
    return {}
