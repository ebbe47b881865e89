from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from flows import access
from flows.decoding import own_form
from flows.settings import FIXED_COLUMNS, Settings, load
from headrace.errors import UsageError
from operators.columns import COLUMN_TYPES
from sinks.schema import TableSchema

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTRACT = """
kafka.bootstrap_servers = "127.0.0.1:9092"
kafka.application_id = "headrace"
kafka.client = {}
source.topics = ["documents"]
source.start = "earliest"
source.max_in_flight = 8192
embeddings.topic = "embeddings"
embeddings.compression = "lz4"
embeddings.dtype = "float32"
dead_letters.topic = "documents.dead-letters"
table.uri = "data/lancedb"
table.name = "documents"
table.columns = {}
model.name = "sentence-transformers/all-MiniLM-L6-v2"
model.precision = "auto"
model.runtime = "auto"
model.max_chunks = 1
model.chunk_overlap = 32
batch.rows = 500
batch.wait_ms = 20
metrics.address = "127.0.0.1:9464"
"""
SECRET = "hunter2-äß"  # noqa: S105 - it is none


def given(**variables: str) -> dict[str, str]:
    """An environment with those variables of ours, and one that is not."""
    return {"PATH": "/bin", **{f"HEADRACE_{name}": value for name, value in variables.items()}}


def read(environ: Mapping[str, str], folder: Path | None = None) -> Settings:
    """The settings of an environment, beside no file unless a folder is given."""
    return load(environ, folder or Path("/nonexistent"))


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:4318/mine",
            },
            "http://t:4318/mine",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, ""),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "HEADRACE_TRACES__ENDPOINT": "http://o/t"},
            "http://o/t",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "HEADRACE_TRACES__ENDPOINT": ""}, ""),
    ],
)
def test_where_spans_go(variables: Mapping[str, str], endpoint: str) -> None:
    """Our setting wins over OpenTelemetry's own variables, and of those the one of traces."""
    assert read(variables).traces.endpoint == endpoint


def test_a_collector_is_a_url() -> None:
    """Whoever named it, an endpoint of another form is refused by the setting's name."""
    told = refused({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"})
    assert told.startswith("traces.endpoint: 'collector:4317/v1/traces'")


def refused(environ: Mapping[str, str], folder: Path | None = None) -> str:
    """How settings are refused: one line."""
    with pytest.raises(UsageError) as told:
        read(environ, folder)
    assert "\n" not in str(told.value)
    assert told.value.exit_code == 2
    return str(told.value)


def flat(found: Mapping[str, Any]) -> dict[str, Any]:
    """Sections as dotted names."""
    return {
        f"{section}.{name}": v
        for section, own in found.items()
        if isinstance(own, dict)
        for name, v in own.items()
    }


def test_defaults_are_the_contracts() -> None:
    """Every setting of the contract's table has the default that it lists."""
    found = flat(json.loads(read({}).model_dump_json()))
    wanted = flat(tomllib.loads(CONTRACT))
    assert {name: found[name] for name in wanted} == wanted
    # "The model's" and "chosen by measurement".
    assert (found["model.max_tokens"], found["batch.tokens"]) == (None, None)


def test_every_setting_says_what_it_is() -> None:
    """Each setting has a description, from which the reference is made."""
    for section in Settings.model_fields.values():
        if not isinstance(section.annotation, type):
            assert section.description
            continue
        for name, own in section.annotation.model_fields.items():
            assert own.description, name


def test_the_environment_beats_the_file(tmp_path: Path) -> None:
    """Both are read, and a variable wins over the same setting of the file."""
    (tmp_path / "headrace.toml").write_text('[batch]\nrows = 7\nwait_ms = 3\n[table]\nname = "x"\n')
    found = read(given(BATCH__ROWS="9"), tmp_path)
    assert (found.batch.rows, found.batch.wait_ms, found.table.name) == (9, 3, "x")


def test_the_file_that_is_named(tmp_path: Path) -> None:
    """`HEADRACE_CONFIG` names the file instead; without it a missing one is no fault."""
    (tmp_path / "headrace.toml").write_text("[batch]\nrows = 7\n")
    (tmp_path / "other.toml").write_text("[batch]\nrows = 8\n")
    assert read(given(CONFIG="other.toml"), tmp_path).batch.rows == 8
    assert read(given(CONFIG=str(tmp_path / "other.toml"))).batch.rows == 8
    assert read({}, tmp_path / "nothing").batch.rows == 500


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    """A file that is named and missing, or no TOML, is told by its name."""
    told = refused(given(CONFIG="gone.toml"), tmp_path)
    assert told.startswith(f"HEADRACE_CONFIG: {tmp_path}/gone.toml: No such file")
    (tmp_path / "headrace.toml").write_text("rows = = 5")
    assert "headrace.toml: not TOML: " in refused({}, tmp_path)
    (tmp_path / "headrace.toml").write_bytes(b"a = '\xff'")
    assert "headrace.toml: not TOML: " in refused({}, tmp_path)


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("BATCH__ROW", "batch.row: there is no such setting"),
        ("BATHC__ROWS", "bathc: there is no such setting"),
        ("ROWS", "rows: there is no such setting"),
        ("MODEL__NAME__X", "model.name: "),
    ],
)
def test_unknown_settings_are_named(variable: str, told: str) -> None:
    """A misspelt setting or section is an error that names it."""
    assert refused(given(**{variable: "1"})).startswith(told)


def test_unknown_settings_of_the_file_are_named(tmp_path: Path) -> None:
    """So is one of the file."""
    (tmp_path / "headrace.toml").write_text("[batch]\nrow = 7\n")
    assert refused({}, tmp_path) == "batch.row: there is no such setting"


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("BATCH__ROWS", "0", "batch.rows"),
        ("BATCH__ROWS", "many", "batch.rows"),
        ("BATCH__WAIT_MS", "-1", "batch.wait_ms"),
        ("BATCH__WAIT_MS", "nan", "batch.wait_ms"),
        ("BATCH__WAIT_MS", "inf", "batch.wait_ms"),
        ("TABLE__TOMBSTONE_RETENTION_S", "inf", "table.tombstone_retention_s"),
        ("TABLE__TOMBSTONE_RETENTION_S", "1e300", "table.tombstone_retention_s"),
        ("BATCH__TOKENS", "1", "batch.tokens"),
        ("SOURCE__TOPICS", "", "source.topics"),
        ("SOURCE__TOPICS", "a b", "source.topics"),
        ("SOURCE__TOPICS", '["a"', "source.topics"),
        ("SOURCE__TOPICS", "a,a", "source.topics"),
        ("SOURCE__START", "middle", "source.start"),
        ("SOURCE__MAX_IN_FLIGHT", "0", "source.max_in_flight"),
        ("EMBEDDINGS__TOPIC", "a/b", "embeddings.topic"),
        ("EMBEDDINGS__COMPRESSION", "gzip", "embeddings.compression"),
        ("EMBEDDINGS__DTYPE", "float64", "embeddings.dtype"),
        ("TABLE__NAME", "../x", "table.name"),
        ("TABLE__COLUMNS", '{"price": "decimal"}', "table.columns"),
        ("TABLE__COLUMNS", '{"id": "string"}', "table.columns"),
        ("TABLE__COLUMNS", '{"a b": "string"}', "table.columns"),
        ("TABLE__COLUMNS", "price", "table.columns"),
        ("TABLE__COLUMNS__PRICE", "decimal", "table.columns"),
        ("MODEL__MAX_CHUNKS", "0", "model.max_chunks"),
        ("MODEL__MAX_TOKENS", "2", "model.max_tokens"),
        ("MODEL__PRECISION", "fp16", "model.precision"),
        ("METRICS__ADDRESS", "nowhere", "metrics.address"),
        ("METRICS__ADDRESS", "127.0.0.1:99999", "metrics.address"),
        ("KAFKA__APPLICATION_ID", "a b", "kafka.application_id"),
    ],
)
def test_a_wrong_value_is_named(variable: str, value: str, name: str) -> None:
    """An error is one line that begins with the setting and has its value."""
    told = refused(given(**{variable: value}))
    assert told.startswith(f"{name}")
    if "COLUMNS" not in variable:
        assert value in told


def test_lists_and_tables() -> None:
    """Lists are JSON or have commas; tables are JSON; both can be in the file as TOML."""
    assert read(given(SOURCE__TOPICS="a, b,,c")).source.topics == ("a", "b", "c")
    assert read(given(SOURCE__TOPICS='["a", "b"]')).source.topics == ("a", "b")
    columns = {"price": "float64", "category": "string"}
    assert read(given(TABLE__COLUMNS=json.dumps(columns))).table.columns == columns
    assert read(given(MODEL__JARS="a.jar,b")).model.jars == (Path("a.jar"), Path("b"))


def test_tables_of_the_file(tmp_path: Path) -> None:
    """TOML's own lists and tables are taken as they are."""
    (tmp_path / "headrace.toml").write_text(
        '[source]\ntopics = ["a", "b"]\n[table]\ncolumns = {price = "float64"}\n'
    )
    found = read({}, tmp_path)
    assert found.source.topics == ("a", "b")
    assert found.table.columns == {"price": "float64"}


def test_a_table_and_one_more_of_it() -> None:
    """A table as JSON and a single entry of it, both in the environment, go together."""
    environ = given(TABLE__COLUMNS='{"a": "bool"}', TABLE__COLUMNS__B="int32")
    assert read(environ).table.columns == {"a": "bool", "b": "int32"}


def test_bad_json_beside_one_more_of_it() -> None:
    """JSON that is none is a usage error there, too."""
    told = refused(given(TABLE__COLUMNS='{"a": ', TABLE__COLUMNS__B="int32"))
    assert told.startswith("table.columns")


def test_every_column_type() -> None:
    """Each type that the decoder checks can be set."""
    columns = {f"c{i}": kind for i, kind in enumerate(COLUMN_TYPES)}
    assert read(given(TABLE__COLUMNS=json.dumps(columns))).table.columns == columns


def test_fixed_columns_are_the_schemas() -> None:
    """A metadata column can have no name that the table uses itself."""
    assert set(TableSchema(8, several_topics=True).arrow.names) == FIXED_COLUMNS


@pytest.mark.parametrize(
    "environ",
    [
        given(SOURCE__TOPICS="a,embeddings"),
        given(EMBEDDINGS__TOPIC="documents"),
        given(DEAD_LETTERS__TOPIC="documents"),
    ],
)
def test_loops_are_refused(environ: dict[str, str]) -> None:
    """An output that is a source would feed itself."""
    told = refused(environ)
    assert told.split(":")[0] in {"embeddings.topic", "dead_letters.topic"}
    assert "loop" in told


def test_client_options() -> None:
    """What follows `kafka.client` is librdkafka's name, with dots for underscores."""
    environ = given(
        KAFKA__CLIENT__SECURITY_PROTOCOL="SASL_SSL",
        KAFKA__CLIENT__SSL_CA_LOCATION="/Ca.pem",
        KAFKA__CLIENT__SASL_PASSWORD=SECRET,
    )
    assert read(environ).kafka.client == {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": "/Ca.pem",
        "sasl.password": SECRET,
    }
    assert read(given(KAFKA__CLIENT='{"sasl.password": "x"}')).kafka.client == {
        "sasl.password": "x"
    }


def test_client_options_of_the_file(tmp_path: Path) -> None:
    """Dotted, nested and quoted names all become librdkafka's; the environment adds and wins."""
    (tmp_path / "headrace.toml").write_text(
        "[kafka.client]\n"
        'sasl.username = "u"\n"sasl.password" = "file"\n'
        "socket.keepalive.enable = true\nlog.connection.close = false\n"
        "[kafka.client.ssl.ca]\nlocation = '/ca'\n"
    )
    found = read(given(KAFKA__CLIENT__SASL_PASSWORD=SECRET), tmp_path).kafka.client
    assert found == {
        "sasl.username": "u",
        "sasl.password": SECRET,
        "socket.keepalive.enable": "true",
        "log.connection.close": "false",
        "ssl.ca.location": "/ca",
    }


def test_secrets_from_files(tmp_path: Path) -> None:
    """`*_FILE` names a file with the value, in the environment and in the file."""
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    wanted = {"sasl.password": SECRET}
    assert read(given(KAFKA__CLIENT__SASL_PASSWORD_FILE=str(secret))).kafka.client == wanted
    (tmp_path / "headrace.toml").write_text(f"[kafka.client]\nsasl.password_file = '{secret}'\n")
    assert read({}, tmp_path).kafka.client == wanted
    told = refused(given(KAFKA__CLIENT__SASL_PASSWORD_FILE=str(tmp_path / "gone")))
    assert told.startswith("kafka.client")
    assert "/gone: No such file" in told


def test_options_that_are_files_themselves() -> None:
    """Librdkafka's own options that end in `.file` are passed on as they are."""
    option = "sasl.oauthbearer.assertion.jwt.template.file"
    environ = given(KAFKA__CLIENT=json.dumps({option: "/dev/null"}))
    assert read(environ).kafka.client == {option: "/dev/null"}


@pytest.mark.parametrize(
    "environ",
    [
        given(KAFKA__CLIENT__SASL_PASSWORD=SECRET, BATCH__ROWS="x"),
        given(KAFKA__CLIENT__SASL_PASSWORD=SECRET, EMBEDDINGS__TOPIC="documents"),
        given(KAFKA__CLIENT__SASL_PASSWORD=SECRET, KAFKA__CLIENT__X_FILE="/gone"),
        given(KAFKA__CLIENT=SECRET),
        given(KAFKA__CLIENT=f'{{"sasl.password": "{SECRET}"'),
        given(KAFKA__CLIENT=f'{{"sasl.password": "{SECRET}"', KAFKA__CLIENT__A="b"),
        given(KAFKA=f'{{"client": {{"sasl.password": "{SECRET}"}}}}', BATCH__ROWS="x"),
    ],
)
def test_no_error_shows_a_secret(environ: dict[str, str]) -> None:
    """Whatever else is wrong, a client option's value is not in the message."""
    told = refused(environ)
    assert SECRET not in told


def test_nothing_shows_a_secret() -> None:
    """Neither the settings nor what is made of them show a client option's value."""
    settings = read(given(KAFKA__CLIENT__SASL_PASSWORD=SECRET))
    kafka = access.kafka_of(settings)
    assert kafka.client == {"sasl.password": SECRET}
    for shown in (settings, settings.kafka, kafka):
        assert SECRET not in f"{shown} {shown!r}"


def test_reads_nothing_but_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process's own environment and folder don't count."""
    (tmp_path / "headrace.toml").write_text("[batch]\nrows = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_BATCH__ROWS", "9")
    assert read({}).batch.rows == 500


def test_frozen() -> None:
    """Settings don't change while a flow runs."""
    settings = read({})
    with pytest.raises(ValidationError):
        settings.batch.rows = 3  # type: ignore[misc]


def test_message_limit_takes_the_largest_record() -> None:
    """An output may be as large as a source record, all vectors, and what a message adds."""
    settings = read(given(SOURCE__MAX_RECORD_BYTES="5000000", MODEL__MAX_CHUNKS="100"))
    assert access.max_message_bytes(settings, 384) >= 5_000_000 + 100 * 384 * 4
    assert access.max_message_bytes(read({}), 384) == 1_000_000


def test_a_registry_is_named_where_it_is_wanted() -> None:
    """What is read or written under a registry wants its address; a login in that is refused."""
    for name in ("SOURCE__ENCODING", "EMBEDDINGS__ENCODING"):
        assert refused(given(**{name: "registry"})).endswith("set registry.url")
        assert read(given(**{name: "registry", "REGISTRY__URL": "https://r:1/x,http://s"}))
    for url in ("registry:8081", "https://a b", f"https://u:{SECRET}@r", f"https://u:{SECRET} @r"):
        told = refused(given(REGISTRY__URL=url))
        assert told.startswith("registry.url: ")
        assert SECRET not in told


def test_options_of_the_registrys_client(tmp_path: Path) -> None:
    """They are named and hidden as the broker's are, secrets from files among them."""
    (tmp_path / "login").write_text(f"u:{SECRET}\n")
    environ = given(
        REGISTRY__CLIENT__SSL_CA_LOCATION="/ca",
        REGISTRY__CLIENT__BASIC_AUTH_USER_INFO_FILE=str(tmp_path / "login"),
    )
    settings = read(environ)
    wanted = {"ssl.ca.location": "/ca", "basic.auth.user.info": f"u:{SECRET}"}
    assert settings.registry.client == wanted
    assert SECRET not in f"{settings!r} {settings}"
    (tmp_path / "headrace.toml").write_text(
        f"[registry.client]\nbasic.auth.user.info = 'u:{SECRET}'\nssl.ca.location = '/ca'\n"
    )
    assert read({}, tmp_path).registry.client == wanted
    assert refused(given(REGISTRY__CLIENT__URL="http://x")).endswith("set registry.url instead")
    gone = refused(given(REGISTRY__CLIENT__BASIC_AUTH_USER_INFO_FILE="/gone"))
    assert gone.startswith("registry.client")


def test_what_writes_json_refuses_a_registry() -> None:
    """The commands and services that write JSON say so where the flow reads something else."""
    settings = read(given(SOURCE__ENCODING="registry", REGISTRY__URL="http://r"))
    with pytest.raises(UsageError, match=r"^source.encoding: registry: headrace load writes JSON"):
        own_form(settings, "headrace load")


def test_change_events_have_the_rows_key() -> None:
    """A format without a text, and an id elsewhere than in the row's key, are refused by name."""
    debezium = {"SOURCE__FORMAT": "debezium", "SOURCE__TEXT": "/title"}
    assert read(given(**debezium)).source.format == "debezium"
    with pytest.raises(UsageError, match=r"source\.format: is set without source\.text"):
        read(given(SOURCE__FORMAT="debezium"))
    for place in ("/id", "key/id"):
        with pytest.raises(UsageError, match=r"source\.id: .* it is the row's primary key"):
            read(given(**debezium, SOURCE__ID=place))
    with pytest.raises(UsageError, match=r"source\.format"):
        read(given(SOURCE__FORMAT="xml", SOURCE__TEXT="/title"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("do cs", "table.name: 'do cs': a name has 1 to 200 letters"),
        ("docs_{/tenant", "table.name: 'docs_{/tenant': a brace stands alone"),
        ("docs_{/tenant?}", "table.name: 'docs_{/tenant?}': /tenant can't be optional"),
        ("docs_{/tenant}", "table.name: 'docs_{/tenant}': of a record of Headrace's own form"),
        ("docs_{/text}", "table.name: 'docs_{/text}': of a record of Headrace's own form"),
    ],
)
def test_names_that_no_table_can_have(name: str, told: str) -> None:
    """A name or a template is refused at once if no table could have it."""
    assert refused(given(TABLE__NAME=name)).startswith(told)


def test_a_table_for_each_tenant() -> None:
    """A template takes metadata of records of the own form, and any place of mapped ones."""
    assert not read({}).table.routed
    assert read(given(TABLE__NAME="docs_{/metadata/tenant}")).table.routed
    assert read(given(TABLE__NAME="docs_{/tenant}", SOURCE__TEXT="/title")).table.routed


def test_who_may_search_what() -> None:
    """A claim for tables is one of its own, in tokens that are looked at."""
    key = {"AUTH__JWT_KEY": "k" * 32}
    assert read(given(AUTH__TABLES_CLAIM="tables", **key)).auth.tables_claim == "tables"
    assert refused(given(AUTH__TABLES_CLAIM="tables")).startswith(
        "auth.tables_claim: tables: no token is looked at; set auth.jwt_key"
    )
    told = refused(given(AUTH__TABLES_CLAIM="sub", **key))
    assert told.startswith("auth.tables_claim: 'sub': says something else")
