from pathlib import Path

import pytest

from harness.flow import Flow, Supervised
from harness.process import HarnessError

from .test_process import gone, wait_until

TOY = "tests.harness.toy"


def toy(tmp_path: Path, *, processes: int = 1, recovery: Path | None = None) -> Flow:
    """The flow of `toy.py`, not started."""
    return Flow(
        {"HEADRACE_GIVEN": "yes"},
        processes=processes,
        recovery=recovery,
        log=tmp_path / "flow.log",
        flow=TOY,
    )


def test_only_given_settings_reach_the_flow(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Settings of whoever runs the tests stay out."""
    monkeypatch.setenv("HEADRACE_STRAY", "yes")
    with toy(tmp_path) as flow:
        wait_until(lambda: "HEADRACE_GIVEN=yes" in flow.log_text(), 30)
    assert "HEADRACE_STRAY" not in flow.log_text()


def test_makes_the_recovery_store(tmp_path: Path) -> None:
    """A missing recovery folder is made, and an existing one is used again after a kill."""
    with toy(tmp_path, recovery=tmp_path / "recovery") as flow:
        wait_until(lambda: flow.log_text().count("GIVEN") == 1, 30)
        assert flow.kill() == [-9]
        assert len(list((tmp_path / "recovery").glob("*.sqlite3"))) == 4
        flow.start()
        wait_until(lambda: flow.log_text().count("GIVEN") == 2, 30)


def test_a_cluster_is_one_flow(tmp_path: Path) -> None:
    """One process killed ends the flow; `kill` ends the others."""
    with toy(tmp_path, processes=2) as flow:
        wait_until(lambda: flow.log_text().count("GIVEN") == 2, 30)
        with pytest.raises(HarnessError, match="already running"):
            flow.start()
        flow.kill(1)
        assert not flow.alive
        flow.kill()
        assert flow.exit_codes[1] == -9
    assert all(gone(pid) for pid in flow.pids)


def test_terminate_reaches_a_paused_cluster(tmp_path: Path) -> None:
    """SIGTERM goes to all processes, hanging ones included."""
    with toy(tmp_path, processes=2) as flow:
        wait_until(lambda: flow.log_text().count("GIVEN") == 2, 30)
        flow.pause(0)
        assert -9 not in flow.terminate(grace_s=20)


def test_supervised_comes_back(tmp_path: Path) -> None:
    """A killed flow is started again and counted, a stopped one is not."""
    with Supervised(toy(tmp_path), delay_s=0) as supervised:
        wait_until(lambda: supervised.log_text().count("GIVEN") == 1, 30)
        supervised.kill()
        wait_until(lambda: supervised.log_text().count("GIVEN") == 2, 30)
        assert supervised.alive
        assert supervised.exits == [[-9]]
    assert supervised.restarts == 1
    assert not supervised.alive
