"""What a flow does that can't run: one line that names the thing, an exit code, no traceback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from bytewax.recovery import init_db_dir

from harness.broker import Broker
from harness.process import ROOT, free_port
from tests.integration.pipeline import Pipeline

pytestmark = pytest.mark.kafka


def run(environment: dict[str, str], *arguments: str, timeout: float = 60) -> tuple[int, str]:
    """Run the flow to its end; its exit code and what it printed on standard error."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    done = subprocess.run(
        [sys.executable, "-m", "bytewax.run", "flows.embed", *arguments],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return done.returncode, done.stderr


def refusal(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """The exit code and the one line with which the flow refuses to run."""
    code, errors = run(environment, *arguments)
    assert "Traceback" not in errors
    lines = [line for line in errors.splitlines() if line.startswith("headrace: ")]
    assert len(lines) == 1, errors
    return code, lines[0]


@pytest.fixture
def pipeline(broker: Broker, tmp_path: Path) -> Pipeline:
    """Topics and settings of a flow that is not started."""
    return Pipeline(broker, tmp_path, partitions=1)


def test_an_unknown_setting(pipeline: Pipeline) -> None:
    """A setting that there is not is named, and the exit code is that of wrong usage."""
    code, line = refusal(pipeline.environment | {"HEADRACE_TABLE__FOLDER": "x"})
    assert (code, "table.folder" in line) == (2, True)


def test_a_wrong_value(pipeline: Pipeline) -> None:
    """A value that can't be right is named with its setting."""
    code, line = refusal(pipeline.environment | {"HEADRACE_BATCH__ROWS": "many"})
    assert code == 2
    assert "batch.rows" in line
    assert "many" in line


def test_a_mapping_that_is_none(pipeline: Pipeline) -> None:
    """A pointer that is none is named before anything is reached, a broker that is away too."""
    away = {"HEADRACE_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    wrong = pipeline.environment | away | {"HEADRACE_SOURCE__TEXT": "{title}"}
    code, line = refusal(wrong)
    assert code == 2
    assert "source.text: 'title': is no JSON pointer" in line


def test_a_missing_topic(pipeline: Pipeline) -> None:
    """A topic that there is not is named with the command that makes it."""
    code, line = refusal(pipeline.environment | {"HEADRACE_EMBEDDINGS__TOPIC": "nowhere"})
    assert code == 1
    assert "embeddings.topic: nowhere" in line
    assert "headrace topics create" in line


def test_a_broker_that_is_away(pipeline: Pipeline) -> None:
    """A broker that does not come is waited for, named in the log, and named at the end."""
    servers = f"127.0.0.1:{free_port()}"
    away = {"HEADRACE_KAFKA__BOOTSTRAP_SERVERS": servers, "HEADRACE_KAFKA__OUTAGE_S": "3"}
    code, line = refusal(pipeline.environment | away)
    assert code == 1
    assert f"kafka.bootstrap_servers: {servers}" in line


def test_a_folder_that_cannot_be_written(pipeline: Pipeline, tmp_path: Path) -> None:
    """A table folder that can't be made is named with its setting."""
    (tmp_path / "file").write_text("in the way")
    uri = str(tmp_path / "file" / "lancedb")
    code, line = refusal(pipeline.environment | {"HEADRACE_TABLE__URI": uri})
    assert code == 1
    assert f"table.uri: {uri}" in line


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can make a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up(broker: Broker, tmp_path: Path, small_disk: Path) -> None:
    """A full table folder ends the flow with a line that names it; nothing is lost."""
    settings = {"HEADRACE_TABLE__URI": str(small_disk)}
    with Pipeline(broker, tmp_path, partitions=1, settings=settings) as pipeline:
        for number in range(2000):
            pipeline.put(f"d{number}", f"document number {number} fills the disk")
        pipeline.producer.flush(30)
        assert pipeline.flow.wait(90) == [1]
        log = pipeline.flow.log_text()
        assert f"headrace: table.uri: {small_disk}" in log
        assert "Traceback" not in log
        subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
        pipeline.flow.start()
        pipeline.wait(
            lambda: lance.dataset(str(small_disk / "documents.lance")).count_rows() == 2001
        )


def test_a_table_of_another_dimension(pipeline: Pipeline, tmp_path: Path) -> None:
    """A table with vectors of another length is refused by the model's and the table's numbers."""
    vectors = pa.array([[0.0] * 8], pa.list_(pa.float32(), 8))
    lance.write_dataset(pa.table({"vector": vectors}), str(tmp_path / "lancedb/documents.lance"))
    code, line = refusal(pipeline.environment)
    assert code == 1
    assert "384" in line
    assert "has 8" in line


def test_a_table_of_another_model(pipeline: Pipeline) -> None:
    """A model with another fingerprint is refused, with the way out."""
    with pipeline:
        pipeline.put("a", "by the first model")
        pipeline.settle()
    code, line = refusal(pipeline.environment | {"HEADRACE_MODEL__MAX_TOKENS": "64"})
    assert code == 1
    assert "fingerprint" in line
    assert "table.name" in line


def test_a_topic_of_another_model(pipeline: Pipeline) -> None:
    """Another model is refused for the topic too, also where the table is a new one."""
    with pipeline:
        pipeline.put("a", "by the first model")
        pipeline.settle()
    other = {"HEADRACE_MODEL__MAX_TOKENS": "64", "HEADRACE_TABLE__NAME": "new"}
    code, line = refusal(pipeline.environment | other)
    assert code == 1
    assert "kafka.application_id" in line
    assert "embeddings.topic" in line


def test_other_typed_columns(pipeline: Pipeline) -> None:
    """Typed columns that the table has not are refused by their name."""
    with pipeline:
        pipeline.put("a", "without typed columns")
        pipeline.settle()
    columns = {"HEADRACE_TABLE__COLUMNS": '{"price": "float64"}'}
    code, line = refusal(pipeline.environment | columns)
    assert (code, "table.columns" in line, "price" in line) == (1, True, True)


def test_a_recovery_store_that_was_not_made(pipeline: Pipeline, tmp_path: Path) -> None:
    """A folder without a store is refused with the command that makes one."""
    folder = tmp_path / "none"
    code, line = refusal(pipeline.environment, "-r", str(folder), "-s", "1", "-b", "0")
    assert code == 1
    assert f"python -m bytewax.recovery {folder}" in line


def test_a_recovery_store_of_another_flow(pipeline: Pipeline, tmp_path: Path) -> None:
    """A store with lanes that the flow does not have is refused with the commands that mend it."""
    folder = tmp_path / "other"
    folder.mkdir(mode=0o700)
    init_db_dir(folder, 2)
    (folder / "headrace.json").write_text(
        '{"version": 1, "lanes": ["gone/000000"], "model": "m", "fingerprint": "f"}'
    )
    code, line = refusal(pipeline.environment, "-r", str(folder), "-s", "1", "-b", "0")
    assert code == 1
    assert f"rm -r {folder}" in line


def test_records_that_retention_has_deleted(broker: Broker, tmp_path: Path) -> None:
    """A flow that lacks records which the topic no longer has ends with their number, or skips."""
    from confluent_kafka import TopicPartition  # noqa: PLC0415
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415

    pipeline = Pipeline(broker, tmp_path, partitions=1)
    with pipeline:
        pipeline.put("a", "read")
        pipeline.settle()
    for number in range(5):
        pipeline.put(f"d{number}", "deleted before it was read")
    pipeline.put("z", "still there")
    pipeline.producer.flush(10)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    place = TopicPartition(pipeline.topics.source, 0, 6)
    admin.delete_records([place])[place].result(10)
    code, line = refusal(pipeline.environment)
    assert code == 1
    assert "source.missing" in line
    pipeline.flow.settings["HEADRACE_SOURCE__MISSING"] = "skip"
    with pipeline:
        pipeline.settle()
        assert set(pipeline.rows()) == {"a", "z"}
