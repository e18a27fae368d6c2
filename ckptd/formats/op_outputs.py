"""How many outputs an operation has, and of which data types.

An operation's definition (`OpDef`) says so, in terms of the node's attributes. A meta graph carries
the definitions of the operations in it; a bare `GraphDef` does not: for the usual ones there is a
list here, of TensorFlow 2.21.
"""

import functools
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ckptd.errors import CorruptGraphError, printable
from ckptd.formats import messages
from ckptd.formats.dtypes import BY_NAME, DataType, base_number, data_type


class Outputs:
    """The outputs of one node: their number, and the data type of each.

    A graph may declare any number of them, so that they are counted and never listed.
    """

    def __init__(self, runs: list["_Run"]) -> None:
        self._runs = runs
        self.count = sum(run.length for run in runs)

    def data_type(self, index: int) -> DataType:
        """Return the data type of one output, 0 up to `count`; that of the value, for a reference."""
        for run in self._runs:
            if index < run.length:
                return data_type(base_number(run.number))
            index -= run.length
        raise IndexError(index)


class _Run(NamedTuple):
    """Outputs side by side that share a data type."""

    length: int
    number: int


def outputs_of(node: Any, op_def: Any | None) -> Outputs | None:
    """Return the outputs of a `NodeDef`; None where nothing says what its operation puts out.

    `op_def` is the definition that the file itself holds, if any. Raises `CorruptGraphError` for a
    node that lacks an attribute on which its outputs depend.
    """
    if op_def is None:
        op_def = usual_ops().get(node.op)
    if op_def is None:
        return None
    attributes = _Attributes(node, op_def)
    runs = []
    for argument in op_def.output_arg:
        if argument.type_list_attr:
            listed = attributes.get(argument.type_list_attr, "list").list
            runs += [_Run(1, number) for number in listed.type]
            continue
        count = 1
        if argument.number_attr:
            count = attributes.get(argument.number_attr, "i").i
        number = argument.type
        if argument.type_attr:
            number = attributes.get(argument.type_attr, "type").type
        runs.append(_Run(max(count, 0), number))
    return Outputs(runs)


class _Attributes:
    """The attributes of a node, and the values that its operation has for those that are missing."""

    def __init__(self, node: Any, op_def: Any) -> None:
        self._node = node
        self._op_def = op_def

    def get(self, name: str, kind: str) -> Any:
        node = self._node
        value = node.attr[name] if name in node.attr else self._defaults.get(name)
        if value is None or value.WhichOneof("value") != kind:
            raise CorruptGraphError(
                f"operation {printable(node.name)!r} ({printable(node.op)}): "
                f"its outputs depend on attribute {printable(name)!r}, which it does not have"
            )
        return value

    @functools.cached_property
    def _defaults(self) -> dict[str, Any]:
        return {attr.name: attr.default_value for attr in reversed(self._op_def.attr)}


_USUAL: Final = {
    # Outputs: "$T" has the type in attribute T ("$T=float32": that type where there is no T),
    # "N*$T" are N of it, "Tout[]" has the types listed in Tout.
    "": "AssignVariableOp MergeV2Checkpoints NoOp Save SaveSlices SaveV2",
    "$T": """
        Abs Acos Add AddN AddV2 Assign Atan Atan2 AvgPool AvgPool3D BatchMatMul BatchMatMulV2
        BatchToSpaceND BiasAdd Ceil CheckNumerics ClipByValue Concat ConcatV2 Conv2D
        Conv2DBackpropInput Conv3D Cos Cumsum DepthToSpace DepthwiseConv2dNative Div DivNoNan Einsum
        Elu Enter Erf Exit Exp ExpandDims Expm1 ExtractImagePatches Fill Floor FloorDiv FloorMod
        Identity Inv Invert L2Loss Log Log1p LogSoftmax MatMul MatrixBandPart Max MaxPool3D Maximum
        Mean Min Minimum MirrorPad Mod Mul Neg NextIteration OneHot OnesLike Pack Pad PadV2 Pow
        PreventGradient Prod RealDiv Reciprocal RefIdentity Relu Relu6 Reshape ResizeNearestNeighbor
        ReverseV2 Rint Round Rsqrt ScatterNd Select SelectV2 Selu Sigmoid Sign Sin Slice Snapshot
        Softmax Softplus Softsign SpaceToBatchND SpaceToDepth Sqrt Square SquaredDifference Squeeze
        StopGradient StridedSlice Sub Sum Tan Tanh Tile Transpose TruncateDiv UnsortedSegmentSum
        Xdivy Xlogy ZerosLike
        """,
    "$T=float32": "LRN LeakyRelu MaxPool",
    "$dtype": """
        Const Placeholder PlaceholderV2 PlaceholderWithDefault RandomStandardNormal RandomUniform
        ReadVariableOp ResourceGather TensorArrayReadV3 TruncatedNormal Variable VariableV2
        """,
    "$dtype=float32": "Dequantize",
    "$dtype=uint8": "DecodePng",
    "$DstT": "Cast",
    "$Tidx=int32": "Range",
    "$Tout": "LookupTableFindV2 RandomUniformInt",
    "$Tparams": "Gather GatherNd GatherV2",
    "$dt": "Restore RestoreSlice",
    "$element_dtype": "TensorListStack",
    "$out_type": "DecodeRaw",
    "$out_type=int32": "Shape Size VariableShape",
    "$output_dtype=int64": "Multinomial",
    "$output_type=int64": "ArgMax ArgMin",
    "bool": """
        All Any Equal Greater GreaterEqual InTopKV2 IsFinite IsInf IsNan Less LessEqual LogicalAnd
        LogicalNot LogicalOr LoopCond NotEqual VarIsInitializedOp
        """,
    "float32": "FakeQuantWithMinMaxVars ResizeBilinear",
    "int32": "Bucketize NonMaxSuppressionV3 Rank",
    "int64": "Where",
    "resource": "HashTableV2 VarHandleOp",
    "string": "ShardedFilename ShardedFilespec StringJoin",
    "uint8": "DecodeJpeg",
    "$T $T": "SoftmaxCrossEntropyWithLogits SparseSoftmaxCrossEntropyWithLogits Switch",
    "$T int32": "Merge TopK",
    "$T $index_type=int32": "TopKV2",
    "$T $out_idx=int32": "Unique",
    "$T float32 float32": "QuantizeV2",
    "$T $T $T $T $T": "FusedBatchNorm",
    "$T $U $U $U $U": "FusedBatchNormV2",
    "$T $U $U $U $U $U": "FusedBatchNormV3",
    "resource float32": "TensorArrayV3",
    "N*$out_type=int32": "ShapeN",
    "num*$T": "Unpack",
    "num_split*$T": "Split SplitV",
    "T[]": "IdentityN StatelessWhile While",
    "Tout[]": "If PartitionedCall StatefulPartitionedCall StatelessIf",
    "dtypes[]": "RestoreV2",
    "Nsparse*int64 sparse_types[] Nsparse*int64 Tdense[]": "ParseExample",
}


@functools.cache
def usual_ops() -> Mapping[str, Any]:
    """Return the definitions, of their outputs only, of operations that most graphs consist of."""
    return {
        op: _op_def(op, outputs.split()) for outputs, ops in _USUAL.items() for op in ops.split()
    }


def _op_def(op: str, outputs: list[str]) -> Any:
    op_def = messages.OpDef(name=op)
    for output in outputs:
        argument = op_def.output_arg.add()
        if output.endswith("[]"):
            argument.type_list_attr = output.removesuffix("[]")
            continue
        argument.number_attr, _, kind = output.rpartition("*")
        if not kind.startswith("$"):
            argument.type = BY_NAME[kind].number
            continue
        argument.type_attr, _, default = kind.removeprefix("$").partition("=")
        if default:
            attribute = op_def.attr.add(name=argument.type_attr)
            attribute.default_value.type = BY_NAME[default].number
    return op_def
