"""The dashboard and how Grafana is given it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.deploy.files import DASHBOARD, DEPLOY, dashboard, documents, panels

UNITS = {
    "bytes", "cps", "locale", "ms", "none", "percentunit", "reqps", "s", "short",
}  # fmt: skip
"""Grafana's names of units."""

PROVISIONING = DEPLOY / "grafana" / "provisioning"


def unit_of(query: str) -> set[str]:
    """The units that fit what a query gives."""
    if " / " in query or "_seconds_sum" in query:
        return {"percentunit"}
    if re.search(r"\brate\(|rate5m", query):
        return {"ms"} if "histogram_quantile" in query else {"cps", "reqps"}
    for pattern, units in (
        (r"_ms\b|_ms:p", {"ms"}),
        (r"_bytes\b", {"bytes"}),
        (r"time\(\)", {"s"}),
        (r"changes|increase", {"short"}),
    ):
        if re.search(pattern, query):
            return units
    return {"locale", "none"}


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_can_be_read(panel: dict[str, Any]) -> None:
    """Each panel says what it shows, in which unit, and which line is which."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    legends = [target["legendFormat"] for target in panel["targets"]]
    assert all(legends)
    assert len(set(legends)) == len(legends)
    for target in panel["targets"]:
        assert panel["fieldConfig"]["defaults"]["unit"] in unit_of(target["expr"]), target["expr"]


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_legend_names_what_is_told_apart(panel: dict[str, Any]) -> None:
    """A query that keeps labels shows them all, so that no two lines have one name."""
    for target in panel["targets"]:
        grouped = re.findall(r"(?:sum|max|min) by \(([^)]*)\)", target["expr"])
        kept = set(re.split(r", ?", grouped[0])) - {"le", ""} if grouped else set()
        if panel["type"] != "table":
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert kept == named, target["expr"]


def test_ids_and_places_are_their_own() -> None:
    """No two panels have an id or a place in common, and none leaves the grid."""
    taken: set[tuple[int, int]] = set()
    every = dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    for panel in every:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_datasource_can_be_chosen() -> None:
    """Panels, variables and marks ask the Prometheus that the dashboard's variable names."""
    board = dashboard()
    variables = {own["name"]: own for own in board["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    asking = [
        *panels(),
        *(target for panel in panels() for target in panel["targets"]),
        *board["annotations"]["list"],
        *(own for own in variables.values() if own["type"] == "query"),
    ]
    for own in asking:
        assert own["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    used = set(re.findall(r"\$(\w+)", DASHBOARD.read_text())) - {"__rate_interval", "__all"}
    assert used <= set(variables)


def test_it_is_provisioned() -> None:
    """Grafana is told of one Prometheus and of the folder that has the dashboard."""
    [sources] = documents(PROVISIONING / "datasources" / "prometheus.yml")
    [source] = sources["datasources"]
    assert source["type"] == "prometheus"
    [config] = documents(DEPLOY / "prometheus" / "prometheus.yml")
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    [provider] = documents(PROVISIONING / "dashboards" / "headrace.yml")[0]["providers"]
    assert provider["type"] == "file"
