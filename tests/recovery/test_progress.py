from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from operators.records import DeadLetter, Kind, Original, Outcome, OutcomeBatch
from recovery.errors import RecoveryError
from recovery.progress import Board, Watermarks, resume_offset
from tests.samples import LANE, Fields, Row, outcomes, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

MARKS = Watermarks(10, 50)


@pytest.mark.parametrize(
    ("topic", "table", "start", "expected"),
    [
        (None, None, "earliest", 10),
        (None, None, "latest", 50),
        (20, 30, "earliest", 20),
        (30, 20, "latest", 20),
        (20, 20, "earliest", 20),
        (10, 50, "earliest", 10),
        (50, 50, "earliest", 50),
        (None, 30, "earliest", 10),
        (30, None, "latest", 10),
    ],
)
def test_resumes_at_the_older_sink(
    topic: int | None, table: int | None, start: Literal["earliest", "latest"], expected: int
) -> None:
    """The older progress decides; a sink without any gets all that the topic has."""
    progress = {"topic": topic, "table": table}
    assert resume_offset("t/0", MARKS, progress, start) == expected


@pytest.mark.parametrize("progress", [{"topic": 51, "table": 20}, {"topic": None, "table": 60}])
@pytest.mark.parametrize("missing", ["error", "skip"])
def test_refuses_a_topic_made_anew(
    progress: dict[str, int | None], missing: Literal["error", "skip"]
) -> None:
    """A sink beyond the topic's end means another topic, whatever may be skipped."""
    with pytest.raises(RecoveryError, match=r"^source\.topics: t/0 ends at 50, but the t\w+ is at"):
        resume_offset("t/0", MARKS, progress, "earliest", missing)


@pytest.mark.parametrize("progress", [{"topic": 4, "table": 20}, {"topic": 20, "table": 4}])
def test_names_what_retention_has_deleted(progress: dict[str, int]) -> None:
    """Records that a sink lacks and the topic no longer has are an error that counts them."""
    with pytest.raises(RecoveryError, match=r"retention has deleted 6 offsets.*source.missing"):
        resume_offset("t/0", MARKS, progress, "earliest")
    assert resume_offset("t/0", MARKS, progress, "earliest", "skip") == 10


OFFSETS = st.none() | st.integers(0, 40)


@given(st.integers(0, 40), st.integers(0, 40), OFFSETS, OFFSETS)
def test_no_sink_lacks_a_record(
    low: int, length: int, topic: int | None, table: int | None
) -> None:
    """Whatever the progress, the lane is read from within the topic and below every sink."""
    marks = Watermarks(low, low + length)
    progress = {"topic": topic, "table": table}
    try:
        offset = resume_offset("t/0", marks, progress, "earliest")
    except RecoveryError:
        assert any(p is not None and not low <= p <= marks.high for p in progress.values())
        return
    assert low <= offset <= marks.high
    assert all(offset <= (low if p is None else p) for p in progress.values())


def test_board_keeps_the_highest() -> None:
    """Progress never goes back, and the slower sink decides."""
    board = Board()
    assert (board.get("topic", "a"), board.written("a")) == (-1, -1)
    board.post("topic", "a", 9)
    board.post("topic", "a", 5)
    assert (board.get("topic", "a"), board.written("a")) == (9, -1)
    board.post("table", "a", 7)
    assert board.written("a") == 7
    assert board.written("b") == -1


def test_board_wakes_who_waits() -> None:
    """A post of another thread ends the wait, at once and not before."""
    board = Board()
    thread = threading.Thread(target=board.wait_for, args=("topic", "a", 5))
    thread.start()
    board.post("topic", "a", 4)
    board.post("table", "a", 9)
    board.post("topic", "b", 9)
    thread.join(0.15)
    assert thread.is_alive()
    board.post("topic", "a", 5)
    thread.join(5)
    assert not thread.is_alive()
    board.wait_for("topic", "a", 3)


def test_board_asks_for_sinks_of_other_processes() -> None:
    """Where a sink runs in another process, its committed progress is read while one waits."""
    asked: list[list[str]] = []

    def durable(lanes: object) -> dict[str, int]:
        asked.append(list(lanes))  # type: ignore[call-overload]
        return {"a": 5 * len(asked)}

    board = Board({"topic": durable})
    started = time.monotonic()
    board.wait_for("topic", "a", 10)
    assert time.monotonic() - started < 2
    assert asked == [["a"], ["a"]]
    assert board.get("topic", "a") == 10


def test_board_believes_its_own_sinks() -> None:
    """A sink of this process is not asked about elsewhere: its posts are all there is."""
    board = Board({"topic": lambda _: {"a": 99}})
    board.own("topic", "a")
    board.refresh("topic", ["a"])
    board.refresh("table", ["a"])
    assert board.get("topic", "a") == -1
    board.refresh("topic", ["a", "b"])
    assert board.get("topic", "a") == 99  # what a read of other lanes brings is true all the same


# The hand-over.


@dataclass(frozen=True)
class Entry:
    """A record of the lane: sets a text, changes metadata only, or deletes."""

    offset: int
    id: str
    kind: Literal["upsert", "patch", "delete"]


def outcome(entry: Entry, before: str | None) -> Row:
    """What a record becomes, given the text of its document's row before it."""
    if entry.kind == "delete":
        return Row(Kind.DELETE, entry.id, 0)
    text = f"text {entry.offset}" if entry.kind == "upsert" else before
    kind = Kind.PATCH if entry.kind == "patch" else Kind.UPSERT
    if text is None:
        dead = DeadLetter("no_text", "", Original(b"", b"", ()))
        return Row(kind, entry.id, 0, dead=dead)
    return Row(kind, entry.id, 0, text, Fields(f"{entry.offset}"))


@dataclass
class World:
    """What outlives a crash: the lane's log, the topic with its offset, the table."""

    log: list[Entry] = field(default_factory=list)
    high: int = 0
    out: list[tuple[int, Row]] = field(default_factory=list)
    committed: int | None = None
    epoch: int = 0
    rows: dict[str, tuple[int, Row]] = field(default_factory=dict)
    progress: int | None = None
    writer: int = 0

    def text(self, identity: str) -> str | None:
        """The document's text in the table."""
        held = self.rows.get(identity)
        return held[1].text if held else None


class Crashed(Exception):  # noqa: N818 - it is one, not an error of ours
    """This run is over."""


class Run:
    """One run of the flow, a step at a time; the numbers are those of `recovery.progress`."""

    def __init__(self, world: World, *, remote: bool, guards: frozenset[str]) -> None:
        self.world = world
        self.guards = guards
        self.remote = remote
        self.board = Board(
            {"topic": lambda _: self._known(world.committed)}
            | {"table": lambda _: self._known(world.progress)}
        )
        self.position: int | None = None
        self.epoch: int | None = None
        self.topic_floor: int | None = None
        self.table_floor: int | None = None
        self.writer: int | None = None
        self.view: dict[str, tuple[int, str | None]] = {}
        self.for_topic: list[OutcomeBatch] = []
        self.for_table: list[OutcomeBatch] = []
        self.posts: list[tuple[str, int]] = []

    @staticmethod
    def _known(offset: int | None) -> dict[str, int]:
        return {} if offset is None else {LANE.key: offset}

    def steps(self, several: int) -> list[Callable[[], None]]:
        """What can come next."""
        if self.epoch is None:
            return [self.fence_source]
        if self.position is None:
            return [self.resume]
        steps: list[Callable[[], None]] = []
        if self.for_topic:
            unopened = self.topic_floor is None
            steps.append(self.open_topic if unopened else partial(self.commit_topic, several))
        if self.for_table:
            unopened = self.table_floor is None
            steps.append(self.open_table if unopened else partial(self.commit_table, several))
        return [*steps, partial(self.read, several), self.post]

    def fence_source(self) -> None:
        """1: an older copy can commit to the topic no more."""
        self.world.epoch += "fence" in self.guards
        self.epoch = self.world.epoch

    def resume(self) -> None:
        """2: start at the older sink."""
        marks = Watermarks(0, self.world.high)
        progress = {"topic": self.world.committed, "table": self.world.progress}
        self.position = resume_offset(str(LANE), marks, progress, "earliest")

    def open_topic(self) -> None:
        """3: fence again, read the committed offset once."""
        self.fence_source()
        self.topic_floor = -1 if self.world.committed is None else self.world.committed
        self._open("topic", self.topic_floor)

    def open_table(self) -> None:
        """4: take the table over, read its progress once."""
        self.world.writer += 1
        self.writer = self.world.writer
        self.table_floor = -1 if self.world.progress is None else self.world.progress
        self._open("table", self.table_floor)

    def _open(self, sink: str, floor: int) -> None:
        if not self.remote:
            self.board.own(sink, LANE.key)
            self.board.post(sink, LANE.key, floor)

    def read(self, several: int) -> None:
        """5: some records pass, with the gaps behind and before them."""
        start = self.position
        assert start is not None
        entries = [e for e in self.world.log if e.offset >= start][:several]
        last = not entries or entries[-1] == self.world.log[-1]
        end = self.world.high if last else entries[-1].offset + 1
        if end == start:
            return
        rows = []
        for entry in entries:
            rows.append(outcome(entry, self._before(entry.id)))
            if rows[-1].outcome is not Outcome.DEAD_LETTER:
                self.view[entry.id] = (entry.offset, rows[-1].text)
        offsets = [entry.offset for entry in entries]
        batch = outcomes(rows, offsets=offsets, start=start, end=end)
        self.for_topic.append(batch)
        self.for_table.append(batch)
        self.position = end

    def _before(self, identity: str) -> str | None:
        held = self.view.get(identity)
        return held[1] if held else self.world.text(identity)

    def forget(self) -> None:
        """What both sinks have leaves the view, as the source's budget lets it."""
        written = self.board.written(LANE.key)
        self.view = {i: held for i, held in self.view.items() if held[0] >= written}

    def commit_topic(self, several: int) -> None:
        """6: outcomes and the next offset, in one transaction."""
        batches = self._take(self.for_topic, several)
        if self.epoch != self.world.epoch:
            raise Crashed
        assert self.topic_floor is not None
        fresh = self._fresh(batches, self.topic_floor)
        for batch in fresh:
            self.world.out += zip(batch.offsets, rows_of(batch), strict=True)
            self.world.committed = batch.end
        if fresh:
            self.posts.append(("topic", fresh[-1].end))

    def can_commit_table(self, several: int) -> bool:
        """7: whether the topic has every metadata-only record among the next batches."""
        if "hold back" not in self.guards:
            return True
        self.refresh()
        floor = self.table_floor if self.table_floor is not None else -1
        return all(
            self.board.get("topic", LANE.key) >= batch.end
            for batch in self._fresh(self.for_table[:several], floor)
            if batch.has_patch
        )

    def commit_table(self, several: int) -> None:
        """7: rows and the next offset, in one merge; or nothing yet."""
        if not self.can_commit_table(several):
            return
        batches = self._take(self.for_table, several)
        if self.writer != self.world.writer:
            raise Crashed
        assert self.table_floor is not None
        fresh = self._fresh(batches, self.table_floor)
        for batch in fresh:
            for offset, row in zip(batch.offsets, rows_of(batch), strict=True):
                held = self.world.rows.get(row.id)
                if row.outcome is not Outcome.DEAD_LETTER and (not held or offset > held[0]):
                    self.world.rows[row.id] = (offset, row)
            self.world.progress = batch.end
        if fresh:
            self.posts.append(("table", fresh[-1].end))

    def post(self) -> None:
        """8: tell the board, if the sinks are in this process; the source lets the view forget."""
        for sink, end in self.posts:
            if not self.remote:
                self.board.post(sink, LANE.key, end)
        self.posts = []
        self.refresh()
        self.forget()

    def refresh(self) -> None:
        """Ask where other processes' progress is kept."""
        for sink in ("topic", "table"):
            self.board.refresh(sink, [LANE.key])

    def _fresh(self, batches: list[OutcomeBatch], floor: int) -> list[OutcomeBatch]:
        if "floor" not in self.guards:
            return batches
        return [fresh for batch in batches if (fresh := batch.since(floor)) is not None]

    @staticmethod
    def _take(queue: list[OutcomeBatch], several: int) -> list[OutcomeBatch]:
        taken = queue[:several]
        del queue[:several]
        return taken


KINDS = st.sampled_from(["upsert", "patch", "delete"])


class HandOver(RuleBasedStateMachine):
    """A lane and the runs that work on it, one killed or overtaken by the next at any step."""

    guards = frozenset({"floor", "hold back", "fence"})

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.run: Run | None = None
        self.old: Run | None = None

    @rule(
        entries=st.lists(st.tuples(KINDS, st.sampled_from("ab"), st.booleans()), min_size=2),
        behind=st.booleans(),
    )
    def produce(
        self, entries: list[tuple[Literal["upsert", "patch", "delete"], str, bool]], behind: bool
    ) -> None:
        """Records arrive, with gaps: aborted transactions, control records, compacted offsets."""
        for kind, identity, gap in entries[:4]:
            self.world.high += 2 * gap
            self.world.log.append(Entry(self.world.high, identity, kind))
            self.world.high += 1
        self.world.high += behind

    @precondition(lambda self: self.run is None or self.old is None)
    @rule(remote=st.booleans())
    def start(self, remote: bool) -> None:
        """A new run; one that still runs goes on beside it, as a copy started by mistake does."""
        self.old = self.run or self.old
        self.run = Run(self.world, remote=remote, guards=self.guards)

    @precondition(lambda self: self.run)
    @rule(
        which=st.sampled_from(["run", "old"]),
        choices=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3)), min_size=5, max_size=20),
        crash=st.sampled_from([False, False, False, True]),
    )
    def go(self, which: Literal["run", "old"], choices: list[tuple[int, int]], crash: bool) -> None:
        """So many steps, in any order in which they can come; then a kill -9, perhaps.

        Board, queues and view are then gone.
        """
        for choice, several in choices:
            run = self.run if which == "run" else self.old
            if run is None:
                return
            steps = run.steps(several)
            try:
                steps[choice % len(steps)]()
            except Crashed:
                setattr(self, which, None)
            self.the_topic_has_each_record_once_and_in_order()
            self.the_table_is_the_replay_of_its_progress()
        if crash:
            setattr(self, which, None)

    @invariant()
    def the_topic_has_each_record_once_and_in_order(self) -> None:
        """The committed outcomes are exactly those of the records below the committed offset."""
        below = [e for e in self.world.log if e.offset < (self.world.committed or 0)]
        assert self.world.out == self.replay(below)[0]

    @invariant()
    def the_table_is_the_replay_of_its_progress(self) -> None:
        """Its rows are what replaying the records below its own progress gives."""
        below = [e for e in self.world.log if e.offset < (self.world.progress or 0)]
        assert self.world.rows == self.replay(below)[1]

    def teardown(self) -> None:
        """A run that is left alone brings both sinks to the end of the lane."""
        if not self.guards >= HandOver.guards:
            return
        self.old = None
        run = self.run = Run(self.world, remote=False, guards=self.guards)
        run.fence_source()
        run.resume()
        for _ in range(len(self.world.log) + 1):
            run.read(2)
        if run.for_topic:
            run.open_topic()
            run.open_table()
            run.commit_topic(1000)
            run.post()
            run.commit_table(1000)
            assert self.world.committed == self.world.progress == self.world.high
        self.the_topic_has_each_record_once_and_in_order()
        self.the_table_is_the_replay_of_its_progress()

    @staticmethod
    def replay(log: list[Entry]) -> tuple[list[tuple[int, Row]], dict[str, tuple[int, Row]]]:
        """What the sinks must hold after a prefix of the log."""
        out: list[tuple[int, Row]] = []
        rows: dict[str, tuple[int, Row]] = {}
        for entry in log:
            held = rows.get(entry.id)
            row = outcome(entry, held[1].text if held else None)
            out.append((entry.offset, row))
            if row.outcome is not Outcome.DEAD_LETTER:
                rows[entry.id] = (entry.offset, row)
        return out, rows


HandOver.TestCase.settings = settings(max_examples=200, stateful_step_count=12, deadline=None)
TestHandOver = HandOver.TestCase


@pytest.mark.parametrize("guard", sorted(HandOver.guards))
def test_without_a_guard_the_machine_finds_a_fault(guard: str) -> None:
    """The control: each guard switched off is noticed, so the machine can fail."""

    class Unguarded(HandOver):
        guards = HandOver.guards - {guard}

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Unguarded,
            settings=settings(
                max_examples=3000,
                stateful_step_count=12,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
            ),
        )
