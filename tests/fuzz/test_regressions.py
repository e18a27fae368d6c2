"""What fuzzing has found, each as small as it goes: the reader answers, soon, in little memory."""

from typing import Any

import numpy as np
import pytest
from formats.graphs import (
    FLOAT,
    constant,
    function,
    handle,
    meta_graph_of,
    node,
    read_of,
    reference,
    restoring,
)
from fuzz.targets import read_all_of_index, read_all_of_v1, verify_all
from fuzz.wire import table_of, varint

from ckptd.errors import CkptdError, CorruptTensorError, FormatError
from ckptd.formats.bundle_writer import encode_bundle
from ckptd.formats.freezing import constants_of, freeze
from ckptd.formats.graph_file import what_is
from ckptd.formats.messages import (
    BundleEntry,
    BundleHeader,
    GraphDef,
    MetaGraphDef,
    SavedTensorSlices,
    SaverDef,
    TensorSlice,
)
from ckptd.formats.meta_graph import MetaGraph
from ckptd.formats.slices import slice_key
from ckptd.formats.tensor_bundle import Bundle
from ckptd.formats.tensor_proto import LARGEST_FILL
from ckptd.formats.v1_checkpoint import V1Checkpoint

STRING, VARIANT = 7, 21
LARGE = 2**62


def shape(*sizes):
    return {"dim": [{"size": size} for size in sizes]}


def index_of(*rows):
    header = BundleHeader(num_shards=1, version={"producer": 1})
    return table_of(sorted([(b"", header.SerializeToString()), *rows]))


def entry(*sizes, **fields):
    return BundleEntry(shape=shape(*sizes), **fields).SerializeToString()


def v1_of(tensors, *rows):
    header = SavedTensorSlices(meta={"tensor": tensors, "versions": {"producer": 1}})
    return table_of(sorted([(b"", header.SerializeToString()), *rows]), rows_per_block=10**6)


def reads(**tensors):
    index, data = encode_bundle(tensors)
    return Bundle(index, lambda _: data).read


READ = reads(w=np.zeros((2, 3), np.float32), text=np.array([b"a", b"b"], object))


def constants(*, count, kind, **values):
    graph = GraphDef()
    for place in range(count):
        tensor = graph.node.add(name=f"c{place}", op="Const").attr["value"].tensor
        tensor.dtype = kind
        tensor.tensor_shape.dim.add(size=2**25)
        for field, listed in values.items():
            getattr(tensor, field).extend(listed)
    return graph


@pytest.mark.parametrize("rank", [254, 255, 20_000])
@pytest.mark.parametrize("dtype", [FLOAT, STRING])
def test_the_elements_of_a_shape_of_many_dimensions_are_not_counted(rank, dtype, bounded):
    # Minutes for the product, and Python writes out no number of more than 4,300 digits.
    index = index_of((b"t", entry(*[LARGE] * rank, dtype=dtype, size=10)))

    with bounded(len(index)):
        read_all_of_index(index)
        verify_all(index + bytes(100))
        with pytest.raises(CorruptTensorError):
            Bundle(index, lambda _: bytes(100)).read("t")


@pytest.mark.parametrize("rank", [254, 255, 20_000])
def test_nor_are_those_of_a_slice_of_v1(rank, bounded):
    spelled: dict[str, Any] = {"extent": [{}] * rank}
    listed = {"name": "t", "type": STRING, "shape": shape(*[LARGE] * rank), "slice": [spelled]}
    data = v1_of([listed], (slice_key(b"t", TensorSlice(**spelled)), b""))

    with bounded(len(data)):
        read_all_of_v1(data)
        verify_all(data)


def test_slices_of_strings_that_take_no_bytes_make_no_array(bounded):
    half = 2**39
    slices = [TensorSlice(extent=[{"start": at, "length": half}]) for at in (0, half)]
    rows = [(slice_key(b"t", each), entry(half, dtype=STRING)) for each in slices]
    index = index_of((b"t", entry(2 * half, dtype=STRING, slices=slices)), *rows)

    with bounded(len(index)), pytest.raises(CorruptTensorError, match="its slices take"):
        Bundle(index, lambda _: bytes(100)).read("t")


def test_the_block_of_many_slices_of_v1_is_taken_apart_once(bounded):
    listed, rows = [], []
    padding = b"\x7a" + varint(2000) + bytes(2000)
    for number in range(600):
        name = f"t{number:03d}"
        whole = TensorSlice(extent=[{}])
        listed.append({"name": name, "type": 4, "shape": shape(1), "slice": [whole]})
        row = SavedTensorSlices(data={"data": {"int_val": [number % 256]}}).SerializeToString()
        rows.append((slice_key(name.encode(), whole), row + padding))
    data = v1_of(listed, *rows)
    checkpoint = V1Checkpoint({"m": data})

    with bounded(len(data)):
        assert sum(int(checkpoint.read(name)[0]) for name in checkpoint.tensors) == 69_108


@pytest.mark.parametrize("start", [b"#" * 60_000, b"# " * 30_000, b"#\n" * 30_000, b" " * 60_000])
def test_a_file_that_begins_with_comments_is_told_in_one_go(start, bounded):
    with bounded(len(start)):
        assert what_is(start + b"\n1").kind is None


def test_the_output_of_a_restoring_operation_is_no_number_of_many_digits():
    graph = meta_graph_of(*reference("w", [2, 3]), *restoring([("w", "w", "")]))
    assign = next(each for each in graph.graph_def.node if each.name == "save/Assign_0")
    assign.input[1] = "save/RestoreV2:" + "9" * 5000

    assert freeze(graph, READ, ["w/read"]).node[0].op == "Const"


def test_a_part_that_the_checkpoint_does_not_have_is_named():
    graph = meta_graph_of(*reference("w", [2, 3]), *restoring([("w", "w", "20 3 10,2:-")]))

    with pytest.raises(FormatError, match="'w'"):
        freeze(graph, READ, ["w/read"])


def test_a_variable_of_variants_cannot_be_frozen():
    graph = meta_graph_of(handle("text", [2], VARIANT), read_of("r", "text", VARIANT))

    with pytest.raises(FormatError, match="'text' is of type variant"):
        freeze(graph, READ, ["r"])


def test_a_reshaped_variable_of_more_dimensions_than_an_array_has(bounded):
    nodes = [*reference("w", [1] * 65), *restoring([("w", "one", "")])]
    nodes += [
        constant("shape", np.ones(65)),
        node("reshaped", "Reshape", "save/RestoreV2", "shape"),
    ]
    graph = meta_graph_of(*nodes)
    assign = next(each for each in graph.graph_def.node if each.name == "save/Assign_0")
    assign.input[1] = "reshaped"

    with pytest.raises(CkptdError):
        freeze(graph, reads(one=np.ones(1, np.float32)), ["w/read"])


def test_names_that_are_only_declared_are_not_made(bounded):
    # Each takes 256 MiB, and is thrown away for it is not as long as it should be.
    graph = meta_graph_of(*reference("w", [2, 3]), *restoring([("w", "w", "")]))
    graph.graph_def.MergeFrom(constants(count=30, kind=STRING, string_val=[b"a", b"b"]))
    for place in range(30):
        inputs = ("save/Const", f"c{place}", f"c{place}")
        graph.graph_def.node.append(node(f"r{place}", "RestoreV2", *inputs, dtypes=[FLOAT]))
        graph.graph_def.node.append(node(f"a{place}", "Assign", "w", f"r{place}", T=FLOAT))

    with bounded(graph.ByteSize()):
        freeze(graph, READ, ["w/read"])


def test_all_constants_of_a_graph_together_are_filled_up_within_a_bound(bounded):
    graph = constants(count=8, kind=FLOAT, float_val=[1.0, 2.0])

    with bounded(graph.ByteSize(), more_memory=2 * LARGEST_FILL), pytest.raises(FormatError):
        constants_of(graph, all=True)

    one_value = constants(count=8, kind=FLOAT, float_val=[1.0])
    assert sum(array.size for array in constants_of(one_value, all=True).values()) == 8 * 2**25


def test_calls_that_hand_over_less_than_a_function_takes_are_not_asked_for_each(bounded):
    many = 8000
    reading = [node(f"ReadVariableOp{n}", "Identity", f"a{n}") for n in range(many)]
    graph = GraphDef()
    graph.library.function.append(
        function("f", {f"a{n}": FLOAT for n in range(many)}, {}, *reading)
    )
    graph.node.extend(node(f"c{n}", "PartitionedCall", "x", f="f") for n in range(many))

    with bounded(graph.ByteSize(), seconds=2.0):
        assert constants_of(graph) == {}


@pytest.mark.parametrize("op", ["Foo", "Case"])
def test_a_function_may_be_mentioned_as_often_as_it_has_arguments(op, bounded):
    many = 8000
    arguments = {f"a{n}": FLOAT for n in range(many)}
    graph = meta_graph_of(functions=[function("f", arguments, {})])
    caller = graph.graph_def.node.add(name="caller", op=op)
    if op == "Case":
        graph.graph_def.node.append(constant("x", 1.0))
        caller.input.extend(["x"] * (many + 1))
    functions = caller.attr["branches"].list.func
    for _ in range(many):
        functions.add(name="f")

    with bounded(graph.ByteSize()):
        freeze(graph, READ, ["caller"])


def test_defaults_of_an_operation_are_found_at_once(bounded):
    graph = MetaGraphDef()
    graph.graph_def.node.add(name="n", op="Foo")
    op = graph.meta_info_def.stripped_op_list.op.add(name="Foo")
    for number in range(8000):
        op.output_arg.add(type_attr="T")
        op.attr.add(name=f"other{number}")
    op.attr.add(name="T").default_value.type = FLOAT

    with bounded(graph.ByteSize()):
        found = MetaGraph(graph).get_tensor_by_name("n:7999")
    assert found.data_type is not None
    assert found.data_type.name == "float32"


def test_what_each_of_many_savers_saves_is_asked_for(bounded):
    graph = MetaGraphDef()
    savers = graph.collection_def["savers"].bytes_list.value
    savers.extend(SaverDef(max_to_keep=n).SerializeToString() for n in range(3000))
    meta_graph = MetaGraph(graph)

    with bounded(graph.ByteSize()):
        assert {meta_graph.saved_tensors_of(saver) for saver in meta_graph.savers} == {()}


def test_operations_with_a_thousand_outputs_each_take_no_thousand_shapes(bounded):
    graph = MetaGraphDef()
    graph.graph_def.node.add(name="x", op="Placeholder").attr["shape"].shape.dim.add(size=5)
    for number in range(10_000):
        unpack = graph.graph_def.node.add(name=f"n{number}", op="Unpack", input=["x"])
        unpack.attr["num"].i = 10**6
    meta_graph = MetaGraph(graph)

    with bounded(0):
        shapes = {meta_graph.graph.shape(f"n{number}", 1023) for number in range(10_000)}
    assert shapes == {()}
