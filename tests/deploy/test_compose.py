"""compose.yaml and the image: what can be said of them without Docker."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from flows.settings import load
from harness.process import ROOT
from tests.deploy.files import DEPLOY, PROMETHEUS, bytes_of, documents, memory_limit

if TYPE_CHECKING:
    from flows.settings import Settings

Service = dict[str, Any]

HTTP_PORTS: Final = {"prometheus": 9090, "grafana": 3000}
KEY: Final = "k" * 32


@cache
def compose() -> Any:
    """The file, with the variables of the shell put in."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    given = {"HEADRACE_AUTH__JWT_KEY": KEY}
    filled = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda own: given.get(own[1], own[2]), text)
    return yaml.safe_load(filled)


def services() -> dict[str, Service]:
    """All services, whatever their profile."""
    found: dict[str, Service] = compose()["services"]
    return found


def ours() -> dict[str, Service]:
    """Those that run our image."""
    return {name: own for name, own in services().items() if own["image"] == "headrace"}


def settings_of(own: Service) -> Settings:
    """The settings that a service runs with."""
    return load({name: str(value) for name, value in own["environment"].items()}, DEPLOY)


every_service = pytest.mark.parametrize("name", services())


def test_compose_itself_takes_it() -> None:
    """Where Docker's plugin is installed, it finds no fault."""
    docker = shutil.which("docker")
    version = [docker or "docker", "compose", "version"]
    if docker is None or subprocess.run(version, capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed")
    command = [docker, "compose", "--profile", "*", "config", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@every_service
def test_images_are_pinned(name: str) -> None:
    """Each image is ours, built here, or has a version."""
    image = services()[name]["image"]
    assert image == "headrace" or re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", image), image
    assert any("build" in own for own in ours().values())


@every_service
def test_what_is_mounted_is_there(name: str) -> None:
    """Each mount is a folder of the repository, read-only, or a volume of the file."""
    for mount in services()[name].get("volumes", []):
        source, _, rest = mount.partition(":")
        if source.startswith("."):
            assert (ROOT / source).is_dir()
            assert rest.endswith(":ro")
        else:
            assert source in compose()["volumes"]


def test_no_volume_is_left_over() -> None:
    """Each volume is some service's."""
    mounts = [mount for own in services().values() for mount in own.get("volumes", [])]
    used = {mount.partition(":")[0] for mount in mounts}
    assert set(compose()["volumes"]) == {name for name in used if not name.startswith(".")}


@every_service
def test_what_it_waits_for_is_there(name: str) -> None:
    """A service waits for others of its profile or of none, and for health that they show."""
    own = services()[name]
    waits = own.get("depends_on", {})
    for other in waits:
        awaited = services()[other]
        assert set(awaited.get("profiles", [])) <= set(own.get("profiles", []))
        if isinstance(waits, dict) and waits[other]["condition"] == "service_healthy":
            assert "healthcheck" in awaited
        if (
            isinstance(waits, dict)
            and waits[other]["condition"] == "service_completed_successfully"
        ):
            # What is always started again never completes.
            assert "restart" not in awaited


@every_service
def test_ports_are_this_machines(name: str) -> None:
    """Nothing is open to the network, and each port is one on which something listens."""
    own = services()[name]
    for published in own.get("ports", []):
        address, outer, inner = published.split(":")
        assert address == "127.0.0.1"
        assert outer == inner
        assert int(inner) in listening(name, own)


def listening(name: str, own: Service) -> set[int]:
    """The ports on which a service listens for the host."""
    if name == "kafka":
        [advertised] = [
            one
            for one in own["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
            if one.startswith("OUTSIDE")
        ]
        return {int(advertised.rpartition(":")[2])}
    if name in HTTP_PORTS:
        return {HTTP_PORTS[name]}
    settings = settings_of(own)
    return {settings.serve.port, int(settings.metrics.address.rpartition(":")[2])}


@pytest.mark.parametrize("name", ours())
def test_settings_are_valid(name: str) -> None:
    """The environment of each of our services is settings, and names Kafka's inner listener."""
    kafka = services()["kafka"]["environment"]
    servers = settings_of(ours()[name]).kafka.bootstrap_servers
    assert f"INSIDE://{servers}" in kafka["KAFKA_ADVERTISED_LISTENERS"].split(",")


def test_commands_are_there() -> None:
    """The flow is one of ours, and the store is where it looks for it."""
    command = services()["flow"]["command"]
    assert (ROOT / (command[0].replace(".", "/") + ".py")).exists()
    store = command[command.index("-r") + 1]
    assert f"bytewax.recovery {store} " in services()["recovery"]["command"][0]
    [volume] = services()["flow"]["volumes"]
    assert Path(store).is_relative_to(volume.rpartition(":")[2])


def test_the_flow_has_time_and_memory() -> None:
    """It has the minute that the docs ask for, and the memory that the alert goes by."""
    flow = services()["flow"]
    assert flow["stop_grace_period"] == "60s"
    assert bytes_of(flow["mem_limit"]) == memory_limit()


def test_services_see_the_flow() -> None:
    """The page reads the flow's metrics by its name and port, and a key is asked for."""
    settings = settings_of(services()["serve"])
    port = settings_of(services()["flow"]).metrics.address.rpartition(":")[2]
    assert settings.serve.flow_metrics == (f"http://flow:{port}/metrics",)
    assert settings.auth.required


def test_prometheus_reads_what_runs() -> None:
    """Its file and rules are mounted, and its targets are services and ports of ours."""
    own = services()["prometheus"]
    [folder] = [mount for mount in own["volumes"] if mount.startswith("./deploy/prometheus:")]
    inside = folder.split(":")[1]
    [named] = [part for part in own["command"] if part.startswith("--config.file=")]
    path = Path(named.partition("=")[2])
    assert path.parent == Path(inside)
    [config] = documents(PROMETHEUS / path.name)
    assert all((PROMETHEUS / name).exists() for name in config["rule_files"])
    flow, serve = config["scrape_configs"]
    [target] = flow["static_configs"][0]["targets"]
    address = settings_of(services()["flow"]).metrics.address
    assert target == f"flow:{address.rpartition(':')[2]}"
    [found] = serve["dns_sd_configs"]
    assert found["names"] == ["serve"]
    assert found["port"] == settings_of(services()["serve"]).serve.port


def test_grafana_has_dashboard_and_datasource() -> None:
    """It asks Compose's Prometheus and finds the dashboard where its files say."""
    own = services()["grafana"]
    mounts = dict(mount.split(":")[1::-1] for mount in own["volumes"])
    home = Path(own["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    board = ROOT / mounts[str(home.parent)] / home.name
    assert json.loads(board.read_text())["title"] == "Headrace"
    provisioning = ROOT / mounts["/etc/grafana/provisioning"]
    [provider] = documents(provisioning / "dashboards" / "headrace.yml")[0]["providers"]
    assert provider["options"]["path"] == str(home.parent)
    [source] = documents(provisioning / "datasources" / "prometheus.yml")[0]["datasources"]
    assert source["url"] == f"http://prometheus:{HTTP_PORTS['prometheus']}"
    assert own["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_the_image_has_all_packages() -> None:
    """What the wheel is built of is not kept from Docker."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    let_in = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert packages <= let_in
    assert {"pyproject.toml", "uv.lock", project["project"]["readme"], "LICENSE"} <= let_in
