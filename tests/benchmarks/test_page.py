from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.control import AUTO, FP32
from benchmarks.figures import Trial, fresh, ready, summed_up
from benchmarks.load import Paced, Written
from benchmarks.page import BEGIN, END, PAGE, write_page
from benchmarks.report import VERSION, read, show, write
from benchmarks.rig import Freshness
from benchmarks.subjects import FLOW
from headrace.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

TRIALS = [
    Trial(kind, 1, subject, 0, 100, wall_s, wall_s, 1900, 2000, None, None, peak)
    for kind in ("short", "medium")
    for subject, wall_s, peak in ((FP32, 1.0, None), (AUTO, 0.5, None), (FLOW, 0.7, 400.0))
]
DOCUMENTS = [Written(b"document-%d" % number, 0, number, 1000 + number) for number in range(3)]
LEVEL = Freshness(Paced(DOCUMENTS, 2.0, 0.1), [10.0, 20.0, 30.0], [], 0.5)


@pytest.fixture
def found() -> dict[str, Any]:
    """Figures of a small run that was not made."""
    steady = {"subject": FLOW, "processes": 1, "idle_cores": 0.01}
    return {
        "version": VERSION,
        "date": "2026-01-01",
        "size": {"docs": 100, "rounds": 1, "seconds": 2.0},
        "machine": {
            "processor": "abacus",
            "abilities": ["beads"],
            "cores": 2,
            "memory_gib": 1,
            "system": "none",
            "python": "3.11",
            "versions": {"kafka": "4"},
        },
        "rival_versions": {"quix": {"quixstreams": "3"}},
        "quiet": {"seconds": 60.0, "cores_of_others": 0.0, "cores_stolen": 0.0},
        "model": {"name": "m", "runtime": "openvino", "precision": "bf16", "reason": "fastest"},
        "subjects": [{"name": FLOW, "title": "Headrace", "guarantee": "exactly once"}],
        "failed": [
            {"subject": FLOW, "processes": 1, "reason": "ended | with code 1\nand another line"}
        ],
        "throughput": ready(summed_up(TRIALS)),
        "freshness": [steady | fresh(load, 5.0, LEVEL) for load in (0.5, None)],
        "trials": [asdict(one) for one in TRIALS],
    }


def test_prose_stays_and_figures_are_replaced(found: dict[str, Any], tmp_path: Path) -> None:
    """Only what is between the markers changes, and the same figures give the same files."""
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# By hand\n\n{BEGIN}\nold\n{END}\n\nAlso by hand.\n")
    written = write_page(found, page)
    contents = [path.read_bytes() for path in written]
    text = page.read_text()
    assert text.startswith(f"# By hand\n\n{BEGIN}\n- 2026-01-01: abacus (beads), 2 cores")
    assert text.endswith(f"{END}\n\nAlso by hand.\n")
    assert "old" not in text
    assert "| Headrace | 1 | 50% | 1 | 20 | 30 |" in text
    assert "ended \\| with code 1 and another line" in text
    assert [path.name for path in written[1:]] == [
        line.partition("(images/")[2].rstrip(")") for line in text.splitlines() if "](" in line
    ]
    assert [path.read_bytes() for path in write_page(found, page)] == contents


def test_a_page_without_markers_is_left_alone(found: dict[str, Any], tmp_path: Path) -> None:
    """There is no place to write to, and the page stays as it is."""
    page = tmp_path / "benchmarks.md"
    page.write_text("by hand")
    with pytest.raises(UsageError, match="no lines"):
        write_page(found, page)
    assert page.read_text() == "by hand"


def test_the_page_of_the_docs_has_its_markers() -> None:
    """The tables have a place in the docs."""
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1


def test_figures_survive_json(
    found: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written figures are read as they were, and shown with every subject."""
    path = tmp_path / "bench" / "figures.json"
    write(found, path)
    show(read(path))
    shown = capsys.readouterr().out
    assert "model alone, openvino bf16" in shown
    assert "Headrace" in shown


@pytest.mark.parametrize("content", [None, "no JSON", '{"version": 0}'])
def test_other_figures_are_refused(tmp_path: Path, content: str | None) -> None:
    """A file that is missing, no JSON or of another version is told in one line."""
    path = tmp_path / "figures.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match="figures"):
        read(path)
