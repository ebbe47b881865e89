"""Whether the records of the source's topics are what the settings say, by a sample of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from headrace.errors import UsageError
from operators.records import Kind
from sources.sample import sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from clients.kafka import KafkaConfig
    from flows.settings import Settings
    from operators.records import DocumentBatch, Lane, RecordBatch

__all__ = ["Fit", "check_fit", "fit_in", "fit_of", "tried"]

log = structlog.get_logger(__name__)

SAMPLE_RECORDS: Final = 20
"""How many of the newest records are looked at, of all partitions together."""

SAMPLE_LANES: Final = 5
"""Of how many partitions."""


@dataclass(frozen=True)
class Fit:
    """What a sample came to.

    Attributes:
        records: How many were looked at, without those that have no value.
        documents: How many of them are documents or deletions.
        passed: How many are passed over.
        fault: What is wrong with the last of the others: code and message; empty if there is none.
    """

    records: int = 0
    documents: int = 0
    passed: int = 0
    fault: str = ""

    @property
    def none_fits(self) -> bool:
        """Whether there were records, and not one of them could be read."""
        return self.records > 0 and not self.documents and not self.passed

    def __str__(self) -> str:
        told = f"of the {self.records} newest records {self.documents} fit"
        told += f", {self.passed} are passed over" * (self.passed > 0)
        return told + (f"; the last that does not: {self.fault}" if self.fault else "")


def tried(settings: Settings) -> str:
    """The setting that records may fit or not; empty where there is none to try on them."""
    if settings.source.mapped:
        return "source.text"
    return "table.name" if settings.table.routed else ""


def fit_of(
    kafka: KafkaConfig,
    lanes: Sequence[Lane],
    decode: Callable[[RecordBatch], DocumentBatch],
) -> Fit:
    """Read a sample and decode it.

    Raises:
        HeadraceError: The broker can't be reached.
    """
    return fit_in(map(decode, sample(kafka, lanes, SAMPLE_RECORDS, SAMPLE_LANES)))


def fit_in(batches: Iterable[DocumentBatch]) -> Fit:
    """What some decoded records come to."""
    records = documents = passed = 0
    fault = ""
    for batch in batches:
        for index, (kind, value) in enumerate(zip(batch.kinds, batch.records.values, strict=True)):
            if value is None:
                continue  # a deletion, which fits whatever the settings say
            records += 1
            passed += kind is Kind.SKIP
            documents += kind not in {Kind.SKIP, Kind.DEAD}
            if index in batch.dead:
                fault = f"{batch.dead[index].code}: {batch.dead[index].message}"
    return Fit(records, documents, passed, fault)


def check_fit(fit: Fit, setting: str, *, fresh: bool) -> None:
    """Refuse to begin where nothing could come of it; warn where some records don't fit.

    Args:
        fit: What the sample came to.
        setting: What they are read by.
        fresh: Whether nothing has been committed yet. A flow that has read this topic before goes
            on: what does not fit are dead letters.

    Raises:
        UsageError: No record fits.
    """
    if fit.none_fits and fresh:
        raise UsageError(
            f"{setting}: none of the {fit.records} newest records fits, such as the last: "
            f"{fit.fault}; mend the settings, and look: headrace check"
        )
    if fit.fault:
        log.warning("records do not fit", stage="start", found=str(fit))
