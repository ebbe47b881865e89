"""What the settings should say, as a sample of the records suggests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from operators.guess.deletions import guess_deletion
from operators.guess.expressions import member
from operators.guess.fields import fields_of
from operators.guess.identity import KEY, guess_id, is_in_key
from operators.guess.markup import Markup, guess_markup
from operators.guess.metadata import guess_columns, guess_metadata
from operators.guess.reading import Form, Reading
from operators.guess.texts import guess_texts, texts_in
from operators.guess.times import guess_time

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from operators.guess.deletions import Deletion
    from operators.guess.fields import Field
    from operators.mapping import Field as Place

__all__ = ["Proposal", "guess"]

OPTIONAL: Final = "?"


@dataclass(frozen=True)
class Proposal:
    """A guess at each setting.

    Attributes:
        form: What the records are.
        id: None where nothing looks like an id.
        text: None where nothing looks like text, and where records have Headrace's own form.
        metadata: The metadata fields.
        columns: The typed columns, of records of Headrace's own form.
        timestamp: None for Kafka's own.
        delete_when: None where nothing says so.
        only: The filter; None where all records are documents.
        markup: What the texts are written in.
        places: Pointers to all that is there.
    """

    form: Form
    id: str | None = KEY
    text: str | tuple[str, ...] | None = None
    metadata: Mapping[str, Place] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    timestamp: str | None = None
    delete_when: str | None = None
    only: str | None = None
    markup: Markup = "none"
    places: Sequence[str] = ()


def guess(reading: Reading, taken: Collection[str] = ()) -> Proposal:
    """Guess where things are.

    Args:
        reading: The sample; of a form that can be read.
        taken: Names that a column can't have.
    """
    rows = [row.fields for row in reading.rows]
    if reading.form is Form.OWN:
        metadata = [row.get("metadata") or {} for row in rows]
        return Proposal(Form.OWN, columns=guess_columns(fields_of(metadata), taken))
    fields = fields_of(rows)
    changes = reading.form is Form.DEBEZIUM
    found = Proposal(
        reading.form,
        id=KEY if changes else guess_id(reading.rows, fields, deletions=reading.empty > 0),
        places=[one.pointer for one in fields],
    )
    by_key = found.id is not None and found.id.startswith(KEY)
    ids = {one.pointer for one in fields if by_key and is_in_key(one, reading.rows)} | {found.id}
    texts = guess_texts([one for one in fields if one.pointer not in ids])
    # A row's own times can't be compared with those of deletions, which have none.
    time = None if changes else guess_time(fields, by_key=by_key)
    deletion = guess_deletion(fields)
    used = ids | {one.pointer for one in texts}
    used |= {time.pointer if time else None, deletion.flag if deletion else None}
    return replace(
        found,
        text=_text(texts),
        metadata=guess_metadata(fields, used, taken),
        timestamp=_time(time),
        delete_when=deletion.expression if deletion else None,
        only=None if changes else _filter(texts, deletion),
        markup=guess_markup([text for one in texts for text in texts_in(one)]),
    )


def _text(texts: Sequence[Field]) -> str | tuple[str, ...] | None:
    if not texts:
        return None
    pointers = tuple(one.pointer for one in texts)
    return pointers if len(pointers) > 1 else pointers[0]


def _time(time: Field | None) -> str | None:
    if time is None:
        return None
    return time.pointer + OPTIONAL * (not time.always)


def _filter(texts: Sequence[Field], deletion: Deletion | None) -> str | None:
    """What holds of records that have any text, where some have none."""
    if not texts or any(_always_says(one) for one in texts):
        return None
    # What deletes a document needs no text, and the filter is asked first.
    parts = [*([deletion.expression] if deletion else []), *(member(one.path) for one in texts)]
    return " || ".join(parts)


def _always_says(one: Field) -> bool:
    return one.always and all(text.strip() for text in texts_in(one))
