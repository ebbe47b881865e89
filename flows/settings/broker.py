"""Sections: the broker and the schema registry."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from flows.settings.values import Section, Text, TopicName, client_options

__all__ = ["KafkaSettings", "RegistrySettings"]


class KafkaSettings(Section):
    """The broker."""

    bootstrap_servers: Text = Field("127.0.0.1:9092", description="The broker's addresses.")
    application_id: TopicName = Field(
        "headrace",
        description="Consumer group of the committed offsets, prefix of the transactional ids.",
    )
    client: Annotated[dict[str, str], client_options("kafka.client")] = Field(
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


class RegistrySettings(Section):
    """The schema registry."""

    url: Annotated[str, Field(pattern=r"^(https?://[^\s,]+(,https?://[^\s,]+)*)?$")] = Field(
        "",
        description="Where it is, as Confluent's clients take it; several with commas between. "
        "Empty: there is none.",
    )
    client: Annotated[dict[str, str], client_options("registry.client")] = Field(
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
