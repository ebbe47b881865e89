from __future__ import annotations

import pytest

from harness import postgres
from harness.postgres import Postgres, programs
from harness.process import HarnessError


@pytest.mark.skipif(programs() is None, reason="no PostgreSQL on PATH or where Debian has it")
def test_a_database_that_can_be_followed() -> None:
    """It runs statements, finds rows, says what fails, and logs what Debezium needs."""
    with Postgres() as server:
        server.run("CREATE TABLE t (id int, text text)", "INSERT INTO t VALUES (1, 'it''s; 世界')")
        assert server.rows("SELECT * FROM t") == [{"id": 1, "text": "it's; 世界"}]
        assert server.rows("SELECT current_setting('wal_level') AS now") == [{"now": "logical"}]
        with pytest.raises(HarnessError, match='relation "nothing" does not exist'):
            server.run("DELETE FROM nothing")
        folder = server._folder
        assert folder.exists()
    assert not folder.exists()


def test_a_missing_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install, and nothing is left behind."""
    monkeypatch.setattr(postgres, "programs", lambda: None)
    server = Postgres()
    with pytest.raises(HarnessError, match="install your system's PostgreSQL"), server:
        pass
    assert not server._folder.exists()
