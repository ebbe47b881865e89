"""The manifests: as Kubernetes wants them, and fitting each other and the settings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import kubernetes_validate
import pytest
import yaml

from flows.settings import load
from harness.process import ROOT
from recovery.store import Launch
from tests.deploy.files import DEPLOY, PROMETHEUS, bytes_of, documents, memory_limit
from tests.test_docs import commands

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flows.settings import Settings

BASE: Final = DEPLOY / "kubernetes" / "base"
OBJECT_STORE: Final = DEPLOY / "kubernetes" / "object-store"
SECRETS: Final = "/etc/headrace/secrets"
VERSIONS: Final = ("1.30", kubernetes_validate.latest_version())
"""The oldest Kubernetes that the manifests are for, and the newest that is known."""

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """What makes pods, and the other manifests beside it."""

    manifest: Manifest
    beside: list[Manifest]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def pod(self) -> Any:
        """What its pods are."""
        return self.manifest["spec"]["template"]["spec"]

    @property
    def labels(self) -> Any:
        """Its pods' labels."""
        return self.manifest["spec"]["template"]["metadata"]["labels"]

    @property
    def main(self) -> Any:
        """The container that does the work."""
        [container] = self.pod["containers"]
        return container

    @property
    def containers(self) -> list[Any]:
        """All containers."""
        return [*self.pod.get("initContainers", []), self.main]

    @property
    def ports(self) -> dict[str, int]:
        """The main container's ports, by name."""
        return {port["name"]: port["containerPort"] for port in self.main.get("ports", [])}

    @cached_property
    def config(self) -> dict[str, str]:
        """The environment that config maps give the main container."""
        found: dict[str, str] = {}
        for source in self.main.get("envFrom", []):
            if "configMapRef" in source:
                name = source["configMapRef"]["name"]
                found |= named(self.beside, "ConfigMap", name)["data"]
        return found

    def writable(self, container: Any) -> list[str]:
        """Where a container can write."""
        mounts = container.get("volumeMounts", [])
        return [mount["mountPath"] for mount in mounts if not mount.get("readOnly")]

    def selected_by(self, selector: Mapping[str, str]) -> bool:
        """Whether a selector finds its pods."""
        return dict(selector).items() <= dict(self.labels).items()


def manifests_of(files: Iterator[Path] | list[Path]) -> list[Manifest]:
    """All documents of some files."""
    return [one for path in files for one in documents(path)]


def base() -> list[Manifest]:
    """What `kubectl apply -k deploy/kubernetes/base` makes, before kustomize's own changes."""
    [kustomization] = documents(BASE / "kustomization.yaml")
    return manifests_of([BASE / name for name in kustomization["resources"]])


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one of that kind and name."""
    [found] = [one for one in manifests if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def workload(kind: str, name: str, manifests: list[Manifest] | None = None) -> Workload:
    """The workload of that kind and name."""
    manifests = base() if manifests is None else manifests
    return Workload(named(manifests, kind, name), manifests)


def workloads() -> list[Workload]:
    """All workloads."""
    kinds = {"StatefulSet", "Deployment", "Job"}
    return [Workload(one, base()) for one in base() if one["kind"] in kinds]


def built(folder: Path) -> list[Manifest]:
    """What kustomize makes of a folder."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which has kustomize in it, is missing")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def settings_of(own: Workload, folder: Path) -> Settings:
    """The settings that its main container runs with, the secrets' files in a folder."""
    for name in secret_files(own):
        (folder / name).write_text("x" * 32)
    environment = {name: value.replace(SECRETS, str(folder)) for name, value in own.config.items()}
    return load(environment, folder)


def secret_files(own: Workload) -> dict[str, str]:
    """The files that its pods have of the Secret, each with its key there."""
    found: dict[str, str] = {}
    for volume in own.pod["volumes"]:
        if "secret" in volume:
            assert volume["secret"]["secretName"] == "headrace"
            found |= {item["path"]: item["key"] for item in volume["secret"]["items"]}
    return found


every_workload = pytest.mark.parametrize("own", workloads(), ids=lambda own: own.name)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", base(), ids=lambda one: one["kind"] + one["metadata"]["name"])
def test_manifests_are_valid(manifest: Manifest, version: str) -> None:
    """Each fits Kubernetes' schema, with no field that it does not know."""
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("folder", [BASE, OBJECT_STORE], ids=lambda folder: folder.name)
def test_what_kustomize_makes_is_valid(folder: Path) -> None:
    """All is in one namespace, has the image's version, and fits the schema."""
    for one in built(folder):
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
        own = one["metadata"]
        assert own.get("namespace", own["name"]) == "headrace"
        images = re.findall(r'"image": "([^"]*)"', json.dumps(one))
        assert all(re.fullmatch(r"headrace:\d+\.\d+\.\d+", image) for image in images), images


def test_no_manifest_is_left_out() -> None:
    """The kustomization names every file."""
    [kustomization] = documents(BASE / "kustomization.yaml")
    assert set(kustomization["resources"]) == {
        path.name for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml"
    }


def test_the_image_is_of_this_version() -> None:
    """The tag is the version of the package."""
    [kustomization] = documents(BASE / "kustomization.yaml")
    [image] = kustomization["images"]
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert image == {"name": "headrace", "newTag": version[1]}


@every_workload
def test_settings_are_valid(own: Workload, tmp_path: Path) -> None:
    """Every key of the config maps is a setting or Bytewax's, and together they can be."""
    settings = settings_of(own, tmp_path)
    assert settings.kafka.client["security.protocol"] == "SASL_SSL"
    assert settings.kafka.client["sasl.password"] == "x" * 32
    ours = {name for name in own.config if not name.startswith("HEADRACE_")}
    assert ours <= {
        "BYTEWAX_ADDRESSES",
        "BYTEWAX_RECOVERY_BACKUP_INTERVAL",
        "BYTEWAX_RECOVERY_DIRECTORY",
        "BYTEWAX_SNAPSHOT_INTERVAL",
        "BYTEWAX_STATEFULSET_NAME",
    }


@every_workload
def test_secrets_are_files(own: Workload) -> None:
    """Each file that a setting names is one of the Secret, mounted there; none is there in vain."""
    named_files = {
        value.removeprefix(f"{SECRETS}/")
        for value in own.config.values()
        if value.startswith(SECRETS)
    }
    assert named_files == set(secret_files(own))
    [mount] = [one for one in own.main["volumeMounts"] if one["mountPath"] == SECRETS]
    assert mount["readOnly"]


def test_the_docs_make_the_secret() -> None:
    """The command in the docs makes all keys of the Secret that pods take."""
    told = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    made = set(re.findall(r"--from-(?:literal|file)=([\w.-]+)=", told))
    assert made == {key for own in workloads() for key in secret_files(own).values()}


@every_workload
def test_volumes_are_there(own: Workload) -> None:
    """Each mount has its volume, each volume a mount, and each claim its manifest."""
    volumes = {volume["name"]: volume for volume in own.pod["volumes"]}
    mounted = {mount["name"] for one in own.containers for mount in one["volumeMounts"]}
    assert mounted == set(volumes)
    for volume in volumes.values():
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            found = named(own.beside, "PersistentVolumeClaim", claim)
            # Pods of several nodes have it.
            assert found["spec"]["accessModes"] == ["ReadWriteMany"]


@every_workload
def test_what_is_written_has_a_volume(own: Workload, tmp_path: Path) -> None:
    """The image is read-only, so tables, models, snapshots and temporary files lie in volumes."""
    places = own.writable(own.main)
    assert "/tmp" in places  # noqa: S108 - a path in the container
    if own.name == "headrace-topics":
        return
    assert model_cache() in places
    if own.name == "headrace-flow":
        table = settings_of(own, tmp_path).table.uri
        for path in (table, own.config["BYTEWAX_RECOVERY_DIRECTORY"]):
            assert any(Path(path).is_relative_to(place) for place in places)


def model_cache() -> str:
    """Where the image has its models."""
    found = re.search(r"HEADRACE_MODEL__CACHE=(\S+) \\\n    HEADRACE_TABLE", dockerfile())
    assert found is not None
    return found[1]


def dockerfile() -> str:
    """How the image is made."""
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


@every_workload
def test_pods_may_do_little(own: Workload) -> None:
    """Each fits the Pod Security Standard `restricted` and cannot write to its own image."""
    context = own.pod["securityContext"]
    assert context["runAsNonRoot"]
    assert f"--uid {context['runAsUser']} " in dockerfile()
    assert context["fsGroup"] == context["runAsUser"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own.pod["automountServiceAccountToken"] is False
    for one in own.containers:
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert bytes_of(one["resources"]["requests"]["memory"]) > 0
        assert bytes_of(one["resources"]["limits"]["memory"]) > 0
    namespace = named(own.beside, "Namespace", "headrace")["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize(
    "own",
    [one for one in workloads() if one.manifest["kind"] != "Job"],
    ids=lambda own: own.name,
)
def test_names_and_ports_fit(own: Workload) -> None:
    """Service, budget and probes find the pods and their ports."""
    service = named(own.beside, "Service", own.name)["spec"]
    assert own.selected_by(service["selector"])
    assert {port["targetPort"] for port in service["ports"]} <= set(own.ports)
    budget = named(own.beside, "PodDisruptionBudget", own.name)["spec"]
    assert own.selected_by(budget["selector"]["matchLabels"])
    assert own.selected_by(own.manifest["spec"]["selector"]["matchLabels"])
    for probe, path in (("startup", "live"), ("liveness", "live"), ("readiness", "ready")):
        asked = own.main[f"{probe}Probe"]["httpGet"]
        assert asked["path"] == f"/health/{path}"
        assert asked["port"] in own.ports


def test_services_listen_on_their_port(tmp_path: Path) -> None:
    """The services' port is that of the settings, for which they need a key; the end has time."""
    own = workload("Deployment", "headrace-serve")
    settings = settings_of(own, tmp_path)
    assert own.ports == {"http": settings.serve.port}
    assert settings.auth.required
    assert own.main["command"][:2] == ["headrace", "serve"]
    pause = int(own.main["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = own.pod["terminationGracePeriodSeconds"]
    assert grace >= 2 * settings.serve.delivery_timeout_s + pause
    [data] = [one for one in own.main["volumeMounts"] if one["name"] == "data"]
    assert data["readOnly"]
    assert settings.table.uri.startswith(data["mountPath"])


def test_processes_find_each_other() -> None:
    """The addresses are those of all pods, in order, by names that the headless service gives."""
    own = workload("StatefulSet", "headrace-flow")
    spec = own.manifest["spec"]
    service = named(own.beside, "Service", spec["serviceName"])["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "OnDelete"}
    hosts = [f"{own.name}-{number}.{spec['serviceName']}" for number in range(spec["replicas"])]
    addresses = own.config["BYTEWAX_ADDRESSES"].split(";")
    assert addresses == [f"{host}:{own.ports['bytewax']}" for host in hosts]
    assert own.config["BYTEWAX_STATEFULSET_NAME"] == own.name
    urls = workload("Deployment", "headrace-serve").config["HEADRACE_SERVE__FLOW_METRICS"]
    port = own.ports["metrics"]
    assert urls.split(",") == [f"http://{host}:{port}/metrics" for host in hosts]


@pytest.mark.parametrize("number", [0, 1, 12])
def test_a_pod_starts_its_process(number: int, tmp_path: Path) -> None:
    """Run by a real shell, each pod's command has its process number, and all have one port."""
    own = workload("StatefulSet", "headrace-flow")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nenv > env; printf "%s\\n" "$@" > arguments\n')
    python.chmod(0o755)
    [pod_name] = own.main["env"]
    assert pod_name["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    given = own.config | {pod_name["name"]: f"{own.name}-{number}"}
    path = f"{tmp_path}:{os.environ['PATH']}"
    command = [*own.main["command"], *own.main["args"]]
    subprocess.run(command, cwd=tmp_path, env={**given, "PATH": path}, check=True, timeout=30)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments == ["-m", "bytewax.run", "flows.embed"]
    environment = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    launch = Launch.parse(["bytewax/run.py", *arguments[2:]], environment)
    assert launch.process == number
    assert str(launch.recovery) == "/data/recovery"
    # Only what this test says of the port: the secrets' files are no part of it.
    ours = {"HEADRACE_METRICS__ADDRESS": environment["HEADRACE_METRICS__ADDRESS"]}
    host, _, port = load(ours, tmp_path).metrics.address.rpartition(":")
    assert (host, int(port) + launch.process) == ("0.0.0.0", own.ports["metrics"])  # noqa: S104


def test_only_processes_reach_each_other() -> None:
    """Bytewax's port is open to the flow's own pods alone, the metrics' to all."""
    own = workload("StatefulSet", "headrace-flow")
    policy = named(own.beside, "NetworkPolicy", own.name)["spec"]
    assert own.selected_by(policy["podSelector"]["matchLabels"])
    inner, outer = policy["ingress"]
    assert own.selected_by(inner["from"][0]["podSelector"]["matchLabels"])
    assert [port["port"] for port in inner["ports"]] == ["bytewax"]
    assert "from" not in outer
    assert [port["port"] for port in outer["ports"]] == ["metrics"]


def test_the_flow_has_time_and_memory() -> None:
    """It has the minute that the docs ask for, and the memory that the alert goes by."""
    own = workload("StatefulSet", "headrace-flow")
    told = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert "Allow it a minute" in told
    assert own.pod["terminationGracePeriodSeconds"] >= 60
    assert bytes_of(own.main["resources"]["limits"]["memory"]) == memory_limit()


def test_topics_and_store_are_enough_for_the_flow() -> None:
    """There are partitions for every worker, made by commands that there are."""
    flow, own = workload("StatefulSet", "headrace-flow"), workload("Job", "headrace-topics")
    replicas = flow.manifest["spec"]["replicas"]
    assert own.main["command"] == ["headrace", "topics", "create"]
    arguments = own.main["args"]
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert set(given) <= commands()["headrace topics create"]
    assert int(given["--partitions"]) % replicas == 0
    assert int(given["--partitions"]) >= 4 * replicas
    [recovery] = own.pod["initContainers"]
    made = re.search(r"bytewax\.recovery (\S+) (\d+)$", recovery["args"][0])
    assert made is not None
    assert made[1] == flow.config["BYTEWAX_RECOVERY_DIRECTORY"]
    assert int(made[2]) >= replicas


def test_the_store_is_made_once(tmp_path: Path) -> None:
    """Run by a real shell, the job makes the recovery store, and leaves one that is there alone."""
    [recovery] = workload("Job", "headrace-topics").pod["initContainers"]
    command = [*recovery["command"], recovery["args"][0].replace("/data", str(tmp_path))]
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"

    def made() -> dict[str, int]:
        subprocess.run(command, env={"PATH": path}, check=True, timeout=60, capture_output=True)
        return {part.name: part.stat().st_mtime_ns for part in tmp_path.glob("recovery/*.sqlite3")}

    first = made()
    assert len(first) == 16
    assert made() == first


def test_an_object_store_needs_no_claim(tmp_path: Path) -> None:
    """With the table in an object store nothing is shared, and all pods name the same table."""
    manifests = built(OBJECT_STORE)
    kinds = {one["kind"] for one in manifests}
    assert "PersistentVolumeClaim" not in kinds
    uris = set()
    for kind, name in (("StatefulSet", "headrace-flow"), ("Deployment", "headrace-serve")):
        own = workload(kind, name, manifests)
        assert "/data" not in own.writable(own.main)
        assert {"secretRef": {"name": "headrace-object-store"}} in own.main["envFrom"]
        assert "BYTEWAX_RECOVERY_DIRECTORY" not in own.config
        uris.add(settings_of(own, tmp_path).table.uri)
        test_volumes_are_there(own)
    assert uris == {"s3://headrace/tables"}
    test_volumes_are_there(workload("Job", "headrace-topics", manifests))


def test_prometheus_finds_the_pods() -> None:
    """What Prometheus goes by in a cluster are the pods' own labels and ports' names."""
    [config] = documents(PROMETHEUS / "kubernetes.yml")
    [job] = config["scrape_configs"]
    flow, serve = workload("StatefulSet", "headrace-flow"), workload("Deployment", "headrace-serve")
    [discovery] = job["kubernetes_sd_configs"]
    assert discovery["namespaces"]["names"] == ["headrace"]
    kept = job["relabel_configs"][0]["regex"]
    jobs = {
        rule["regex"]: rule["replacement"]
        for rule in job["relabel_configs"]
        if rule.get("target_label") == "job"
    }
    for own, port, name in ((flow, "metrics", "headrace"), (serve, "http", "headrace-serve")):
        assert port in own.ports
        label = own.labels["app.kubernetes.io/name"]
        assert re.fullmatch(kept, f"{label};{port}")
        assert jobs[own.labels["app.kubernetes.io/component"]] == name
    assert not re.fullmatch(kept, "headrace;bytewax")
