"""Small graphs made by hand, as TensorFlow writes them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ckptd.formats.messages import MetaGraphDef, NodeDef
from ckptd.formats.tensor_proto import encode_tensor

FLOAT, INT32, STRING, BOOL, RESOURCE = 1, 3, 7, 10, 20


def node(name: str, op: str, *inputs: str, **attributes: Any) -> Any:
    """Return an operation. Of attributes, a number is a type, a list of numbers types or a shape."""
    made = NodeDef(name=name, op=op, input=inputs)
    for key, value in attributes.items():
        attribute = made.attr[key]
        if key == "shape":
            attribute.shape.SetInParent()
            for size in value:
                attribute.shape.dim.add(size=size)
        elif key == "value":
            attribute.tensor.CopyFrom(encode_tensor(value))
        elif key in {"f", "then_branch", "else_branch", "cond", "body"}:
            attribute.func.name = value
        elif isinstance(value, list):
            attribute.list.type.extend(value)
        elif isinstance(value, bytes):
            attribute.s = value
        else:
            attribute.type = value
    return made


def constant(name: str, value: Any) -> Any:
    """Return a constant."""
    array = np.asarray(value)
    kinds = {"f": FLOAT, "i": INT32, "b": BOOL}
    if array.dtype.kind in "fi":
        array = array.astype(f"{array.dtype.kind}4")
    if array.dtype.kind in "SU":
        array = array.astype(object)
    return node(name, "Const", dtype=kinds.get(array.dtype.kind, STRING), value=array)


def reference(name: str, shape: Sequence[int], dtype: int = FLOAT) -> list[Any]:
    """Return a reference variable and what reads it."""
    return [
        node(name, "VariableV2", dtype=dtype, shape=shape),
        node(f"{name}/read", "Identity", name, T=dtype),
    ]


def handle(name: str, shape: Sequence[int], dtype: int = FLOAT) -> Any:
    """Return a resource variable."""
    return node(name, "VarHandleOp", dtype=dtype, shape=shape, shared_name=name.encode())


def read_of(name: str, source: str, dtype: int = FLOAT) -> Any:
    """Return what reads a resource variable."""
    return node(name, "ReadVariableOp", source, dtype=dtype)


def restoring(targets: Iterable[tuple[str, str, str]], *, op: str = "Assign") -> list[Any]:
    """Return a saver's nodes that restore: variable, tensor in the checkpoint, slice ("" for all)."""
    rows = list(targets)
    nodes = [
        constant("save/Const", "model"),
        constant("save/RestoreV2/tensor_names", [row[1] for row in rows]),
        constant("save/RestoreV2/shape_and_slices", [row[2] for row in rows]),
        node(
            "save/RestoreV2",
            "RestoreV2",
            "save/Const",
            "save/RestoreV2/tensor_names",
            "save/RestoreV2/shape_and_slices",
            dtypes=[FLOAT] * len(rows),
        ),
    ]
    nodes += [
        node(f"save/Assign_{place}", op, row[0], f"save/RestoreV2:{place}", T=FLOAT)
        for place, row in enumerate(rows)
    ]
    controls = [f"^save/Assign_{place}" for place in range(len(rows))]
    return [*nodes, node("save/restore_all", "NoOp", *controls)]


def function(
    name: str, arguments: dict[str, int], results: dict[str, tuple[int, str]], *nodes: Any
) -> Any:
    """Return a function; a result is its type and where it comes from."""
    library = MetaGraphDef().graph_def.library
    made = library.function.add()
    made.signature.name = name
    for argument, dtype in arguments.items():
        made.signature.input_arg.add(name=argument, type=dtype)
    for result, (dtype, source) in results.items():
        made.signature.output_arg.add(name=result, type=dtype)
        made.ret[result] = source
    made.node_def.extend(nodes)
    return made


def meta_graph_of(
    *nodes: Any, functions: Iterable[Any] = (), restore: str = "save/restore_all"
) -> Any:
    """Return a meta graph."""
    made = MetaGraphDef()
    made.graph_def.node.extend(nodes)
    made.graph_def.library.function.extend(functions)
    made.graph_def.versions.producer = 1087
    made.saver_def.restore_op_name = restore
    return made
