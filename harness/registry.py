"""A real schema registry on this machine: Apicurio, which speaks Confluent's API.

Its 142 MB are fetched from Maven Central the first time that it is started. Listens on the loopback
address only, and keeps its schemas in a folder, so that it can be killed and brought back.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.error import URLError
from urllib.request import urlopen

from filelock import FileLock

from harness.process import HOST, ROOT, Child, HarnessError, bare_environment, free_port, java, tail

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["INSTALLED", "Registry", "install"]

INSTALLED: Final = ROOT / "build" / "registry"
JAVA_OPTS: Final = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

_POM: Final = ROOT / "deploy" / "registry" / "pom.xml"
_START_S: Final = 60.0
_STOP_S: Final = 20.0


class Registry:
    """A registry that can be killed, paused and brought back on the same port with its schemas.

    As a context manager it is started on entry, stopped on exit. It never outlives the process that
    started it.
    """

    def __init__(self, folder: Path | None = None, java_opts: Sequence[str] = JAVA_OPTS) -> None:
        """Names what to run where; nothing starts before `start`.

        Args:
            folder: Where schemas and log go, kept afterwards. None: a temporary one.
            java_opts: Options of the JVM.
        """
        self._temporary = folder is None
        self.folder = (folder or Path(tempfile.mkdtemp(prefix="headrace-registry-"))).resolve()
        self.port = free_port()
        self.log = self.folder / "registry.log"
        self._java_opts = tuple(java_opts)
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """Where Confluent's clients find it."""
        return f"http://{HOST}:{self.port}/apis/ccompat/v7"

    def start(self, timeout_s: float = _START_S) -> Self:
        """Starts it and waits until it answers.

        Raises:
            HarnessError: It can't be fetched, Java is missing, or it does not answer.
        """
        install()
        self._child = Child(self._command(), log=self.log, environment=self._environment())
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if not self._child.alive or time.monotonic() > deadline:
                self.kill()
                raise HarnessError(f"registry on port {self.port}: {tail(self.log, 3)}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Ends it in good order, by force if that takes too long."""
        if self._child is not None:
            self._child.terminate(_STOP_S)

    def kill(self) -> None:
        """Ends it by -9."""
        if self._child is not None:
            self._child.kill()

    def pause(self) -> None:
        """Makes it hang, with all its connections open, until `resume`."""
        assert self._child is not None
        self._child.pause()

    def resume(self) -> None:
        """Lets it go on after `pause`."""
        assert self._child is not None
        self._child.resume()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _command(self) -> list[str | Path]:
        command: list[str | Path] = [java(), *self._java_opts, f"-Dquarkus.http.host={HOST}"]
        [jar] = INSTALLED.glob("*-runner.jar")
        return [*command, "-jar", jar]

    def _environment(self) -> dict[str, str]:
        return {
            **bare_environment(),
            "HTTP_PORT": str(self.port),
            # Each change is on disk when it is answered, whatever ends the process.
            "REGISTRY_DATASOURCE_URL": f"jdbc:h2:file:{self.folder / 'schemas'};WRITE_DELAY=0",
        }

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/subjects", timeout=2) as answer:  # noqa: S310 - loopback
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


def install() -> None:
    """Fetch the registry, unless it is there.

    Raises:
        HarnessError: Maven is missing, or can't fetch it.
    """
    INSTALLED.parent.mkdir(exist_ok=True)
    with FileLock(INSTALLED.with_suffix(".lock")):
        if any(INSTALLED.glob("*-runner.jar")):
            return
        maven = shutil.which("mvn")
        if maven is None:
            raise HarnessError("mvn: not found on PATH; install Maven")
        command = [maven, "--quiet", "--batch-mode", "-f", str(_POM), "package"]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if told.returncode:
            lines = [line for line in told.stdout.splitlines() if line.strip()]
            raise HarnessError(f"{_POM}: {lines[0] if lines else 'not fetched'}")
