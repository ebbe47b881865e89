from __future__ import annotations

import os
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from recovery.errors import RecoveryError
from recovery.store import IDENTITY_FILE, Launch, StoreIdentity, check_store

RUN = "/venv/site-packages/bytewax/run.py"
FLOW = StoreIdentity(("t/000000", "t/000001"), "some/model", "f1")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An initialised store that is nobody's."""
    init_db_dir(tmp_path, 1)
    return tmp_path


def refused(folder: Path, flow: StoreIdentity = FLOW) -> str:
    """How a store is refused: one line."""
    with pytest.raises(RecoveryError) as told:
        check_store(folder, flow)
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        ([], {}, Launch()),
        (["-r", "/r"], {}, Launch(0, Path("/r"))),
        (["-w", "2", "-r", "/r", "-s", "1", "-b", "0"], {}, Launch(0, Path("/r"), workers=2)),
        ([], {"BYTEWAX_WORKERS_PER_PROCESS": "3"}, Launch(workers=3)),
        (["-w", "2"], {"BYTEWAX_WORKERS_PER_PROCESS": "3"}, Launch(workers=2)),
        (["--recovery-directory", "/r", "-i", "3"], {}, Launch(3, Path("/r"), cluster=True)),
        (["--recovery-directory=/r", "--process-id=2"], {}, Launch(2, Path("/r"), cluster=True)),
        (["-i", "0", "-a", "a:1;b:2"], {}, Launch(0, None, cluster=True)),
        ([], {"BYTEWAX_RECOVERY_DIRECTORY": "/e"}, Launch(0, Path("/e"))),
        (["-r", "/r"], {"BYTEWAX_RECOVERY_DIRECTORY": "/e"}, Launch(0, Path("/r"))),
        ([], {"BYTEWAX_PROCESS_ID": "4"}, Launch(4, None, cluster=True)),
        (["-i", "0"], {"BYTEWAX_PROCESS_ID": "4"}, Launch(0, None, cluster=True)),
        (
            [],
            {"BYTEWAX_POD_NAME": "flow-12", "BYTEWAX_STATEFULSET_NAME": "flow"},
            Launch(12, None, cluster=True),
        ),
    ],
)
def test_launch(arguments: list[str], environ: dict[str, str], expected: Launch) -> None:
    """What Bytewax was told, by arguments before its variables, the flow knows too."""
    assert Launch.parse([RUN, "flows.embed", *arguments], environ) == expected


def test_launch_of_something_else() -> None:
    """Arguments of another program are not Bytewax's, though its variables may be set."""
    arguments = ["/venv/bin/headrace", "-r", "/r", "-i", "5"]
    assert Launch.parse(arguments, {"BYTEWAX_RECOVERY_DIRECTORY": "/e"}) == Launch()


@pytest.mark.parametrize("made", [False, True])
def test_an_uninitialised_store(tmp_path: Path, made: bool) -> None:
    """A missing or empty folder is told with the command that makes a store."""
    folder = tmp_path / "recovery"
    if made:
        folder.mkdir()
    told = refused(folder)
    assert told.startswith(f"-r {folder}: no recovery store")
    assert f"python -m bytewax.recovery {folder} " in told
    assert not (folder / IDENTITY_FILE).exists()


def test_a_store_is_claimed(store: Path) -> None:
    """The first flow puts its name on a store and can start again; another is refused."""
    check_store(store, FLOW)
    check_store(store, FLOW)
    assert StoreIdentity.parse((store / IDENTITY_FILE).read_text()) == FLOW
    assert not [f for f in store.iterdir() if f.suffix not in {".json", ".sqlite3"}]


def test_more_lanes_are_fine(store: Path) -> None:
    """A topic that grew, or a further topic, goes on from the same store, which then knows them."""
    check_store(store, FLOW)
    more = StoreIdentity((*FLOW.lanes, "t/000002", "u/000000"), FLOW.model, FLOW.fingerprint)
    check_store(store, more)
    assert "holds snapshots of t/000002, u/000000" in refused(store)


def test_lanes_that_are_gone(store: Path) -> None:
    """Bytewax would panic over a lane that is gone, so it is told before."""
    check_store(store, FLOW)
    told = refused(store, StoreIdentity(("t/000000",), FLOW.model, FLOW.fingerprint))
    assert told.startswith(f"-r {store}: holds snapshots of t/000001, which source.topics")
    assert f"rm -r {store}" in told


def test_another_model(store: Path) -> None:
    """Snapshots of another model are refused, both named; the store stays as it is."""
    check_store(store, FLOW)
    told = refused(store, StoreIdentity(FLOW.lanes, "other", "f2"))
    assert "some/model (f1)" in told
    assert "other (f2)" in told
    check_store(store, FLOW)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", "{}", '{"lanes": 5}', '{"lanes": [], "x": 1}', "\udcff"],
)
def test_a_corrupted_identity(store: Path, text: str) -> None:
    """An identity that can't be read is told with the command that makes the store anew."""
    (store / IDENTITY_FILE).write_bytes(text.encode(errors="surrogateescape"))
    told = refused(store)
    assert told.startswith(f"-r {store}: can't read {IDENTITY_FILE}")
    assert f"rm -r {store}" in told


def test_an_identity_of_a_later_version(store: Path) -> None:
    """A store of a Headrace to come, whose layout is not known, is refused, not overwritten."""
    later = StoreIdentity(FLOW.lanes, FLOW.model, FLOW.fingerprint, version=99)
    (store / IDENTITY_FILE).write_text(later.json())
    refused(store)


posix_only = pytest.mark.skipif(os.name != "posix", reason="rights as POSIX has them")


@posix_only
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_can_write(store: Path, mode: int) -> None:
    """A folder into which others could put a pickle is refused, with the command that mends it."""
    store.chmod(mode)
    told = refused(store)
    assert "can be written by others" in told
    assert f"chmod -R go-w {store}" in told


@posix_only
@pytest.mark.parametrize(
    ("folder", "file", "private"),
    [
        (0o700, 0o666, True),
        (0o755, 0o644, True),
        (0o750, 0o602, True),
        (0o750, 0o660, False),
        (0o711, 0o602, False),
    ],
)
def test_a_store_that_others_can_write(store: Path, folder: int, file: int, private: bool) -> None:
    """A file that others could change is refused, unless the folder keeps them out."""
    next(store.glob("part-*")).chmod(file)
    store.chmod(folder)
    if private:
        check_store(store, FLOW)
    else:
        assert "can be written by others" in refused(store)


@posix_only
@pytest.mark.parametrize("whole", [True, False])
def test_a_store_of_another_user(store: Path, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    """A folder or a file of another user than root or one's own is refused, with the way out."""
    if os.geteuid() != 0:
        monkeypatch.setattr(os, "geteuid", lambda: 12_345)
        owner, mine = store.stat().st_uid, 12_345
    else:
        owner, mine = 12_345, 0
        os.chown(store if whole else next(store.glob("part-*")), owner, -1)
    told = refused(store)
    assert f"belongs to user {owner}" in told
    assert f"chown -R {mine} {store}" in told


@posix_only
def test_the_command_that_makes_a_store_makes_it_private(tmp_path: Path) -> None:
    """What a refusal tells to type makes a folder that nobody else can enter."""
    told = refused(tmp_path / "none")
    assert f"mkdir -p -m 700 {tmp_path / 'none'} && " in told
