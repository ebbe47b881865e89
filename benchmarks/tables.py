"""What was found, as tables: the same on the terminal and on the benchmarks page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks.control import AUTO, BATCH_TOKENS, FP32, NAIVE, NAIVE_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Found = Mapping[str, Any]

__all__ = ["Table", "conditions", "names_of", "tables_of"]

_TIMES: Final = "\u00d7"  # the sign for "times"
_CONTROLS: Final = (NAIVE, FP32, AUTO)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts.

    Attributes:
        title: What it shows.
        headings: Of its columns; the first ones are of text, the others of figures.
        rows: Its cells.
        texts: How many columns are of text.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1


def tables_of(found: Found) -> list[Table]:
    """All tables of a run."""
    names = names_of(found)
    made = [_throughput(found, kind, names) for kind in ("short", "medium")]
    made += [_freshness(found, names), _costs(found, names), _shares(found, names)]
    made += [_threads(found, names), *_left_out(found, names)]
    return [one for one in made if one.rows]


def conditions(found: Found) -> list[str]:
    """When and on what it was measured, a line each."""
    machine, model, size, quiet = (found[part] for part in ("machine", "model", "size", "quiet"))
    hardware = (
        f"{found['date']}: {machine['processor']} ({', '.join(machine['abilities'])}), "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}."
    )
    extent = (
        f"{size['docs']} short texts and a quarter as many medium ones, {size['rounds']} rounds, "
        f"steady loads of {size['seconds']:.0f} s; {quiet['seconds'] / 60:.0f} min in all, while "
        f"other programs used {quiet['cores_of_others']:.2f} cores and the host withheld "
        f"{quiet['cores_stolen']:.2f}."
    )
    chosen = f"{model['name']}, {model['runtime']} {model['precision']}: {model['reason']}."
    rivals = [
        f"The rivals' environment `{name}`: {_listed(versions)}."
        for name, versions in found["rival_versions"].items()
    ]
    return [hardware, f"{_listed(machine['versions'])}.", *rivals, chosen, extent]


def names_of(found: Found) -> dict[str, str]:
    """How each subject is called."""
    model = found["model"]
    controls = {
        NAIVE: f"model alone, onnxruntime fp32, {NAIVE_ROWS} as they come",
        FP32: f"model alone, onnxruntime fp32, sorted, {BATCH_TOKENS} tokens (control)",
        AUTO: f"model alone, {model['runtime']} {model['precision']}, sorted",
    }
    return controls | {one["name"]: one["title"] for one in found["subjects"]}


def _throughput(found: Found, kind: str, names: Mapping[str, str]) -> Table:
    results = [one for one in found["throughput"] if one["texts"] == kind]
    results.sort(key=lambda one: one["processes"])
    tokens = next((one["tokens"] for one in results if one["subject"] == FP32), 0.0)
    return Table(
        f"Backlog of {kind} texts, {tokens:.0f} tokens on average",
        (
            *("", "processes", "docs/s", f"{_TIMES} control", f"{_TIMES} model"),
            *("docs/CPU-s", f"{_TIMES} control", f"{_TIMES} model"),
            *("Headrace by the clock", "by CPU", "to table/s"),
        ),
        [
            (
                names[one["subject"]],
                str(one["processes"]),
                _figure(one["docs_per_s"], "{:.0f}"),
                _figure(one["docs_per_s_control"], "{:.2f}"),
                _figure(one["docs_per_s_model"], "{:.2f}"),
                _figure(one["docs_per_cpu_s"], "{:.0f}"),
                _figure(one["docs_per_cpu_s_control"], "{:.2f}"),
                _figure(one["docs_per_cpu_s_model"], "{:.2f}"),
                *_times_flow(one),
                _figure(one["table_docs_per_s"], "{:.0f}"),
            )
            for one in results
        ],
    )


def _times_flow(result: Found) -> tuple[str, str]:
    """How many times as much the flow did as a rival."""
    if result["subject"] in _CONTROLS or result["subject"].startswith("headrace"):
        return "", ""
    by_clock, by_cpu = result["docs_per_s_flow"], result["docs_per_cpu_s_flow"]
    return _figure(by_clock, f"{{:.1f}} {_TIMES}"), _figure(by_cpu, f"{{:.1f}} {_TIMES}")


def _freshness(found: Found, names: Mapping[str, str]) -> Table:
    return Table(
        "Freshness under steady loads of short texts: milliseconds from a document's timestamp "
        "until a reader saw it",
        (
            *("", "processes", "load", "docs/s", "topic p50", "p99", "table p50", "p99"),
            *("cores", "documents"),
        ),
        [
            (
                names[one["subject"]],
                str(one["processes"]),
                "1 doc/s" if one["load"] is None else f"{one['load']:.0%}",
                f"{one['docs_per_s']:.0f}",
                *_percentiles(one["topic_ms"]),
                *_percentiles(one["table_ms"]),
                f"{one['cores']:.2f}",
                str(one["docs"]),
            )
            for one in found["freshness"]
        ],
    )


def _costs(found: Found, names: Mapping[str, str]) -> Table:
    idle = {(one["subject"], one["processes"]): one["idle_cores"] for one in found["freshness"]}
    guarantees = {one["name"]: one["guarantee"] for one in found["subjects"]}
    keys = dict.fromkeys((one["subject"], one["processes"]) for one in found["throughput"])
    return Table(
        "Guarantee, and what each process takes: memory at its peak, cores while idle",
        ("", "guarantee", "processes", "MiB", "idle cores"),
        [
            (
                names[subject],
                guarantees[subject],
                str(processes),
                f"{_peak(found, subject, processes):.0f}",
                _percent(idle.get((subject, processes))),
            )
            for subject, processes in keys
            if subject in guarantees
        ],
        texts=2,
    )


def _peak(found: Found, subject: str, processes: int) -> float:
    """MiB, over texts and rounds."""
    own = (one for one in found["throughput"] if one["subject"] == subject)
    peaks: list[float] = [one["peak_mib"]["high"] for one in own if one["processes"] == processes]
    return max(peaks)


def _shares(found: Found, names: Mapping[str, str]) -> Table:
    return Table(
        "The flow's time during a backlog, in shares of each process's time by the clock (several "
        "threads); padding of what goes through the model; texts out of the cache",
        (
            *("", "texts", "processes", "in the model", "in transactions", "in merges"),
            *("padding", "padding of the control", "cache hits"),
        ),
        [
            (
                names[one["subject"]],
                one["texts"],
                str(one["processes"]),
                *(_percent(one["shares"][f"stage_{s}"]) for s in _STAGES),
                _percent(one["shares"]["padding"]),
                _percent(_padding_alone(found, one)),
                _percent(one["shares"]["cache_hits"]),
            )
            for one in found["throughput"]
            if one["shares"]
        ],
        texts=2,
    )


_STAGES: Final = ("model", "transactions", "merges")


def _padding_alone(found: Found, result: Found) -> float | None:
    for one in found["throughput"]:
        same = one["texts"] == result["texts"] and one["processes"] == result["processes"]
        if same and one["subject"] == FP32:
            padding: float | None = one["padding"]
            return padding
    return None


def _threads(found: Found, names: Mapping[str, str]) -> Table:
    return Table(
        "Where the flow's CPU time goes during a backlog, by threads",
        ("", "texts", "processes", "threads"),
        [
            (
                names[one["subject"]],
                one["texts"],
                str(one["processes"]),
                ", ".join(f"{name} {share:.1%}" for name, share in _largest(one["threads"])),
            )
            for one in found["throughput"]
            if one["shares"] and one["threads"]
        ],
        texts=4,
    )


def _largest(shares: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for name, share in sorted(shares.items(), key=lambda one: -one[1]):
        if share >= 0.005:
            yield name, share


def _left_out(found: Found, names: Mapping[str, str]) -> Iterator[Table]:
    rows = [
        (names[one["subject"]], str(one["processes"]), one["reason"]) for one in found["failed"]
    ]
    yield Table("Left out", ("", "processes", "why"), rows, texts=3)


def _figure(figure: Found | None, form: str) -> str:
    if figure is None:
        return ""
    median, low, high = (form.format(figure[part]) for part in ("median", "low", "high"))
    return median if low == high else f"{median} [{low}-{high}]"


def _percentiles(found: Found | None) -> tuple[str, str]:
    return (f"{found['p50']:.0f}", f"{found['p99']:.0f}") if found else ("", "")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
