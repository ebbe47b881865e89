"""The bill of materials has what is locked, and what is locked is pinned."""

from __future__ import annotations

import json
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

from harness.process import ROOT

if TYPE_CHECKING:
    from pathlib import Path

Package = dict[str, Any]


def locked() -> list[Package]:
    """The packages of uv.lock; several versions of one are for several platforms."""
    packages: list[Package] = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
    return packages


def runtime() -> set[tuple[str, str]]:
    """What the image installs, whatever the platform: the dependencies, and two extras."""
    packages = locked()
    found: set[tuple[str, str]] = set()
    seen: set[str] = set()
    waiting: list[Package] = [{"name": "headrace", "extra": ["openvino", "registry"]}]
    while waiting:
        wanted = waiting.pop()
        asked = json.dumps([wanted["name"], wanted.get("version"), wanted.get("extra")])
        if asked in seen:
            continue
        seen.add(asked)
        for package in packages:
            version = wanted.get("version", package["version"])
            if (package["name"], package["version"]) != (wanted["name"], version):
                continue
            found.add((package["name"], package["version"]))
            waiting += package.get("dependencies", [])
            for extra in wanted.get("extra", ()):
                waiting += package.get("optional-dependencies", {}).get(extra, [])
    return {(name, version) for name, version in found if name != "headrace"}


def test_the_bill_has_every_package_that_runs(tmp_path: Path) -> None:
    """The bill names each locked package that runs, by version and hashes, and no other."""
    path = tmp_path / "sbom.json"
    subprocess.run(["make", "bill", f"SBOM={path}"], cwd=ROOT, check=True, timeout=250)
    bill = json.loads(path.read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    listed = {(one["name"], one["version"]): one for one in bill["components"]}
    assert set(listed) == runtime()
    assert len(listed) > 50
    for (name, version), component in listed.items():
        assert component["purl"] == f"pkg:pypi/{name}@{version}"
        files = component["externalReferences"]
        assert all(file["hashes"][0]["alg"] == "SHA-256" for file in files)


def test_what_is_locked_is_pinned_by_hashes() -> None:
    """Each package comes from the index, in files whose hashes are locked, but our own."""
    [own] = [package for package in locked() if package["name"] == "headrace"]
    assert own["source"] == {"editable": "."}
    for package in locked():
        if package == own:
            continue
        name = package["name"]
        assert set(package["source"]) == {"registry"}, name
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        assert files, name
        assert all(file["hash"].startswith("sha256:") for file in files), name


def test_the_image_installs_what_is_locked() -> None:
    """The Dockerfile takes no other versions than those of uv.lock, and uv itself in one."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    synced = [line for line in text.splitlines() if "uv sync" in line]
    assert synced
    assert all("--frozen" in line for line in synced)
    assert "pip install --no-cache-dir uv==" in text
