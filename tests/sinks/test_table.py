from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import lance
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.records import Lane, OutcomeBatch
from recovery.progress import Board
from recovery.watchdog import Watchdog
from sinks.errors import SinkError
from sinks.pace import Pace
from sinks.schema import FENCE_KEY
from sinks.table import TableSink
from telemetry.metrics import Metrics
from tests import samples
from tests.samples import LANE, Row, dead_letter, embedding, outcomes, tombstone, until
from tests.sinks.tables import NEVER, Table, live, rows_of, store_in

if TYPE_CHECKING:
    from pathlib import Path

OTHER = Lane("documents", 1)


def test_rows_and_progress_are_one_commit(tmp_path: Path) -> None:
    """Each version of the table shows whole commits, its fence row exactly what they hold."""
    table = Table(store_in(tmp_path))
    opened = table.store.open().version
    for first in range(0, 12, 4):
        table.commit(outcomes([embedding(f"{first + i}") for i in range(4)], first))
    versions = range(opened, table.store.open().version + 1)
    for step, version in enumerate(versions):
        dataset = lance.dataset(table.store.path, version=version)
        held = dataset.count_rows() - 1
        assert held == 4 * step
        assert table.store.fence(dataset).progress == ({LANE.key: held} if step else {})


def test_progress_passes_over_gaps_and_dead_letters(tmp_path: Path) -> None:
    """A commit without a row still moves the table on."""
    table = Table(store_in(tmp_path))
    table.commit(outcomes([dead_letter()], 0, end=5), outcomes([], 5, end=9))
    assert table.progress == {LANE.key: 9}
    assert table.rows == []


def test_replaces_and_deletes(tmp_path: Path) -> None:
    """A later record replaces a document's row, a deletion empties it, a new text fills it."""
    table = Table(store_in(tmp_path))
    table.commit(outcomes([embedding("a", "1"), embedding("b", "1")]))
    table.commit(outcomes([embedding("a", "2"), tombstone("b")], 2))
    a, b = table.rows
    assert (a["text"], a["source_offset"], a["deleted"]) == ("2", 2, False)
    assert (b["text"], b["vector"], b["metadata"], b["deleted"]) == (None, None, None, True)
    table.commit(outcomes([embedding("b", "3")], 4))
    assert live(table.store) == {("a", 0): "2", ("b", 0): "3"}


def test_vectors_are_bit_identical(tmp_path: Path) -> None:
    """The table gives back the very bits of the model's vectors."""
    table = Table(store_in(tmp_path))
    rows = [embedding(f"{i}", f"text {i}") for i in range(50)]
    table.commit(outcomes(rows))
    found = table.store.open().to_table(columns=["id", "vector"], filter="NOT deleted")
    assert len(found) == 50
    for identity, vector in zip(found["id"].to_pylist(), found["vector"], strict=True):
        wanted = rows[int(identity)].encoded
        assert wanted is not None
        assert vector.values.to_numpy().tobytes() == wanted.vectors[0].tobytes()


CHANGES = st.lists(
    st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 50)), min_size=1, max_size=14
)


def rows_from(changes: list[tuple[str, bool, int]]) -> list[Row]:
    """A lane's outcomes, each text its own."""
    return [
        tombstone(identity, time) if gone else embedding(identity, f"{index}", time_ms=time)
        for index, (identity, gone, time) in enumerate(changes)
    ]


def replayed(rows: list[Row]) -> dict[tuple[str, int], str]:
    """What replaying a lane in order gives."""
    model: dict[tuple[str, int], str] = {}
    for row in rows:
        if row.text is None:
            model.pop((row.id, 0), None)
        else:
            model[row.id, 0] = row.text
    return model


@settings(max_examples=25, deadline=None)
@given(changes=CHANGES, data=st.data())
def test_any_cut_and_any_replay_give_the_same_table(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[str, bool, int]],
    data: st.DataObject,
) -> None:
    """Cut into commits anywhere and replayed from anywhere, a lane gives its in-order table.

    Event times do not matter: within a lane the later offset wins.
    """
    rows = rows_from(changes)
    whole = outcomes(rows)
    table = Table(store_in(tmp_path_factory.mktemp("table")))
    done = 0
    while done < len(rows):
        first = data.draw(st.integers(0, done), label="from")
        done = data.draw(st.integers(done + 1, len(rows)), label="to")
        cut = data.draw(st.integers(first + 1, done), label="cut")
        pieces = [whole.slice(first, cut), whole.slice(cut, done)]
        table.commit(*(piece for piece in pieces if len(piece)))
    assert live(table.store) == replayed(rows)
    assert len(table.rows) == len({row.id for row in rows})
    assert table.progress == {LANE.key: len(rows)}


@settings(max_examples=25, deadline=None)
@given(changes=CHANGES, data=st.data())
def test_any_order_of_rows_gives_the_same_table(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[str, bool, int]],
    data: st.DataObject,
) -> None:
    """Even commits in any order give the in-order table: the guard lets only the winner in."""
    whole = outcomes(rows_from(changes))
    pieces = [whole.slice(i, i + 1) for i in range(len(whole))]
    table = Table(store_in(tmp_path_factory.mktemp("table")))
    order = data.draw(st.permutations(pieces))
    cut = data.draw(st.integers(1, len(order)))
    table.commit(*order[:cut])
    if order[cut:]:
        table.commit(*order[cut:])
    assert live(table.store) == replayed(samples.rows_of(whole))


@settings(max_examples=20, deadline=None)
@given(
    times=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1)), min_size=2, max_size=10),
    several=st.booleans(),
    data=st.data(),
)
def test_across_lanes_the_later_timestamp_wins(
    tmp_path_factory: pytest.TempPathFactory,
    times: list[tuple[str, int]],
    several: bool,
    data: st.DataObject,
) -> None:
    """After a topic was repartitioned, whichever lane comes first, the later record wins."""
    lanes = [Lane("old", 0), Lane("new" if several else "old", 0 if several else 1)]
    pieces: list[OutcomeBatch] = []
    model: dict[tuple[str, int], str] = {}
    for when, (identity, lane) in enumerate(times):
        row = embedding(identity, f"{when}", time_ms=when)
        pieces.append(outcomes([row], when, lane=lanes[lane]))
        model[identity, 0] = f"{when}"
    order = data.draw(st.permutations(pieces))
    cut = data.draw(st.integers(1, len(order)))
    table = Table(store_in(tmp_path_factory.mktemp("table"), several_topics=several))
    for batches in (order[:cut], order[cut:]):
        if batches:
            table.commit(*batches)
    assert live(table.store) == model


def test_a_document_that_shrinks_loses_its_chunks(tmp_path: Path) -> None:
    """Chunks that a document no longer has go in the commit that shrinks it."""
    table = Table(store_in(tmp_path), max_chunks=4)
    table.commit(outcomes([embedding("a", "abcdefgh", 4), embedding("it's", "abcd", 2)]))
    before = table.store.open().version
    table.commit(outcomes([embedding("a", "xyxy", 2), tombstone("it's")], 2))
    assert live(table.store) == {("a", 0): "xyxy", ("a", 1): "xy"}
    assert table.store.open().version == before + 1
    table.commit(outcomes([embedding("a", "abc", 3)], 4))
    assert [chunk for _, chunk in live(table.store)] == [0, 1, 2]


@pytest.mark.parametrize("before", [[], [embedding("a", "abcdefgh", 4)]])
@pytest.mark.parametrize("last", [embedding("a", "short"), tombstone("a")])
def test_a_document_that_shrinks_within_a_commit_loses_its_chunks(
    tmp_path: Path, before: list[Row], last: Row
) -> None:
    """Both versions in one commit leave only the later one's chunks."""
    table = Table(store_in(tmp_path), max_chunks=4)
    if before:
        table.commit(outcomes(before))
    table.commit(outcomes([embedding("a", "abcdef", 3), last], len(before)))
    assert list(live(table.store)) == ([("a", 0)] if last.text else [])
    keys = table.store.open().to_table(columns=["key"])["key"].to_pylist()
    assert len(keys) == len(set(keys))


def test_fewer_chunks_by_setting_leave_none_behind(tmp_path: Path) -> None:
    """With `model.max_chunks` set back to 1, a document that comes again loses its chunks."""
    Table(store_in(tmp_path), max_chunks=3).commit(outcomes([embedding("a", "abcdef", 3)]))
    table = Table(store_in(tmp_path), max_chunks=1)
    table.commit(outcomes([embedding("a", "abcdef")], 1))
    assert list(live(table.store)) == [("a", 0)]


def test_refuses_double_keys(tmp_path: Path) -> None:
    """A table into which something else wrote a key twice is refused on opening."""
    table = Table(store_in(tmp_path))
    table.commit(outcomes([embedding("a"), embedding("b")]))
    double = table.store.open().to_table(filter="id = 'a'")
    lance.write_dataset(double, table.store.path, mode="append")
    with pytest.raises(SinkError, match=r"^table\.name: documents: 1 keys stand in it twice"):
        Table(store_in(tmp_path))


def test_a_second_writer_ends_the_first(tmp_path: Path) -> None:
    """Opening the table again makes the earlier writer's next commit fail by name."""
    first = Table(store_in(tmp_path))
    first.commit(outcomes([embedding("a")]))
    second = Table(store_in(tmp_path))
    with pytest.raises(SinkError, match="a second copy of this flow writes it; this one ends"):
        first.commit(outcomes([embedding("b")], 1))
    assert first.progress == {LANE.key: 1}
    second.commit(outcomes([embedding("b")], 1))
    assert set(live(second.store)) == {("a", 0), ("b", 0)}


@pytest.mark.parametrize("trial", range(3))
def test_two_writers_at_once_make_no_double_keys(tmp_path: Path, trial: int) -> None:
    """Two flows that write the same lane at once: one goes on, one ends, no key is there twice."""
    batches = [
        outcomes([embedding(f"{b}-{i}", f"{trial}") for i in range(20)], 20 * b) for b in range(40)
    ]
    writers = [Table(store_in(tmp_path)), Table(store_in(tmp_path))]
    # Both believe to be the one, as two that were opened at the same moment do.
    writers[0].writer._dataset = writers[0].store.open()
    ended: list[int] = []
    start = threading.Barrier(2)

    def run(number: int) -> None:
        start.wait()
        for done, batch in enumerate(batches):
            try:
                writers[number].commit(batch)
            except SinkError:
                ended.append(done)
                return
            time.sleep(0.02)  # as the pace of commits has it

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 1
    keys = writers[0].store.open().to_table(columns=["key"])["key"].to_pylist()
    assert len(keys) == len(set(keys)) == 801
    assert writers[0].progress == {LANE.key: 800}


def test_two_writers_that_meet_within_a_commit(tmp_path: Path) -> None:
    """A writer whose commit meets another's that came after its check ends, too."""
    first = Table(store_in(tmp_path))
    second = Table(store_in(tmp_path))
    first.writer._dataset = first.store.open()
    check = first.writer.confirm

    def overtaken() -> None:
        check()
        second.commit(outcomes([embedding("a")]))

    first.writer.confirm = overtaken  # type: ignore[method-assign]
    with pytest.raises(SinkError, match="a second copy"):
        first.commit(outcomes([embedding("a"), embedding("b")]))


def test_double_keys_come_without_the_fence_row(tmp_path: Path) -> None:
    """The control: without it, two merges of the same new key leave the key twice."""
    store = store_in(tmp_path)
    store.ensure()
    rows = Table(store_in(tmp_path / "other"))
    rows.commit(outcomes([embedding("a")]))
    table = pa.table(rows.store.open().to_table(filter=f"key != X'{FENCE_KEY.hex()}'"))
    for handle in [store.open(), store.open()]:
        merge = handle.merge_insert("key").when_matched_update_all(store.schema.guard)
        merge.when_not_matched_insert_all().use_index(False).execute(table)  # noqa: FBT003
    assert store.open().count_rows() == 3


def test_patches_wait_for_the_topic(tmp_path: Path) -> None:
    """A batch with a metadata-only record is committed only once the topic has it."""
    table = Table(store_in(tmp_path))
    sink = table.part()
    sink.write_batch([(outcomes([embedding("a", patch=True)], 5, end=9),)])
    table.board.post("topic", LANE.key, 8)
    time.sleep(0.2)
    assert table.rows == []
    table.board.post("topic", LANE.key, 9)
    sink.close()
    assert table.progress == {LANE.key: 9}


def test_other_records_do_not_wait(tmp_path: Path) -> None:
    """A document with text is in the table whatever the topic does."""
    table = Table(store_in(tmp_path))
    sink = table.part()
    sink.write_batch([(outcomes([embedding("a")]),)])
    sink.close()
    assert table.board.get("topic", LANE.key) == -1
    assert table.board.get("table", LANE.key) == 1
    assert table.progress == {LANE.key: 1}


def test_a_table_that_is_gone_is_named(tmp_path: Path) -> None:
    """Losing the folder under the writer gives one line."""
    table = Table(store_in(tmp_path))
    (tmp_path / "documents.lance").rename(tmp_path / "gone.lance")
    with pytest.raises(SinkError) as told:
        table.commit(outcomes([embedding("a")]))
    assert str(told.value).startswith("table.")
    assert "\n" not in str(told.value)


def test_index_size_is_the_tables_rows(tmp_path: Path) -> None:
    """The gauge follows the table, not only its opening."""
    table = Table(store_in(tmp_path))
    sink = table.part()
    assert table.metrics.registry.get_sample_value("headrace_index_size", {"sink": "table"}) == 1
    sink.write_batch([(outcomes([embedding(f"{i}") for i in range(10)]),)])
    sink.close()
    size = table.metrics.registry.get_sample_value("headrace_index_size", {"sink": "table"})
    assert size == table.store.open().count_rows()


def test_part_drops_what_the_table_has(tmp_path: Path) -> None:
    """A replay is dropped up to the progress that the table had when it was opened."""
    Table(store_in(tmp_path)).commit(outcomes([embedding("a", "1"), embedding("b", "1")]))
    table = Table(store_in(tmp_path))
    before = table.store.open().version
    sink = table.part()
    again = outcomes([embedding("a", "x"), embedding("b", "x"), embedding("c", "2")])
    sink.write_batch([(again.slice(0, 1), again.slice(1, 2)), (again.slice(2, 3),)])
    sink.close()
    assert live(table.store) == {("a", 0): "1", ("b", 0): "1", ("c", 0): "2"}
    assert table.store.open().version == before + 1
    assert table.board.get("table", LANE.key) == 3


def test_part_refuses_a_torn_seam(tmp_path: Path) -> None:
    """A batch that does not join the one before it is never written."""
    sink = Table(store_in(tmp_path)).part()
    sink.write_batch([(outcomes([embedding("a")]),)])
    with pytest.raises(SinkError, match="starts at 2, after one that ended at 1"):
        sink.write_batch([(outcomes([embedding("b")], 2),)])
    sink.write_batch([(outcomes([embedding("b")], 7, lane=OTHER),)])
    sink.close()


def test_part_commits_queued_lanes_together(tmp_path: Path) -> None:
    """Lanes share the one writer, each with its own progress, and closing drains."""
    table = Table(store_in(tmp_path))
    sink = table.part()
    pieces = [
        outcomes([embedding(f"{lane}-{i}")], i, lane=lane)
        for lane in (LANE, OTHER)
        for i in range(9)
    ]
    assert all(left.end == right.start for left, right in pairwise(pieces[:9]))
    sink.write_batch([(piece,) for piece in pieces])
    sink.close()
    assert table.store.progress([LANE.key, OTHER.key]) == {LANE.key: 9, OTHER.key: 9}
    assert len(table.rows) == 18


def test_a_lane_with_many_rows_waits_for_no_pace(tmp_path: Path) -> None:
    """Rows of one lane that might soon be all that it may have in flight end the rest."""
    table = Table(store_in(tmp_path))
    pace = Pace(target_ms=60_000, longest_ms=60_000, lane_rows=2)
    sink = table.part(pace)
    sink.write_batch([(outcomes([embedding("a")]),)])
    until(lambda: table.progress == {LANE.key: 1})
    sink.write_batch([(outcomes([embedding("b"), embedding("c")], 1),)])
    time.sleep(0.2)
    assert table.progress == {LANE.key: 1}
    sink.write_batch([(outcomes([embedding("d")], 3),)])
    until(lambda: table.progress == {LANE.key: 4})
    sink.close()


def test_sink_has_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every lane goes to the one part; one that can't open ends the process by one line."""
    store = store_in(tmp_path)
    sink = TableSink(store, NEVER, 1, 100.0, 1000, Board(), Watchdog(), Metrics())
    assert sink.list_parts() == ["table"]
    assert {sink.part_fn(lane.key) for lane in (LANE, OTHER)} == {0}
    ends: list[tuple[str, int]] = []
    monkeypatch.setattr("recovery.watchdog.end_process", lambda *told: ends.append(told))
    with pytest.raises(SinkError):
        sink.build_part("step", "table", None)
    [(message, code)] = ends
    assert message.startswith("headrace: table.name: documents")
    assert code == 1


def test_a_writer_that_failed_keeps_its_fence(tmp_path: Path) -> None:
    """Progress that was not committed is not believed to be."""
    table = Table(store_in(tmp_path))
    before = table.writer.fence
    Table(store_in(tmp_path))
    with pytest.raises(SinkError):
        table.commit(outcomes([embedding("a")]))
    assert table.writer.fence == before
    assert rows_of(table.store) == []
