"""What the demo shows on the console."""

from __future__ import annotations

import contextlib
import shlex
import time
from typing import TYPE_CHECKING, Any, Final, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Rate", "Screen", "command_line", "quoted", "span", "spans"]

LINE_S: Final = 3.0
PIPED_WIDTH: Final = 110


class Screen:
    """The console, and the few ways in which something is shown on it."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)
        if not self._console.is_terminal:
            self._console.width = PIPED_WIDTH

    def say(self, line: str, style: str | None = None) -> None:
        """Show a line."""
        self._console.print(line, style=style, soft_wrap=not self._console.is_terminal)

    def command(self, *words: str) -> None:
        """Show a command that is run."""
        self.say(f"$ {command_line(words)}", style="yellow")

    def found(self, found: Sequence[Mapping[str, Any]]) -> None:
        """Show what a search has found."""
        self._console.print(_found_table(found, self._console.width))

    @contextlib.contextmanager
    def step(self, heading: str) -> Iterator[None]:
        """Show a heading, and after the block how long it took."""
        started = time.monotonic()
        self.say("")
        self.say(heading, style="bold cyan")
        yield
        self.say(f"{time.monotonic() - started:.1f} s", style="dim")

    def ticker(self, total: int) -> Ticker:
        """A line that changes until so many are done."""
        return Ticker(self._console, total)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._console.show_cursor()


class Ticker:
    """One line that changes, with a bar above it; without a terminal a line every few seconds."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._live = Live(console=console, auto_refresh=False)
        self._printed = time.monotonic()

    def show(self, line: str, done: int, *, last: bool = False) -> None:
        """Show how far it is."""
        if self._console.is_terminal:
            shown = Table.grid()
            shown.add_row(ProgressBar(self._total, done, width=60))
            shown.add_row(Text(line))
            self._live.update(shown, refresh=True)
        elif last or time.monotonic() - self._printed >= LINE_S:
            self._console.print(line, soft_wrap=True)
            self._printed = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()


class Rate:
    """Documents a second since the first came, which the flow took its time to start for."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def of(self, count: int) -> float:
        """The rate, now that there are so many."""
        now = time.monotonic()
        if self._first is None:
            if count:
                self._first = (count, now)
            return 0.0
        before, at = self._first
        return (count - before) / max(now - at, 1e-3)


def command_line(words: Iterable[str]) -> str:
    """A command as one types it in a shell."""
    return " ".join(map(quoted, words))


def quoted(word: str) -> str:
    """A word as one types it in a shell: in double quotes if that does."""
    if shlex.quote(word) == word or set(word) & set('"$`\\!'):
        return shlex.quote(word)
    return f'"{word}"'


def _found_table(found: Sequence[Mapping[str, Any]], width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("score", "id", "text"):
        table.add_column(name)
    room = max(20, width - 10)
    ids = [_cut(item["id"], room // 2) for item in found]
    left = room - max(map(len, ids), default=0)
    for identity, item in zip(ids, found, strict=True):
        first = _cut(item["text"].strip().splitlines()[0], left)
        table.add_row(f"{item['score']:.3f}", Text(identity), Text(first))
    return table


def _cut(text: str, length: int) -> str:
    """A text made to fit, without what could steer a terminal."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"


def spans(waits: Sequence[float]) -> str:
    """The median and the tail of some waits, given in seconds."""
    if not waits:
        return "p50 -, p99 -"
    ordered = sorted(waits)
    p50, p99 = (ordered[round(share * (len(ordered) - 1))] for share in (0.5, 0.99))
    return f"p50 {span(p50)}, p99 {span(p99)}"


def span(seconds: float) -> str:
    """A time, in the unit that fits it."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
