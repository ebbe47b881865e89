"""What a user has looked at of late, as one vector: the sum of the products', fading with time.

The state of a user is kept in the table of users alone, whose writer waits until every other sink
has a record. So a record that is read again after a crash, for whatever sink lacks it, is one that
the state lacks too, and no snapshot is needed. Where another sink was lost and is filled again,
the offset in the row tells which records the state holds.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

import numpy as np
import orjson

from operators.current import ROW_BYTES, LaneView
from operators.encoding import Encoded
from operators.records import Kind, Lane, Metadata, OutcomeBatch
from operators.views import USER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from operators.records import Headers

__all__ = ["Activity", "ActivityStep", "Fading", "StateLookup", "StoredState", "Viewed", "views_of"]

TITLE_CHARACTERS: Final = 200
"""Of a title that is remembered, so that a row has a bound whatever titles are."""

VIEW_BYTES: Final = 150
"""About what a remembered view takes beside its words."""

LEAST_NORM: Final = 1e-6
"""Below it a sum has no direction that is more than rounding: views that cancel each other."""


class Viewed(NamedTuple):
    """A view that is remembered.

    Attributes:
        product: The product's id.
        title: The beginning of its title then.
        at: When, in milliseconds since 1970.
    """

    product: str
    title: str
    at: int


@dataclass(frozen=True, slots=True)
class StoredState:
    """A row of the table of users.

    Attributes:
        vector: float32 [dimension], of unit length.
        metadata: What `Activity.metadata` gave.
        at: When the newest of its views was, in milliseconds since 1970.
        partition: Of the record that it was the outcome of.
        offset: Of that record.
    """

    vector: NDArray[np.float32]
    metadata: str
    at: int
    partition: int
    offset: int


class StateLookup(Protocol):
    """Reads committed rows of the table of users."""

    def __call__(self, ids: Collection[str]) -> Mapping[str, StoredState]:
        """The rows of those ids that the table has."""


@dataclass(frozen=True, slots=True)
class Fading:
    """How views fade.

    Attributes:
        half_life_ms: After how long a view counts half, in milliseconds.
        length: How many views are remembered, to tell duplicates by and to explain with.
    """

    half_life_ms: float
    length: int

    def weight(self, ago_ms: int) -> float:
        """What a view counts for that was so many milliseconds ago."""
        return float(0.5 ** (ago_ms / self.half_life_ms))


@dataclass(frozen=True, slots=True)
class Activity:
    """A user's state.

    Attributes:
        total: float64 [dimension], the sum of the views' vectors, faded as of `at`.
        at: When the newest view was, in milliseconds since 1970.
        views: The newest views, from new to old.
        lane: Where the records are read that it holds.
        offset: Of the last of them.
    """

    total: NDArray[np.float64]
    at: int
    views: tuple[Viewed, ...]
    lane: Lane
    offset: int

    @classmethod
    def restored(cls, topic: str, stored: StoredState) -> Activity:
        """The state that a row holds."""
        fields = orjson.loads(stored.metadata)
        total = stored.vector.astype(np.float64) * fields["weight"]
        views = _views(fields)
        return cls(total, stored.at, views, Lane(topic, stored.partition), stored.offset)

    @property
    def norm(self) -> float:
        """The length of the sum."""
        return float(np.linalg.norm(self.total))

    def metadata(self) -> str:
        """What a row holds beside the direction of the sum, as JSON."""
        views = [{"product_id": v.product, "title": v.title, "at": v.at} for v in self.views]
        return orjson.dumps({"weight": self.norm, "views": views}).decode()

    def has(self, view: Viewed, length: int) -> bool:
        """Whether a view is among those counted, or too old to be told from one of them."""
        known = any(v.product == view.product and v.at == view.at for v in self.views)
        return known or (len(self.views) >= length and view.at < self.views[-1].at)

    def after(self, view: Viewed, vector: NDArray[np.float32], fading: Fading) -> Activity:
        """The state with one view more, be it the newest or a late one."""
        at = max(self.at, view.at)
        total = self.total * fading.weight(at - self.at) + vector * fading.weight(at - view.at)
        if np.linalg.norm(total) < LEAST_NORM:
            total = vector.astype(np.float64)
        # Sorting is stable: of views at the same time the later told one comes first.
        views = sorted((view, *self.views), key=lambda v: v.at, reverse=True)
        return replace(self, total=total, at=at, views=tuple(views[: fading.length]))


def views_of(metadata: str) -> tuple[Viewed, ...]:
    """The views that `Activity.metadata` tells of, from new to old."""
    return _views(orjson.loads(metadata))


def _views(fields: Mapping[str, Any]) -> tuple[Viewed, ...]:
    found = fields["views"]
    return tuple(Viewed(view["product_id"], view["title"], view["at"]) for view in found)


class ActivityStep:
    """Gives each view's outcome the user's vector after it, as an outcome beside.

    Args:
        lookup: Reads the committed rows of users.
        written: The next offset of a lane, by its key, below which all sinks have all.
        fading: How views fade.
        view_bytes: For each lane, the most bytes of rows that all sinks have; see
            `operators.current`.
    """

    def __init__(
        self,
        lookup: StateLookup,
        written: Callable[[str], int],
        fading: Fading,
        view_bytes: int,
    ) -> None:
        self._lookup = lookup
        self._written = written
        self._fading = fading
        self._lanes: defaultdict[Lane, LaneView[Activity]] = defaultdict(
            lambda: LaneView(view_bytes, _size)
        )

    def __call__(self, batches: Sequence[OutcomeBatch]) -> list[OutcomeBatch]:
        """The same outcomes, each batch with those of its users beside it."""
        # First, so that a user whom these may leave the view for is looked up with the others.
        for batch in batches:
            self._lanes[batch.lane].advance(batch.end, self._written(batch.lane.key))
        unknown = {
            user
            for batch in batches
            for user in batch.metadata.typed.get(USER, ())
            if user is not None and user not in self._lanes[batch.lane]
        }
        stored = self._lookup(unknown) if unknown else {}
        return [self._with_users(batch, stored) for batch in batches]

    def _with_users(self, batch: OutcomeBatch, stored: Mapping[str, StoredState]) -> OutcomeBatch:
        lane = self._lanes[batch.lane]
        users = batch.metadata.typed.get(USER, ())
        dead = batch.dead
        rows = [i for i, user in enumerate(users) if user is not None and i not in dead]
        run = _LaneRun(batch, lane, stored)
        states = [run.take(index, users[index], self._fading) for index in rows]
        lane.put(dict(run.made))
        beside = _beside(batch, rows, [users[i] for i in rows], states)
        return replace(batch, metadata=run.metadata, beside=beside)


class _LaneRun:
    """One batch taken in order.

    Args:
        batch: The products' outcomes.
        view: What the lane's records in flight made of their users.
        stored: The rows of users that are not in the view.
    """

    def __init__(
        self,
        batch: OutcomeBatch,
        view: LaneView[Activity],
        stored: Mapping[str, StoredState],
    ) -> None:
        self._batch = batch
        self._view = view
        self._stored = stored
        self.metadata = batch.metadata
        self.made: dict[str, Activity] = {}

    def take(self, index: int, user: str, fading: Fading) -> Activity:
        """The user's state after the view at an index."""
        batch = self._batch
        title, encoded = batch.metadata.typed["title"][index], batch.encoded[index]
        assert encoded is not None
        view = Viewed(batch.ids[index], title[:TITLE_CHARACTERS], batch.event_times[index])
        before = self._before(user)
        state = self._after(before, view, encoded.vectors[0], batch.offsets[index], fading)
        if state is None:
            self._uncount(index)
            state = replace(cast("Activity", before), lane=batch.lane, offset=batch.offsets[index])
        self.made[user] = state
        return state

    def _before(self, user: str) -> Activity | None:
        if user in self.made:
            return self.made[user]
        if user in self._view:
            return self._view.get(user)
        stored = self._stored.get(user)
        return None if stored is None else Activity.restored(self._batch.lane.topic, stored)

    def _after(
        self,
        state: Activity | None,
        view: Viewed,
        vector: NDArray[np.float32],
        offset: int,
        fading: Fading,
    ) -> Activity | None:
        """The state with the view; None for a view that changes nothing."""
        lane = self._batch.lane
        if state is None:
            return Activity(vector.astype(np.float64), view.at, (view,), lane, offset)
        if state.lane == lane and offset <= state.offset:
            return state
        if state.has(view, fading.length):
            return None
        return replace(state.after(view, vector, fading), lane=lane, offset=offset)

    def _uncount(self, index: int) -> None:
        """A duplicate: it makes its product no more popular."""
        if self.metadata is self._batch.metadata:
            typed = self.metadata.typed
            self.metadata = replace(self.metadata, typed={**typed, "heat": list(typed["heat"])})
        self.metadata.typed["heat"][index] = None  # type: ignore[index]  # the list made above


def _beside(
    batch: OutcomeBatch, rows: Sequence[int], users: Sequence[str], states: Sequence[Activity]
) -> OutcomeBatch:
    """The outcomes of users: each depends on the row before, and so counts as a patch."""
    told = [state.metadata() for state in states]
    headers: dict[int, Headers] = {
        place: batch.headers[index] for place, index in enumerate(rows) if index in batch.headers
    }
    traces = {
        place: batch.traces[index] for place, index in enumerate(rows) if index in batch.traces
    }
    return OutcomeBatch(
        batch.lane,
        batch.start,
        batch.end,
        batch.embedded_at,
        [batch.offsets[index] for index in rows],
        [batch.timestamps[index] for index in rows],
        [Kind.PATCH] * len(rows),
        users,
        [state.at for state in states],
        [None] * len(rows),
        Metadata(told, told),
        [_encoded(state) for state in states],
        headers,
        drained=batch.drained,
        traces=traces,
    )


def _encoded(state: Activity) -> Encoded:
    unit = (state.total / state.norm).astype(np.float32).reshape(1, -1)
    return Encoded(unit, ((0, 0),), (0,), 0, truncated=False)


def _size(rows: Mapping[str, Activity | None]) -> int:
    """About how many bytes states take."""
    held = [state for state in rows.values() if state is not None]
    views = [view for state in held for view in state.views]
    words = sum(getsizeof(view.product) + getsizeof(view.title) for view in views)
    return sum(ROW_BYTES + s.total.nbytes for s in held) + VIEW_BYTES * len(views) + words
