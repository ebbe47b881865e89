"""The real flow with a model that the process dies of at some text, as native code crashes."""

import os
import signal
from collections.abc import Sequence

from bytewax.dataflow import Dataflow

from flows import embed
from operators.encoding import Encoded, Input
from operators.model import Encoder

MARKER = "deadly nightshade"


def flow() -> Dataflow:
    """The dataflow whose encoder kills its process on a text with the marker."""
    encode = Encoder.encode

    def deadly(self: Encoder, texts: Sequence[Input]) -> list[Encoded]:
        if any(MARKER in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(self, texts)

    Encoder.encode = deadly  # type: ignore[method-assign]  # stands for a crash within it
    return embed.flow()
