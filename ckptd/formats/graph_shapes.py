"""What a graph says of its tensors' shapes before it runs, as far as ordinary operations go.

Each operation in the table here derives its outputs' shapes from its attributes, its inputs' shapes
and, where it takes a shape or an axis as input, from constants. An operation that is not in the
table has outputs of unknown shape, unless the graph was written with its shapes
(`as_graph_def(add_shapes=True)`). What is stated agrees with TensorFlow's own inference; TensorFlow
often knows more. In a loop nothing is known of what comes round.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any, Final, NamedTuple, TypeAlias, overload

from ckptd.errors import FormatError
from ckptd.formats.graph_walk import is_control, node_of
from ckptd.formats.tensor_proto import decode_tensor

Shape: TypeAlias = tuple[int | None, ...] | None
"""A size for each dimension, None where it is not known; None for the whole if the rank is not."""

_Value: TypeAlias = int | tuple[int | None, ...] | None
"""The integers in a small tensor, in C order; None for those that are not known."""

_LARGEST_RANK: Final = 32
"""Dimensions that are followed; a tensor with more counts as of unknown rank."""
_LARGEST_SIZE: Final = 2**63 - 1
_LARGEST_VALUE: Final = 2 * _LARGEST_RANK
"""Elements of a constant that is looked at: a pair for each dimension."""
_MOST_OUTPUTS: Final = 1024
"""Outputs that are followed of an operation that has as many as it likes."""
_INTEGERS: Final = frozenset({3, 9})  # int32, int64
_LEGACY_SCALARS: Final = 21
"""Up to this version of graphs a scalar's shape meant an unknown one."""


class _ContradictionError(Exception):
    """The inputs cannot go together: TensorFlow would refuse the graph."""


class _Known(NamedTuple):
    """What is known of one operation."""

    shapes: Sequence[Shape] = ()
    value: _Value = None
    handle: Shape = None
    """The shape of the variable that output 0 is the handle of."""


_NOTHING: Final = _Known()


class _Alike(Sequence[Shape]):
    """The shapes of many outputs that have the same, in the memory of one."""

    def __init__(self, shape: Shape, count: int) -> None:
        self.shape = shape
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Shape: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Shape]: ...
    def __getitem__(self, index: int | slice) -> Shape | Sequence[Shape]:
        if isinstance(index, slice):
            return [self.shape] * len(range(self._count)[index])
        range(self._count)[index]  # raises what a list does
        return self.shape


class Shapes:
    """The shapes of a graph's tensors, each found once and when asked for.

    `find` returns the node (a `NodeDef`) of a name, None where there is none. `producer` is the
    graph's version.
    """

    def __init__(self, find: Callable[[str], Any | None], producer: int) -> None:
        self._find = find
        self._producer = producer
        self._known: dict[str, _Known] = {}

    def of(self, name: str, index: int) -> Shape:
        """Return the shape of one output of the operation `name`."""
        shapes = self._of_node(name).shapes
        return shapes[index] if index < len(shapes) else None

    def _of_node(self, name: str) -> _Known:
        waiting = [name]
        begun: dict[str, list[_Endpoint]] = {}
        while waiting:  # a stack of our own: graphs are deeper than Python's
            here = waiting[-1]
            if here in self._known:
                waiting.pop()
                continue
            node = self._find(here)
            if node is None:
                self._known[here] = _NOTHING
            elif here in begun:
                self._known[here] = self._infer(node, begun[here])
            else:
                followed = node.input if node.op in _RULES else ()
                ends = [_endpoint(text) for text in followed if not is_control(text)]
                begun[here] = ends
                # An input that has begun and is not known yet is part of a loop.
                names = dict.fromkeys(end.node for end in ends)
                waiting += [each for each in names if each not in self._known and each not in begun]
        return self._known[name]

    def _infer(self, node: Any, ends: list["_Endpoint"]) -> _Known:
        rule = _RULES.get(node.op)
        known = _NOTHING
        if rule is not None:
            operation = _Operation(node, [self._input(end) for end in ends], self._producer)
            try:
                known = rule(operation)
                known = known._replace(shapes=_all_sound(known.shapes))
            except _ContradictionError:
                known = _NOTHING
        if "_output_shapes" not in node.attr:
            return known
        stated = [shape_of(each) for each in node.attr["_output_shapes"].list.shape[:_MOST_OUTPUTS]]
        padded = chain(known.shapes, repeat(None))
        try:
            shapes = [_merge(*pair) for pair in zip(stated, padded, strict=False)]
        except _ContradictionError:
            shapes = list(stated)
        return known._replace(shapes=shapes)

    def _input(self, end: "_Endpoint") -> "_Input":
        known = self._known.get(end.node, _NOTHING)
        shape = known.shapes[end.output] if end.output < len(known.shapes) else None
        if end.output:
            return _Input(shape, None, None)
        return _Input(shape, known.value, known.handle)


class _Endpoint(NamedTuple):
    """Where an input comes from."""

    node: str
    output: int


class _Input(NamedTuple):
    shape: Shape
    value: _Value
    handle: Shape


class _Operation:
    """One node with all that is known of its inputs; an input that is not there is unknown."""

    def __init__(self, node: Any, inputs: list[_Input], producer: int) -> None:
        self.node = node
        self.inputs = inputs
        self.producer = producer

    def input(self, index: int) -> _Input:
        return self.inputs[index] if index < len(self.inputs) else _Input(None, None, None)

    def shape(self, index: int) -> Shape:
        return self.input(index).shape

    def shapes(self) -> list[Shape]:
        """The shapes of all inputs, each once."""
        return list(dict.fromkeys(each.shape for each in self.inputs))

    def number(self, index: int) -> int | None:
        """The one integer that an input is, be it a scalar or of one element."""
        value = self.input(index).value
        if isinstance(value, tuple):
            return value[0] if len(value) == 1 else None
        return value

    def numbers(self, index: int) -> tuple[int, ...] | None:
        """The integers of an input, if all of them are known."""
        value = self.input(index).value
        if isinstance(value, int):
            return (value,)
        if value is None or None in value:
            return None
        return tuple(each for each in value if each is not None)

    def described(self, index: int) -> Shape:
        """The shape that an input describes; -1 in it is unknown."""
        value = self.input(index).value
        if isinstance(value, tuple):
            return tuple(None if each == -1 else each for each in value)
        own = self.shape(index)
        if own is not None and len(own) == 1 and own[0] is not None and own[0] <= _LARGEST_RANK:
            return (None,) * own[0]
        return None

    def attribute(self, name: str) -> Any | None:
        """Return an `AttrValue`; protobuf would make the one that is missing, in the graph itself."""
        return self.node.attr.get(name)

    def integer(self, name: str, default: int = 0) -> int:
        found = self.attribute(name)
        return default if found is None else int(found.i)

    def integers(self, name: str) -> list[int]:
        found = self.attribute(name)
        return [] if found is None else list(found.list.i)

    def flag(self, name: str, *, default: bool = False) -> bool:
        found = self.attribute(name)
        return default if found is None else bool(found.b)

    def text(self, name: str, default: bytes) -> bytes:
        found = self.attribute(name)
        return default if found is None else bytes(found.s)

    def stated(self, name: str) -> Shape:
        found = self.attribute(name)
        return None if found is None else shape_of(found.shape)


def shape_of(message: Any) -> Shape:
    """Return the shape that a `TensorShape` states."""
    if message.unknown_rank:
        return None
    return tuple(dim.size if dim.size >= 0 else None for dim in message.dim)


def output_index(text: str) -> int:
    """Return which output of its node an input is.

    >>> output_index("split:2"), output_index("split")
    (2, 0)
    """
    _, colon, last = text.rpartition(":")
    return int(last) if colon and last.isdecimal() and len(last) < 10 else 0  # noqa: PLR2004 - an int32's digits


def _endpoint(text: str) -> _Endpoint:
    return _Endpoint(node_of(text), output_index(text))


def _sound(shape: Shape) -> Shape:
    if shape is None or len(shape) > _LARGEST_RANK:
        return None
    if any(size is not None and not 0 <= size <= _LARGEST_SIZE for size in shape):
        raise _ContradictionError
    return shape


def _all_sound(shapes: Sequence[Shape]) -> Sequence[Shape]:
    if isinstance(shapes, _Alike):
        return _Alike(_sound(shapes.shape), len(shapes))
    return [_sound(shape) for shape in shapes]


def _merge_size(one: int | None, other: int | None) -> int | None:
    if one is None or one == other:
        return other
    if other is None:
        return one
    raise _ContradictionError


def _merge(one: Shape, other: Shape) -> Shape:
    """Return all that two statements about one shape say together."""
    if one is None or one == other:
        return other
    if other is None:
        return one
    if len(one) != len(other):
        raise _ContradictionError
    return tuple(map(_merge_size, one, other))


def _merge_all(shapes: Iterable[Shape]) -> Shape:
    return functools.reduce(_merge, shapes, None)


def _product(sizes: Iterable[int | None]) -> int | None:
    total = 1
    for size in sizes:
        if size is None:
            return None
        total *= size
    return total


def _axis(number: int | None, rank: int) -> int | None:
    """Return an axis counted from the front."""
    if number is None:
        return None
    if not -rank <= number < rank:
        raise _ContradictionError
    return number % rank


# The table. Each rule returns what is known of the operation that it is given.

_Rule: TypeAlias = Callable[[_Operation], _Known]
_RULES: dict[str, _Rule] = {}


def _for(operations: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _RULES.update(dict.fromkeys(operations.split(), rule))
        return rule

    return register


def _one(shape: Shape, value: _Value = None) -> _Known:
    return _Known((shape,), value)


@_for("Const")
def _constant(op: _Operation) -> _Known:
    attribute = op.attribute("value")
    if attribute is None:
        return _NOTHING
    tensor = attribute.tensor
    shape = _sound(shape_of(tensor.tensor_shape))
    elements = None if shape is None else _product(shape)
    if elements is None or elements > _LARGEST_VALUE or tensor.dtype not in _INTEGERS:
        return _one(shape)
    try:
        values = decode_tensor(tensor, "constant")
    except FormatError:
        return _one(shape)
    return _one(shape, tuple(values.ravel().tolist()) if shape else int(values))


@_for("Placeholder PlaceholderV2 PlaceholderWithDefault VariableV2 TemporaryVariable")
def _as_stated(op: _Operation) -> _Known:
    shape = op.stated("shape")
    legacy = op.node.op == "Placeholder" and op.producer <= _LEGACY_SCALARS
    return _one(None if legacy and not shape else shape)


@_for("Variable")
def _variable(op: _Operation) -> _Known:
    return _one(op.stated("shape") or None)


@_for("VarHandleOp")
def _handle(op: _Operation) -> _Known:
    return _Known(((),), handle=_sound(op.stated("shape")))


@_for("ReadVariableOp")
def _read(op: _Operation) -> _Known:
    return _one(op.input(0).handle)


@_for("VarIsInitializedOp IsVariableInitialized Rank Size L2Loss ShardedFilename ShardedFilespec")
def _scalar(_: _Operation) -> _Known:
    return _one(())


@_for("Identity RefIdentity")
def _identity(op: _Operation) -> _Known:
    value = op.input(0).value
    whole = isinstance(value, int) or (value is not None and None not in value)
    return _Known((op.shape(0),), value if whole else None, op.input(0).handle)


@_for("""
    Abs Acos Acosh Angle Asin Asinh Atan Atanh BesselI0e BesselI1e Cast Ceil CheckNumerics ComplexAbs Conj Cos Cosh Cumprod Cumsum Digamma Elu Erf Erfc Exp Expm1
    FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars Floor GuaranteeConst Imag Inv Invert IsFinite
    IsInf IsNan LRN LeakyRelu Lgamma Log Log1p LogSoftmax LogicalNot Neg OnesLike PreventGradient
    RandomShuffle Real Reciprocal Relu Relu6 ReverseV2 Rint Round Rsqrt RsqrtGrad Selu Sigmoid
    SigmoidGrad Sign Sin Sinh Snapshot Softmax Softplus Softsign Sqrt SqrtGrad Square StopGradient
    Tan Tanh TanhGrad ZerosLike
""")
def _unchanged(op: _Operation) -> _Known:
    return _one(op.shape(0))


@_for("Switch")
def _switch(op: _Operation) -> _Known:
    return _Known((op.shape(0), op.shape(0)))


@_for("""
    AddN AssignAdd AssignSub EluGrad ReluGrad Relu6Grad SoftplusGrad
""")
def _all_alike(op: _Operation) -> _Known:
    return _one(_merge_all(op.shapes()))


@_for("Assign")
def _assign(op: _Operation) -> _Known:
    checked = op.flag("validate_shape", default=True)
    return _one(_merge(op.shape(0), op.shape(1)) if checked else op.shape(1))


@_for("""
    Add AddV2 Atan2 BitwiseAnd BitwiseOr BitwiseXor Complex Div DivNoNan FloorDiv FloorMod Greater
    GreaterEqual Less LessEqual LogicalAnd LogicalOr Maximum Minimum Mod Mul MulNoNan Pow RealDiv
    SquaredDifference Sub TruncateDiv TruncateMod Xdivy Xlogy
""")
def _elementwise(op: _Operation) -> _Known:
    return _one(_broadcast(op.shape(0), op.shape(1)))


@_for("Equal NotEqual")
def _equal(op: _Operation) -> _Known:
    if not op.flag("incompatible_shape_error", default=True):
        return _one(None)
    return _elementwise(op)


@_for("SelectV2")
def _select_v2(op: _Operation) -> _Known:
    return _one(_broadcast(op.shape(0), _broadcast(op.shape(1), op.shape(2))))


@_for("Select")
def _select(op: _Operation) -> _Known:
    return _one(_merge(op.shape(1), op.shape(2)))


def _broadcast(one: Shape, other: Shape) -> Shape:
    if one is None or other is None or one == other:
        return one if one == other else None
    rank = max(len(one), len(other))
    return tuple(
        _broadcast_size(*pair)
        for pair in zip(
            (*(1,) * (rank - len(one)), *one), (*(1,) * (rank - len(other)), *other), strict=True
        )
    )


def _broadcast_size(one: int | None, other: int | None) -> int | None:
    if one == 1:
        return other
    if other == 1:
        return one
    if one is not None and other is not None:
        return _merge_size(one, other)
    # Beside an unknown size a 0 may meet a 1 or another 0: TensorFlow leaves that open.
    return one or other or None


@_for("MatMul")
def _matmul(op: _Operation) -> _Known:
    rows, inner = _matrix(op.shape(0), transposed=op.flag("transpose_a"))
    also_inner, columns = _matrix(op.shape(1), transposed=op.flag("transpose_b"))
    _merge_size(inner, also_inner)
    return _one((rows, columns))


def _matrix(shape: Shape, *, transposed: bool) -> tuple[int | None, int | None]:
    rows, columns = _of_rank(shape, 2)
    return (columns, rows) if transposed else (rows, columns)


def _of_rank(shape: Shape, rank: int) -> tuple[int | None, ...]:
    if shape is None:
        return (None,) * rank
    if len(shape) != rank:
        raise _ContradictionError
    return shape


@_for("BatchMatMul BatchMatMulV2")
def _batch_matmul(op: _Operation) -> _Known:
    one, other = op.shape(0), op.shape(1)
    if one is None or other is None or min(len(one), len(other)) < 2:  # noqa: PLR2004 - dimensions
        return _one(None)
    rows, inner = _matrix(one[-2:], transposed=op.flag("adj_x"))
    also_inner, columns = _matrix(other[-2:], transposed=op.flag("adj_y"))
    _merge_size(inner, also_inner)
    combine = _broadcast if op.node.op == "BatchMatMulV2" else _merge
    batch = combine(one[:-2], other[:-2])
    return _one(None if batch is None else (*batch, rows, columns))


@_for("BiasAdd")
def _bias_add(op: _Operation) -> _Known:
    shape, bias = op.shape(0), op.shape(1)
    if not shape or op.text("data_format", b"NHWC") != b"NHWC" or bias is None or len(bias) != 1:
        return _one(shape)
    return _one((*shape[:-1], _merge_size(shape[-1], bias[0])))


@_for("All Any EuclideanNorm Max Mean Min Prod Sum")
def _reduction(op: _Operation) -> _Known:
    shape, axes, keep = op.shape(0), op.numbers(1), op.flag("keep_dims")
    if shape is None:
        return _one(None)
    if axes is None:
        return _one((None,) * len(shape) if keep else None)
    gone = {_axis(axis, len(shape)) for axis in axes}
    sizes = enumerate(shape)
    if keep:
        return _one(tuple(1 if axis in gone else size for axis, size in sizes))
    return _one(tuple(size for axis, size in sizes if axis not in gone))


@_for("ArgMax ArgMin")
def _arg(op: _Operation) -> _Known:
    shape = op.shape(0)
    if not shape:
        return _one(None)
    axis = _axis(op.number(1), len(shape))
    if axis is None:
        return _one((None,) * (len(shape) - 1))
    return _one((*shape[:axis], *shape[axis + 1 :]))


@_for("Shape")
def _shape(op: _Operation) -> _Known:
    shape = op.shape(0)
    return _one((None,) if shape is None else (len(shape),), shape)


@_for("VariableShape")
def _variable_shape(op: _Operation) -> _Known:
    shape = op.input(0).handle
    return _one((None,) if shape is None else (len(shape),), shape)


@_for("Reshape")
def _reshape(op: _Operation) -> _Known:
    wanted = op.described(1)
    if wanted is None or wanted.count(None) != 1 or op.shape(0) is None:
        return _one(wanted)
    elements = _product(op.shape(0) or ())
    others = _product(size for size in wanted if size is not None)
    if elements is None or not others:
        return _one(wanted)
    if elements % others:
        raise _ContradictionError
    return _one(tuple(elements // others if size is None else size for size in wanted))


@_for("Fill RandomStandardNormal RandomUniform RandomUniformInt TruncatedNormal")
def _filled(op: _Operation) -> _Known:
    return _one(op.described(0))


@_for("ExpandDims")
def _expand_dims(op: _Operation) -> _Known:
    shape = op.shape(0)
    axis = None if shape is None else _axis(op.number(1), len(shape) + 1)
    if shape is None or axis is None:
        return _one(None)
    return _one((*shape[:axis], 1, *shape[axis:]))


@_for("Squeeze")
def _squeeze(op: _Operation) -> _Known:
    shape = op.shape(0)
    if shape is None:
        return _one(None)
    axes = {_axis(axis, len(shape)) for axis in op.integers("squeeze_dims")}
    if not axes and None in shape:
        return _one(None)
    if any(shape[axis] not in {1, None} for axis in axes if axis is not None):
        raise _ContradictionError
    gone = axes or {axis for axis, size in enumerate(shape) if size == 1}
    return _one(tuple(size for axis, size in enumerate(shape) if axis not in gone))


@_for("Transpose")
def _transpose(op: _Operation) -> _Known:
    shape, order = op.shape(0), op.numbers(1)
    if order is None:
        return _one(None if shape is None else (None,) * len(shape))
    if shape is None:
        return _one((None,) * len(order) if len(order) > 1 else None)
    if sorted(order) != list(range(len(shape))):
        raise _ContradictionError
    return _one(tuple(shape[axis] for axis in order))


@_for("Concat ConcatV2")
def _concat(op: _Operation) -> _Known:
    last = op.node.op == "ConcatV2"
    number = op.number(len(op.inputs) - 1 if last else 0)
    shapes = [each.shape for each in (op.inputs[:-1] if last else op.inputs[1:])]
    ranks = {len(shape) for shape in shapes if shape is not None}
    if len(ranks) != 1:
        return _one(None)
    (rank,) = ranks
    axis = _axis(number, rank)
    if axis is None:
        return _one((None,) * rank)
    full = [_of_rank(shape, rank) for shape in shapes]
    total = None
    if all(shape[axis] is not None for shape in full):
        total = sum(shape[axis] or 0 for shape in full)
    around = _merge_all({(*shape[:axis], None, *shape[axis + 1 :]) for shape in full})
    assert around is not None  # of known rank
    return _one((*around[:axis], total, *around[axis + 1 :]))


@_for("Pack")
def _pack(op: _Operation) -> _Known:
    shape = _merge_all(op.shapes())
    if shape is None:
        return _one(None)
    axis = _axis(op.integer("axis"), len(shape) + 1) or 0
    packed = (*shape[:axis], len(op.inputs), *shape[axis:])
    if shape or len(op.inputs) > _LARGEST_RANK:
        return _one(packed)
    values = [each.value for each in op.inputs]
    return _one(packed, tuple(each if isinstance(each, int) else None for each in values))


@_for("Unpack")
def _unpack(op: _Operation) -> _Known:
    shape = op.shape(0)
    if not shape:
        return _NOTHING
    axis = _axis(op.integer("axis"), len(shape)) or 0
    part = (*shape[:axis], *shape[axis + 1 :])
    return _Known(_Alike(part, min(max(op.integer("num"), 0), _MOST_OUTPUTS)))


@_for("Split")
def _split(op: _Operation) -> _Known:
    shape, count = op.shape(1), op.integer("num_split")
    axis = None if shape is None else _axis(op.number(0), len(shape))
    if shape is None or axis is None or count < 1:
        return _NOTHING
    size = shape[axis]
    if size is not None and size % count:
        raise _ContradictionError
    part = (*shape[:axis], None if size is None else size // count, *shape[axis + 1 :])
    return _Known(_Alike(part, min(count, _MOST_OUTPUTS)))


@_for("Slice")
def _slice(op: _Operation) -> _Known:
    shape, begin, size = op.shape(0), op.numbers(1), op.numbers(2)
    if shape is None or begin is None or size is None:
        return _one(None)
    if not len(shape) == len(begin) == len(size):
        raise _ContradictionError
    return _one(
        tuple(
            (None if whole is None else whole - start) if length == -1 else length
            for whole, start, length in zip(shape, begin, size, strict=True)
        )
    )


@_for("StridedSlice")
def _strided_slice(op: _Operation) -> _Known:
    shape = op.shape(0)
    begin, end, strides = (op.input(index).value for index in (1, 2, 3))
    bounds = (begin, end, strides)
    if shape is None or not all(isinstance(each, tuple) for each in bounds):
        return _one(None)
    if op.numbers(3) is None:
        return _one(None)
    rows = list(zip(*map(tuple, bounds), strict=False))  # type: ignore[arg-type]
    sizes = tuple(_strided_sizes(op, shape, rows))
    return _one(sizes, _strided_value(op, rows))


def _strided_sizes(
    op: _Operation, shape: tuple[int | None, ...], rows: Any
) -> Iterator[int | None]:
    def masked(name: str, at: int) -> bool:
        return bool(op.integer(name) >> at & 1)

    left = list(shape)
    consumed = sum(
        not masked("new_axis_mask", at) and not masked("ellipsis_mask", at)
        for at in range(len(rows))
    )
    if consumed > len(left):
        raise _ContradictionError
    skipped = len(left) - consumed
    for at, (begin, end, stride) in enumerate(rows):
        if masked("ellipsis_mask", at):
            yield from (left.pop(0) for _ in range(skipped))
            skipped = 0
        elif masked("new_axis_mask", at):
            yield 1
        else:
            size = left.pop(0)
            if masked("shrink_axis_mask", at):
                continue
            whole = (masked("begin_mask", at), masked("end_mask", at))
            if size is None or not stride or None in {whole[0] or begin, whole[1] or end}:
                yield None
            else:
                part = slice(None if whole[0] else begin, None if whole[1] else end, stride)
                yield len(range(*part.indices(size)))
    yield from left


def _strided_value(op: _Operation, rows: Any) -> _Value:
    value = op.input(0).value
    if not isinstance(value, tuple) or len(rows) != 1 or len(op.shape(0) or ()) != 1:
        return None
    if op.integer("new_axis_mask") or op.integer("ellipsis_mask"):
        return None
    begin, end, stride = rows[0]
    if op.integer("shrink_axis_mask"):
        inside = begin is not None and -len(value) <= begin < len(value)
        return value[begin] if inside else None
    from_start, to_end = bool(op.integer("begin_mask")), bool(op.integer("end_mask"))
    if stride <= 0 or None in {from_start or begin, to_end or end}:
        return None
    return value[None if from_start else begin : None if to_end else end : stride]


@_for("Pad PadV2 MirrorPad")
def _pad(op: _Operation) -> _Known:
    shape, pads = op.shape(0), op.numbers(1)
    if shape is None or pads is None:
        return _one(None if shape is None else (None,) * len(shape))
    if len(pads) != 2 * len(shape):
        raise _ContradictionError
    return _one(
        tuple(
            None if size is None else size + before + after
            for size, before, after in zip(shape, pads[::2], pads[1::2], strict=True)
        )
    )


@_for("Tile")
def _tile(op: _Operation) -> _Known:
    shape, multiples = op.shape(0), op.numbers(1)
    if shape is None or multiples is None:
        return _one(None if shape is None else (None,) * len(shape))
    if len(shape) != len(multiples):
        raise _ContradictionError
    return _one(tuple(_product(pair) for pair in zip(shape, multiples, strict=True)))


@_for("Gather ResourceGather")
def _gather(op: _Operation) -> _Known:
    params = op.shape(0) if op.node.op == "Gather" else op.input(0).handle
    indices = op.shape(1)
    if not params or indices is None or op.integer("batch_dims"):
        return _one(None)
    return _one((*indices, *params[1:]))


@_for("GatherV2")
def _gather_v2(op: _Operation) -> _Known:
    params, indices = op.shape(0), op.shape(1)
    if not params or indices is None or op.integer("batch_dims"):
        return _one(None)
    axis = _axis(op.number(2), len(params))
    if axis is None:
        return _one(None)
    return _one((*params[:axis], *indices, *params[axis + 1 :]))


@_for("OneHot")
def _one_hot(op: _Operation) -> _Known:
    shape, depth = op.shape(0), op.number(1)
    if shape is None:
        return _one(None)
    axis = op.integer("axis", -1)
    place = len(shape) if axis == -1 else axis
    if not 0 <= place <= len(shape):
        raise _ContradictionError
    return _one((*shape[:place], depth if depth is None or depth >= 0 else None, *shape[place:]))


@_for("TopKV2")
def _top_k(op: _Operation) -> _Known:
    shape, count = op.shape(0), op.number(1)
    if not shape:
        return _NOTHING
    best = (*shape[:-1], count)
    return _Known((best, best))


@_for("SparseSoftmaxCrossEntropyWithLogits")
def _sparse_cross_entropy(op: _Operation) -> _Known:
    features, labels = _of_rank(op.shape(0), 2), _of_rank(op.shape(1), 1)
    batch = _merge_size(features[0], labels[0])
    return _Known(((batch,), (batch, features[1])))


@_for("SoftmaxCrossEntropyWithLogits")
def _cross_entropy(op: _Operation) -> _Known:
    shape = op.shape(0)
    if shape is None or shape != op.shape(1) or len(shape) != 2 or None in shape:  # noqa: PLR2004 - dimensions
        return _NOTHING  # the two may broadcast
    return _Known((shape[:1], shape))


@_for("FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3")
def _batch_norm(op: _Operation) -> _Known:
    channels = _of_rank(op.shape(1), 1)
    return _Known((op.shape(0), *[channels] * 4))


@_for("Conv2D DepthwiseConv2dNative")
def _convolution(op: _Operation) -> _Known:
    layout = op.text("data_format", b"NHWC")
    if layout not in _LAYOUTS:
        return _one(None)
    places = _LAYOUTS[layout]
    image, kernel = _of_rank(op.shape(0), 4), _of_rank(op.shape(1), 4)
    depth = kernel[3]
    if op.node.op == "DepthwiseConv2dNative":
        depth = _product((_merge_size(image[places.channels], kernel[2]), kernel[3]))
    return _one(_windows(op, image, kernel[:2], places, depth))


@_for("MaxPool AvgPool")
def _pool(op: _Operation) -> _Known:
    layout = op.text("data_format", b"NHWC")
    window = op.integers("ksize")
    if layout not in _LAYOUTS or len(window) != 4:  # noqa: PLR2004 - NHWC
        return _one(None)
    places = _LAYOUTS[layout]
    image = _of_rank(op.shape(0), 4)
    depth = image[places.channels] if window[places.channels] == 1 else None
    kernel = [window[place] for place in places.spatial]
    return _one(_windows(op, image, kernel, places, depth))


class _Layout(NamedTuple):
    """Where an image has its dimensions; the batch is the first."""

    spatial: tuple[int, int]
    channels: int


_LAYOUTS: Final = {b"NHWC": _Layout((1, 2), 3), b"NCHW": _Layout((2, 3), 1)}


def _windows(
    op: _Operation,
    image: tuple[int | None, ...],
    kernel: Sequence[int | None],
    places: _Layout,
    depth: int | None,
) -> Shape:
    strides = op.integers("strides")
    dilations = op.integers("dilations") or [1] * 4
    if len(strides) != 4 or len(dilations) != 4:  # noqa: PLR2004 - NHWC
        return None
    padding = op.text("padding", b"")
    sizes: list[int | None] = [image[0], None, None, None]
    sizes[places.channels] = depth
    for place, window in zip(places.spatial, kernel, strict=True):
        size, stride, dilation = image[place], strides[place], dilations[place]
        if size is None or stride < 1 or dilation < 1:
            continue
        if padding == b"SAME":
            sizes[place] = -(-size // stride)
        elif padding == b"VALID" and window is not None:
            sizes[place] = max(-1, (size - (window - 1) * dilation + stride - 1) // stride)
    return tuple(sizes)


@_for("ResizeBilinear ResizeNearestNeighbor ResizeBicubic ResizeArea")
def _resize(op: _Operation) -> _Known:
    batch, _, _, channels = _of_rank(op.shape(0), 4)
    sizes = op.numbers(1)
    height, width = sizes if sizes is not None and len(sizes) == 2 else (None, None)  # noqa: PLR2004 - two sizes
    return _one((batch, height, width, channels))
