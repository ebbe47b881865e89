"""The model: a bundle on disk, what runs it, and the encoder over both.

```text
bundle    ModelSource -> Bundle: graph, tokenizer, manifest (built by build, graph, origins),
          and its int8 form (int8, built by calibrate, quantize)
runtime   token batch in, unit vectors out: onnx (ONNX Runtime), vino (OpenVINO)
choose    which of them serves the bundle best on this machine
encoder   texts in, `operators.encoding.Encoded` out
```
"""

from operators.model.bundle import Bundle, ModelSource, open_bundle
from operators.model.choose import Choice, choose
from operators.model.encoder import Encoder, describe, load_encoder
from operators.model.errors import ModelError
from operators.model.int8 import make_int8
from operators.model.runtime import Runtime, open_runtime
from operators.tokenize import Chunking

__all__ = [
    "Bundle",
    "Choice",
    "Chunking",
    "Encoder",
    "ModelError",
    "ModelSource",
    "Runtime",
    "choose",
    "describe",
    "load_encoder",
    "make_int8",
    "open_bundle",
    "open_runtime",
]
