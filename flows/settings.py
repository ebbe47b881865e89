"""The settings: one frozen, validated object, from a TOML file and the environment.

`HEADRACE_SECTION__NAME` in the environment wins over the file that `HEADRACE_CONFIG` names
(`headrace.toml` if there is one). A name that is none is an error.
"""

from __future__ import annotations

import ipaddress
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from flows.pipelines import Pipeline, check_apart, sections_of, variable_of
from headrace.errors import UsageError
from operators.columns import COLUMN_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Settings", "is_loopback", "load"]

PREFIX: Final = "HEADRACE_"
CONFIG_VARIABLE: Final = "HEADRACE_CONFIG"
DEFAULT_FILE: Final = "headrace.toml"

MIN_KEY_BYTES: Final = 32
"""As RFC 7518 asks of a key of HS256: as many as the hash has."""

SECRET: Final = ("kafka.client", "registry.client", "registry.url", "auth.jwt_key", "pipelines")
"""Settings whose values are in no error."""

CLIENTS: Final = frozenset({("kafka", "client"), ("registry", "client")})
"""Settings that hold options by the names that a library has for them."""

FILE_OPTIONS: Final = frozenset(
    {
        "sasl.oauthbearer.assertion.private.key.file",
        "sasl.oauthbearer.assertion.jwt.template.file",
    }
)
"""librdkafka's own options that end as the name of a secret's file does."""

FIXED_COLUMNS: Final = frozenset(
    {
        *("id", "vector", "text", "metadata", "event_time", "embedded_at", "model", "tokens"),
        *("truncated", "source_topic", "source_partition", "source_offset", "deleted", "chunk"),
        *("chunk_start", "chunk_end", "chunk_hash", "key"),
    }
)
"""What a metadata column can't be called."""


def _column_name(name: str) -> None:
    if name in FIXED_COLUMNS or not name.isidentifier():
        raise ValueError(f"{name!r} can't be the name of a metadata column")


def _from_json(value: object) -> object:
    """A list or a table, as the environment holds it."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        return json.loads(value)
    return value


def _from_json_list(value: object) -> object:
    """A list, as the environment holds it; any other text is what it is."""
    return _from_json(value) if isinstance(value, str) and value.startswith("[") else value


def _from_list(value: object) -> object:
    """A list, as JSON or with commas between."""
    value = _from_json(value)
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _clients(section: str) -> BeforeValidator:
    """Options of a library's client, as a file or the environment holds them."""

    def flat(value: object) -> object:
        value = _from_json(value)
        return dict(_client_options(section, value)) if isinstance(value, dict) else value

    return BeforeValidator(flat)


TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
TableName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,200}$")]
Text = Annotated[str, Field(min_length=1)]
MetricsUrl = Annotated[str, Field(pattern=r"^https?://\S+$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class KafkaSettings(_Section):
    """The broker."""

    bootstrap_servers: Text = Field("127.0.0.1:9092", description="The broker's addresses.")
    application_id: TopicName = Field(
        "headrace",
        description="Consumer group of the committed offsets, prefix of the transactional ids.",
    )
    client: Annotated[dict[str, str], _clients("kafka.client")] = Field(
        {},
        description="Passed to librdkafka as is (TLS, SASL); a secret also from a file, its name "
        "followed by `_file`.",
        repr=False,
    )
    outage_s: float = Field(
        120.0,
        gt=0,
        le=86_400,
        description="Seconds that the broker, or the schema registry, may be away before the flow "
        "ends.",
    )


class RegistrySettings(_Section):
    """The schema registry."""

    url: Annotated[str, Field(pattern=r"^(https?://[^\s,]+(,https?://[^\s,]+)*)?$")] = Field(
        "",
        description="Where it is, as Confluent's clients take it; several with commas between. "
        "Empty: there is none.",
    )
    client: Annotated[dict[str, str], _clients("registry.client")] = Field(
        {},
        description="Passed to Confluent's client as is (login, TLS); a secret also from a file, "
        "its name followed by `_file`.",
        repr=False,
    )
    key: Literal["text", "registry"] = Field(
        "text",
        description="How keys are written where `source.encoding` is `registry`: as UTF-8, or by a "
        "schema, too.",
    )

    @field_validator("url")
    @classmethod
    def _open(cls, url: str) -> str:
        if any(urlsplit(one).username is not None for one in url.split(",")):
            raise ValueError("holds a login; set registry.client.basic.auth.user.info instead")
        return url

    @field_validator("client")
    @classmethod
    def _apart(cls, client: dict[str, str]) -> dict[str, str]:
        if "url" in client:
            raise ValueError("has a url; set registry.url instead")
        return client


class FieldSettings(_Section):
    """A metadata field of a record of the user's own form."""

    at: str
    type: str | None = None

    @field_validator("type")
    @classmethod
    def _known(cls, kind: str | None) -> str | None:
        if kind is not None and kind not in COLUMN_TYPES:
            raise ValueError(f"{kind!r}: the types are {', '.join(COLUMN_TYPES)}")
        return kind


def _from_pointers(value: object) -> object:
    """Fields of which some are mere pointers."""
    value = _from_json(value)
    if not isinstance(value, dict):
        return value
    return {name: {"at": at} if isinstance(at, str) else at for name, at in value.items()}


class SourceSettings(_Section):
    """What is read."""

    encoding: Literal["json", "registry"] = Field(
        "json",
        description="What values are: JSON (or Protobuf, where a record's header says so), or "
        "written by a schema of the registry.",
    )

    topics: Annotated[tuple[TopicName, ...], BeforeValidator(_from_list)] = Field(
        ("documents",), min_length=1, description="The topics that hold documents."
    )
    start: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a partition without committed offset starts."
    )
    missing: Literal["error", "skip"] = Field(
        "error",
        description="What to do when retention has deleted records that a sink still lacks.",
    )
    max_in_flight: int = Field(
        8192, ge=1, description="Records read and not yet written, per worker."
    )
    max_in_flight_bytes: int = Field(
        64 << 20, ge=1, description="Bytes of those records, per worker."
    )
    max_record_bytes: int = Field(
        900_000,
        ge=1024,
        le=100_000_000,
        description="Bytes of a record, headers included; a larger one is a dead letter.",
    )
    format: Literal["json", "debezium"] = Field(
        "json",
        description="What a value holds: the fields themselves, or a change event of Debezium's, "
        "whose row has them.",
    )
    id: Annotated[str, Field(pattern=r"^(key)?(/.*)?$", min_length=1)] = Field(
        "key",
        description="Where the document's id is: `key`, a pointer into a JSON key such as "
        "`key/id`, or one into the value such as `/id`.",
    )
    text: Annotated[str | tuple[str, ...] | None, BeforeValidator(_from_json_list)] = Field(
        None,
        description="Where the text is, in records of your own form: a template such as "
        "`{/title}. {/body?}`, a list of pointers, or a JMESPath expression behind `jmespath:`. "
        "Unless set, records have Headrace's form.",
    )
    metadata: Annotated[dict[str, FieldSettings], BeforeValidator(_from_pointers)] = Field(
        {},
        description='Metadata fields, each a pointer, or `{at = "/price", type = "float64"}` for '
        "a typed column.",
    )
    timestamp: Text | None = Field(
        None, description="Pointer to the record's time; unless set Kafka's timestamp is taken."
    )
    delete_when: Text | None = Field(
        None, description="JMESPath expression that holds of a record which deletes its document."
    )
    filter: Text | None = Field(
        None,
        description="JMESPath expression that holds of the records to take; others are passed "
        "over.",
    )
    markup: Literal["none", "html", "markdown"] = Field(
        "none", description="What the texts are written in; they are reduced to plain text."
    )

    @property
    def mapped(self) -> bool:
        """Whether records have the user's own form."""
        return self.text is not None

    @property
    def by_key(self) -> bool:
        """Whether all records of a document have one key, and so one partition."""
        return not self.id.startswith("/")

    @model_validator(mode="after")
    def _needs_text(self) -> SourceSettings:
        mapping = ("format", "id", "metadata", "timestamp", "delete_when", "filter", "markup")
        for name in mapping:
            if not self.mapped and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"source.{name}: is set without source.text, which it goes with")
        return self

    @model_validator(mode="after")
    def _row_key(self) -> SourceSettings:
        if self.format == "debezium" and self.id != "key":
            raise ValueError(
                f'source.id: {self.id!r}: with source.format = "debezium" it is the row\'s primary '
                "key; leave it out (message.key.columns of the connector takes other columns)"
            )
        return self

    @field_validator("metadata")
    @classmethod
    def _free(cls, fields: dict[str, FieldSettings]) -> dict[str, FieldSettings]:
        for name, one in fields.items():
            if one.type is not None:
                _column_name(name)
        return fields

    @field_validator("topics")
    @classmethod
    def _once(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(topics)) < len(topics):
            raise ValueError("a topic is named twice")
        return topics


class EmbeddingsSettings(_Section):
    """The topic of embeddings."""

    topic: TopicName = Field("embeddings", description="Where embeddings and tombstones go.")
    compression: Literal["lz4", "zstd", "none"] = Field("lz4", description="Of the topic.")
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="How a vector's numbers are stored in the topic."
    )
    encoding: Literal["protobuf", "registry"] = Field(
        "protobuf",
        description="Whether a value is the message alone, or in the registry's wire format.",
    )
    register_schema: bool = Field(
        default=True,
        description="Whether the flow puts the schema into the registry; else it must be there.",
    )


class DeadLettersSettings(_Section):
    """The topic of dead letters."""

    topic: TopicName = Field("documents.dead-letters", description="Where bad records go.")


class RecoverySettings(_Section):
    """What a start must know of how the process before it ended."""

    suspects: str = Field(
        "data/suspects",
        description="Folder, on a disk of this machine, of notes on what was in hand when a "
        "process died, by which a record that it dies of is found. Empty: off.",
    )


class TableSettings(_Section):
    """The LanceDB table."""

    uri: Text = Field("data/lancedb", description="Folder or object-store URI of the tables.")
    name: TableName = Field("documents", description="The table's name.")
    columns: Annotated[dict[str, str], BeforeValidator(_from_json)] = Field(
        {},
        description='Metadata fields kept as typed columns, e.g. `{price = "float64"}`; the types '
        "are " + ", ".join(sorted(COLUMN_TYPES)) + ".",
    )
    index_rows: int = Field(
        50_000, ge=1000, description="Rows from which on the table gets a vector index."
    )
    text_index: bool = Field(
        default=True, description="Whether the table gets a full-text index, for searches by words."
    )
    tombstone_retention_s: float = Field(
        86_400.0,
        ge=0,
        le=315_360_000,
        description="Seconds that a deleted document's row is kept.",
    )

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: dict[str, str]) -> dict[str, str]:
        for name, kind in columns.items():
            if kind not in COLUMN_TYPES:
                raise ValueError(f"{name} = {kind!r}: the types are {', '.join(COLUMN_TYPES)}")
            _column_name(name)
        return columns


class ModelSettings(_Section):
    """The model."""

    name: Text = Field(
        "sentence-transformers/all-MiniLM-L6-v2", description="Hub id, folder, or bundle."
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto",
        description="`auto`: the fastest that agrees with fp32 and does not depend on the batch.",
    )
    runtime: Literal["auto", "onnxruntime", "openvino"] = Field(
        "auto", description="What runs the model."
    )
    least_agreement: float = Field(
        0.99,
        ge=0,
        le=1,
        description="Share of 10 nearest neighbours that `auto` must have in common with fp32.",
    )
    max_chunks: int = Field(
        1, ge=1, le=1000, description="Chunks of `max_tokens` tokens a document; 1 truncates."
    )
    chunk_overlap: int = Field(
        32, ge=0, description="Tokens that neighbouring chunks share, where cut at tokens."
    )
    split: Literal["tokens", "sentences", "markdown"] = Field(
        "tokens",
        description="Where a document of several chunks is cut: after so many tokens, between "
        "sentences and paragraphs, or at the headings and blocks of Markdown.",
    )
    chunk_prefix: str = Field(
        "",
        description="Metadata field, such as `title`, that is put before each chunk for the model. "
        "Empty: none.",
    )
    reuse: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Whether chunks that did not change keep their vectors; `auto`: where "
        "`model.max_chunks` is more than 1, or records are changes of rows (`source.format`).",
    )
    max_tokens: int | None = Field(
        None, ge=8, description="Tokens of a chunk; the model's own (256) unless set."
    )
    cache: Path = Field(
        Path("~/.cache/headrace/models"), description="Folder of the bundles that were built."
    )
    jars: Annotated[tuple[Path, ...], BeforeValidator(_from_list)] = Field(
        (Path("build/jars/model"), Path("~/.m2/repository")),
        description="Files and folders that are searched for a jar which carries the model.",
    )
    cache_entries: int = Field(
        10_000, ge=0, description="Texts whose vectors are remembered; 0 remembers none."
    )
    cache_bytes: int = Field(
        32 << 20, ge=0, description="Bytes of what is remembered; 0 remembers none."
    )

    @field_validator("cache")
    @classmethod
    def _expanded(cls, path: Path) -> Path:
        return path.expanduser()

    @field_validator("jars")
    @classmethod
    def _all_expanded(cls, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(path.expanduser() for path in paths)


class BatchSettings(_Section):
    """Batches."""

    rows: int = Field(500, ge=1, description="Records that close a window for the sinks.")
    wait_ms: float = Field(20, ge=0, le=3_600_000, description="Milliseconds that close it.")
    freshness_ms: float = Field(
        100,
        ge=10,
        le=60_000,
        description="Milliseconds from a record's timestamp to the topic that are aimed at; the "
        "table has twice as long.",
    )
    tokens: int | None = Field(
        None,
        ge=16,
        description="Padded tokens in one inference; unless set 512, or 2048 with a static bundle.",
    )


class MetricsSettings(_Section):
    """Metrics."""

    address: Annotated[str, Field(pattern=r"^(\S+:\d{1,5})?$")] = Field(
        "127.0.0.1:9464",
        description="Where Prometheus reads; the process index is added to the port. Empty: off.",
    )
    stalled_s: float = Field(
        120.0,
        ge=1,
        le=86_400,
        description="Seconds without progress after which a flow that has something to do is "
        "stalled.",
    )

    @field_validator("address")
    @classmethod
    def _port(cls, address: str) -> str:
        if address and not 0 < int(address.rpartition(":")[2]) < 65536:
            raise ValueError("the port must be from 1 to 65535")
        return address


class TracesSettings(_Section):
    """Traces."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = Field(
        "",
        description="Where spans go, by OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`; "
        "unless set, where OpenTelemetry's own variables say. Empty: off.",
    )
    sample: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of traces that are recorded, of those that begin here; one that comes "
        "sampled always is.",
    )


class ServeSettings(_Section):
    """The HTTP services."""

    parts: Annotated[tuple[Literal["ingest", "search"], ...], BeforeValidator(_from_list)] = Field(
        ("ingest", "search"), min_length=1, description="Which services, unless the command says."
    )
    host: Text | None = Field(
        None,
        description="Address to listen on. Unless set, all of the machine's with `auth.*`, else "
        "`127.0.0.1`; without `auth.*` no other than a loopback address is taken.",
    )
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(1, ge=1, le=256, description="Processes that share the port.")
    queue_records: int = Field(
        10_000,
        ge=1,
        description="Records that may wait for the broker, per worker; beyond it 503 at once.",
    )
    queue_bytes: int = Field(64 << 20, ge=1024, description="Bytes of those records, per worker.")
    delivery_timeout_s: float = Field(
        10.0,
        ge=1,
        le=300,
        description="Seconds that a write waits for the broker before it is answered 503.",
    )
    max_body_bytes: int = Field(
        1_000_000,
        ge=1024,
        le=100_000_000,
        description="Bytes of a request's body, or of a line of a bulk; beyond it 413.",
    )
    max_bulk_lines: int = Field(100_000, ge=1, description="Lines of one bulk; beyond it 413.")
    after_timeout_s: float = Field(
        5.0,
        ge=0.1,
        le=300,
        description="Seconds that a search waits for the record in its `after` before it is "
        "answered 504.",
    )
    flow_metrics: Annotated[tuple[MetricsUrl, ...], BeforeValidator(_from_list)] = Field(
        (),
        description="Where the page reads the metrics of the flow's processes; unless given at "
        "`metrics.address` and the ports behind it.",
    )
    query_cache_entries: int = Field(
        1000, ge=0, description="Queries whose vectors are remembered; 0 remembers none."
    )
    rate_limit: Annotated[str, Field(pattern=r"^([1-9]\d{0,8}/(second|minute|hour|day))?$")] = (
        Field(
            "",
            description="Requests of a user (without `auth.*`: of an address), per worker, such as "
            "`100/second`; beyond it 429. Empty: any number.",
        )
    )
    cors_origins: Annotated[tuple[Text, ...], BeforeValidator(_from_list)] = Field(
        (), description="Origins whose pages may call from a browser; `*` is all."
    )
    tls_cert: Path | None = Field(
        None, description="The server's certificate with its chain, PEM; with it TLS is on."
    )
    tls_key: Path | None = Field(None, description="The certificate's key, PEM, without password.")
    tls_client_ca: Path | None = Field(
        None, description="Authorities of client certificates, PEM; with it each client needs one."
    )

    @model_validator(mode="after")
    def _whole(self) -> ServeSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("serve.tls_cert, serve.tls_key: one is set without the other")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("serve.tls_client_ca: is set without serve.tls_cert")
        return self


class RecommendSettings(_Section):
    """Recommendations: what `flows.recommend` reads and writes."""

    views_topic: TopicName = Field("views", description="Where views of products are.")
    inventory_topic: TopicName = Field("inventory", description="Where stocks of products are.")
    embeddings_topic: TopicName = Field(
        "product_embeddings", description="Where embeddings of products go."
    )
    users_topic: TopicName = Field("user_vectors", description="Where vectors of users go.")
    products_table: TableName = Field("products", description="The table of products.")
    users_table: TableName = Field("users", description="The table of users.")
    half_life_hours: float = Field(
        24.0, gt=0, le=87_600, description="Hours after which a view counts half for its user."
    )
    views: int = Field(
        50,
        ge=1,
        le=1000,
        description="How many views of a user are remembered: to tell duplicates, to explain, and "
        "not to recommend again.",
    )
    popular_hours: float = Field(
        6.0,
        gt=0,
        le=8760,
        description="Hours after which a view counts half for what is popular, which is what a "
        "user without views gets.",
    )

    @model_validator(mode="after")
    def _apart(self) -> RecommendSettings:
        if self.views_topic == self.inventory_topic:
            raise ValueError("recommend.views_topic, recommend.inventory_topic: are the same")
        if self.products_table == self.users_table:
            raise ValueError("recommend.products_table, recommend.users_table: are the same")
        return self


class AuthSettings(_Section):
    """Who may use the HTTP services."""

    jwt_key: SecretStr | None = Field(
        None, description="Key of HS256 tokens, 32 bytes or more; instead of `auth.jwks_url`."
    )
    jwt_key_file: Path | None = Field(None, description="A file with that key.")
    jwks_url: Text | None = Field(
        None,
        description="Where the public keys of RS256 and ES256 tokens are; https, or http on this "
        "machine.",
    )
    jwks_cache_s: float = Field(
        300.0, ge=1, le=86_400, description="Seconds that those keys are kept."
    )
    audience: Text = Field("headrace", description="What `aud` of a token must hold.")
    issuer: Text | None = Field(
        None, description="What `iss` of a token must be; unless set it is not looked at."
    )
    leeway_s: float = Field(
        10.0, ge=0, le=300, description="Seconds that the clocks of issuer and server may differ."
    )

    @property
    def required(self) -> bool:
        """Whether requests need a token."""
        return self.jwt_key is not None or self.jwks_url is not None

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, given: Any) -> Any:  # noqa: ANN401 - whatever a file or a caller holds
        if not isinstance(given, dict) or given.get("jwt_key_file") is None:
            return given
        if given.get("jwt_key") is not None:
            raise ValueError("auth.jwt_key, auth.jwt_key_file: both are set")
        path = Path(str(given["jwt_key_file"]))
        try:
            return {**given, "jwt_key": path.read_text().strip()}
        except (OSError, UnicodeDecodeError) as error:
            told = error.strerror if isinstance(error, OSError) else "not text"
            raise ValueError(f"auth.jwt_key_file: {path}: {told}") from error

    @field_validator("jwt_key")
    @classmethod
    def _long(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value().encode()) < MIN_KEY_BYTES:
            raise ValueError(f"must have {MIN_KEY_BYTES} bytes or more")
        return key

    @field_validator("jwks_url")
    @classmethod
    def _safe(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "https://none")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
            raise ValueError("must begin with https://, or http:// on this machine")
        return url

    @model_validator(mode="after")
    def _one(self) -> AuthSettings:
        if self.jwt_key is not None and self.jwks_url is not None:
            raise ValueError("auth.jwt_key, auth.jwks_url: both are set; set the one in use")
        return self


def is_loopback(host: str | None) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


class Settings(_Section):
    """All settings."""

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    source: SourceSettings = Field(default_factory=SourceSettings)
    embeddings: EmbeddingsSettings = Field(default_factory=EmbeddingsSettings)
    dead_letters: DeadLettersSettings = Field(default_factory=DeadLettersSettings)
    recovery: RecoverySettings = Field(default_factory=RecoverySettings)
    table: TableSettings = Field(default_factory=TableSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    batch: BatchSettings = Field(default_factory=BatchSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    traces: TracesSettings = Field(default_factory=TracesSettings)
    recommend: RecommendSettings = Field(default_factory=RecommendSettings)
    serve: ServeSettings = Field(default_factory=ServeSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    pipelines: Annotated[tuple[Pipeline, ...], BeforeValidator(_from_json)] = Field(
        (), description="Several pipelines of `flows.embed`: what each has of its own."
    )
    pipeline: Annotated[tuple[str, ...], BeforeValidator(_from_list)] = Field(
        (), description="Which of them are meant, by name; all unless given."
    )

    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """The pipeline whose settings these are; empty where there are no pipelines."""
        return self._name

    def each(self) -> tuple[Settings, ...]:
        """The settings of each pipeline that is meant; these alone where there are none."""
        if not self.pipelines:
            return (self,)
        meant = self.pipeline or [pipeline.name for pipeline in self.pipelines]
        return tuple(self._of(one) for one in self.pipelines if one.name in meant)

    def _of(self, pipeline: Pipeline) -> Settings:
        own = Settings.model_validate(sections_of(self, pipeline))
        own._name = pipeline.name  # noqa: SLF001 - of the same class
        return own

    @model_validator(mode="after")
    def _apart(self) -> Settings:
        check_apart(self, self._of, _told)
        return self

    @property
    def reuses(self) -> bool:
        """Whether chunks that did not change keep their vectors."""
        model = self.model
        likely = model.max_chunks > 1 or self.source.format == "debezium"
        return model.reuse == "always" or (model.reuse == "auto" and likely)

    @property
    def columns(self) -> dict[str, str]:
        """The table's typed columns: its own, and those of `source.metadata`."""
        typed = {name: one.type for name, one in self.source.metadata.items() if one.type}
        return self.table.columns | typed

    @model_validator(mode="after")
    def _mapped(self) -> Settings:
        mapped = self.source.mapped
        for name, kind in self.table.columns.items():
            one = self.source.metadata.get(name)
            if mapped and one is None:
                raise ValueError(
                    f"table.columns: {name}: nothing fills it; say where it is: source.metadata"
                )
            if one is not None and one.type not in (None, kind):
                raise ValueError(f"source.metadata.{name}: is {one.type}, in table.columns {kind}")
        return self

    @model_validator(mode="after")
    def _guarded(self) -> Settings:
        host = self.serve.host
        if host is not None and not self.auth.required and not is_loopback(host):
            raise ValueError(
                f"serve.host: {host}: only a loopback address is open to all; set auth.jwt_key or "
                "auth.jwks_url"
            )
        return self

    @model_validator(mode="after")
    def _registered(self) -> Settings:
        users = {
            "source.encoding": self.source.encoding,
            "embeddings.encoding": self.embeddings.encoding,
        }
        for name, encoding in users.items():
            if encoding == "registry" and not self.registry.url:
                raise ValueError(
                    f"{name}: registry: needs the registry's address; set registry.url"
                )
        return self

    @model_validator(mode="after")
    def _no_loop(self) -> Settings:
        outputs = {"embeddings.topic": self.embeddings.topic}
        outputs["dead_letters.topic"] = self.dead_letters.topic
        outputs["recommend.embeddings_topic"] = self.recommend.embeddings_topic
        outputs["recommend.users_topic"] = self.recommend.users_topic
        inputs = dict.fromkeys(self.source.topics, "source.topics")
        inputs[self.recommend.views_topic] = "recommend.views_topic"
        inputs[self.recommend.inventory_topic] = "recommend.inventory_topic"
        for name, topic in outputs.items():
            if topic in inputs:
                told = "one of " * (inputs[topic] == "source.topics") + inputs[topic]
                raise ValueError(f"{name}: {topic} is {told}, which would be a loop")
        return self


def load(environ: Mapping[str, str], folder: Path) -> Settings:
    """The settings that the environment and a file in a folder give.

    Raises:
        UsageError: A setting is unknown or can't be right; the text names it and its value.
    """
    given = _from_file(environ, folder)
    for path, value in _from_environment(environ):
        _set(*_place(given, path), value)
    traces = given.setdefault("traces", {})
    if isinstance(traces, dict):
        traces.setdefault("endpoint", _collector(environ))
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise UsageError(_told(error)) from error


def _collector(environ: Mapping[str, str]) -> str:
    """Where OpenTelemetry's own variables say that spans go; empty where they don't."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    of_all = f"{base.rstrip('/')}/v1/traces" if base else ""
    return environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip() or of_all


def _from_file(environ: Mapping[str, str], folder: Path) -> dict[str, Any]:
    named = environ.get(CONFIG_VARIABLE)
    path = folder / (named or DEFAULT_FILE)
    if not named and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{CONFIG_VARIABLE}: {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{CONFIG_VARIABLE}: {path}: not TOML: {error}") from error


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[list[str], str]]:
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable != CONFIG_VARIABLE:
            # At most three parts: what follows kafka.client or registry.client is a library's name.
            parts = variable[len(PREFIX) :].lower().split("__", 2)
            if parts[0] == "pipelines":
                parts[2:] = "".join(parts[2:]).split("__", 1) if parts[2:] else []
            yield parts, environ[variable]


def _place(given: dict[str, Any], path: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Where a variable's setting is: for one of a pipeline, among what that has of its own."""
    if path[0] != "pipelines" or len(path) == 1:
        return given, path
    if isinstance(given.get("pipelines"), str):
        given["pipelines"] = _section([*path[:1], ""], given["pipelines"])
    pipelines = given.get("pipelines")
    for one in pipelines if isinstance(pipelines, list) else ():
        name = one.get("name") if isinstance(one, dict) else None
        if isinstance(name, str) and variable_of(name) == path[1].upper():
            if len(path) < 4:
                raise UsageError(f"{'.'.join(path)}: is no setting; give section and name")
            return one, path[2:]
    raise UsageError(f"pipelines.{path[1]}: there is no such pipeline")


def _set(given: dict[str, Any], path: list[str], value: str) -> None:
    section = given
    for name in path[:-1]:
        inner = section.setdefault(name, {})
        if isinstance(inner, str):
            inner = section[name] = _section(path, inner)
        if not isinstance(inner, dict):
            raise UsageError(f"{'.'.join(path)}: {name} is no section")
        section = inner
    name = path[-1]
    section[name.replace("_", ".") if tuple(path[:2]) in CLIENTS else name] = value


def _section(path: list[str], text: str) -> object:
    try:
        return _from_json(text)
    except ValueError as error:
        # Not the text itself: it may hold a secret.
        raise UsageError(f"{'.'.join(path[:-1])}: not JSON: {error}") from None


def _client_options(
    section: str, given: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """A library's options; what ends in `file` is read from the file that it names."""
    for name, value in given.items():
        full = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _client_options(section, value, f"{full}.")
        elif full.endswith(("_file", ".file")) and full not in FILE_OPTIONS:
            yield full[: -len("_file")], _secret(f"{section}.{full}", str(value))
        else:
            yield full, str(value).lower() if isinstance(value, bool) else str(value)


def _secret(name: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise ValueError(f"{name}: {path}: {error.strerror}") from error


def _told(error: ValidationError) -> str:
    """The first fault, in one line, by the setting's name, and without secrets."""
    fault = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in fault["loc"]) or "settings"
    if fault["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    message = fault["msg"].removeprefix("Value error, ")
    own = ("serve.", "auth.", "recommend.", "source.", "embeddings.", "table.columns:")
    if message.startswith(own):
        return message
    if "." not in name or name.startswith(SECRET):
        return message if name == "settings" else f"{name}: {message}"
    return f"{name}: {fault['input']!r}: {message}"
