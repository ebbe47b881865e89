"""The LanceDB table as others than its writer use it: made, checked, read."""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import lance
import numpy as np
import pyarrow as pa

from operators.activity import StoredState
from operators.current import CurrentRow
from operators.encoding import Encoded
from sinks.errors import SinkError
from sinks.fence import Fence
from sinks.schema import CHUNK_COLUMNS, FENCE_KEY, TableSchema, one_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from numpy.typing import NDArray

__all__ = [
    "CONFLICT_RETRIES",
    "LANCE_ERRORS",
    "TableStore",
    "is_conflict",
    "is_missing",
    "one_line",
    "shared_caches",
    "vectors_of",
]

LANCE_ERRORS: Final = (OSError, RuntimeError, ValueError)
"""What Lance raises, whatever is wrong."""

CONFLICT_RETRIES: Final = 20
"""How often a commit is tried that others came before."""

INDEX_CACHE_BYTES: Final = 64 << 20
METADATA_CACHE_BYTES: Final = 64 << 20

_MISSING: Final = re.compile(r"Dataset at path .* was not found")

_FENCE_FILTER: Final = f"key = X'{FENCE_KEY.hex()}'"


def shared_caches() -> object:
    """Caches for many tables together, as large as one table's own."""
    return lance.Session(  # type: ignore[attr-defined]  # Lance exports it without saying so
        index_cache_size_bytes=INDEX_CACHE_BYTES,
        metadata_cache_size_bytes=METADATA_CACHE_BYTES,
    )


def one_line(error: BaseException) -> str:
    """The first line of what Lance says, without the place in its own source."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.split(", /")[0].split(", rust/")[0]


def is_missing(error: Exception) -> bool:
    """Whether a table could not be opened since there is none; its place has answered that."""
    return bool(_MISSING.search(str(error)))


def is_conflict(error: Exception) -> bool:
    """Whether a commit failed since another came before it."""
    text = str(error).lower()
    return "concurrent" in text or "conflict" in text


@dataclass(frozen=True)
class TableStore:
    """A table's place and shape.

    Args:
        uri: A folder, or the URI of an object store.
        name: The table's name.
        schema: Its schema.
        model: The model's name.
        fingerprint: The model's fingerprint.
        session: The caches that it shares with other tables, of `shared_caches`; its own unless
            given. Not to be passed on to another process.
    """

    uri: str
    name: str
    schema: TableSchema
    model: str
    fingerprint: str
    session: object = field(default=None, compare=False, repr=False)

    @property
    def path(self) -> str:
        """Where LanceDB keeps a table of that name."""
        return f"{self.uri.rstrip('/')}/{self.name}.lance"

    @property
    def is_local(self) -> bool:
        """Whether the table lies in this machine's files."""
        return "://" not in self.uri

    def ensure(self, *, to_seed: bool = False) -> None:
        """Make the table if there is none; check that it fits if there is one.

        Args:
            to_seed: Whether it is to begin with the rows of another one.

        Raises:
            SinkError: It can't be made, or has another schema or another model's vectors, or is
                half seeded.
        """
        self._check_folder()
        try:
            fence = Fence(self.model, self.fingerprint, seeded=0 if to_seed else None)
            lance.write_dataset(self._fence_row(fence), self.path, mode="create")
        except LANCE_ERRORS as error:
            if not self.exists():
                raise SinkError(
                    f"table.uri: {self.uri}: can't create table {self.name}: {one_line(error)}"
                ) from error
        dataset = self._with_places(self.open())
        self.check(dataset)
        if not to_seed:
            self._check_seeded(dataset)

    def look(self) -> str:
        """Check that the table there is fits, or will once the flow has started; change nothing.

        Returns:
            What the flow will change of it at its start; empty where it is as it should be.

        Raises:
            SinkError: It has another schema or another model's vectors, or is half seeded.
        """
        dataset = self.open()
        older = self._lacks_places(dataset.schema)
        self.check(dataset, older=older)
        self._check_seeded(dataset)
        return "of an older release; the flow adds columns at its start" if older else ""

    def _with_places(self, dataset: lance.LanceDataset) -> lance.LanceDataset:
        """A table that an older release made gets the columns that it lacks, with nulls.

        Raises:
            SinkError: It can't be written.
        """
        for _ in range(CONFLICT_RETRIES):
            if not self._lacks_places(dataset.schema):
                return dataset
            with self.writing():
                try:
                    dataset.add_columns(pa.schema(CHUNK_COLUMNS))
                except LANCE_ERRORS as error:
                    # Another start may have been first, or a commit in between.
                    if not is_conflict(error) and self._lacks_places(self.open().schema):
                        raise
            dataset = self.open()
        return dataset

    def _check_seeded(self, dataset: lance.LanceDataset) -> None:
        if self.fence(dataset).seeded is not None:
            raise SinkError(
                f"table.name: {self.name}: has not all rows of the table before it yet; go on with "
                "that: headrace migrate"
            )

    def _lacks_places(self, schema: pa.Schema) -> bool:
        """Whether a table is of a release that did not keep where chunks are."""
        placed = any(own.name in schema.names for own in CHUNK_COLUMNS)
        return self.schema.has_vectors and not placed

    def is_gone(self) -> bool:
        """Whether there is no table; not where that can't be told, since its place is away.

        Raises:
            SinkError: It can't be told.
        """
        with self.reading():
            try:
                lance.dataset(self.path)
            except LANCE_ERRORS as error:
                if not is_missing(error):
                    raise
                return True
        return False

    def exists(self) -> bool:
        """Whether there is a table."""
        try:
            lance.dataset(self.path)
        except LANCE_ERRORS:
            return False
        return True

    def drop(self) -> None:
        """Delete the table; nothing where there is none.

        Raises:
            SinkError: It can't be deleted.
        """
        try:
            if not self.is_local:
                lance.LanceDataset.drop(self.path, ignore_not_found=True)
            elif Path(self.path).exists():  # or half of it, that a deletion before has left
                shutil.rmtree(self.path)
        except LANCE_ERRORS as error:
            raise SinkError(
                f"table.uri: {self.uri}: can't delete table {self.name}: {one_line(error)}; stop "
                "the flow that writes it, and try again"
            ) from error

    def open(self) -> lance.LanceDataset:
        """The table's newest version, with bounded caches.

        Raises:
            SinkError: There is none, or it can't be read.
        """
        try:
            if self.session is not None:
                return lance.dataset(self.path, session=self.session)  # type: ignore[arg-type]
            return lance.dataset(
                self.path,
                index_cache_size_bytes=INDEX_CACHE_BYTES,
                metadata_cache_size_bytes=METADATA_CACHE_BYTES,
            )
        except LANCE_ERRORS as error:
            raise SinkError(
                f"table.name: {self.name}: can't open it in {self.uri}: {one_line(error)}"
            ) from error

    def fence(self, dataset: lance.LanceDataset) -> Fence:
        """The fence row of a version of the table.

        Raises:
            SinkError: There is not exactly one: the table is not Headrace's, or was damaged.
        """
        with self.reading():
            rows = dataset.to_table(columns=["metadata"], filter=_FENCE_FILTER).column("metadata")
        if len(rows) != 1:
            raise SinkError(
                f"table.name: {self.name}: has {len(rows)} fence rows, not one; it was not "
                "written by Headrace or was changed by others: set another table.name"
            )
        return Fence.parse(rows[0].as_py())

    def count(self) -> int:
        """How many rows of documents there are, one for each chunk.

        Raises:
            SinkError: There is no table, or it can't be read.
        """
        dataset = self.open()
        with self.reading():
            rows: int = dataset.count_rows(filter="NOT deleted")
        return rows

    def progress(self, lanes: Collection[str]) -> Mapping[str, int]:
        """The committed next offset of those lanes that the table knows.

        Raises:
            SinkError: The table can't be read.
        """
        known = self.fence(self.open()).progress
        return {lane: known[lane] for lane in lanes if lane in known}

    def lookup(self, ids: Collection[str]) -> Mapping[str, CurrentRow]:
        """The committed rows of those ids, without deleted ones. See `operators.current`.

        Raises:
            SinkError: The table can't be read.
        """
        dataset = self.open()
        places = [own.name for own in CHUNK_COLUMNS]
        with self.reading():
            found = dataset.to_table(
                columns=["id", "vector", "text", "tokens", "truncated", "chunk", *places],
                filter=f"{one_of(ids)} AND NOT deleted",
            )
        return _current(found)

    def vectors(self, ids: Collection[str]) -> Mapping[bytes, NDArray[np.float32]]:
        """The vectors of those documents. See `operators.current`.

        Raises:
            SinkError: The table can't be read.
        """
        dataset = self.open()
        with self.reading():
            found = dataset.to_table(
                columns=["chunk_hash", "vector"],
                filter=f"{one_of(ids)} AND chunk_hash IS NOT NULL",
            )
        hashes = found.column("chunk_hash").to_pylist()
        return dict(zip(hashes, _matrix(found.column("vector")), strict=True))

    def states(
        self, ids: Collection[str], dataset: lance.LanceDataset | None = None
    ) -> Mapping[str, StoredState]:
        """The committed rows of those users. See `operators.activity`.

        Args:
            ids: The users.
            dataset: A version of the table; the newest unless given.

        Raises:
            SinkError: The table can't be read.
        """
        names = ["id", "vector", "metadata", "event_time", "source_partition", "source_offset"]
        dataset = dataset or self.open()
        with self.reading():
            found = dataset.to_table(columns=names, filter=f"{one_of(ids)} AND NOT deleted")
        vectors = found.column("vector").combine_chunks()
        times = found.column("event_time").cast(pa.int64()).to_pylist()
        columns = _columns(found, "id", "metadata", "source_partition", "source_offset")
        return {
            # A copy: it is kept longer than the rows that it came with.
            identity: StoredState(np.array(vectors[i].values, np.float32), told, at, *place)
            for i, (identity, told, at, *place) in enumerate(
                zip(*columns[:2], times, *columns[2:], strict=True)
            )
        }

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let what Lance raises while the table is read be an error of ours."""
        with self._told("read"):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let what Lance raises while the table is written be an error of ours."""
        with self._told("write"):
            yield

    @contextmanager
    def _told(self, verb: str) -> Iterator[None]:
        try:
            yield
        except LANCE_ERRORS as error:
            raise SinkError(
                f"table.uri: {self.uri}: can't {verb} table {self.name}: {one_line(error)}"
            ) from error

    def _fence_row(self, fence: Fence) -> pa.Table:
        return self.schema.fence(fence.json(), fence.sequence, 0)

    def _check_folder(self) -> None:
        """Find out at the start whether the folder can be written, not at the first commit."""
        if not self.is_local:
            return
        try:
            Path(self.uri).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.uri) as probe:
                probe.write(bytes(4096))
        except OSError as error:
            raise SinkError(
                f"table.uri: {self.uri}: can't be written: {error.strerror}; set another folder "
                "or mend its rights or space"
            ) from error

    def check(self, dataset: lance.LanceDataset, *, older: bool = False) -> None:
        """Check that a table fits.

        Args:
            dataset: The table.
            older: Whether it may be one of an older release.

        Raises:
            SinkError: It has another schema, or another model's vectors.
        """
        if self.schema.has_vectors:
            self._check_vector(dataset.schema)
        self._check_columns(dataset.schema, older=older)
        held = self.fence(dataset)
        if held.fingerprint != self.fingerprint:
            raise SinkError(
                f"model.name: {self.model} has fingerprint {self.fingerprint}, but table "
                f"{self.name} holds vectors of {held.model} ({held.fingerprint}); set that model "
                "again, or embed anew: another kafka.application_id, embeddings.topic, table.name"
            )

    def _check_vector(self, schema: pa.Schema) -> None:
        found = schema.field("vector").type if "vector" in schema.names else None
        wanted = self.schema.arrow.field("vector").type
        if found == wanted:
            return
        if found is not None and pa.types.is_fixed_size_list(found):
            raise SinkError(
                f"model.name: {self.model} gives {self.schema.dimension} dimensions, but table "
                f"{self.name} in {self.uri} has {found.list_size}; set another table.name or model"
            )
        raise SinkError(f"table.name: {self.name}: its column vector is {found}, not {wanted}")

    def _check_columns(self, schema: pa.Schema, *, older: bool) -> None:
        wanted = {f.name: f.type for f in self.schema.arrow}
        found = {f.name: f.type for f in schema}
        if self._lacks_places(schema):
            if not older:
                raise SinkError(
                    f"table.name: {self.name}: is of an older release; start the flow of this one "
                    "once, which adds the columns that it lacks"
                )
            found |= {f.name: f.type for f in CHUNK_COLUMNS}
        if wanted == found:
            return
        if wanted.keys() ^ found.keys() == {"source_topic"}:
            number = "several topics" if "source_topic" in found else "one topic"
            raise SinkError(
                f"source.topics: table {self.name} in {self.uri} is made from {number}, and tells "
                "them apart by a column or not: set another table.name for the others"
            )
        unlike = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
        told = ", ".join(
            f"{n} ({found.get(n, 'absent')} instead of {wanted.get(n, 'absent')})" for n in unlike
        )
        raise SinkError(
            f"table.columns: {dict(self.schema.columns)} do not fit table {self.name} in "
            f"{self.uri}: {told}; set the table's own columns, or another table.name"
        )


def vectors_of(dataset: lance.LanceDataset, ids: Collection[str]) -> dict[str, NDArray[np.float32]]:
    """The vectors of those documents that the table has, of unit length."""
    found = dataset.to_table(columns=["id", "vector"], filter=f"{one_of(ids)} AND NOT deleted")
    vectors = found.column("vector").combine_chunks()
    names = found.column("id").to_pylist()
    return {name: np.asarray(vectors[i].values, np.float32) for i, name in enumerate(names)}


def _current(found: pa.Table) -> dict[str, CurrentRow]:
    documents: dict[str, list[dict[str, Any]]] = {}
    # A copy: vectors are kept longer than the rows that they came with.
    vectors = _matrix(found.column("vector"))
    for row, vector in zip(found.drop_columns("vector").to_pylist(), vectors, strict=True):
        documents.setdefault(row["id"], []).append({**row, "vector": vector.copy()})
    rows: dict[str, CurrentRow] = {}
    for identity, chunks in documents.items():
        chunks.sort(key=lambda row: int(row["chunk"]))
        if chunks[0]["chunk"] == 0:
            rows[identity] = CurrentRow(chunks[0]["text"], _encoded(chunks))
    return rows


def _encoded(chunks: list[dict[str, Any]]) -> Encoded | None:
    """What a document's rows hold of its encoding; None where they don't hold all of it."""
    first = chunks[0]
    starts = [row["chunk_start"] for row in chunks]
    if None in starts:
        if len(chunks) > 1:
            return None
        spans = [(0, len(first["text"]))]
    else:
        spans = [(row["chunk_start"], row["chunk_end"]) for row in chunks]
    further = [row["tokens"] for row in chunks[1:]]
    hashes = [row["chunk_hash"] for row in chunks]
    return Encoded(
        np.stack([row["vector"] for row in chunks]),
        tuple(spans),
        (first["tokens"] - sum(further), *further),
        first["tokens"],
        first["truncated"],
        () if None in hashes else tuple(hashes),
    )


def _matrix(vectors: pa.ChunkedArray) -> NDArray[np.float32]:
    """Vectors, none of them null, as float32 [rows, dimension]; a view where it can be."""
    dimension = vectors.type.list_size
    flat = pa.chunked_array([own.flatten() for own in vectors.chunks], pa.float32())
    numbers: NDArray[np.float32] = np.asarray(flat, np.float32).reshape(-1, dimension)
    return numbers


def _columns(table: pa.Table, *names: str) -> list[list[Any]]:
    return [table.column(name).to_pylist() for name in names]
