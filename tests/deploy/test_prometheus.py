"""Rules and scraping, judged by Prometheus' own tool and against the metrics that there are."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from harness.process import ROOT
from telemetry.http import HttpMetrics
from telemetry.metrics import Metrics
from tests.deploy.files import (
    PENDING,
    PROMETHEUS,
    alerts,
    annotation_queries,
    documents,
    panel_queries,
    records,
    rules,
)
from tests.test_docs import anchors_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.files import Query

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool, which comes with Prometheus, is missing"
)


def promtool(*arguments: str | Path) -> None:
    """Run it where the rules are; fails with what it says."""
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def known_metrics() -> set[str]:
    """The names that flows and services show."""
    registries = (Metrics().registry, HttpMetrics().registry)
    return {
        metric.name + ("_total" if metric.type == "counter" else "")
        for registry in registries
        for metric in registry.collect()
    }


def all_queries() -> list[Query]:
    """Each expression of dashboard and rules."""
    return [
        *panel_queries(),
        *annotation_queries(),
        *records().values(),
        *alerts().values(),
    ]


@needs_promtool
def test_configuration_is_valid() -> None:
    """Compose's Prometheus takes its file, and the rules that this names."""
    promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_configuration_of_kubernetes_is_valid(tmp_path: Path) -> None:
    """So does the one of a cluster, apart from the discovery, which not every build can do."""
    [config] = documents(PROMETHEUS / "kubernetes.yml")
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": ["pod:9464"]}]
    del job["kubernetes_sd_configs"]
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    path = tmp_path / "kubernetes.yml"
    path.write_text(yaml.safe_dump(config))
    promtool("check", "config", path)


@needs_promtool
def test_rules_are_valid() -> None:
    """Prometheus can read all rules."""
    promtool("check", "rules", "records.yml", "alerts.yml")


@needs_promtool
def test_rules_do_what_they_say() -> None:
    """Each alert is raised by what it is for, and by nothing like it."""
    promtool("test", "rules", "rules.test.yml")


def test_every_alert_has_a_test() -> None:
    """There is a case that raises each alert, and none of an alert that there is not."""
    [content] = documents(PROMETHEUS / "rules.test.yml")
    told = [own for case in content["tests"] for own in case.get("alert_rule_test", [])]
    assert {own["alertname"] for own in told if own["exp_alerts"]} == set(alerts())
    assert {own["alertname"] for own in told} == set(alerts())


@pytest.mark.parametrize("rule", rules("alerts.yml"), ids=lambda rule: rule["alert"])
def test_an_alert_tells_what_to_do(rule: dict[str, Any]) -> None:
    """Summary and description name what is wrong, and the runbook is a section that there is."""
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook"}
    assert "{{ $labels.job }}" in told["summary"]
    assert "{{ $labels.job }}" in told["description"]
    page, _, anchor = told["runbook"].partition("#")
    assert anchor == rule["alert"].lower()
    assert anchor in anchors_of((ROOT / page).relative_to(ROOT))
    assert rule["labels"]["severity"] in {"critical", "warning"}


def test_only_metrics_that_there_are() -> None:
    """Dashboard and rules read no metric that neither flow nor services have."""
    known = known_metrics()
    assert not known & PENDING, "tests/deploy/files.py: these are no longer pending"
    for query in all_queries():
        assert query.metrics <= known | PENDING, query.place


def test_every_metric_is_shown() -> None:
    """Each metric is read by dashboard or rules: none is there in vain."""
    read = set().union(*(query.metrics for query in all_queries()))
    assert known_metrics() - read == set()


def test_only_records_that_there_are() -> None:
    """Dashboard and alerts read no series that no rule records, and each that is recorded."""
    readers = [query for query in all_queries() if query not in records().values()]
    read = set().union(*(query.recorded for query in readers))
    assert read <= set(records())
    unread = set(records()) - read
    # For those who build alerts of their own.
    assert unread == {
        "job_pipeline_sink:headrace_freshness_ms:p50_5m",
        "job_pipeline:headrace_inference_latency_ms:p99_5m",
    }
