"""`headrace init`: looks at a topic, guesses the settings, and writes them."""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from cli.broker import connect
from cli.errors import CommandError
from cli.output import emit, say, show_table
from cli.settings_file import settings_file
from cli.wishes import ask, with_wishes
from flows.decoding import decoder_of
from flows.registering import registry_of, values_of
from flows.sampling import fit_in
from flows.settings import FIXED_COLUMNS, settings_of
from headrace.errors import UsageError
from operators.guess import Form, guess, read
from operators.records import Kind, Lane
from operators.values import JsonValues
from sources.sample import sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cli.wishes import Wishes
    from flows.sampling import Fit
    from flows.settings import Settings
    from operators.guess import Proposal, Reading
    from operators.records import DocumentBatch, RecordBatch
    from sources.registered import RegisteredValues

__all__ = ["Found", "Shown", "look", "refuse_replacing", "show", "write"]

SAMPLE_RECORDS: Final = 200
"""How many of the newest records are looked at, of all partitions together."""

SAMPLE_LANES: Final = 8
"""Of how many partitions."""

SHOWN: Final = 3
"""How many documents are shown."""

PREVIEW: Final = 300
"""Characters of a text that are shown."""

NAME: Final = 200
"""Characters of a topic's name that names made of it have."""

FORMS: Final = {
    Form.OWN: "Headrace's own form",
    Form.JSON: "JSON",
    Form.DEBEZIUM: "change events of Debezium's",
}

COMMENTS: Final = {
    "kafka.application_id": "Another for each flow: the group of its offsets.",
    "source.encoding": "The records are written by schemas of the registry above.",
    "source.format": "The records are change events; the fields below are columns of the row, and "
    "the\nid is its primary key.",
    "source.id": 'The document\'s id: "key" is the record\'s key, "key/id" a field of a JSON key, '
    '"/id" one\nof the value.',
    "source.text": "What is embedded: pointers, each on a line of its own, or a template such as\n"
    '"{/title}. {/body?}", in which ? marks what may be missing.',
    "source.markup": "The text is written in this, and reduced to plain text.",
    "source.timestamp": "When it happened; without this setting it is Kafka's own timestamp.",
    "source.delete_when": "A JMESPath expression: a record of which it holds deletes its document.",
    "source.filter": "A JMESPath expression: records of which it does not hold are passed over, "
    "here those\nwithout text.",
    "source.metadata": "Kept beside the text. What has a type is a column of the table, to filter "
    "by.",
    "table.columns": "Metadata fields that are columns of the table, to filter by.",
}


@dataclass(frozen=True)
class Shown:
    """A document that the settings make of a record."""

    id: str
    text: str
    metadata: str


@dataclass(frozen=True)
class Found:
    """What a look at a topic came to.

    Attributes:
        topic: The topic.
        form: What its records are.
        sections: The settings.
        fit: How many records of the sample they fit.
        documents: Some that they make.
    """

    topic: str
    form: Form
    sections: Mapping[str, Mapping[str, Any]]
    fit: Fit
    documents: Sequence[Shown]


def refuse_replacing(path: Path, *, force: bool) -> None:
    """See that no file would be lost.

    Raises:
        UsageError: There is one.
    """
    if path.exists() and not force:
        raise UsageError(
            f"--output: {path}: is there already; --force replaces the whole of it, or name another"
        )


def look(settings: Settings, topic: str, wishes: Wishes, *, asking: bool) -> Found:
    """Look at a topic, and find settings for it.

    Args:
        settings: Where the broker is.
        topic: The topic.
        wishes: What is known better than guessed.
        asking: Whether a person is there to be asked.

    Raises:
        HeadraceError: The topic can't be read, or nothing in it can be embedded.
    """
    batches = _sample(settings, topic)
    registry = registry_of(settings)
    with nullcontext() if registry is None else closing(registry):
        return _looked(settings, topic, batches, values_of(settings, registry), wishes, asking)


def _looked(
    settings: Settings,
    topic: str,
    batches: Sequence[RecordBatch],
    values: RegisteredValues | None,
    wishes: Wishes,
    asking: bool,
) -> Found:
    if values is not None:
        for batch in batches:
            values.ahead(batch)
    reading = read(batches, values or JsonValues())
    _refuse(topic, reading)
    proposal = guess(reading, FIXED_COLUMNS)
    source = with_wishes(_source(topic, proposal), wishes)
    if asking and (reading.form is not Form.OWN or "text" in source):
        say(_told(topic, reading))
        # Of a row the id is the primary key.
        source = ask(source, ("id",) if reading.form is Form.DEBEZIUM else ())
    _refuse_nothing(proposal, source)
    sections = _sections(settings, topic, source, proposal)
    decode = decoder_of(settings_of(sections), values)
    decoded = [decode(batch) for batch in batches]
    fit = fit_in(decoded)
    if fit.none_fits:
        raise CommandError(
            f"--topic: {topic}: none of the {fit.records} newest records fits the settings, such "
            f"as the last: {fit.fault}; say better: --text, --id"
        )
    return Found(topic, reading.form, sections, fit, _documents(decoded))


def write(found: Found, path: Path) -> None:
    """Write the settings.

    Raises:
        CommandError: The file can't be written.
    """
    try:
        path.write_text(_file(found), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"--output: {path}: {error.strerror}") from error


def show(found: Found, written: Path | None, *, as_json: bool) -> None:
    """Print what was found, and where it was written."""
    if as_json:
        emit(
            {
                "topic": found.topic,
                "form": found.form.value,
                "settings": found.sections,
                "fit": asdict(found.fit),
                "documents": [asdict(one) for one in found.documents],
                "written": None if written is None else str(written),
            }
        )
        return
    if written is None:
        for line in _file(found).splitlines():
            say(line)
        say("")
    say(f"{found.topic}: {FORMS[found.form]}; {found.fit}")
    rows = [(one.id, one.text, one.metadata) for one in found.documents]
    show_table(("id", "text", "metadata"), rows, wide="text")
    if 2 * found.fit.documents < found.fit.records:
        say("most records have no text there; does --text name the right place?", "yellow")
    if written is not None:
        say(f"written: {written}; next: headrace topics create, and headrace check")


def _sample(settings: Settings, topic: str) -> list[RecordBatch]:
    kafka = connect(settings)
    found = kafka.partitions([topic]).get(topic)
    if found is None:
        raise CommandError(
            f"--topic: {topic}: there is no such topic at {settings.kafka.bootstrap_servers}"
        )
    lanes = [Lane(topic, one) for one in found]
    batches = list(sample(kafka, lanes, SAMPLE_RECORDS, SAMPLE_LANES))
    if not batches:
        raise CommandError(f"--topic: {topic}: holds no records yet to look at")
    return batches


def _refuse(topic: str, reading: Reading) -> None:
    if reading.form is Form.REGISTRY:
        raise CommandError(
            f"--topic: {topic}: its records are written under a schema registry (schema "
            f"{reading.schema}); say where it is, and ask again: HEADRACE_SOURCE__ENCODING="
            "registry HEADRACE_REGISTRY__URL=http://…"
        )
    if reading.form is Form.UNREADABLE and reading.empty == reading.records:
        raise CommandError(
            f"--topic: {topic}: the {reading.records} newest records are deletions, without a value"
        )
    if reading.form is Form.UNREADABLE:
        raise CommandError(
            f"--topic: {topic}: its records are no JSON objects, such as the last: {reading.fault}"
        )


def _told(topic: str, reading: Reading) -> str:
    return f"{topic}: {reading.records} records of {FORMS[reading.form]}. Enter takes the guess."


def _refuse_nothing(proposal: Proposal, source: Mapping[str, Any]) -> None:
    if proposal.form is Form.OWN:
        return
    places = ", ".join(proposal.places[:12]) + ", …" * (len(proposal.places) > 12)
    wanted = {
        "text": "nothing in the records looks like text; say where it is, such as --text /title",
        "id": "nothing in the records looks like an id; say where it is, such as --id /sku",
    }
    for name, message in wanted.items():
        if source.get(name) is None and (name, proposal.form) != ("id", Form.DEBEZIUM):
            raise UsageError(f"--{name}: {message}; there are {places or 'no fields'}")


def _source(topic: str, proposal: Proposal) -> dict[str, Any]:
    """The section `source`, as it was guessed; what is as by default is left out."""
    if proposal.form is Form.OWN:
        return {"topics": [topic]}
    changes = proposal.form is Form.DEBEZIUM
    given = {
        "topics": [topic],
        "format": "debezium" if changes else None,
        "id": None if changes else proposal.id,
        "text": list(proposal.text) if isinstance(proposal.text, tuple) else proposal.text,
        "markup": None if proposal.markup == "none" else proposal.markup,
        "timestamp": proposal.timestamp,
        "delete_when": proposal.delete_when,
        "filter": proposal.only,
        "metadata": {
            name: {"at": one.at, "type": one.type} if one.type else {"at": one.at}
            for name, one in proposal.metadata.items()
        }
        or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _sections(
    settings: Settings, topic: str, source: Mapping[str, Any], proposal: Proposal
) -> dict[str, dict[str, Any]]:
    """All settings: names of the outputs are the topic's, so that flows don't meet in them."""
    name = topic[:NAME]
    kafka = {"bootstrap_servers": settings.kafka.bootstrap_servers}
    kafka["application_id"] = f"headrace-{name}"
    table: dict[str, Any] = {"name": name}
    if proposal.columns and "text" not in source:
        table["columns"] = dict(proposal.columns)
    registry: dict[str, dict[str, Any]] = {}
    if settings.source.encoding == "registry":
        registry["registry"] = {"url": settings.registry.url, "key": settings.registry.key}
        source = {**source, "encoding": "registry"}
    return {
        "kafka": kafka,
        **registry,
        "source": dict(source),
        "embeddings": {"topic": f"{name}.embeddings"},
        "dead_letters": {"topic": f"{name}.dead-letters"},
        "table": table,
    }


def _documents(decoded: Sequence[DocumentBatch]) -> list[Shown]:
    """Some documents, the newest of each partition's last."""
    found: list[Shown] = []
    for batch in reversed(decoded):
        for index, kind in enumerate(batch.kinds):
            text = batch.texts[index] or ""
            if kind is Kind.UPSERT and index not in batch.dead and len(found) < SHOWN:
                metadata = batch.metadata.json[index] or "{}"
                found.append(Shown(batch.ids[index], text[:PREVIEW], metadata))
    return found


def _file(found: Found) -> str:
    head = (
        f"Settings of a flow from the topic {found.topic}, as headrace init guessed them:\n"
        f"{found.fit}.\n"
        "Look over them, then: headrace topics create, and headrace check. All settings are in\n"
        "docs/settings.md; HEADRACE_SECTION__NAME in the environment wins over this file."
    )
    return settings_file(found.sections, COMMENTS, head)
