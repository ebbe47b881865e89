"""What users read is what the code does."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from pydantic import BaseModel

from cli.main import app
from flows.settings import Settings
from harness.process import ROOT
from operators.documents import ERROR_CODES
from telemetry.http import HttpMetrics
from telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

PAGES = sorted(
    page.relative_to(ROOT)
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
    if page.is_file()
)
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"build", "data", ".venv"}
"""Where a path in the docs begins that must be there; the other folders come and go."""

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")


def text_of(page: Path | str) -> str:
    """A page, without the line breaks of another system."""
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", text_of(page))


def code_of(page: Path) -> Iterator[str]:
    """Each line of a page's blocks of code, and each span of code in its prose."""
    for block in FENCE.findall(text_of(page)):
        yield from block.splitlines()[1:-1]
    yield from SPAN.findall(prose_of(page))


def anchors_of(page: Path) -> set[str]:
    """What a link can name of a page, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ +(.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def default_of(field: FieldInfo) -> str:
    """A setting's default, as a settings file has it."""
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "not set"
    if isinstance(default, tuple):
        return f"`{json.dumps([str(part) for part in default])}`"
    number = isinstance(default, float) and default.is_integer()
    shown: Any = int(default) if number else default
    return f"`{json.dumps(str(shown) if isinstance(shown, Path) else shown)}`"


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections of the settings, by name."""
    for name, field in Settings.model_fields.items():
        if name in {"pipeline", "pipelines"}:
            continue
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        yield name, field.annotation


def table_of(section: str, fields: type[BaseModel]) -> str:
    """The table that docs/settings.md must have of a section."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    lines += [
        f"| `{section}.{name}` | {default_of(field)} | {field.description} |"
        for name, field in fields.model_fields.items()
    ]
    return "\n".join(lines) + "\n"


def commands() -> dict[str, set[str]]:
    """Each command, as a user writes it, with its options."""
    found: dict[str, set[str]] = {}

    def walk(command: Any, path: str) -> None:
        inner = getattr(command, "commands", None)
        if inner is None:
            found[path] = {option for own in command.params for option in own.opts}
        for name, own in (inner or {}).items():
            walk(own, f"{path} {name}")

    walk(typer.main.get_command(app), "headrace")
    return found


def targets() -> set[str]:
    """What the Makefile can make."""
    return set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))


def names_in(path: Path) -> set[str]:
    """What a module defines at its top: functions, and classes by whatever name."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return found


@pytest.mark.parametrize(("section", "fields"), list(sections()))
def test_every_setting_is_documented(section: str, fields: type[BaseModel]) -> None:
    """Each section's table has every setting, its default and its meaning, word for word."""
    wanted = table_of(section, fields)
    assert wanted in text_of("docs/settings.md"), f"docs/settings.md must have:\n\n{wanted}"


def test_no_other_setting_is_documented() -> None:
    """A table row names no setting that there is not."""
    known = {f"{section}.{name}" for section, fields in sections() for name in fields.model_fields}
    rows = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", text_of("docs/settings.md"), re.MULTILINE)
    assert set(rows) == known
    assert len(rows) == len(known)


def test_every_command_is_documented() -> None:
    """README or docs name each command."""
    told = "\n".join(text_of(page) for page in PAGES)
    assert [command for command in commands() if f"`{command}" not in told] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_are_written_as_they_are(page: Path) -> None:
    """A command line in the docs names a command that there is, with options that it has."""
    known = commands()
    for line in code_of(page):
        call = line.split("#", 1)[0]
        # Alone, after another command, or what Docker is told to run.
        start = re.search(r"(?:^|&& |flow |headrace )(headrace [a-z].*)", call)
        if start is None:
            continue
        words = start[1].split(" && ")[0].strip()
        command = next((own for own in known if f"{words} ".startswith(f"{own} ")), None)
        assert command is not None, f"{page}: {words}"
        bare = re.sub(r'"[^"]*"', "", words.removeprefix(command))
        options = set(re.findall(r"(?:^| )(--?[a-z][a-z-]*)", bare))
        assert options <= known[command] | {"--help"}, f"{page}: {words}"


def test_every_metric_is_documented() -> None:
    """The page of flow or server has each metric by the name that Prometheus shows."""
    pages = {"docs/operations.md": Metrics().registry, "docs/http.md": HttpMetrics().registry}
    for page, registry in pages.items():
        told = text_of(page)
        for metric in registry.collect():
            name = metric.name + ("_total" if metric.type == "counter" else "")
            assert f"| `{name}` | {metric.type}" in told, name


def test_no_other_metric_is_documented() -> None:
    """No page names a metric that there is not."""
    registries = (Metrics().registry, HttpMetrics().registry)
    known = {metric.name for registry in registries for metric in registry.collect()}
    for page in PAGES:
        for name in re.findall(r"\bheadrace_[a-z_]+[a-z]\b", text_of(page)):
            assert re.sub(r"_(total|bucket|sum|count)$", "", name) in known, f"{page}: {name}"


def test_every_dead_letter_code_is_documented() -> None:
    """The operator's page explains each code, and no other."""
    told = text_of("docs/operations.md").partition("## Dead letters")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z_0-9]+)` \|", told, re.MULTILINE)) == ERROR_CODES


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file that is there, and a heading that it has."""
    for link in LINK.finditer(prose_of(page)):
        if "://" in link["target"]:
            continue
        name, _, anchor = link["target"].partition("#")
        path = (ROOT / page.parent / name).resolve() if name else ROOT / page
        assert path.exists(), f"{page}: {link[0]}"
        assert not anchor or anchor in anchors_of(path.relative_to(ROOT)), f"{page}: {link[0]}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_paths_are_there(page: Path) -> None:
    """What looks like a path of this repository, in a span of code, is one."""
    for span in SPAN.findall(prose_of(page)):
        path = re.fullmatch(r"(\.?[a-z_]+)/[\w./-]*", span)
        if path is not None and path[1] in FOLDERS:
            assert (ROOT / span).exists(), f"{page}: {span}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_make_targets_are_there(page: Path) -> None:
    """What the docs tell to make can be made."""
    known = targets()
    for line in code_of(page):
        told = re.fullmatch(r"make((?: [a-z]+)+)(?: +#.*| [A-Z]+=.*)?", line.strip())
        for target in told[1].split() if told else ():
            assert target in known, f"{page}: {line}"


def test_the_readme_names_the_first_targets() -> None:
    """The two commands that a newcomer types are the first ones shown."""
    shown = [line.split("#")[0].strip() for line in code_of(Path("README.md")) if "make " in line]
    assert shown[:2] == ["make demo", "make test"]


def test_guarantees_are_proven() -> None:
    """Each guarantee links to tests that there are; what is not covered links to none."""
    page = Path("docs/guarantees.md")
    covered, _, rest = prose_of(page).partition("## Not covered")
    rows = [row for row in re.findall(r"^\| .*\|$", covered, re.MULTILINE) if "---" not in row]
    rows = [row for row in rows if not row.startswith("| guarantee |")]
    assert len(rows) > 20
    for row in rows:
        _, _, holds, proof, _ = re.split(r" ?\| ?", row)
        assert holds in {"exactly once", "idempotent", "control"}, row
        links = list(LINK.finditer(proof))
        assert links, row
        for link in links:
            module = (ROOT / page.parent / link["target"]).resolve()
            assert link["text"].strip("`") in names_in(module), f"{link[0]} in {row}"
    assert "tests/" not in rest
