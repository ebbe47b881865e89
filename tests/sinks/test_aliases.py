from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.aliases import ALIASES_TABLE, Alias, Aliases, Target
from sinks.errors import SinkError

if TYPE_CHECKING:
    from pathlib import Path


def target(table: str) -> Target:
    """A table whose model is named after it."""
    return Target(table, f"model of {table}", f"f-{table}", 64, "app", "out", "dead")


def begun(name: str, following: str) -> Alias:
    """An alias of a name that stands for itself, with a table that is to take its place."""
    return Alias(name, target(name), target(following))


def test_none(tmp_path: Path) -> None:
    """Where there is no alias a name stands for itself, and to look makes nothing."""
    aliases = Aliases(str(tmp_path))
    assert (aliases.get("documents"), aliases.resolve("documents")) == (None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_read(tmp_path: Path) -> None:
    """Aliases that can't be read are an error, and not none: readers would get the old table."""
    aliases = Aliases(str(tmp_path))
    aliases.change(None, begun("documents", "new").switched())
    for file in tmp_path.glob(f"{ALIASES_TABLE}.lance/_versions/*"):
        file.write_bytes(b"nothing")
    with pytest.raises(SinkError, match=r"table\.uri"):
        Aliases(str(tmp_path)).resolve("documents")


def test_switch_and_back(tmp_path: Path) -> None:
    """A switch is seen by others at once, and can be taken back."""
    aliases, others = Aliases(str(tmp_path)), Aliases(str(tmp_path))
    before = begun("documents", "new")
    aliases.change(None, before)
    assert others.resolve("documents") is None
    aliases.change(before, before.switched())
    assert others.resolve("documents") == target("new")
    back = before.switched().rolled_back()
    aliases.change(before.switched(), back)
    assert back == before
    assert others.resolve("documents") is None


def test_an_alias_of_an_alias(tmp_path: Path) -> None:
    """Who still has the first name gets the last table; the alias is found by both its names."""
    aliases = Aliases(str(tmp_path))
    for name, following in (("documents", "second"), ("second", "third")):
        aliases.change(None, begun(name, following).switched())
    assert aliases.resolve("documents") == aliases.resolve("second") == target("third")
    found = aliases.get("third")
    assert found is not None
    assert found.name == "second"


def test_a_change_that_is_late(tmp_path: Path) -> None:
    """Who has not seen the last change can't make one."""
    first, second = Aliases(str(tmp_path)), Aliases(str(tmp_path))
    first.change(None, begun("documents", "one"))
    with pytest.raises(SinkError, match="another command"):
        second.change(None, begun("documents", "two"))
    found = second.get("documents")
    assert found == begun("documents", "one")


def test_changes_at_once(tmp_path: Path) -> None:
    """Of several commands that begin at once one does, and each name has one row."""
    done: list[str] = []

    def change(number: int) -> None:
        try:
            Aliases(str(tmp_path)).change(None, begun("documents", f"new{number}"))
        except SinkError:
            return
        done.append(f"new{number}")

    threads = [threading.Thread(target=change, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Aliases(str(tmp_path)).get("documents")
    assert found is not None
    assert found.next is not None
    assert done == [found.next.table]


@settings(max_examples=15)
@given(steps=st.lists(st.tuples(st.integers(0, 1), st.sampled_from("ab"), st.sampled_from("xyz"))))
def test_any_changes_of_two_commands(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, str]]
) -> None:
    """Whoever writes, both read what was written last, of every name."""
    uri = str(tmp_path_factory.mktemp("aliases"))
    both = Aliases(uri), Aliases(uri)
    known: dict[str, Alias] = {}
    for who, name, following in steps:
        after = begun(name, following)
        both[who].change(known.get(name), after)
        known[name] = after
        assert both[0].all() == both[1].all() == known


def test_a_later_release() -> None:
    """An alias of a later layout is refused, not guessed."""
    text = begun("documents", "new").json().replace('"version": 1', '"version": 2')
    with pytest.raises(SinkError, match="release"):
        Alias.parse(text)
