"""Real small files to damage, by the name of the target that reads them, made by our own writers."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from formats.graphs import (
    BOOL,
    FLOAT,
    INT32,
    RESOURCE,
    STRING,
    constant,
    function,
    handle,
    meta_graph_of,
    node,
    read_of,
    reference,
    restoring,
)
from fuzz.mutations import COUNT_SIZE
from fuzz.wire import table_of

from ckptd.formats.bundle_layout import lay_out
from ckptd.formats.bundle_writer import BundleWriter, encode_bundle
from ckptd.formats.message_text import to_text
from ckptd.formats.messages import (
    BundleEntry,
    BundleHeader,
    SavedModel,
    SaverDef,
    TensorProto,
    TrackableObjectGraph,
    VariableDef,
)
from ckptd.formats.object_graph import OBJECT_GRAPH_KEY
from ckptd.formats.partitions import Partitioned
from ckptd.formats.state_file import StateFile, format_state_file
from ckptd.formats.string_tensor import encode_strings, encode_variants
from ckptd.formats.tensor_proto import encode_tensor
from ckptd.formats.tensor_values import take_tensors
from ckptd.formats.v1_writer import encode_v1

W: Final = np.arange(6, dtype=np.float32).reshape(2, 3)


@functools.cache
def seeds() -> Mapping[str, Sequence[bytes]]:
    """Return the files of each target."""
    bundles = _bundles()
    indexes = [index for index, _ in bundles]
    v1 = _v1()
    graphs = _meta_graphs()
    models = _saved_models(graphs)
    texts = [to_text(each).encode() for each in graphs[:2]]
    return {
        "table": [*indexes, *v1, table_of([(b"a", b"b"), (b"c", b"d")], compress=True)],
        "index": indexes,
        "bundle": [index + data for index, data in bundles],
        "v1": v1,
        "meta_graph": [*map(_bytes, [*graphs, *_with_every_shape()])],
        "meta_graph_text": texts,
        "saved_model": [*map(_bytes, models), _FINGERPRINT],
        "graph_file": [
            *(_bytes(each.graph_def) for each in graphs),
            _bytes(graphs[0]),
            _bytes(models[0]),
            to_text(graphs[0].graph_def).encode(),
            b"# written by hand\n" + texts[0],
        ],
        "state_file": _state_files(),
        "object_graph": _object_graphs(),
        "tensor_proto": [*map(_bytes, _tensor_protos())],
        "strings": _strings(),
        "freezing": [*map(_bytes, graphs)],
        "verification": [*(index + data for index, data in bundles), *v1],
        "inventory": _listings(),
    }


def tensors() -> dict[str, Any]:
    """Return the tensors of the checkpoint that graphs here are frozen with."""
    return {
        "w": W,
        "b": np.ones(3, np.float32),
        "shadow/w": W,
        "text": np.array([b"one", b"two"], object),
        "step": np.int64(7),
        OBJECT_GRAPH_KEY: np.array(_object_graphs()[0], object),
    }


def _bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def _bundles() -> list[tuple[bytes, bytes]]:
    everything = {
        **tensors(),
        "half": np.ones((2, 2), np.float16),
        "complex": np.ones(2, np.complex64),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 4), np.int32),
        "part": Partitioned(np.arange(12.0).reshape(4, 3), partitions=(2, 1)),
        "words": Partitioned(np.array([b"a", b"bc", b"", b"d" * 200], object), partitions=(2,)),
    }
    many = {f"layer_{n // 4}/kernel_{n}": np.float32(n) for n in range(40)}
    bundles = [encode_bundle(everything), encode_bundle(many), _with_variants()]
    taken = take_tensors({"w": W, "b": np.ones(3)})
    writer = BundleWriter(taken, lay_out(taken.specs, num_shards=2))
    shards = [b"".join(map(bytes, writer.shard(shard))) for shard in range(2)]
    bundles.append((writer.index(), shards[0]))
    return [*bundles, _big_endian()]


def _with_variants() -> tuple[bytes, bytes]:
    values = {"list": np.array([b"\x08\x01", b""], object), "w": W}
    taken = take_tensors(values, data_types={"list": "variant"})
    writer = BundleWriter(taken, lay_out(taken.specs))
    data = b"".join(map(bytes, writer.shard(0)))
    return writer.index(), data


def _big_endian() -> tuple[bytes, bytes]:
    from ckptd.formats.checksum import masked_crc32c

    data = W.astype(">f4").tobytes()
    header = BundleHeader(num_shards=1, endianness=BundleHeader.BIG, version={"producer": 1})
    shape = {"dim": [{"size": 2}, {"size": 3}]}
    entry = BundleEntry(dtype=1, shape=shape, size=len(data), crc32c=masked_crc32c(data))
    rows = [(b"", _bytes(header)), (b"w", _bytes(entry))]
    return table_of(rows), data


def _v1() -> list[bytes]:
    values = {
        "w": W,
        "n": np.arange(4, dtype=np.int64),
        "text": np.array([b"one", b""], object),
        "half": np.ones(2, np.float16),
        "complex": np.ones(2, np.complex64),
        "flag": np.array(True),
    }
    halves = {"w": [Partitioned(W, partitions=(2, 1)).regions_in((2, 3), "w")[n] for n in range(2)]}
    shards = [
        encode_v1({"w": W, name: values["n"]}, slices={"w": [halves["w"][n]]})
        for n, name in enumerate(("n", "m"))
    ]
    return [encode_v1(values), b"".join(shards)]


def _meta_graphs() -> list[Any]:
    saved = meta_graph_of(
        node("x", "Placeholder", dtype=FLOAT, shape=[-1, 2]),
        *reference("w", [2, 3]),
        *reference("b", [3]),
        node("product", "MatMul", "x", "w/read", T=FLOAT),
        node("op_to_restore", "BiasAdd", "product", "b/read", T=FLOAT),
        constant("shape", np.array([2, -1], np.int32)),
        node("reshaped", "Reshape", "op_to_restore", "shape", T=FLOAT),
        node("stacked", "Pack", "reshaped", "reshaped", T=FLOAT),
        *restoring([("w", "shadow/w", ""), ("b", "b", "3 0,3")]),
    )
    names, slices = "save/RestoreV2/tensor_names", "save/RestoreV2/shape_and_slices"
    inputs = ("save/Const", names, slices, "w", "b")
    saved.graph_def.node.append(node("save/SaveV2", "SaveV2", *inputs, dtypes=[FLOAT, FLOAT]))
    saved.saver_def.CopyFrom(
        SaverDef(
            filename_tensor_name="save/Const:0",
            save_tensor_name="save/SaveV2:0",
            restore_op_name="save/restore_all",
            max_to_keep=5,
            version=SaverDef.V2,
        )
    )
    saved.meta_info_def.tensorflow_version = "2.21.0"
    saved.meta_info_def.tags.append("serve")
    op = saved.meta_info_def.stripped_op_list.op.add(name="MatMul")
    op.output_arg.add(name="product", type_attr="T")
    op.attr.add(name="T", type="type")
    variable = VariableDef(variable_name="w:0", snapshot_name="w/read:0", trainable=True)
    variable.save_slice_info_def.full_name = "shadow/w"
    variable.save_slice_info_def.full_shape.extend([2, 3])
    variable.save_slice_info_def.var_offset.extend([0, 0])
    variable.save_slice_info_def.var_shape.extend([2, 3])
    saved.collection_def["variables"].bytes_list.value.append(_bytes(variable))
    saved.collection_def["savers"].bytes_list.value.append(_bytes(saved.saver_def))
    saved.collection_def["train_op"].node_list.value.append("op_to_restore")
    packed = saved.collection_def["packed"].any_list.value.add()
    packed.type_url, packed.value = (
        "type.googleapis.com/tensorflow.SaverDef",
        _bytes(saved.saver_def),
    )
    signature = saved.signature_def["serving_default"]
    signature.method_name = "tensorflow/serving/predict"
    signature.inputs["x"].name = "x:0"
    signature.outputs["y"].coo_sparse.values_tensor_name = "op_to_restore:0"
    others = (_with_handles, _with_loops, _with_branches, _with_references)
    return [saved, *(make() for make in others)]


def _with_handles() -> Any:
    body = function(
        "read_it",
        {"table": RESOURCE, "at": INT32},
        {"row": (FLOAT, "gathered:output:0")},
        node("gathered", "ResourceGather", "table", "at", dtype=FLOAT, Tindices=INT32),
    )
    return meta_graph_of(
        handle("w", [2, 3]),
        read_of("w/Read/ReadVariableOp", "w"),
        handle("text", [2], STRING),
        read_of("text/Read/ReadVariableOp", "text", STRING),
        node("ready", "VarIsInitializedOp", "w"),
        node("sizes", "VariableShape", "w", out_type=INT32),
        node("rows", "ResourceGather", "w", "at", dtype=FLOAT, Tindices=INT32),
        node("items", "ResourceGatherNd", "w", "at", dtype=FLOAT, Tindices=INT32),
        node("nothing", "DisableCopyOnRead", "w"),
        constant("at", np.array([0, 1], np.int32)),
        node(
            "call",
            "StatefulPartitionedCall",
            *("w", "at"),
            f="read_it",
            Tin=[RESOURCE, INT32],
            Tout=[FLOAT],
        ),
        node("out", "Identity", "call", T=FLOAT),
        *restoring([("w", "w", "2 3 0,2:-")], op="AssignVariableOp"),
        functions=[body],
    )


def _with_loops() -> Any:
    return meta_graph_of(
        *reference("w", [2, 3]),
        constant("zero", np.array(0, np.int32)),
        constant("limit", np.array(3, np.int32)),
        node("enter", "Enter", "zero", T=INT32),
        node("merge", "Merge", "enter", "next", T=INT32),
        node("less", "Less", "merge", "limit", T=INT32),
        node("cond", "LoopCond", "less"),
        node("switch", "Switch", "merge", "cond", T=INT32),
        node("next", "NextIteration", "switch:1", T=INT32),
        node("exit", "Exit", "switch", T=INT32),
        node("both", "Pack", "exit", "limit", T=INT32),
        node("filled", "Fill", "both", "zero", T=INT32),
    )


def _with_references() -> Any:
    condition = function("again", {"w": RESOURCE}, {"yes": (BOOL, "yes:output:0")})
    condition.node_def.append(constant("yes", np.array(False)))
    body = function("body", {"w": RESOURCE}, {"same": (RESOURCE, "w")})
    return meta_graph_of(
        *reference("w", [2, 3]),
        handle("b", [3]),
        node("ready", "IsVariableInitialized", "w", dtype=FLOAT),
        node("switched", "RefSwitch", "w", "ready", T=FLOAT),
        node("merged", "RefMerge", "switched", "switched:1", T=FLOAT, N=INT32),
        node("same", "RefIdentity", "merged", "^ready", T=FLOAT),
        node("doubled", "AddV2", "same", "w", T=FLOAT),
        node("written", "AssignAdd", "w", "doubled", T=FLOAT),
        node("loop", "While", "b", cond="again", body="body", T=[RESOURCE]),
        node("after", "ReadVariableOp", "loop", dtype=FLOAT),
        node("table", "HashTableV2"),
        functions=[condition, body],
    )


def _with_every_shape() -> list[Any]:
    """Every operation whose shapes are followed, a dozen in a graph, with inputs that suit many."""
    from ckptd.formats.graph_shapes import _RULES

    ops = sorted(_RULES)
    graphs = []
    for start in range(0, len(ops), 12):
        made = meta_graph_of(
            node("image", "Placeholder", dtype=FLOAT, shape=[1, 6, 6, 2]),
            node("matrix", "Placeholder", dtype=FLOAT, shape=[2, 3]),
            constant("axis", np.array(1, np.int32)),
            constant("order", np.array([1, 0], np.int32)),
            constant("pads", np.array([[0, 1], [1, 0]], np.int32)),
        )
        for number, op in enumerate(ops[start : start + 12]):
            first, rest = (("image", "axis"), ("matrix", "order"), ("matrix", "pads"))[number % 3]
            inputs = (first, first if number % 2 else rest, rest, rest)
            each = made.graph_def.node.add(name=f"n{number}", op=op, input=inputs)
            each.attr["strides"].list.i.extend([1, 2, 2, 1])
            each.attr["ksize"].list.i.extend([1, 2, 2, 1])
            each.attr["padding"].s = b"VALID"
            each.attr["num_split"].i = each.attr["num"].i = 2
        graphs.append(made)
    return graphs


def _with_branches() -> Any:
    branches = [
        function(
            name,
            {"w": RESOURCE},
            {"out": (FLOAT, "value:value:0")},
            read_of("value", "w"),
        )
        for name in ("yes", "no")
    ]
    return meta_graph_of(
        handle("w", [2, 3]),
        constant("flag", np.array(True)),
        node(
            "either",
            "If",
            *("flag", "w"),
            then_branch="yes",
            else_branch="no",
            Tin=[RESOURCE],
            Tout=[FLOAT],
            Tcond=BOOL,
        ),
        node("gathered", "GatherV2", "either", "zero", "zero", Tparams=FLOAT),
        constant("zero", np.array(0, np.int32)),
        functions=branches,
    )


def _saved_models(graphs: Sequence[Any]) -> list[Any]:
    models = []
    for graph in graphs[:2]:
        model = SavedModel(saved_model_schema_version=1, meta_graphs=[graph])
        objects = model.meta_graphs[0].object_graph_def
        root = objects.nodes.add()
        for name, place in (("layer", 1), ("optimizer", 3)):
            root.children.add(local_name=name, node_id=place)
        objects.nodes.add().children.add(local_name="kernel", node_id=2)
        for name in ("kernel", "", "kernel/m"):
            each = objects.nodes.add()
            if name:
                each.variable.name = name
                each.variable.dtype = FLOAT
                each.variable.shape.dim.add(size=2)
        slot = objects.nodes[3].slot_variables.add(slot_name="m")
        slot.original_variable_node_id, slot.slot_variable_node_id = 2, 4
        asset = model.meta_graphs[0].asset_file_def.add(filename="words.txt")
        asset.tensor_info.name = "words:0"
        models.append(model)
    return models


_FINGERPRINT: Final = bytes.fromhex("08ffffffffffffffffff01 1002 1803 2004 2805 3a0361 6263")


def _state_files() -> list[bytes]:
    paths = tuple(f"model.ckpt-{n}" for n in range(3))
    times = (1_700_000_000.5, 1_700_000_600.0, 1_700_001_200.25)
    return [
        format_state_file(StateFile(model_checkpoint_path="m-1")),
        format_state_file(
            StateFile(
                model_checkpoint_path="/srv/größe/model.ckpt-2",
                all_model_checkpoint_paths=paths,
                all_model_checkpoint_timestamps=times,
                last_preserved_timestamp=times[0],
            )
        ),
        b"# by hand\nmodel_checkpoint_path: 'a\\x2d\\061' all_model_checkpoint_paths: ['a', \"b\"]\n",
    ]


def _object_graphs() -> list[bytes]:
    value = ".ATTRIBUTES/VARIABLE_VALUE"

    def attribute(key: str, full_name: str, name: str = "VARIABLE_VALUE") -> dict[str, str]:
        return {"name": name, "full_name": full_name, "checkpoint_key": key}

    def edges(**places: int) -> list[dict[str, Any]]:
        return [{"local_name": name, "node_id": place} for name, place in places.items()]

    slot = {"original_variable_node_id": 3, "slot_name": "m", "slot_variable_node_id": 4}
    first: list[dict[str, Any]] = [
        {"children": edges(model=1, optimizer=2, save_counter=5, best=3)},
        {"children": edges(kernel=3, parent=0, self=1)},
        {"children": edges(iter=5), "slot_variables": [slot]},
        {"attributes": [attribute(f"model/kernel/{value}", "w")]},
        {"attributes": [attribute(f"model/kernel/.OPTIMIZER_SLOT/optimizer/m/{value}", "w/m")]},
        {"attributes": [attribute(f"save_counter/{value}", "save_counter")]},
    ]
    keras: list[dict[str, Any]] = [
        {"children": edges(optimizer=1, w=4)},
        {"children": edges(_variables=2, _trainable_variables=3, _momentums=6, _iterations=5)},
        {"children": edges(**{"0": 5, "1": 7})},
        {"children": edges(**{"0": 4})},
        {"attributes": [attribute(f"w/{value}", "w")], "registered_saver": {"name": "mine"}},
        {"attributes": [attribute(f"optimizer/_iterations/{value}", "adam/iteration")]},
        {"children": edges(**{"0": 7})},
        {"attributes": [attribute(f"optimizer/_momentums/0/{value}", "adam/m/w")]},
    ]
    return [_bytes(TrackableObjectGraph(nodes=nodes)) for nodes in (first, keras)]


def _tensor_protos() -> list[Any]:
    values: list[Any] = [
        W,
        np.array([b"one", b""], object),
        np.arange(3, dtype=np.int64),
        np.ones(2, np.complex64),
        np.array([True, False]),
        np.ones(1, np.float16),
        np.arange(3, dtype=np.uint16),
        np.uint64(1),
    ]
    filled = TensorProto(dtype=1, float_val=[1.0, 2.0])
    filled.tensor_shape.dim.add(size=100)
    small = TensorProto(dtype=29, int_val=[1, 2, 3])
    small.tensor_shape.dim.add(size=3)
    content = TensorProto(dtype=7, tensor_content=b"\x01\x02abc")
    content.tensor_shape.dim.add(size=2)
    variant = TensorProto(dtype=21, variant_val=[{"type_name": "x", "metadata": b"y"}])
    float8 = TensorProto(dtype=24, float8_val=b"\x01")
    return [*map(encode_tensor, values), filled, small, content, variant, float8]


def _strings() -> list[bytes]:
    values = [b"hello", b"", b"x" * 130]
    found = [
        bytes([kind]) + len(values).to_bytes(COUNT_SIZE - 1, "little") + encode(values)[0]
        for kind, encode in ((0, encode_strings), (2, encode_variants))
    ]
    return [*found, bytes(COUNT_SIZE) + encode_strings([])[0]]


def _listings() -> list[bytes]:
    names = [
        *("checkpoint", ".ckptd", "m-1.index", "m-1.data-00000-of-00001", "m-1.meta", "m-2.meta"),
        *("m-2.index", "m-2.data-00000-of-00002", "m-2.data-00001-of-00002", "notes.txt"),
        *("m-3", "m-3.meta", "m-4-00000-of-00002", "m-4-00001-of-00002", "m-4.meta"),
        *("m-5.index.tempstate123", "m-5_temp", "model.ckpt-00000007.index", "größe-1.index"),
    ]
    return ["\n".join(names).encode(), b"\n".join([b"m--1.index", b"\xff-1.index", b"", b"m-1"])]
