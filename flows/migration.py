"""Another model beside the one in use: what its table and its flow are called and set to.

A migration is two flows on the same topics. The one of the old model goes on; that of the new one
has a table, a consumer group and output topics of its own, named after its model's fingerprint.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flows.access import kafka_of, reading_store, single_table
from headrace.errors import UsageError
from recovery.beginning import begin_at
from sinks.aliases import Alias, Aliases, Target
from sinks.maintenance import Upkeep
from sinks.seed import Seeding, Snapshot, release, snapshot
from sinks.writer import TableWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flows.access import ModelShape
    from flows.settings import Settings
    from operators.encoding import Encoded, Input
    from operators.model import Encoder
    from sinks.fence import Fence
    from sinks.store import TableStore

    Encode = Callable[[Sequence[Input]], Sequence[Encoded]]

__all__ = [
    "begin",
    "begin_group",
    "behind",
    "changed_settings",
    "is_ready",
    "kept_version",
    "named",
    "progress_of",
    "seeded_of",
    "seeding",
    "with_model",
]

SHORT: Final = 8
"""Digits of the fingerprint in names."""


def with_model(settings: Settings, name: str, max_tokens: int | None) -> Settings:
    """The same settings with another model.

    Args:
        settings: The settings.
        name: What `model.name` is to be; a folder is named from the root on, since others read it.
        max_tokens: What `model.max_tokens` is to be.
    """
    folder = Path(name).expanduser()
    name = str(folder.resolve()) if folder.is_dir() else name
    model = settings.model.model_copy(update={"name": name, "max_tokens": max_tokens})
    return settings.model_copy(update={"model": model})


def begin(settings: Settings, changed: Settings, shape: ModelShape, *, seed: bool) -> Alias:
    """Note that the model of a table is to be changed.

    Args:
        settings: Of the flow that writes the table.
        changed: The same with the other model.
        shape: That model.
        seed: Whether the new table begins with the documents of the one that is there.

    Returns:
        The alias of `table.name`, whose `next` is the new table.

    Raises:
        UsageError: The table has that model's vectors already.
        SinkError: There is no table, or it has other columns than the settings say.
    """
    name = settings.table.name
    store = reading_store(settings)
    fence = store.fence(store.open())
    if fence.fingerprint == shape.fingerprint:
        raise UsageError(
            f"--model: {changed.model.name}: table {name} holds vectors of that model already "
            f"({shape.fingerprint})"
        )
    _check_columns(settings, fence, store)
    target = _target(settings, changed, shape.fingerprint, fence.fingerprint)
    version = snapshot(store, _tag(target)) if seed else None
    aliases = Aliases(settings.table.uri)
    before = aliases.all().get(name)
    current = _current(settings, fence.fingerprint)
    after = Alias(name, current, replace(target, snapshot=version))
    aliases.change(before, after)
    return after


def seeding(settings: Settings, alias: Alias, encoder: Encoder) -> Seeding | None:
    """What takes the old table's documents over; None where that is done or is not to be.

    Args:
        settings: Of the new table.
        alias: Its `next` is the new table.
        encoder: The new model.

    Raises:
        SinkError: The table can't be made or written, or the snapshot is gone.
    """
    target = alias.next
    if target is None or target.snapshot is None:
        return None
    store = single_table(settings, encoder)
    store.ensure(to_seed=True)
    if store.fence(store.open()).seeded is None:
        return None
    held = Snapshot.of(named(settings, alias.current.table), target.snapshot)
    table = settings.table
    upkeep = Upkeep(table.index_rows, table.tombstone_retention_s, table.text_index)
    writer = TableWriter(store, upkeep, settings.model.max_chunks)
    topic, rows = settings.source.topics[0], settings.batch.rows
    return Seeding(
        held,
        writer,
        store.schema,
        topic,
        _encoding(settings, encoder),
        rows,
        settings.model.chunk_prefix,
    )


def _encoding(settings: Settings, encoder: Encoder) -> Encode:
    """What embeds documents as the flow would."""
    if settings.reuses:
        return lambda texts: encoder.encode_changed(texts, {}).encoded
    return encoder.encode


def begin_group(settings: Settings, alias: Alias) -> None:
    """Let the new flow begin where the seeding has ended; the old table is free again then.

    Args:
        settings: Of the new table.
        alias: Its `next` is the new table.

    Raises:
        HeadraceError: The broker or a table can't be reached.
    """
    target = alias.next
    if target is not None and target.snapshot is not None:
        store = reading_store(settings)
        begin_at(kafka_of(settings), store.fence(store.open()).progress, target.fingerprint)
        kept_version(settings, alias)


def kept_version(settings: Settings, alias: Alias) -> None:
    """Let go of the version that the seeding has read.

    Raises:
        SinkError: The table can't be written.
    """
    if alias.next is not None:
        release(named(settings, alias.current.table), _tag(alias.next))


def behind(settings: Settings, alias: Alias, known: Mapping[str, int] | None = None) -> int:
    """How many offsets the new table lacks of what the old one has.

    Args:
        settings: They name the place of both.
        alias: Its `next` is the new table.
        known: The old table's progress; what it is now unless given.

    Raises:
        SinkError: A table can't be read.
    """
    assert alias.next is not None
    old = progress_of(settings, alias.current.table) if known is None else known
    # Its flow makes it.
    there = named(settings, alias.next.table).exists()
    new = progress_of(settings, alias.next.table) if there else {}
    return sum(max(0, offset - new.get(lane, 0)) for lane, offset in old.items())


def progress_of(settings: Settings, table: str) -> Mapping[str, int]:
    """The next offset of each lane in a table.

    Raises:
        SinkError: The table can't be read.
    """
    store = named(settings, table)
    return store.fence(store.open()).progress


def seeded_of(settings: Settings, alias: Alias) -> tuple[int, int] | None:
    """How many rows a seeding has taken, and of how many; None where none is under way.

    Raises:
        SinkError: A table can't be read.
    """
    target = alias.next
    if target is None or target.snapshot is None:
        return None
    rows = len(Snapshot.of(named(settings, alias.current.table), target.snapshot))
    store = named(settings, target.table)
    if not store.exists():
        return 0, rows
    seeded = store.fence(store.open()).seeded
    return None if seeded is None else (seeded, rows)


def is_ready(settings: Settings, table: str) -> bool:
    """Whether a table has the indexes that its writer makes, without which searches fail or crawl.

    Raises:
        SinkError: The table can't be read.
    """
    store = named(settings, table)
    if not store.exists():
        return False
    dataset = store.open()
    with store.reading():
        indexed = {name for index in dataset.describe_indices() for name in index.field_names}
        wanted = {"text"} if settings.table.text_index else set()
        if dataset.count_rows() >= settings.table.index_rows:
            wanted.add("vector")
    return wanted <= indexed


def changed_settings(target: Target) -> dict[str, str | int]:
    """The settings by which a deployment takes a table's flow over."""
    named: dict[str, str | int | None] = {
        "model.name": target.model,
        "model.max_tokens": target.max_tokens,
        "kafka.application_id": target.application_id,
        "embeddings.topic": target.embeddings_topic,
        "dead_letters.topic": target.dead_letters_topic,
        "table.name": target.table,
    }
    return {name: value for name, value in named.items() if value is not None}


def _current(settings: Settings, fingerprint: str) -> Target:
    return Target(
        settings.table.name,
        settings.model.name,
        fingerprint,
        settings.model.max_tokens,
        settings.kafka.application_id,
        settings.embeddings.topic,
        settings.dead_letters.topic,
    )


def _target(settings: Settings, changed: Settings, fingerprint: str, held: str) -> Target:
    def called(name: str) -> str:
        # Not longer with each migration: what the one before has added is taken away.
        return f"{name.removesuffix('-' + held[:SHORT])}-{fingerprint[:SHORT]}"

    return Target(
        called(settings.table.name),
        changed.model.name,
        fingerprint,
        changed.model.max_tokens,
        called(settings.kafka.application_id),
        called(settings.embeddings.topic),
        called(settings.dead_letters.topic),
    )


def _tag(target: Target) -> str:
    return f"headrace-{target.fingerprint[:SHORT]}"


def named(settings: Settings, table: str) -> TableStore:
    """A table of that place, to be read only."""
    section = settings.table.model_copy(update={"name": table})
    return reading_store(settings.model_copy(update={"table": section}))


def _check_columns(settings: Settings, fence: Fence, store: TableStore) -> None:
    """Check that the settings' columns are the table's: the new one gets the same."""

    class Held:
        name = fence.model
        fingerprint = fence.fingerprint
        dimension = store.open().schema.field("vector").type.list_size

    held = single_table(settings, Held())
    held.check(held.open())
