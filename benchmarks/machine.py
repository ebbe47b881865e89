"""What the figures were measured on, and how quiet it was."""

from __future__ import annotations

import platform
import resource
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
from confluent_kafka import libversion

from harness.broker import JARS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Quiet", "facts"]

_PACKAGES: Final = (
    *("headrace", "bytewax", "confluent-kafka", "lancedb", "pylance", "onnxruntime", "openvino"),
    *("tokenizers", "numpy", "pyarrow"),
)
_ABILITIES: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def facts() -> dict[str, Any]:
    """The processor, the system and the versions of what was run."""
    processor, abilities = _processor()
    return {
        "processor": processor,
        "abilities": abilities,
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": dict(_versions()),
    }


class Quiet:
    """How much of the machine others used since this was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = _used()

    def figures(self) -> dict[str, float]:
        """Cores that others used, and that the machine's own host withheld.

        To be asked when all that this process started has ended: only then are its children's
        CPU-seconds known.
        """
        took = time.monotonic() - self._began
        busy, stolen, own = (now - then for now, then in zip(_used(), self._before, strict=True))
        return {
            "seconds": took,
            "cores_of_others": max(0.0, busy - own) / took,
            "cores_stolen": stolen / took,
        }


def _used() -> tuple[float, float, float]:
    """CPU-seconds so far: of all programs, withheld by the host, of this one and its children."""
    times = psutil.cpu_times()
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return (
        times.user + times.nice + times.system,
        getattr(times, "steal", 0.0),
        sum(one.ru_utime + one.ru_stime for one in own),
    )


def _processor() -> tuple[str, list[str]]:
    """The processor's model and which of the abilities that matter here it has."""
    lines: dict[str, str] = {}
    if (info := Path("/proc/cpuinfo")).exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            lines.setdefault(name.strip(), value.strip())
    flags = lines.get("flags", lines.get("Features", "")).split()
    model = lines.get("model name") or platform.processor() or platform.machine()
    return model, [flag for flag in _ABILITIES if flag in flags]


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "none"
    yield "librdkafka", libversion()[0]
    yield from (("kafka", jar.stem.rpartition("-")[2]) for jar in JARS.glob("kafka_*.jar"))
