"""Matrix products in int8: fitted to what a graph's activations were like, and put into it.

Products that read the same activations make a group, which is quantised as a whole or not at all.
Its activations are centred and scaled for each channel, then rounded to 8 bits with one scale that
is fixed for good, so a text's vector owes nothing to its batch. The channels' scales go into the
weights (Xiao et al., *SmoothQuant*, 2022), which are rounded to 8 bits with one scale a column.
What the errors are on average goes into the bias.

The graph holds this as pairs of `QuantizeLinear` and `DequantizeLinear`, which runtimes turn into
int8 arithmetic where the processor has it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from operators.model.errors import ModelError
from operators.model.graph import opset_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

__all__ = ["Activations", "Fitted", "Group", "fit", "groups_of", "rewrite"]

_LEAST_OPSET: Final = 13  # The first with a scale for each column.
_LEVELS: Final = 255
_MOST: Final = 127
# How much of a channel's range its weights take over. All of it, 1, is best for the texts that it
# was measured on, but any channel that reaches further in another text is then cut off.
_SHARE: Final = 0.8
# By how much more than was seen a channel may reach.
_MARGIN: Final = 1.1
_TINY: Final = 1e-5
_OWN: Final = "headrace/"


@dataclass(frozen=True, slots=True)
class Group:
    """Matrix products that read the same activations.

    Attributes:
        source: the activations' name in the graph.
        nodes: each product's output.
        weights: each product's weights, by name in the graph.
        size: multiplications for each token.
    """

    source: str
    nodes: tuple[str, ...]
    weights: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Activations:
    """What a group's activations were like.

    Attributes:
        low: the least of each channel: float32 [channels].
        high: the most of each channel.
        some: a sample of them: float32 [tokens, channels].
    """

    low: Floats
    high: Floats
    some: Floats


@dataclass(frozen=True, slots=True)
class Fitted:
    """A group in int8.

    Attributes:
        group: which.
        centre: what is taken off each channel: float32 [channels].
        inverse: what each channel is then multiplied with.
        scale: of one step of the activations.
        zero: the step that stands for 0.
        weights: of each product: int8 [channels, columns].
        steps: the scale of each of their columns.
        biases: what to add to each product's columns.
    """

    group: Group
    centre: Floats
    inverse: Floats
    scale: np.float32
    zero: np.uint8
    weights: tuple[NDArray[np.int8], ...]
    steps: tuple[Floats, ...]
    biases: tuple[Floats, ...]


def groups_of(model: onnx.ModelProto) -> list[Group]:
    """The groups that can be quantised, in the graph's order.

    Those are products of activations with float32 weights that nothing else uses. What Headrace
    put behind the transformer is left alone: it runs once a text, not once a token.

    Raises:
        ModelError: the graph has none, or is written in a too old operator set.
    """
    if opset_of(model) < _LEAST_OPSET:
        raise ModelError(
            f"model graph: opset {opset_of(model)} — int8 needs {_LEAST_OPSET} or later"
        )
    constants = {constant.name: constant for constant in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    found: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.name.startswith(_OWN):
            continue
        weights = constants.get(node.input[1])
        if weights is None or len(weights.dims) != 2 or uses[weights.name] != 1:
            continue
        if weights.data_type == TensorProto.FLOAT:
            found.setdefault(node.input[0], []).append(node)
    if not found:
        raise ModelError("model graph: no matrix products with float32 weights — nothing for int8")
    return [
        Group(
            source,
            tuple(node.output[0] for node in nodes),
            tuple(node.input[1] for node in nodes),
            sum(int(np.prod(constants[node.input[1]].dims)) for node in nodes),
        )
        for source, nodes in found.items()
    ]


def fit(group: Group, weights: Sequence[Floats], seen: Activations) -> Fitted:
    """A group in int8, as near to its floats as its activations allow.

    Args:
        group: which.
        weights: of each product: float32 [channels, columns].
        seen: its activations, of texts like those to come.
    """
    whole = np.concatenate(weights, axis=1)
    heavy = np.maximum(np.abs(whole).max(axis=1), _TINY)
    middle = ((seen.low + seen.high) / 2).astype(np.float32)
    tried = [_Rounding.of(seen, centre, heavy) for centre in (np.zeros_like(middle), middle)]
    own = min(tried, key=lambda one: _error(one, whole, seen.some))
    scaled = whole * own.spread[:, None]
    steps = _steps(scaled)
    rounded = np.rint(scaled / steps).astype(np.int8)
    off = (own.before(seen.some) @ scaled - own(seen.some) @ (rounded * steps)).mean(axis=0)
    bias = (off + own.centre @ whole).astype(np.float32)
    edges = np.cumsum([one.shape[1] for one in weights])[:-1]
    return Fitted(
        group,
        own.centre,
        (1 / own.spread).astype(np.float32),
        own.scale,
        own.zero,
        tuple(np.split(rounded, edges, axis=1)),
        tuple(np.split(steps, edges)),
        tuple(np.split(bias, edges)),
    )


@dataclass(frozen=True, slots=True)
class _Rounding:
    """How activations become 8 bits: centred, divided by `spread`, and rounded to steps."""

    centre: Floats
    spread: Floats
    scale: np.float32
    zero: np.uint8

    @classmethod
    def of(cls, seen: Activations, centre: Floats, heavy: Floats) -> _Rounding:
        """The steps that hold all that was seen, and a little more.

        Args:
            seen: the activations.
            centre: what is taken off each channel.
            heavy: the largest weight of each channel.
        """
        low, high = (_MARGIN * (edge - centre) for edge in (seen.low, seen.high))
        reach = np.maximum(np.maximum(high, -low), _TINY)
        spread = (reach**_SHARE / heavy ** (1 - _SHARE)).astype(np.float32)
        least, most = min(float((low / spread).min()), 0.0), max(float((high / spread).max()), 0.0)
        scale = max((most - least) / _LEVELS, _TINY)
        return cls(centre, spread, np.float32(scale), np.uint8(round(-least / scale)))

    def before(self, x: Floats) -> Floats:
        """Activations as they are before they are rounded."""
        scaled: Floats = (x - self.centre) / self.spread
        return scaled

    def __call__(self, x: Floats) -> Floats:
        """Activations as int8 arithmetic sees them."""
        zero = np.float32(self.zero)
        steps = np.clip(np.rint(self.before(x) / self.scale) + zero, 0, _LEVELS)
        rounded: Floats = (steps - zero) * self.scale
        return rounded


def _error(own: _Rounding, weights: Floats, some: Floats) -> float:
    """How far off a group's outputs are, as a share of how much they vary; without their mean."""
    scaled = weights * own.spread[:, None]
    steps = _steps(scaled)
    truth = own.before(some) @ scaled
    off = own(some) @ (np.rint(scaled / steps) * steps) - truth
    return float(off.var(axis=0).sum() / max(float(truth.var(axis=0).sum()), _TINY))


def _steps(weights: Floats) -> Floats:
    """The scale of each column that just holds its largest weight."""
    least = np.finfo(np.float32).tiny
    steps: Floats = np.maximum(np.abs(weights).max(axis=0) / _MOST, least).astype(np.float32)
    return steps


def rewrite(model: onnx.ModelProto, fitted: Iterable[Fitted]) -> onnx.ModelProto:
    """A copy of a graph in which some groups are in int8."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    writer = _Writer(made.graph)
    for number, one in enumerate(fitted):
        writer.put(one, f"{_OWN}int8_{number}")
    writer.settle()
    return made


class _Writer:
    """Puts groups into a graph, in place."""

    def __init__(self, graph: Any) -> None:  # noqa: ANN401 - onnx has no types
        self._graph = graph
        # By its output as it was: what a node gives may be renamed.
        self._order = [(node.output[0], node) for node in graph.node]
        self._nodes = dict(self._order)
        self._constants = {constant.name: constant for constant in graph.initializer}
        self._before: dict[str, list[Any]] = {}
        self._after: dict[str, list[Any]] = {}
        self._replaced: set[str] = set()

    def put(self, own: Fitted, name: str) -> None:
        """Rewrites one group's products; their activations are rounded once, before the first."""
        source, before = own.group.source, self._before.setdefault(own.group.nodes[0], [])
        if own.centre.any():
            source = self._op(before, "Sub", name, source, self._constant(name, own.centre))
        source = self._op(before, "Mul", name, source, self._constant(name, own.inverse))
        grid = self._constant(name, own.scale), self._constant(name, own.zero)
        source = self._op(before, "QuantizeLinear", name, source, *grid)
        source = self._op(before, "DequantizeLinear", name, source, *grid)
        parts = zip(own.group.nodes, own.weights, own.steps, own.biases, strict=True)
        for number, (output, weights, steps, bias) in enumerate(parts):
            product, inner = self._nodes[output], f"{name}_{number}"
            grid = self._constant(inner, steps), self._constant(inner, np.zeros_like(steps, "i1"))
            self._replaced.add(product.input[1])
            product.input[0] = source
            product.input[1] = self._op(
                self._before.setdefault(output, []),
                "DequantizeLinear",
                inner,
                self._constant(inner, weights),
                *grid,
                axis=1,
            )
            self._add(product, inner, bias)

    def _add(self, product: Any, name: str, bias: Floats) -> None:  # noqa: ANN401 - as above
        """Adds to the bias that follows a product, or gives it one."""
        output = product.output[0]
        users = [node for node in self._graph.node if output in node.input]
        if len(users) == 1 and users[0].op_type == "Add":
            at = 1 if users[0].input[0] == output else 0
            held = self._constants.get(users[0].input[at])
            if held is not None and list(held.dims) == [len(bias)]:
                self._replaced.add(held.name)
                total = numpy_helper.to_array(held) + bias
                users[0].input[at] = self._constant(name, total)
                return
        product.output[0] = f"{name}/product"
        add = [f"{name}/product", self._constant(name, bias)]
        self._after[output] = [helper.make_node("Add", add, [output], name=f"{name}/Add")]

    def settle(self) -> None:
        """Puts the new nodes between the others, and drops the constants that they replace."""
        nodes: list[Any] = []
        for output, node in self._order:
            for one in (*self._before.get(output, ()), node, *self._after.get(output, ())):
                nodes.append(onnx.NodeProto())
                nodes[-1].CopyFrom(one)
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        gone = self._replaced - {name for node in nodes for name in node.input}
        for index in reversed(range(len(self._graph.initializer))):
            if self._graph.initializer[index].name in gone:
                del self._graph.initializer[index]

    def _op(self, nodes: list[Any], kind: str, name: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 - as in onnx
        """Adds a node with one output, whose name it gives."""
        output = f"{name}/{kind}"
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Adds a constant, whose name it gives."""
        called = f"{name}/constant_{len(self._graph.initializer)}"
        array = np.array(value, order="C")
        self._graph.initializer.append(numpy_helper.from_array(array, called))
        return called
