import subprocess
import sys
import time

from benchmarks.usage import cpu_of, growth, peak_mib, threads_of

SPEND = "import time\nheld = b'x' * (80 << 20)\nwhile time.process_time() < 0.3: pass\ndel held\n"
CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {SPEND!r}])\ninput()"


def test_what_was_used_stays_counted() -> None:
    """CPU time holds that of a child that has ended; the peak, what was given back long ago."""
    with (
        subprocess.Popen((sys.executable, "-c", SPEND + "input()"), stdin=subprocess.PIPE) as alone,
        subprocess.Popen((sys.executable, "-c", CHILD), stdin=subprocess.PIPE) as parent,
    ):
        while min(cpu_of([alone.pid]), cpu_of([parent.pid])) < 0.25:
            time.sleep(0.02)
        assert cpu_of([alone.pid, parent.pid]) >= 0.5
        assert peak_mib([alone.pid]) > 80
        assert "main" in threads_of([alone.pid])
        for one in (alone, parent):
            one.communicate(b"\n")


def test_what_has_ended_uses_nothing() -> None:
    """A process that is no more counts for nothing, and is no error."""
    with subprocess.Popen((sys.executable, "-c", "")) as ended:
        ended.wait()
    assert cpu_of([ended.pid]) == peak_mib([ended.pid]) == 0
    assert threads_of([ended.pid]) == {}
    assert peak_mib([]) == 0


def test_growth_leaves_out_what_stands_still() -> None:
    """New numbers count whole, equal ones not at all, and what is gone is no loss."""
    assert growth({"a": 3.0, "b": 1.0, "c": 2.0}, {"a": 1.0, "b": 1.0, "d": 9.0}) == {
        "a": 2.0,
        "c": 2.0,
    }
