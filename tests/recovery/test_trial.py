"""A small world of records, some of them deadly, with real files and processes that die."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.records import RecordBatch
from recovery.errors import RecoveryError
from recovery.in_hand import PATTERN, InHand
from recovery.poison import PoisonGuard
from recovery.suspects import DEATHS, Suspects, mark_of
from recovery.trial import Trial
from tests.samples import LANE

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDS = 12


class DeathError(RuntimeError):
    """The process ends here."""


def record(offset: int, value: bytes = b"v") -> RecordBatch:
    """A record as the topic has it."""
    return RecordBatch(
        LANE, offset, offset + 1, (offset,), (offset,), (b"k",), (value,), ((),), size=2
    )


def together(start: int, end: int) -> RecordBatch:
    """Records in one batch."""
    offsets = tuple(range(start, end))
    columns = [(value,) * len(offsets) for value in (b"k", b"v", ())]
    return RecordBatch(LANE, start, end, offsets, offsets, *columns)  # type: ignore[arg-type]


@dataclass
class World:
    """A lane whose records go through one process after the other.

    Attributes:
        folder: Of the suspects.
        poison: Records of which every process dies.
        batch: How many records are in hand together.
        kills: After how many further steps a process is killed from outside, one number for each.
        hit: How often in a row a record was alone in hand at such a kill.
        deaths: How often a process has died of a record.
        outcomes: Of each record, the outcomes that it has had.
    """

    folder: Path
    poison: frozenset[int]
    batch: int
    kills: list[int]
    position: int = 0
    hit: Counter[int] = field(default_factory=Counter)
    most_hit: Counter[int] = field(default_factory=Counter)
    deaths: int = 0
    outcomes: Counter[tuple[int, str]] = field(default_factory=Counter)
    _left: int | None = None

    def run(self) -> None:
        """Start processes until one gets to the end."""
        while self.position < RECORDS:
            self._left = self.kills.pop() if self.kills else None
            guard = PoisonGuard(self.folder)
            try:
                self._try(guard)
                self._flow(guard)
            except DeathError:
                pass
            guard._in_hand.close()

    def _try(self, guard: PoisonGuard) -> None:
        guard.try_suspects([LANE.key], self._read, self._attempt, lambda: None, lambda: False)

    def _read(self, _lane: str, start: int, end: int) -> Iterator[RecordBatch]:
        return map(record, range(start, end))

    def _attempt(self, one: RecordBatch) -> None:
        self._step(one.start)
        self._die_of([one.start])
        self.hit[one.start] = 0

    def _flow(self, guard: PoisonGuard) -> None:
        while self.position < RECORDS:
            batch = together(self.position, min(RECORDS, self.position + self.batch))
            dead = set(guard.condemned(batch))
            rest = [at for index, at in enumerate(batch.offsets) if index not in dead]
            with guard.holding([batch]):
                self._step()
                self._die_of(rest)
            self._step()
            for index, at in enumerate(batch.offsets):
                self.outcomes[at, "dead" if index in dead else "embedded"] += 1
            self.position = batch.end

    def _step(self, alone: int | None = None) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                if alone is not None:
                    self.hit[alone] += 1
                    self.most_hit[alone] = max(self.most_hit[alone], self.hit[alone])
                raise DeathError

    def _die_of(self, offsets: list[int]) -> None:
        if self.poison.intersection(offsets):
            self.deaths += 1
            raise DeathError


@given(
    poison=st.frozensets(st.integers(0, RECORDS - 1), max_size=3),
    batch=st.integers(1, RECORDS),
    kills=st.lists(st.integers(0, 30), max_size=8),
)
def test_any_poison_and_any_kills(poison: frozenset[int], batch: int, kills: list[int]) -> None:
    """Every record has one outcome; poison dies, and nothing else that kills spared once alone."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), poison, batch, kills)
        world.run()
        dead = {at for at, outcome in world.outcomes if outcome == "dead"}
        assert Counter(at for at, _ in world.outcomes.elements()) == Counter(range(RECORDS))
        assert poison <= dead
        # A kill counts as a death where it met the record alone in hand.
        assert all(world.most_hit[at] >= DEATHS for at in dead - poison)
        assert world.deaths <= 3 * len(poison)


def test_three_deaths_are_enough(tmp_path: Path) -> None:
    """A process dies of a record once among others and twice with it alone, and no more."""
    world = World(tmp_path, frozenset({5}), RECORDS, [])
    world.run()
    assert world.deaths == 3
    assert [at for at, outcome in world.outcomes if outcome == "dead"] == [5]


def trial(suspects: Suspects, in_hand: InHand, tried: list[int]) -> Trial:
    """A trial that notes what is tried."""
    return Trial(
        suspects,
        in_hand,
        lambda _lane, start, end: map(record, range(start, end)),
        lambda one: tried.append(one.start),
        lambda: tried.append(-1),
        lambda: False,
    )


@dataclass
class Place:
    """A folder with suspects in it, and a process."""

    folder: Path

    def leave(self, *held: tuple[str, int, int, int, str]) -> None:
        """Have a process die with that in hand."""
        own = InHand(self.folder)
        with pytest.raises(DeathError), own.holding(held):
            raise DeathError
        own.close()

    def known(self) -> Suspects:
        """What the next start knows."""
        found = Suspects(self.folder)
        with found.locked():
            found.adopt()
        return found

    def try_all(self, **changed: object) -> list[int]:
        """What a start tries, in its order."""
        tried: list[int] = []
        own = InHand(self.folder)
        try:
            replace(trial(Suspects(self.folder), own, tried), **changed).run([LANE.key])  # type: ignore[arg-type]
        finally:
            own.close()
        return tried


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder that is empty."""
    return Place(tmp_path)


def test_the_named_come_first(place: Place) -> None:
    """After the control, the one that the process has died of alone is tried before all others."""
    place.leave((LANE.key, 2, 6, 0, ""))
    place.leave((LANE.key, 4, 5, 1, mark_of(record(4))))
    assert place.try_all() == [-1, 4, 2, 3, 5]
    assert place.try_all() == []
    assert len(list(place.folder.glob(PATTERN))) == 1  # the last start's own


def test_whoever_crashes_on_everything_blames_nothing(place: Place) -> None:
    """Where the control ends the process, however often, no record is named or condemned."""

    def crash() -> None:
        raise DeathError

    place.leave((LANE.key, 2, 6, 0, ""))
    for _ in range(5):
        with pytest.raises(DeathError):
            place.try_all(control=crash)
    known = place.known()
    assert (known.ranges, known.named, known.condemned) == ([(LANE.key, 2, 6)], {}, {})


def test_a_trial_that_is_asked_to_end(place: Place) -> None:
    """The rest is left to the next start."""
    place.leave((LANE.key, 2, 6, 0, ""))
    seen: list[bool] = []
    tried = place.try_all(asked=lambda: seen.append(True) or len(seen) > 2)  # type: ignore[func-returns-value]
    assert tried == [-1, 2, 3]
    assert place.try_all() == [-1, 4, 5]


def test_a_death_counts_once(place: Place) -> None:
    """A start that ends between taking a note over and deleting it does not count it twice."""
    place.leave((LANE.key, 4, 5, 1, "mark"))
    [path] = place.folder.glob(PATTERN)
    copy = path.read_bytes()
    assert place.known().named == {(LANE.key, 4): (1, "mark")}
    path.write_bytes(copy)
    known = place.known()
    assert (known.named, known.condemned) == ({(LANE.key, 4): (1, "mark")}, {})


def test_another_record_at_its_place(place: Place, tmp_path: Path) -> None:
    """In a topic that was made anew, a verdict on an offset is none on the record there now."""
    place.leave((LANE.key, 4, 5, DEATHS, mark_of(record(4))))
    place.known()
    guard = PoisonGuard(tmp_path)
    assert list(guard.condemned(together(2, 6))) == [2]
    assert list(guard.condemned(record(4, b"another"))) == []
    assert list(guard.condemned(record(5))) == []
    guard._in_hand.close()


def test_lanes_that_are_gone(place: Place) -> None:
    """Suspects of a topic that the flow reads no more are dropped."""
    place.leave(("gone/000000", 2, 6, 0, ""))
    place.leave(("gone/000000", 2, 3, 1, ""))
    assert place.try_all() == [-1]
    known = place.known()
    assert (known.ranges, known.named) == ([], {})


def test_a_file_that_is_damaged(place: Place) -> None:
    """It is named, with what to do."""
    (place.folder / "suspects.json").write_bytes(b'{"version": 2}')
    with pytest.raises(
        RecoveryError, match=r"^recovery\.suspects: .*suspects\.json: can't be read"
    ):
        place.known()
