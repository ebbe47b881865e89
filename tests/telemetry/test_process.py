from __future__ import annotations

import subprocess
import sys
import time

from prometheus_client import CollectorRegistry

from telemetry.process import ProcessMetrics

MIB = 1 << 20


def test_memory_of_worker_and_writers() -> None:
    """Each has its own; a process without children has no writers."""
    registry = CollectorRegistry()
    ProcessMetrics(registry)

    def resident(process: str) -> float | None:
        labels = {"process": process}
        return registry.get_sample_value("headrace_resident_memory_bytes", labels)

    worker = resident("worker")
    assert worker is not None
    assert worker > 10 * MIB
    # The tests' own broker is a child, too.
    before = resident("table_writer") or 0.0
    program = "x = b'x' * (64 << 20); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        writers = resident("table_writer")
        child.kill()
    assert writers is not None
    assert 64 * MIB < writers - before < 200 * MIB


def test_started_when_the_process_did() -> None:
    """Unix time, which stays the same: a change is a restart."""
    registry = CollectorRegistry()
    ProcessMetrics(registry)
    program = (
        "from prometheus_client import CollectorRegistry as R;"
        "from telemetry.process import ProcessMetrics as P;"
        "r = R(); P(r); print(r.get_sample_value('headrace_start_time_seconds'))"
    )
    before = time.time()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert before - 2 < float(done.stdout) < time.time() + 2
    first = registry.get_sample_value("headrace_start_time_seconds")
    assert first == registry.get_sample_value("headrace_start_time_seconds")
    assert first is not None
    assert first < before


def test_cores_since_the_last_look() -> None:
    """Work counts once: in the look behind it, and not in the one after that."""
    program = """
import time
from prometheus_client import CollectorRegistry
from telemetry.process import ProcessMetrics
registry = CollectorRegistry()
began = time.monotonic()
ProcessMetrics(registry)
def spent():
    global began
    cores = registry.get_sample_value("headrace_cpu_utilization")
    before, began = began, time.monotonic()
    return cores * (began - before)
while time.process_time() < 2:
    pass
print(spent())
time.sleep(0.2)
print(spent())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    first, second = map(float, done.stdout.split())
    assert 0.5 < first < 3
    assert 0 <= second < 0.3
