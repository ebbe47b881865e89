"""Expressions over a record, in JMESPath: a small language that can neither loop nor reach out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import jmespath
from jmespath.exceptions import JMESPathError

from headrace.errors import UsageError
from operators.judging import reject

if TYPE_CHECKING:
    from jmespath.parser import ParsedResult

__all__ = ["Expression"]

_UNFIT: Final = (JMESPathError, ArithmeticError, RecursionError, TypeError, ValueError)
"""What evaluation raises where a value is not what a function takes; the last two come of the
library's own Python, as where it compares text with a number."""


class Expression:
    """A compiled expression.

    Args:
        text: The expression.
        setting: Which setting it stands in, for errors.

    Raises:
        UsageError: It is none.
    """

    def __init__(self, text: str, setting: str) -> None:
        self.setting = setting
        self.text = text
        try:
            self._compiled: ParsedResult = jmespath.compile(text)
        except (JMESPathError, RecursionError) as error:
            # The library's message goes on with a drawing of the place.
            told = (str(error).splitlines() or ["nested too deep"])[0]
            raise UsageError(f"{setting}: {text!r}: is no JMESPath expression: {told}") from error

    def evaluate(self, record: object) -> Any:  # noqa: ANN401 - any JSON value
        """What the expression makes of a record.

        Raises:
            Rejected: It makes nothing of it, such as the sum of what are no numbers.
        """
        try:
            return self._compiled.search(record)
        except _UNFIT as error:
            told = (str(error).splitlines() or [type(error).__name__])[0]
            reject("bad_schema", f"{self.text}: {told} ({self.setting})")

    def holds(self, record: object) -> bool:
        """Whether it is true of a record, by JMESPath's rule: not null, false or empty.

        Raises:
            Rejected: See `evaluate`.
        """
        found = self.evaluate(record)
        return bool(found) or (found == 0 and not isinstance(found, bool))
