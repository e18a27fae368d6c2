"""Any bytes are told for what they are, and only `CorruptGraphError` says that they are nothing."""

import string
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptd.errors import CkptdError, CorruptGraphError
from ckptd.formats.graph_file import GraphFile, GraphKind, read_graph, what_is
from ckptd.formats.messages import GraphDef, MetaGraphDef, SavedModel
from ckptd.formats.meta_graph import Node, encode_meta_graph, read_meta_graph
from ckptd.formats.saved_model import assets_of, read_fingerprint, read_saved_model, variables_of

META, MODEL, BARE = GraphKind.META_GRAPH, GraphKind.SAVED_MODEL, GraphKind.GRAPH


def meta_graph():
    """One of everything, small."""
    made = MetaGraphDef()
    made.meta_info_def.tensorflow_version = "2.21.0"
    made.meta_info_def.tags.append("serve")
    op = made.meta_info_def.stripped_op_list.op.add(name="Split")
    op.output_arg.add(name="output", type_attr="T", number_attr="num_split")
    nodes = made.graph_def.node
    names = nodes.add(name="save/tensor_names", op="Const")
    names.attr["dtype"].type = 7
    names.attr["value"].tensor.dtype = 7
    names.attr["value"].tensor.tensor_shape.dim.add(size=1)
    names.attr["value"].tensor.string_val.append(b"w")
    axis = nodes.add(name="axis", op="Const")
    axis.attr["dtype"].type = axis.attr["value"].tensor.dtype = 3
    axis.attr["value"].tensor.int_val.append(1)
    w = nodes.add(name="w", op="VariableV2")
    w.attr["dtype"].type = 1
    w.attr["shape"].shape.dim.add(size=4)
    w.attr["shape"].shape.dim.add(size=6)
    split = nodes.add(name="split", op="Split", input=["axis", "w"])
    split.attr["T"].type = 1
    split.attr["num_split"].i = 2
    save = nodes.add(
        name="save/SaveV2", op="SaveV2", input=["prefix", *["save/tensor_names"] * 2, "w"]
    )
    save.attr["dtypes"].list.type.append(1)
    strided = nodes.add(name="slice", op="StridedSlice", input=["w", "axis", "axis", "axis"])
    strided.attr["T"].type = 1
    made.graph_def.versions.producer = 1800
    made.graph_def.library.function.add().signature.name = "f"
    made.saver_def.save_tensor_name = "save/SaveV2:0"
    made.saver_def.version = 2
    variables = made.collection_def["variables"].bytes_list
    variables.value.append(b"\n\x03w:0\x12\x08w/Assign")
    made.collection_def["any"].any_list.value.add(type_url="x/tensorflow.SaverDef", value=b"\x20\3")
    made.signature_def["s"].inputs["x"].name = "w:0"
    made.asset_file_def.add(filename="words")
    root = made.object_graph_def.nodes.add()
    root.children.add(node_id=1, local_name="w")
    made.object_graph_def.nodes.add().variable.name = "w"
    return made


FILES = {
    META: meta_graph(),
    MODEL: SavedModel(saved_model_schema_version=1, meta_graphs=[meta_graph()]),
    BARE: meta_graph().graph_def,
}
READERS: dict[GraphKind, Any] = {
    META: read_meta_graph,
    MODEL: lambda data: next(iter(read_saved_model(data).meta_graphs), None),
    BARE: read_graph,
}


def text_of(message):
    from ckptd.formats.message_text import to_text

    return to_text(message).encode()


def read_everything(kind, data):
    """Ask for all that a file of this kind could be asked."""
    found: Any = READERS[kind](data)
    if found is None:
        return
    names = [node.name for node in found.nodes]
    questions = [
        lambda: [dict(node.attributes) for node in found.nodes],
        *[
            partial(found.get_tensor_by_name, f"{name}:{index}")
            for name in names
            for index in (0, 1)
        ],
        partial(found.get_tensor_by_name, "spli:0"),
        found.to_bytes,
        found.to_text,
        found.to_json,
    ]
    if kind is not BARE:
        questions += [
            *[partial(getattr, found, part) for part in ("collections", "signatures", "saver")],
            lambda: [found.saved_tensors_of(each) for each in found.savers],
            lambda: found.saved_tensors,
            partial(variables_of, found),
            partial(assets_of, found),
        ]
    for question in questions:
        refusal_of(question)


def refusal_of(question):
    """Return why a question is not answered; an error of any other class fails the test."""
    try:
        question()
    except CkptdError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", GraphKind)
def test_each_kind_is_told_and_read(kind):
    for data in (FILES[kind].SerializeToString(), text_of(FILES[kind])):
        assert what_is(data) == GraphFile(kind, not data[0] < ord("\n") + 1)
        read_everything(kind, data)
        for other in set(GraphKind) - {kind}:
            with pytest.raises(CorruptGraphError, match=f"not {other.value}, but {kind.value}"):
                READERS[other](data)


def test_what_the_small_one_says():
    found = read_meta_graph(meta_graph().SerializeToString())

    assert found.get_tensor_by_name("split:1").shape == (4, 3)
    assert found.functions == ("f",)
    assert found.tags == ("serve",)
    assert found.collections["variables"][0].name == "w:0"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (META, MetaGraphDef(graph_def={"node": [{"name": "a", "op": "NoOp"}]})),
        (META, MetaGraphDef(graph_def={"versions": {"producer": 1}})),
        (META, MetaGraphDef(meta_info_def={"tags": ["serve"]})),
        (META, MetaGraphDef(meta_info_def={"meta_graph_version": "a"}, graph_def={})),
        (META, MetaGraphDef(collection_def={"a": {}})),
        (META, MetaGraphDef(saver_def={"max_to_keep": 5})),
        (BARE, GraphDef(node=[{"name": "a", "op": "NoOp"}])),
        (BARE, GraphDef(node=[{"name": "a", "op": "NoOp"}] * 2)),
        (BARE, GraphDef(versions={"producer": 27})),
        (BARE, GraphDef(version=7)),
        (BARE, GraphDef(library={"function": [{"signature": {"name": "f"}}]})),
        (MODEL, SavedModel(saved_model_schema_version=1)),
    ],
    ids=str,
)
def test_the_first_fields_tell(kind, message):
    assert what_is(message.SerializeToString()) == GraphFile(kind, is_text=False)
    assert what_is(text_of(message)) == GraphFile(kind, is_text=True)
    assert what_is(b" # a comment {\n\n" + text_of(message)) == GraphFile(kind, is_text=True)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a meta graph: it is empty"),
        (b" \n\t", "not a meta graph: it is empty"),
        (b"# nothing\n", "as text: it does not begin with a field's name"),
        (b"\x0a\xff\xff\xff\x7f", "field 1 at byte 0 ends at byte .* of 5: cut short"),
        (b"\x00\x01", "as binary: no field begins at byte 0"),
        (b"\x98\x06\x01", "as binary: no graph has the fields 99"),
        (b"model_checkpoint_path: 'm-1'", "no graph begins with a field named 'model_checkpoint_path'"),
        (b"meta_info_def {\n  tags: 3\n}", "as text: line 2, column 9: .*; as binary: "),
        (b"meta_info_def {\n  tags: 'a'\n", "as text: .*Expected"),
        (b"graph_def {\n node { nme: 'a' } }", "as text: line 2, column 9: .*nme"),
        (b"graph_def {\n # \xff\n}", "as text: line 2, column 4: not UTF-8"),
        (b"graph_def {" * 20_000, "as text: "),
        (b"graph_def { library { function { node_def { attr { value { list {" + b"func { attr { "
         b"value { list {" * 60 + b"}}}}" * 60 + b"}}}}}}}", "nested too deeply"),
    ],
    ids=range(13),
)  # fmt: skip
def test_what_is_wrong_is_said(data, says):
    with pytest.raises(CorruptGraphError, match=says) as caught:
        read_meta_graph(data)
    assert len(str(caught.value)) < 700


def test_the_part_that_does_not_parse_is_named():
    data = bytearray(meta_graph().SerializeToString(deterministic=True))
    data[data.index(b"\x12\x06SaveV2") + 1] = 0x7F

    with pytest.raises(CorruptGraphError, match=r"graph_def does not parse \(bytes \d+ to \d+ of"):
        read_meta_graph(bytes(data))


@pytest.mark.parametrize("kind", GraphKind)
@pytest.mark.parametrize("form", ["binary", "text"])
def test_every_truncation_is_refused_or_read(kind, form):
    message = FILES[kind]
    data = message.SerializeToString() if form == "binary" else text_of(message)
    for length in range(0, len(data), 1 if form == "binary" else 7):
        assert "\n" not in (refusal_of(partial(read_everything, kind, data[:length])) or "")


TOKENS = st.sampled_from(
    [
        b"\0",
        b"\xff",
        b"\x80" * 10,
        b"\x7f",
        b"{",
        b"}",
        b'"',
        b"[",
        b"]",
        b"node {",
        b"\\",
        b"-1",
        b"9" * 30,
    ]
)
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 8), TOKENS | st.binary(max_size=4)),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("kind", GraphKind)
@pytest.mark.parametrize("form", ["binary", "text"])
@settings(max_examples=60)
@given(edits=EDITS)
def test_mutations_are_refused_or_read(kind, form, edits):
    message = FILES[kind]
    data = message.SerializeToString() if form == "binary" else text_of(message)
    for place, removed, added in edits:
        at = int(place * len(data))
        data = data[:at] + added + data[at + removed :]
    assert "\n" not in (refusal_of(partial(read_everything, kind, data)) or "")


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.text(string.printable, max_size=100).map(str.encode))
def test_any_bytes_are_refused_or_read(data):
    for kind in GraphKind:
        refusal_of(partial(read_everything, kind, data))
    refusal_of(partial(read_fingerprint, data))


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), unique=True, max_size=5))
def test_any_names_survive_every_form(names):
    nodes = [Node(name, "NoOp") for name in names]
    found = read_meta_graph(encode_meta_graph(nodes))

    assert list(found.nodes) == nodes
    assert read_meta_graph(found.to_text().encode()).to_bytes() == found.to_bytes()


def test_huge_numbers_allocate_nothing():
    made = meta_graph()
    for node in made.graph_def.node:
        if node.name == "split":
            node.attr["num_split"].i = 2**62
        if node.name == "w":
            node.attr["shape"].shape.dim[1].size = 2**63 - 1
        if node.name == "save/tensor_names":
            node.attr["value"].tensor.tensor_shape.dim[0].size = 2**62
    found = read_meta_graph(made.SerializeToString())

    assert found.get_tensor_by_name("split:999999999").data_type is not None
    assert found.get_tensor_by_name("w:0").shape == (4, 2**63 - 1)
    with pytest.raises(CorruptGraphError, match=f"1 types, but {2**62} strings"):
        _ = found.saved_tensors
