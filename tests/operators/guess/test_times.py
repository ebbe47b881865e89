from __future__ import annotations

import pytest

from operators.guess.fields import fields_of
from operators.guess.times import guess_time, is_time
from tests.operators.guess.samples import field


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ts", 1_764_400_000),
        ("ts", 1_764_400_000.25),
        ("timestamp", 1_764_400_000_000),
        ("updated", 1_764_400_000_000_000),
        ("created_at", "2026-03-01T08:00:00Z"),
        ("whatever", "2026-03-01 08:00:00.123"),
    ],
)
def test_times(name: str, value: object) -> None:
    """Times are known in each unit and form that the mapping reads."""
    assert is_time(field(name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [("id", 1_764_400_000), ("ts", 12), ("date", "yesterday"), ("time", True), ("year", "2026")],
)
def test_no_times(name: str, value: object) -> None:
    """A number is a time only if its name says so and it is of our days."""
    assert not is_time(field(name, value))


def test_the_last_change_is_preferred() -> None:
    """The time of the last change goes before the record's own, and that before its creation."""
    day = "2026-03-0{}T08:00:00Z"
    row = {"created_at": day.format(1), "timestamp": day.format(2), "modified": day.format(3)}
    for wanted in ("/modified", "/timestamp", "/created_at"):
        found = guess_time(fields_of([row]), by_key=True)
        assert found is not None
        assert found.pointer == wanted
        del row[wanted[1:]]


def test_creation_tells_nothing_of_changes() -> None:
    """Where records of a document meet from several partitions, its creation tells no order."""
    fields = fields_of([{"created_at": "2026-03-01T08:00:00Z"}])
    assert guess_time(fields, by_key=True) is not None
    assert guess_time(fields, by_key=False) is None


def test_times_of_something_else() -> None:
    """A due date, a birthday or the time of a deletion is not the record's time."""
    day = "2026-03-01T08:00:00Z"
    fields = fields_of([{"due_date": day, "birth_date": day, "deleted_at": day}])
    assert guess_time(fields, by_key=True) is None
