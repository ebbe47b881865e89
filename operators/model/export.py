"""Exports a sentence-transformers model: the one module that needs torch.

Import it only to export: it brings torch, which takes seconds and the `export` extra.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any, cast

import torch
from sentence_transformers import SentenceTransformer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["export_transformer"]


class _TokenStates(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """The transformer with nothing but token states as output."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Int64 [rows, tokens] each, to float32 [rows, tokens, width]."""
        output = self.transformer(input_ids=input_ids, attention_mask=attention_mask)
        states: torch.Tensor = output.last_hidden_state
        return states


def export_transformer(model: str, folder: Path) -> Path:
    """Writes a model's folder as sentence-transformers lays it out, and its transformer's graph.

    Args:
        model: a hub id or a folder.
        folder: gets the model's files; exists.

    Returns:
        The graph's file: token states from `input_ids` and `attention_mask`.

    Raises:
        Exception: whatever sentence-transformers or torch has against the model.
    """
    graph = folder / "transformer.onnx"
    with _quiet():
        loaded = SentenceTransformer(model, device="cpu").float().eval()
        loaded.save(str(folder), create_model_card=False)
        example = torch.ones((2, 8), dtype=torch.int64)
        shape = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
        with torch.no_grad():
            torch.onnx.export(
                _TokenStates(cast("Any", loaded[0]).auto_model).eval(),
                (example, example.clone()),
                str(graph),
                dynamo=True,
                input_names=["input_ids", "attention_mask"],
                output_names=["last_hidden_state"],
                dynamic_shapes={"input_ids": shape, "attention_mask": shape},
                external_data=False,
                verbose=False,
            )
    return graph


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps progress bars, warnings of libraries and log lines off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
