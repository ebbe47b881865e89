"""What runs a bundle's graph: a protocol of one method, and who can fulfil it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol

from operators.model.errors import ModelError
from operators.model.onnx import VERSION as ONNX_VERSION
from operators.model.onnx import OnnxRuntime

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray

    from operators.model.bundle import Bundle

__all__ = [
    "Candidate",
    "Precision",
    "Runtime",
    "RuntimeName",
    "candidates",
    "open_runtime",
    "versions",
]

RuntimeName = Literal["auto", "onnxruntime", "openvino"]
Precision = Literal["auto", "fp32", "bf16", "int8"]
Candidate = tuple[str, str]
"""A runtime and a precision, neither of them `auto`."""

_RUNTIMES: Final = ("auto", "onnxruntime", "openvino")
_PRECISIONS: Final = ("auto", "fp32", "bf16", "int8")
_INSTALL: Final = "pip install 'headrace[openvino]'"


class Runtime(Protocol):
    """Token batch in, unit vectors out."""

    def run(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """One call to the model.

        Args:
            input_ids: int64 [rows, tokens], padded on the right.
            attention_mask: the same shape; 1 for a token, 0 for padding.

        Returns:
            float32 [rows, dimension], rows of unit length; the caller's own.
        """
        ...


def candidates(runtime: str, precision: str, *, has_int8: bool = False) -> list[Candidate]:
    """What this machine can run of what is asked for; ONNX Runtime's fp32 first.

    Args:
        runtime: `auto`, `onnxruntime` or `openvino`.
        precision: `auto`, `fp32`, `bf16` or `int8`.
        has_int8: whether the bundle has an int8 form, which `auto` then considers.

    Raises:
        ModelError: something asked for that isn't there, with the way out.
    """
    _check_names(runtime, precision)
    vino = _vino() if runtime != "onnxruntime" else None
    if runtime == "openvino" and vino is None:
        raise ModelError(f"model.runtime: openvino — not installed, {_INSTALL}")
    precisions = ["fp32", "bf16"] if precision == "auto" else [precision]
    if precision == "auto" and has_int8:
        precisions.append("int8")
    own = [name for name in precisions if name != "bf16"] if runtime != "openvino" else []
    found = [("onnxruntime", name) for name in own]
    if vino is not None:
        if "bf16" in precisions and not vino.has_bf16():
            precisions.remove("bf16")
        elif runtime == precision == "auto":
            # In fp32 both are as fast as each other: not worth measuring where there is bf16.
            precisions.remove("fp32")
        found += [("openvino", name) for name in precisions]
    if not found:
        raise ModelError(_why_no_bf16(runtime, installed=vino is not None))
    return found


def open_runtime(bundle: Bundle, candidate: Candidate) -> Runtime:
    """Loads a bundle's graph, or that of its int8 form.

    Raises:
        ModelError: the runtime isn't installed, there is no int8 form, or the graph can't be
            loaded.
    """
    name, precision = candidate
    graph = bundle.at(precision).onnx_file
    if name == "onnxruntime":
        return OnnxRuntime(graph)
    vino = _vino()
    if vino is None:
        raise ModelError(f"model.runtime: openvino — not installed, {_INSTALL}")
    runtime: Runtime = vino.VinoRuntime(graph, precision)
    return runtime


def versions() -> dict[str, str]:
    """The version of each runtime on this machine; empty for one that isn't there."""
    vino = _vino()
    return {"onnxruntime": ONNX_VERSION, "openvino": "" if vino is None else vino.VERSION}


def _vino() -> ModuleType | None:
    """OpenVINO's module, where the extra is installed."""
    try:
        from operators.model import vino  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        return None
    return vino


def _check_names(runtime: str, precision: str) -> None:
    """Refuses names that aren't known."""
    if runtime not in _RUNTIMES:
        raise ModelError(f"model.runtime: {runtime} — must be one of {', '.join(_RUNTIMES)}")
    if precision not in _PRECISIONS:
        raise ModelError(f"model.precision: {precision} — must be one of {', '.join(_PRECISIONS)}")


def _why_no_bf16(runtime: str, *, installed: bool) -> str:
    """Why bf16 can't be had, with the way out."""
    if runtime == "onnxruntime":
        return "model.precision: bf16 — ONNX Runtime has none; set model.runtime to openvino"
    if not installed:
        return f"model.precision: bf16 — needs OpenVINO, {_INSTALL}"
    return "model.precision: bf16 — this processor has no bf16; use auto or fp32"
