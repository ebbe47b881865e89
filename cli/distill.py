"""`headrace model distill`: makes a static bundle of the model."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cli.output import emit, say
from cli.texts import read_texts
from flows.access import model_source_of
from operators.model.distill import Plan
from operators.model.distill import distill as distill_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flows.settings import Settings

__all__ = ["distill", "show"]


def distill(
    settings: Settings, out: Path, texts: Path | None, dimension: int, max_tokens: int
) -> dict[str, Any]:
    """Make a static bundle.

    Args:
        settings: They name the teacher, and say what runs it.
        out: The new bundle's folder.
        texts: JSON lines with texts to fit to; `-` is standard input.
        dimension: Floats in a vector.
        max_tokens: The most tokens of one text.

    Returns:
        What was made, ready for JSON.

    Raises:
        CommandError: A line is wrong; the text has its number.
        HeadraceError: The teacher, the file or the folder doesn't do.
    """
    plan = Plan(dimension, max_tokens, () if texts is None else read_texts(texts))
    model = settings.model
    with _progress() as watch:
        made = distill_bundle(
            model_source_of(settings),
            out,
            plan,
            runtime=model.runtime,
            precision=model.precision,
            watch=watch,
        )
    return {
        "path": str(out),
        "name": made.manifest.name,
        "source": made.manifest.source,
        "fingerprint": made.manifest.fingerprint,
        "dimension": made.manifest.dimension,
        "max_tokens": made.manifest.max_tokens,
        "vocabulary": made.vocabulary,
        "texts": made.texts,
        "overlap_at_10_before": made.overlap_before,
        "overlap_at_10": made.overlap,
    }


def show(told: dict[str, Any], *, as_json: bool) -> None:
    """Print what was made."""
    if as_json:
        emit(told)
        return
    say(f"{told['path']}: {told['name']}, fingerprint {told['fingerprint']}")
    say(
        f"{told['vocabulary']:,} tokens of {told['dimension']} floats, "
        f"texts of up to {told['max_tokens']:,} tokens"
    )
    if told["overlap_at_10"] is not None:
        say(
            f"fitted to {told['texts']:,} texts: on others, {told['overlap_at_10']:.3f} of the "
            f"model's 10 nearest neighbours, before {told['overlap_at_10_before']:.3f}"
        )


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each step on standard error, if somebody sees it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def watch(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done)

        yield watch
