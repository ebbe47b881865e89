"""All settings: one frozen, validated object."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from flows.settings.broker import KafkaSettings, RegistrySettings
from flows.settings.faults import told
from flows.settings.model import BatchSettings, ModelSettings
from flows.settings.outputs import DeadLettersSettings, EmbeddingsSettings, TableSettings
from flows.settings.pipelines import Pipeline, check_apart, sections_of
from flows.settings.running import MetricsSettings, RecoverySettings, TracesSettings
from flows.settings.services import AuthSettings, RecommendSettings, ServeSettings, is_loopback
from flows.settings.source import SourceSettings
from flows.settings.values import Section, from_json, from_list
from operators.routing import Route

__all__ = ["Settings"]


class Settings(Section):
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
    pipelines: Annotated[tuple[Pipeline, ...], BeforeValidator(from_json)] = Field(
        (), description="Several pipelines of `flows.embed`: what each has of its own."
    )
    pipeline: Annotated[tuple[str, ...], BeforeValidator(from_list)] = Field(
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
        check_apart(self, self._of, told)
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
        if self.pipelines:
            return self  # judged in each of them, which may have what is missing here
        self.source.check_text()
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
    def _routed(self) -> Settings:
        if self.pipelines or self.source.mapped or not self.table.routed:
            return self
        other = Route(self.table.name).fields - {"metadata"}
        if other:
            raise ValueError(
                f"table.name: {self.table.name!r}: of a record of Headrace's own form it can take "
                f"metadata alone: write {{/metadata/{min(other)}}}, or set source.text"
            )
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
                what = "one of " * (inputs[topic] == "source.topics") + inputs[topic]
                raise ValueError(f"{name}: {topic} is {what}, which would be a loop")
        return self
