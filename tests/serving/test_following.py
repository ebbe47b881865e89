"""A running server goes over to another table when the alias of its name changes."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import httpx

from flows.access import single_table
from operators.model.errors import ModelError
from serving.following import Following
from sinks.aliases import Alias, Aliases, Target
from tests.samples import embedding, outcomes
from tests.serving.services import FakeModel, problem, serving, until
from tests.serving.test_search import filled, ids, search, searching
from tests.sinks.tables import Table

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from flows.settings import Settings
    from serving.following import Readers


def alias(settings: Settings) -> Alias:
    """The alias of a table that another one is to take the place of."""
    names = settings.table.name, "new"
    old, new = (Target(name, "some/model", "f1", None, "app", "out", "dead") for name in names)
    return Alias(names[0], old, new)


def filled_anew(settings: Settings) -> Table:
    """The other table."""
    section = settings.table.model_copy(update={"name": "new"})
    table = Table(single_table(settings.model_copy(update={"table": section}), FakeModel()))
    table.commit(outcomes([embedding("other", "a xylophone")]))
    return table


def test_a_switch_and_back(tmp_path: Path) -> None:
    """Searches that come all the time get one table or the other whole, and the new one soon."""
    filled(tmp_path)
    settings = searching(tmp_path)
    filled_anew(settings)
    before = alias(settings)
    seen: list[frozenset[str]] = []
    ended = threading.Event()
    with serving(settings) as url:

        def read() -> None:
            while not ended.is_set():
                seen.append(frozenset(ids(search(url, "flour"))))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            until(lambda: len(seen) > 3)
            aliases = Aliases(str(tmp_path))
            aliases.change(None, before)
            aliases.change(before, before.switched())
            until(lambda: seen[-1] == {"other"})
            assert "xylophone" in httpx.get(f"{url}/v1/live", timeout=60).text
            aliases.change(before.switched(), before)
            until(lambda: len(seen[-1]) == 4)
        finally:
            ended.set()
            reader.join()
    assert {len(one) for one in seen} == {1, 4}


def test_a_start_after_the_switch(tmp_path: Path) -> None:
    """A server that is started later has the new table at once."""
    filled(tmp_path)
    settings = searching(tmp_path)
    filled_anew(settings)
    Aliases(str(tmp_path)).change(None, alias(settings).switched())
    with serving(settings) as url:
        assert ids(search(url, "flour")) == ["other"]
        assert ids(search(url, "flour", table="documents")) == ["other"]
        assert problem(search(url, "flour", table="new")) == (404, "no_table")


def test_a_model_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is served stays served while the other table's model is not to be had here."""
    monkeypatch.setattr("serving.following.LOOK_EVERY_S", 0.02)
    settings = searching(tmp_path)
    made: list[str] = []

    class Held:
        def __init__(self, own: Settings) -> None:
            self.settings = own
            self.search = self

        def close(self) -> None:
            pass

    def make(own: Settings) -> Readers:
        made.append(own.table.name)
        if 1 < len(made) < 4:
            raise ModelError("model.name: is not here")
        return Held(own)  # type: ignore[return-value]  # all that is asked of it

    following = Following(settings, make)
    Aliases(str(tmp_path)).change(None, alias(settings).switched())
    with following.running():
        until(lambda: len(made) == 4)
        time.sleep(0.1)
    assert made == ["documents", "new", "new", "new"]
