"""Sections: the HTTP services, who may use them, and what they recommend."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from flows.settings.values import MetricsUrl, Section, TableName, Text, TopicName, from_list

__all__ = ["AuthSettings", "RecommendSettings", "ServeSettings", "is_loopback"]

MIN_KEY_BYTES: Final = 32
"""As RFC 7518 asks of a key of HS256: as many as the hash has."""

OTHER_CLAIMS: Final = frozenset({"aud", "exp", "iat", "iss", "nbf", "scope", "scp", "sub"})
"""What is looked at in a token for another reason."""


class ServeSettings(Section):
    """The HTTP services."""

    parts: Annotated[tuple[Literal["ingest", "search"], ...], BeforeValidator(from_list)] = Field(
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
    flow_metrics: Annotated[tuple[MetricsUrl, ...], BeforeValidator(from_list)] = Field(
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
    cors_origins: Annotated[tuple[Text, ...], BeforeValidator(from_list)] = Field(
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


class RecommendSettings(Section):
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


class AuthSettings(Section):
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
    tables_claim: Text | None = Field(
        None,
        description="The claim of a token that names the tables its bearer may search; unless set "
        "all may be.",
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

    @field_validator("tables_claim")
    @classmethod
    def _free(cls, claim: str | None) -> str | None:
        if claim in OTHER_CLAIMS:
            raise ValueError("says something else of a token; name a claim of its own")
        return claim

    @model_validator(mode="after")
    def _whole(self) -> AuthSettings:
        if self.jwt_key is not None and self.jwks_url is not None:
            raise ValueError("auth.jwt_key, auth.jwks_url: both are set; set the one in use")
        if self.tables_claim is not None and not self.required:
            raise ValueError(
                f"auth.tables_claim: {self.tables_claim}: no token is looked at; set auth.jwt_key "
                "or auth.jwks_url"
            )
        return self


def is_loopback(host: str | None) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
