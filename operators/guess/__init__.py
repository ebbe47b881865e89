"""Guess where things are in a topic's records, from a sample of them.

One step a module: `reading` makes objects of the records, `fields` counts what is in them, and
`identity`, `texts`, `times`, `metadata`, `deletions` and `markup` each look for one thing.
`proposal` puts what they find together.
"""

from operators.guess.proposal import Proposal, guess
from operators.guess.reading import Form, Reading, read

__all__ = ["Form", "Proposal", "Reading", "guess", "read"]
