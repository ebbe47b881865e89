"""`headrace migrate`: another model's table made beside the one in use, then put in its place."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from cli.errors import CommandError
from cli.follower import Follower, variables
from cli.output import emit, say
from cli.topics import create
from flows.access import encoder_of, set_to
from flows.migration import (
    begin,
    begin_group,
    behind,
    changed_settings,
    is_ready,
    kept_version,
    named,
    progress_of,
    seeded_of,
    seeding,
    with_model,
)
from headrace.errors import UsageError
from sinks.aliases import Alias, Aliases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.settings import Settings
    from sinks.aliases import Target

__all__ = [
    "abandon",
    "check_single",
    "drop_old",
    "migrate",
    "origin_of",
    "rollback",
    "show",
    "status",
]

Origin = Literal["table", "topic"]
Phase = Literal["none", "seeding", "following", "switched"]

LOOK_S: Final = 0.1
CATCH_UP_S: Final = 1.0
"""For how long the new table may be behind what the old one had at a moment, to be called as new as
that: nothing that a reader has seen longer ago is missing after the switch."""

TELL_EVERY_S: Final = 5.0


@dataclass(frozen=True)
class Told:
    """How a migration stands.

    Attributes:
        name: What readers have in `table.name`.
        phase: What is done; `none` where no migration is under way and no old table is kept.
        current: The table that readers get, and its flow's settings.
        next: The one that is made.
        previous: The one that was in its place, while it is kept.
        seeded: How many rows of the old table have been taken, while they are.
        rows: Of how many.
        behind: How many offsets the new table lacks, once it follows the topic.
        pipeline: Whose table it is; empty where there are no pipelines.
    """

    name: str
    phase: Phase
    current: dict[str, Any] | None = None
    next: dict[str, Any] | None = None
    previous: dict[str, Any] | None = None
    seeded: int | None = None
    rows: int | None = None
    behind: int | None = None
    pipeline: str = ""


def check_single(settings: Settings) -> None:
    """Refuse a template: an alias stands for one table.

    Raises:
        UsageError: Each record names its table.
    """
    if settings.table.routed:
        raise UsageError(
            f"table.name: {settings.table.name}: headrace migrate changes one table, not those of "
            "a template; run a second flow beside this one, with the new model.name, and another "
            "kafka.application_id, embeddings.topic, dead_letters.topic and table.name, which "
            "begins unlike this one; let readers go over, then delete the old tables"
        )


def migrate(
    settings: Settings, model: str | None, max_tokens: int | None, origin: Origin | None
) -> Iterator[Told]:
    """Make the table of another model, switch to it when it has caught up, and keep it fresh.

    Goes on where it was if it was begun before. Gives how it stands at the switch; what follows
    lasts until another copy of the new flow takes over.

    Args:
        settings: Of the flow that writes the table in use.
        model: The other model; may be left out once it was begun.
        max_tokens: What `model.max_tokens` is to be; as it is unless given.
        origin: What the new table begins with; `table` unless given.

    Raises:
        HeadraceError: It can't be done.
    """
    with _heard():
        yield from _migrate(settings, model, max_tokens, origin)


def _migrate(
    settings: Settings, model: str | None, max_tokens: int | None, origin: Origin | None
) -> Iterator[Told]:
    alias = _begun(settings, model, max_tokens, origin)
    target = alias.next or alias.current
    changed = set_to(settings, target)
    if alias.next is not None:
        _make_topics(changed)
        _seed(changed, alias)
        begin_group(changed, alias)
    with Follower(_environment(settings, target)) as flow:
        if alias.next is not None:
            alias = _switch(settings, alias, flow)
        yield _told(settings, alias)
        while flow.look():
            time.sleep(LOOK_S)


def origin_of(text: str | None) -> Origin | None:
    """What a new table is to begin with, as a person says it.

    Raises:
        UsageError: It is neither.
    """
    if text not in {None, "table", "topic"}:
        raise UsageError(f"--from: {text}: say table or topic")
    return text  # type: ignore[return-value]  # one of them


def status(settings: Settings) -> Told:
    """How the migration of `table.name` stands.

    Raises:
        SinkError: A table can't be read.
    """
    alias = Aliases(settings.table.uri).get(settings.table.name)
    if alias is None:
        return Told(settings.table.name, "none", pipeline=settings.name)
    return _told(settings, alias)


def rollback(settings: Settings) -> Told:
    """Let readers have the old table again; the new one is kept.

    Raises:
        HeadraceError: None is kept.
    """
    alias = _known(settings)
    if alias.previous is None:
        raise CommandError(f"table.name: {alias.name}: no table is kept that it stood for before")
    return _changed(settings, alias, alias.rolled_back())


def drop_old(settings: Settings) -> Told:
    """Delete the table that the name stood for before the switch.

    Raises:
        HeadraceError: There is none, or it is the one that readers have.
    """
    alias = _known(settings)
    if alias.previous is None:
        raise CommandError(
            f"table.name: {alias.name}: stands for {alias.current.table}, and no older table is "
            "kept; there is nothing to drop"
        )
    named(settings, alias.previous.table).drop()
    return _changed(settings, alias, replace(alias, previous=None))


def abandon(settings: Settings) -> Told:
    """Delete a new table that was not switched to, and forget the migration.

    Raises:
        HeadraceError: No migration is under way.
    """
    alias = _known(settings)
    if alias.next is None:
        raise CommandError(f"table.name: {alias.name}: no migration is under way")
    kept_version(settings, alias)
    named(settings, alias.next.table).drop()
    return _changed(settings, alias, replace(alias, next=None))


def show(told: Told, *, as_json: bool) -> None:
    """Print it."""
    if as_json:
        emit(asdict(told))
        return
    say(f"{told.name}: {_sentence(told)}")
    for name in ("current", "next", "previous"):
        target = getattr(told, name)
        if target is not None:
            say(f"{name:<9} {target['table']}: {target['model']} ({target['fingerprint']})")
    if told.phase == "switched" and told.current is not None:
        say("")
        say("set these where the flow and the services are deployed; the new flow takes over then:")
        for name, value in variables(told.current["settings"], told.pipeline).items():
            say(f"export {name}={value}")
        say("then stop the old flow, and: headrace migrate --drop-old")


def _sentence(told: Told) -> str:
    if told.phase == "seeding":
        return f"{told.seeded:,} of {told.rows:,} rows are embedded anew"
    if told.phase == "following":
        return f"the new table follows the topic, {told.behind:,} offsets behind"
    if told.phase == "switched":
        return "readers have the new table; the old one is kept"
    return "no migration is under way"


def _begun(
    settings: Settings, model: str | None, max_tokens: int | None, origin: Origin | None
) -> Alias:
    """The migration that is under way, or else a new one."""
    aliases = Aliases(settings.table.uri)
    alias = aliases.get(settings.table.name)
    most = settings.model.max_tokens if max_tokens is None else max_tokens
    changed = None if model is None else with_model(settings, model, most)
    if alias is not None and alias.next is not None:
        if changed is not None and not _is_model(changed, alias.next):
            raise CommandError(
                f"--model: {model}: a migration to {alias.next.model} is under way; finish it: "
                "headrace migrate, or give it up: headrace migrate --abandon"
            )
        return alias
    if alias is not None and alias.current.table != settings.table.name:
        # The settings are still the old flow's, and what was switched to is to be kept fresh.
        if changed is None or _is_model(changed, alias.current):
            return alias
        raise CommandError(
            f"table.name: {settings.table.name}: stands for {alias.current.table} already; set "
            "that flow's settings first, as headrace migrate --status has them"
        )
    if changed is None:
        raise UsageError("--model: say which model is to take the place of the one in use")
    if alias is not None and alias.previous is not None:
        raise CommandError(
            f"table.name: {settings.table.name}: {alias.previous.table} is still kept; drop it "
            "first: headrace migrate --drop-old"
        )
    return begin(settings, changed, encoder_of(changed), seed=origin != "topic")


def _is_model(changed: Settings, target: Target) -> bool:
    model = changed.model
    return (model.name, model.max_tokens) == (target.model, target.max_tokens)


def _make_topics(changed: Settings) -> None:
    only = (changed.embeddings.topic, changed.dead_letters.topic)
    create(changed, 1, None, only)


def _seed(changed: Settings, alias: Alias) -> None:
    work = seeding(changed, alias, encoder_of(changed))
    if work is None:
        return
    with _Shown.on_terminal("embedding") as shown:
        for done in work.run():
            shown.at(done, work.total)
    for identity in work.left_out:
        _tell(f"left out: {identity}: the model gives a vector that is not finite")


def _switch(settings: Settings, alias: Alias, flow: Follower) -> Alias:
    """Switch once the new table has what the old one had a moment ago."""
    assert alias.next is not None
    with _Shown.on_terminal("catching up") as shown:
        while True:
            held = progress_of(settings, alias.current.table)
            until = time.monotonic() + CATCH_UP_S
            while (lacks := behind(settings, alias, held)) and time.monotonic() < until:
                _go_on(flow)
                time.sleep(LOOK_S)
            shown.at(sum(held.values()) - lacks, sum(held.values()))
            if not lacks and is_ready(settings, alias.next.table):
                break
            _go_on(flow)
            time.sleep(LOOK_S)
    switched = alias.switched()
    Aliases(settings.table.uri).change(alias, switched)
    _tell(f"switched: {alias.name} stands for {switched.current.table}")
    return switched


def _go_on(flow: Follower) -> None:
    if not flow.look():
        raise CommandError("headrace migrate: another copy of it has taken over; this one ends")


def _environment(settings: Settings, target: Target) -> dict[str, str]:
    # The metrics' port is the old flow's, and this one has lanes' offsets or begins them all.
    own = {**changed_settings(target), "source.start": "earliest"}
    beside = {"metrics.address": "", **({"pipeline": settings.name} if settings.name else {})}
    return {**variables(own, settings.name), **variables(beside)}


def _known(settings: Settings) -> Alias:
    alias = Aliases(settings.table.uri).get(settings.table.name)
    if alias is None:
        raise CommandError(
            f"table.name: {settings.table.name}: no migration was begun; begin one: "
            "headrace migrate --model NAME"
        )
    return alias


def _changed(settings: Settings, before: Alias, after: Alias) -> Told:
    Aliases(settings.table.uri).change(before, after)
    return _told(settings, after)


def _told(settings: Settings, alias: Alias) -> Told:
    current, following, previous = map(_shown, (alias.current, alias.next, alias.previous))
    told = Told(alias.name, "none", current, following, previous, pipeline=settings.name)
    if alias.next is not None:
        seeded = seeded_of(settings, alias)
        if seeded is not None:
            return replace(told, phase="seeding", seeded=seeded[0], rows=seeded[1])
        return replace(told, phase="following", behind=behind(settings, alias))
    return told if alias.previous is None else replace(told, phase="switched")


def _shown(target: Target | None) -> dict[str, Any] | None:
    if target is None:
        return None
    told = {"table": target.table, "model": target.model, "fingerprint": target.fingerprint}
    return {**told, "settings": changed_settings(target)}


@contextmanager
def _heard() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does: with the flow that it runs, in good order."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - what a person reads


class _Shown:
    """A bar on standard error, or a line now and then where nobody sees one.

    Args:
        what: What is done.
        bar: The bar, if there is one.
    """

    def __init__(self, what: str, bar: Progress | None) -> None:
        self._what = what
        self._bar = bar
        self._task = None if bar is None else bar.add_task(what, total=None)
        self._last: tuple[int, int] | None = None
        self._told_at = -TELL_EVERY_S

    @classmethod
    @contextmanager
    def on_terminal(cls, what: str) -> Iterator[_Shown]:
        """A bar while something is done."""
        console = Console(stderr=True)
        if not console.is_terminal:
            yield cls(what, None)
            return
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            yield cls(what, bar)

    def at(self, done: int, total: int) -> None:
        """So much of it is done."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)
            return
        now = time.monotonic()
        due = now - self._told_at >= TELL_EVERY_S or done == total
        if due and self._last != (done, total):
            self._last, self._told_at = (done, total), now
            _tell(f"{self._what}: {done:,} of {total:,}")
