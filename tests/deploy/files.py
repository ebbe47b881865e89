"""What `deploy/` and compose.yaml hold, as their tests read it."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import yaml

from harness.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEPLOY: Final = ROOT / "deploy"
PROMETHEUS: Final = DEPLOY / "prometheus"
DASHBOARD: Final = DEPLOY / "grafana" / "dashboards" / "headrace.json"

PENDING: Final[frozenset[str]] = frozenset()
"""Metrics that dashboard and rules read and the flow does not have yet; tests fail on one that it
has, so that the list gets shorter."""

METRIC: Final = re.compile(r"(?<![\w:])headrace_[a-z_]+\b(?!:)")
RECORDED: Final = re.compile(r"\b[a-z_]+(?::[a-z0-9_]+)+\b")


@dataclass(frozen=True)
class Query:
    """A query and where it stands."""

    place: str
    text: str

    @property
    def metrics(self) -> set[str]:
        """The metrics that it reads, as Prometheus' client names them."""
        names = METRIC.findall(self.text)
        return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}

    @property
    def recorded(self) -> set[str]:
        """The recorded series that it reads."""
        return set(RECORDED.findall(self.text))

    @property
    def pending(self) -> bool:
        """Whether it reads what the flow does not have yet."""
        return bool(self.metrics & PENDING)


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file, to be changed at will."""
    return deepcopy(_documents(path))


@cache
def _documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def panel_queries() -> Iterator[Query]:
    """Each query of each panel."""
    for panel in panels():
        for target in panel["targets"]:
            yield Query(f"{panel['title']} {target['refId']}", target["expr"])


def annotation_queries() -> Iterator[Query]:
    """Each query that marks the time axis."""
    for own in dashboard()["annotations"]["list"]:
        yield Query(own["name"], own["expr"])


def rules(file: str) -> list[dict[str, Any]]:
    """The rules of a file of `deploy/prometheus`."""
    [content] = documents(PROMETHEUS / file)
    return [rule for group in content["groups"] for rule in group["rules"]]


def records() -> dict[str, Query]:
    """Each recorded series, by name."""
    return {rule["record"]: Query(rule["record"], rule["expr"]) for rule in rules("records.yml")}


def alerts() -> dict[str, Query]:
    """Each alert's expression, by name."""
    return {rule["alert"]: Query(rule["alert"], rule["expr"]) for rule in rules("alerts.yml")}


def memory_limit() -> int:
    """Bytes that the rules take for a process's limit."""
    limit = re.fullmatch(r"vector\((\d+)\)", records()["headrace:memory_limit_bytes"].text)
    assert limit is not None
    return int(limit[1])


def bytes_of(text: str) -> int:
    """A size, as Compose and Kubernetes write it."""
    number, unit = re.fullmatch(r"(\d+)(\D*)", text).groups()  # type: ignore[union-attr]
    return int(number) << {"": 0, "m": 20, "Mi": 20, "g": 30, "Gi": 30}[unit]
