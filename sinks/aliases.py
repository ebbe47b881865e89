"""Names of tables as readers use them, and the tables and models that they stand for.

A table named `_headrace_aliases` beside the others has a row for each name that stands for another
table, and one, of an empty name, that each change writes anew. So two changes at once collide on
that row, wherever the tables lie, and a change is there as a whole or not at all.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import lance
import pyarrow as pa

from sinks.errors import SinkError
from sinks.store import CONFLICT_RETRIES, LANCE_ERRORS, is_conflict, is_missing, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALIASES_TABLE", "Alias", "Aliases", "Target"]

ALIASES_TABLE: Final = "_headrace_aliases"

ALIAS_VERSION: Final = 1
_GUARD: Final = ""
_SCHEMA: Final = pa.schema(
    [
        pa.field("alias", pa.string(), nullable=False),
        pa.field("state", pa.string()),
        pa.field("sequence", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Target:
    """A table, and what the flow that writes it is set to.

    Attributes:
        table: The table's name.
        model: What `model.name` is.
        fingerprint: The model's fingerprint.
        max_tokens: What `model.max_tokens` is.
        application_id: What `kafka.application_id` is.
        embeddings_topic: What `embeddings.topic` is.
        dead_letters_topic: What `dead_letters.topic` is.
        snapshot: The version of the table before it whose rows it begins with; None for one that
            is made from the topic.
    """

    table: str
    model: str
    fingerprint: str
    max_tokens: int | None
    application_id: str
    embeddings_topic: str
    dead_letters_topic: str
    snapshot: int | None = None


@dataclass(frozen=True)
class Alias:
    """What a name stands for, before, during and after a change of the model.

    Attributes:
        name: As readers have it in `table.name`.
        current: What it stands for.
        next: What is made to take its place.
        previous: What it stood for before, while that is kept.
    """

    name: str
    current: Target
    next: Target | None = None
    previous: Target | None = None

    def switched(self) -> Alias:
        """The same, standing for what was made."""
        assert self.next is not None
        return replace(self, current=self.next, next=None, previous=self.current)

    def rolled_back(self) -> Alias:
        """The same, standing for what it stood for before."""
        assert self.previous is not None
        return replace(self, current=self.previous, next=self.current, previous=None)

    def json(self) -> str:
        """The alias as JSON."""
        return json.dumps({"version": ALIAS_VERSION, **asdict(self)}, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Alias:
        """The alias that JSON holds.

        Raises:
            SinkError: A later release wrote it.
        """
        fields = json.loads(text)
        version = fields.pop("version")
        if version != ALIAS_VERSION:
            raise SinkError(
                f"table.name: its alias is of version {version}, this release reads "
                f"{ALIAS_VERSION}: run the release that wrote it"
            )
        targets = {name: _target(fields[name]) for name in ("current", "next", "previous")}
        return cls(fields["name"], **targets)  # type: ignore[arg-type]  # there is a current one


def _target(fields: Mapping[str, Any] | None) -> Target | None:
    return None if fields is None else Target(**fields)


class _Version(NamedTuple):
    """A version of the aliases' table, and what it holds."""

    dataset: lance.LanceDataset
    known: Mapping[str, Alias]


class Aliases:
    """The aliases beside the tables of one place; safe for several threads.

    Args:
        uri: A folder, or the URI of an object store.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._path = f"{uri.rstrip('/')}/{ALIASES_TABLE}.lance"
        self._lock = threading.Lock()
        self._held: _Version | None = None

    def all(self) -> Mapping[str, Alias]:
        """Each alias as it is now, by its name.

        Raises:
            SinkError: They can't be read.
        """
        with self._lock:
            found = self._latest()
        return {} if found is None else found.known

    def get(self, name: str) -> Alias | None:
        """The alias of a name; or else the one that stands for the table of that name.

        Raises:
            SinkError: They can't be read.
        """
        known = self.all()
        if name in known:
            return known[name]
        return next((alias for alias in known.values() if alias.current.table == name), None)

    def resolve(self, name: str) -> Target | None:
        """What readers of a name are to read; None where that is the table of the name itself.

        An alias may lead to another one, once the model has changed again.

        Raises:
            SinkError: They can't be read.
        """
        known = self.all()
        found: Target | None = None
        passed = {name}
        while name in known and known[name].current.table not in passed:
            found = known[name].current
            name = found.table
            passed.add(name)
        return found

    def change(self, before: Alias | None, after: Alias) -> None:
        """Write an alias, if it still is what it was.

        Args:
            before: What it was, None where there was none.
            after: What it is to be.

        Raises:
            SinkError: It has changed meanwhile, or can't be written.
        """
        for _ in range(CONFLICT_RETRIES):
            with self._lock:
                found = self._made()
                if found.known.get(after.name) != before:
                    break
                if self._try_write(found.dataset, after):
                    return
        raise SinkError(
            f"table.name: {after.name}: its alias was changed by another command meanwhile; look "
            "at it: headrace migrate --status"
        )

    def _try_write(self, dataset: lance.LanceDataset, alias: Alias) -> bool:
        """Write an alias over a version; whether no one has written another meanwhile."""
        self._held = None  # it takes the dataset along to the new version
        sequence = dataset.version
        rows = [(_GUARD, None, sequence), (alias.name, alias.json(), sequence)]
        try:
            (
                dataset.merge_insert("alias")
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .conflict_retries(0)
                .execute(_table(rows))
            )
        except LANCE_ERRORS as error:
            if is_conflict(error):
                return False
            raise self._failed("write", error) from error
        return True

    def _made(self) -> _Version:
        """The newest version, of a table that is made if there is none."""
        found = self._latest()
        if found is None:
            try:
                lance.write_dataset(_table([(_GUARD, None, 0)]), self._path, mode="create")
            except LANCE_ERRORS as error:
                found = self._latest()  # another may have made it
                if found is None:
                    raise self._failed("create", error) from error
        found = found or self._latest()
        assert found is not None
        return found

    def _latest(self) -> _Version | None:
        """The newest version; None while there is no alias."""
        held = self._held
        try:
            if held is not None and held.dataset.latest_version == held.dataset.version:
                return held
            dataset = lance.dataset(self._path)
        except LANCE_ERRORS as error:
            self._held = None
            # A place that can't be reached has told nothing of its aliases.
            if not is_missing(error):
                raise self._failed("read", error) from error
            return None
        try:
            states = dataset.to_table(filter="alias != ''").column("state").to_pylist()
        except LANCE_ERRORS as error:
            raise self._failed("read", error) from error
        self._held = _Version(dataset, {alias.name: alias for alias in map(Alias.parse, states)})
        return self._held

    def _failed(self, verb: str, error: Exception) -> SinkError:
        told = one_line(error)
        return SinkError(f"table.uri: {self._uri}: can't {verb} table {ALIASES_TABLE}: {told}")


def _table(rows: list[tuple[str, str | None, int]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, kind.type) for values, kind in zip(columns, _SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)
