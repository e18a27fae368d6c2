"""Where a bare graph begins and ends, and how much of it is constants, as `ckptd inspect` tells."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from ckptd.cli.amounts import count_text, size_text
from ckptd.cli.inspect_sections import graph_shape_text
from ckptd.cli.sections import Column, Section
from ckptd.errors import NoSuchTensorError
from ckptd.formats.graph import PLACEHOLDERS, Graph, GraphTensor

_CONSTANT: Final = "Const"
_NO_OUTPUTS: Final = PLACEHOLDERS | {_CONSTANT, "NoOp", "Assert"}
_COLUMNS: Final = (Column("dtype"), Column("shape", folds=True), Column("tensor", folds=True))


@dataclass(frozen=True, slots=True)
class Ends:
    """What is fed to a graph, and what is likely fetched from it: whatever nobody in it reads."""

    inputs: Sequence[GraphTensor]
    outputs: Sequence[GraphTensor]
    constants: int
    constant_bytes: int
    """Of the constants' messages, as they lie in the file."""

    def summary(self) -> str:
        """Say in words how many constants there are."""
        return f"{count_text(self.constants, 'constant')}, {size_text(self.constant_bytes)}"

    def sections(self) -> Iterator[Section]:
        """Yield inputs and outputs."""
        yield Section(title="INPUTS", word="input", columns=_COLUMNS, rows=_rows(self.inputs))
        yield Section(
            title="OUTPUTS",
            word="output",
            note="read by no other operation",
            columns=_COLUMNS,
            rows=_rows(self.outputs),
        )

    def entry(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "inputs": [_entry(each) for each in self.inputs],
            "outputs": [_entry(each) for each in self.outputs],
            "constants": {"count": self.constants, "bytes": self.constant_bytes},
        }


def ends_of(graph: Graph) -> Ends:
    """Return the ends of a graph. Raises `CorruptGraphError` where it contradicts itself."""
    read = {each.lstrip("^").partition(":")[0] for node in graph.nodes for each in node.inputs}
    inputs, outputs = [], []
    for node in graph.nodes:
        if node.op in PLACEHOLDERS:
            inputs.append(graph.get_tensor_by_name(f"{node.name}:0"))
        elif node.name not in read and node.op not in _NO_OUTPUTS:
            with suppress(NoSuchTensorError):  # it puts out nothing
                outputs.append(graph.get_tensor_by_name(f"{node.name}:0"))
    constants = [
        node.attr["value"].tensor.ByteSize()
        for node in graph.message.node
        if node.op == _CONSTANT and "value" in node.attr
    ]
    return Ends(inputs, outputs, len(constants), sum(constants))


def _dtype(tensor: GraphTensor) -> str | None:
    return None if tensor.data_type is None else tensor.data_type.name


def _rows(tensors: Sequence[GraphTensor]) -> list[tuple[str, ...]]:
    return [(_dtype(each) or "?", graph_shape_text(each.shape), each.name) for each in tensors]


def _entry(tensor: GraphTensor) -> dict[str, Any]:
    return {
        "tensor": tensor.name,
        "dtype": _dtype(tensor),
        "shape": None if tensor.shape is None else list(tensor.shape),
    }
