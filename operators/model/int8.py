"""The int8 form of a bundle: a bundle itself, beside its graph, with a fingerprint of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from operators.model.bundle import INT8_FOLDER, assemble, locked, sweep, unwritable
from operators.model.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.model.bundle import Bundle

__all__ = ["make_int8"]


def make_int8(bundle: Bundle, texts: Sequence[str] | None = None) -> Bundle:
    """The int8 form of a bundle, made beside its graph unless it is there already.

    Args:
        bundle: in fp32.
        texts: to calibrate on, like those to come; made ones unless given. Without any, what is
            there already will do.

    Raises:
        ModelError: there is one of other texts, the graph can't be quantised, or the bundle's
            folder can't be written.
    """
    from operators.model.calibrate import (  # noqa: PLC0415 - brings onnx, slow to import
        default_texts,
        digest_of,
        write_int8,
    )

    path = bundle.path / INT8_FOLDER
    with locked(bundle.path):
        if bundle.has_int8:
            found = bundle.int8()
            made_of = (found.manifest.quantized or {}).get("texts_digest")
            if texts is not None and made_of != digest_of(texts):
                raise ModelError(
                    f"model bundle: {path} — was made of other texts, and tables may depend on "
                    "it; delete the folder to have it made anew, with another fingerprint"
                )
            return found
        chosen = default_texts(bundle) if texts is None else texts
        try:
            sweep(path)
            assemble(path, partial(write_int8, bundle, chosen))
        except OSError as error:
            raise unwritable(path.parent, error) from error
    return bundle.int8()
