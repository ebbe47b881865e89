"""Where everything of the demo lies, and on which ports it listens."""

from __future__ import annotations

import fcntl
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from harness.process import HOST, ROOT, HarnessError, free_port, is_free
from headrace.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TABLE", "Place", "typed"]

TABLE: Final = "documents"
KAFKA_PORT: Final = 9092
METRICS_PORT: Final = 9464
HTTP_PORT: Final = 8080
FIRST_LINE: Final = "# Written by make demo, which empties this folder whenever it starts.\n"


@dataclass(frozen=True)
class Place:
    """Where everything of the demo lies, and on which ports it listens.

    Attributes:
        folder: The folder.
        kafka_port: Of the broker.
        metrics_port: Of the flow's metrics.
        http_port: Of the services.
    """

    folder: Path
    kafka_port: int
    metrics_port: int
    http_port: int

    @classmethod
    def at(cls, folder: Path) -> Self:
        """A folder, and the usual ports where they are free."""
        return cls(folder.resolve(), _free(KAFKA_PORT), _free(METRICS_PORT), _free(HTTP_PORT))

    @property
    def servers(self) -> str:
        """The broker's address."""
        return f"{HOST}:{self.kafka_port}"

    @property
    def page(self) -> str:
        """The address of the services and their page."""
        return f"http://{HOST}:{self.http_port}"

    @property
    def config(self) -> Path:
        """The settings of the flow and of all commands."""
        return self.folder / "headrace.toml"

    @property
    def tables(self) -> str:
        """Where LanceDB keeps its tables."""
        return str(self.folder / "lancedb")

    def shown(self, name: str = "") -> str:
        """A path in the folder, as one would type it in the repository's root."""
        return typed(self.folder / name)

    def clear(self) -> bool:
        """Empty the folder of an earlier demo, and write the settings of this one.

        Returns:
            Whether there was one.

        Raises:
            HeadraceError: It holds other things, or a Kafka still runs on it.
        """
        found = self.folder.exists() and any(self.folder.iterdir())
        if found:
            self._check_ours()
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(self._settings())
        return found

    def _check_ours(self) -> None:
        if not self.config.exists() or not self.config.read_text().startswith(FIRST_LINE):
            raise UsageError(f"--data: {self.folder}: holds something else; name another folder")
        lock = self.folder / "kafka" / "data" / ".lock"  # Kafka's own
        if lock.exists():
            with lock.open("r+") as held:
                try:
                    fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise HarnessError(
                        f"--data: {self.folder}: a Kafka runs on it; stop it, or name another"
                    ) from None

    def _settings(self) -> str:
        columns = '{ package = "string", module = "string", kind = "string" }'
        return (
            f"{FIRST_LINE}"
            f'[kafka]\nbootstrap_servers = "{self.servers}"\n'
            f"[table]\nuri = {json.dumps(self.shown('lancedb'))}\ncolumns = {columns}\n"
            f'[metrics]\naddress = "{HOST}:{self.metrics_port}"\n'
        )


def typed(path: Path) -> str:
    """A path as one would type it in the repository's root."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _free(preferred: int) -> int:
    return preferred if is_free(preferred) else free_port()
