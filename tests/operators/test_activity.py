"""Activity: what a user's views add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.activity import Activity, ActivityStep, Fading, StoredState, Viewed, views_of
from operators.records import Kind, Lane, OutcomeBatch
from tests.samples import DIMENSION, Fields, Row, embedding, encoded, outcomes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

LANE = Lane("views", 0)
HOUR = 3_600_000
FADING = Fading(HOUR, 4)


@dataclass
class Users:
    """The committed rows of the table of users."""

    rows: dict[str, StoredState] = field(default_factory=dict)
    asked: list[set[str]] = field(default_factory=list)
    written: int = -1

    def __call__(self, ids: Collection[str]) -> Mapping[str, StoredState]:
        """See `StateLookup`."""
        self.asked.append(set(ids))
        return {user: self.rows[user] for user in ids if user in self.rows}

    def step(self, kept: int = 0, fading: Fading = FADING) -> ActivityStep:
        """A fresh step before this table."""
        return ActivityStep(self, lambda _: self.written, fading, kept)

    def commit(self, batch: OutcomeBatch) -> None:
        """Write a batch's users, as the sink does."""
        users = batch.beside
        assert users is not None
        for index, user in enumerate(users.ids):
            made, told = users.encoded[index], users.metadata.json[index]
            assert made is not None
            assert told is not None
            at, offset = users.event_times[index], users.offsets[index]
            self.rows[user] = StoredState(made.vectors[0], told, at, LANE.partition, offset)
        self.written = batch.end


def view(user: str | None, product: str, hours: float = 0.0, title: str = "") -> Row:
    """The outcome of a view."""
    title = title or f"title of {product}"
    columns: dict[str, Any] = {"user_id": user, "title": title, "heat": hours}
    return embedding(product, title, time_ms=round(hours * HOUR), metadata=Fields(typed=columns))


def run(step: ActivityStep, rows: Sequence[Row], first: int = 0) -> OutcomeBatch:
    """A batch of views through a step."""
    [made] = step([outcomes(rows, first, lane=LANE)])
    return made


def vectors(batch: OutcomeBatch) -> list[np.ndarray[Any, Any]]:
    """The users' vectors of a batch."""
    assert batch.beside is not None
    return [one.vectors[0] for one in batch.beside.encoded if one is not None]


def unit(*weighted: tuple[float, str]) -> np.ndarray[Any, Any]:
    """The unit vector of a weighted sum of products."""
    total = sum((w * encoded(f"title of {p}").vectors[0] for w, p in weighted), np.zeros(DIMENSION))
    return np.asarray(total / np.linalg.norm(total))


def test_views_fade_with_time() -> None:
    """After a half-life a view counts half of a fresh one."""
    made = run(Users().step(), [view("u", "a", 0), view("u", "b", 1), view("v", "c", 1)])
    first, second, other = vectors(made)
    assert first == pytest.approx(unit((1, "a")), abs=1e-6)
    assert second == pytest.approx(unit((0.5, "a"), (1, "b")), abs=1e-6)
    assert other == pytest.approx(unit((1, "c")), abs=1e-6)


def test_outcomes_of_users() -> None:
    """Each view has one of its user beside it; other records have none, and nothing is lost."""
    rows = [view("u", "a"), view(None, "b"), view("v", "a")]
    made = run(Users().step(), rows, 5)
    users = made.beside
    assert users is not None
    assert (list(users.ids), list(users.offsets)) == (["u", "v"], [5, 7])
    assert (users.start, users.end, users.lane) == (made.start, made.end, LANE)
    assert users.has_patch
    assert set(users.kinds) == {Kind.PATCH}
    told = users.metadata.json[0]
    assert told is not None
    assert views_of(told) == (Viewed("a", "title of a", 0),)


def test_a_late_view_counts_as_if_it_had_been_in_time() -> None:
    """The order of arrival makes no difference."""
    rows = [view("u", "a", 0), view("u", "b", 2), view("u", "c", 1)]
    late = vectors(run(Users().step(), rows))[-1]
    timely = vectors(run(Users().step(), [rows[0], rows[2], rows[1]]))[-1]
    assert late == pytest.approx(timely, abs=1e-6)


def test_a_duplicate_changes_nothing() -> None:
    """The same view again leaves the vector as it is, and its product no more popular."""
    made = run(Users().step(), [view("u", "a", 1), view("u", "b", 2), view("u", "a", 1)])
    before, after = vectors(made)[1:]
    assert (before == after).all()
    assert made.metadata.typed["heat"] == [1, 2, None]
    again = run(Users().step(), [view("u", "a", 1), view("u", "a", 2)])
    assert again.metadata.typed["heat"] == [1, 2]


def test_too_late_to_be_told_from_a_duplicate() -> None:
    """Older than all that are remembered, a view is left out."""
    rows = [view("u", f"{n}", n) for n in range(1, 5)]
    made = run(Users().step(), [*rows, view("u", "old", 0.5)])
    assert (vectors(made)[-1] == vectors(made)[-2]).all()
    assert made.metadata.typed["heat"][-1] is None


def test_views_that_cancel_each_other() -> None:
    """A sum without a direction begins anew with the last view."""
    state = Activity(np.array([1.0, 0.0]), 0, (), LANE, 0)
    after = state.after(Viewed("a", "", 0), np.array([-1.0, 0.0], np.float32), FADING)
    assert after.total.tolist() == [-1.0, 0.0]


def test_only_unknown_users_are_looked_up() -> None:
    """What is in flight is newer than the table, and need not be read from it."""
    users = Users()
    step = users.step()
    run(step, [view("u", "a")])
    run(step, [view("u", "b", 1), view("v", "b", 1)], 1)
    run(step, [], 3)
    assert users.asked == [{"u"}, {"v"}]


def test_read_again_for_another_sink() -> None:
    """A record that a state holds already is passed on: its outcome is the state as it stands."""
    users = Users()
    rows = [view("u", "a", 0), view("u", "b", 1)]
    first = run(users.step(), rows)
    users.commit(first)
    again = run(users.step(), rows)
    for vector in vectors(again):
        assert vector == pytest.approx(vectors(first)[-1], abs=1e-6)
    assert again.metadata.typed["heat"] == [0, 1]


@st.composite
def histories(draw: st.DrawFn) -> list[Row]:
    """Views of a few users and products, late and double ones among them."""
    users, products = st.sampled_from("uvw"), st.sampled_from("abcd")
    return [
        view(draw(st.none() | users), draw(products), draw(st.integers(0, 6)))
        for _ in range(draw(st.integers(1, 20)))
    ]


@given(histories(), st.data())
def test_any_crash(rows: list[Row], data: st.DataObject) -> None:
    """Cut in any way, restarted from what was committed, each view has the outcome of one run."""
    whole = run(Users().step(), rows)
    users = Users()
    step = users.step(data.draw(st.sampled_from([0, 1 << 20])))
    position = 0
    pending: list[OutcomeBatch] = []
    assert whole.beside is not None
    wanted = dict(zip(whole.beside.offsets, vectors(whole), strict=True))
    crashes = 3
    while position < len(rows) or pending:
        actions = ["commit"] * bool(pending) + ["read"] * (position < len(rows))
        action = data.draw(st.sampled_from(actions + ["crash"] * (crashes > 0)))
        if action == "read":
            end = data.draw(st.integers(position + 1, len(rows)))
            made = run(step, rows[position:end], position)
            assert made.beside is not None
            for offset, vector in zip(made.beside.offsets, vectors(made), strict=True):
                assert vector == pytest.approx(wanted[offset], abs=1e-5)
            assert list(made.metadata.typed["heat"]) == list(
                whole.metadata.typed["heat"][position:end]
            )
            pending.append(made)
            position = end
        elif action == "commit":
            users.commit(pending.pop(0))
        else:
            crashes -= 1
            position, pending, step = max(users.written, 0), [], users.step()


@given(histories(), st.integers(0, 25), st.integers(0, 25))
def test_users_go_with_their_records(rows: list[Row], low: int, high: int) -> None:
    """Whatever part is taken of a batch, the users beside it are those of the same offsets."""
    made = run(Users().step(), rows, 3)
    assert made.beside is not None
    pairs = dict(zip(made.beside.offsets, made.beside.ids, strict=True))
    first, last = sorted((min(low, len(rows)), min(high, len(rows))))
    for part in (made.slice(first, last), made.since(3 + first)):
        if part is None:
            continue
        beside = part.beside
        assert beside is not None
        assert (beside.start, beside.end) == (part.start, part.end)
        kept = {o: user for o, user in pairs.items() if part.start <= o < part.end}
        assert dict(zip(beside.offsets, beside.ids, strict=True)) == kept
