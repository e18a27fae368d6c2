"""Arrays filled from a checkpoint, and the whole of what is said about those that were not."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from tensor_files import data_file, flip, save_bundle

import ckptd_client
from ckptd.errors import NoSuchCheckpointError, RestoreError
from ckptd.formats.messages import TrackableObjectGraph
from ckptd.formats.object_graph import OBJECT_GRAPH_KEY
from ckptd.formats.partitions import Partitioned
from ckptd_client import average_names, restore
from ckptd_client.restoring import Outcome

W = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.array([1.5, -2.5])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Make a working directory that has the checkpoint `m-1` of `w`, `b` and the step."""
    monkeypatch.chdir(tmp_path)
    save_bundle(Path("m-1"), {"w": W, "b": B, "global_step": np.int64(7)})
    return tmp_path


def like(value: Any) -> Any:
    """Return an array that `value` fits into, with something else in it."""
    array = np.asarray(value)
    return np.full(array.shape, "before" if array.dtype == object else 99, array.dtype)


class Case(NamedTuple):
    """What a program wants filled, and the lines of the report."""

    variables: dict[str, Any]
    outcomes: list[Outcome]
    restored: str
    lines: str


CASES = {
    "everything": Case(
        {"w": like(W), "b": like(B), "global_step": np.array(0)},
        [Outcome.RESTORED] * 3,
        "3 of 3",
        "",
    ),
    "some of it": Case(
        {"w": like(W)},
        [Outcome.RESTORED],
        "1 of 1",
        """
  not used     b
  not used     global_step""",
    ),
    "a name that comes near": Case(
        {"w": like(W), "b": like(B), "globalstep": np.array(0)},
        [Outcome.RESTORED, Outcome.RESTORED, Outcome.MISSING],
        "2 of 3",
        """
  missing      globalstep: did you mean 'global_step'?
  not used     global_step""",
    ),
    "another shape": Case(
        {"w": np.zeros((3, 2), np.float32), "b": np.zeros(()), "global_step": np.array(0)},
        [Outcome.OTHER_SHAPE, Outcome.OTHER_SHAPE, Outcome.RESTORED],
        "1 of 3",
        """
  other shape  w: [2, 3] in the checkpoint, [3, 2] here
  other shape  b: [2] in the checkpoint, [] here""",
    ),
    "another type": Case(
        {"w": np.zeros((2, 3)), "b": np.zeros(2, "S3"), "global_step": np.array(0, object)},
        [Outcome.OTHER_TYPE] * 3,
        "0 of 3",
        """
  other type   w: float32 in the checkpoint, float64 here
  other type   b: float64 in the checkpoint, |S3 here
  other type   global_step: int64 in the checkpoint, object here""",
    ),
    "all of these, and a name that speaks to a terminal": Case(
        {"new\x1b[2J": like(W), "w": W[0].copy(), "b": B.astype("f4"), "global_step": np.array(1)},
        [Outcome.MISSING, Outcome.OTHER_SHAPE, Outcome.OTHER_TYPE, Outcome.RESTORED],
        "1 of 4",
        r"""
  missing      new\x1b[2J
  other shape  w: [2, 3] in the checkpoint, [3] here
  other type   b: float64 in the checkpoint, float32 here""",
    ),
    "nothing": Case(
        {},
        [],
        "0 of 0",
        """
  not used     b
  not used     global_step
  not used     w""",
    ),
}

SAVED = {"w": W, "b": B, "global_step": 7}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_report_says_what_became_of_each(run, case):
    variables = {name: array.copy() for name, array in case.variables.items()}

    report = restore("m-1", variables, partial=True)

    assert str(report) == f"m-1: {case.restored} variables restored{case.lines}"
    assert [each.outcome for each in report.variables] == case.outcomes
    assert [each.name for each in report.variables] == list(variables)
    for each in report.variables:
        expected = SAVED[each.name] if each.name in report.restored else case.variables[each.name]
        np.testing.assert_array_equal(variables[each.name], expected)
    assert all(len(line) <= 80 for line in str(report).splitlines())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_unless_it_is_partial_all_are_filled_or_none_is(run, case):
    variables = {name: array.copy() for name, array in case.variables.items()}
    refused = [outcome for outcome in case.outcomes if outcome is not Outcome.RESTORED]
    if not refused:
        assert (
            str(restore("m-1", variables)) == f"m-1: {case.restored} variables restored{case.lines}"
        )
        return

    with pytest.raises(RestoreError) as caught:
        restore("m-1", variables)

    assert str(caught.value) == (
        f"m-1: {len(refused)} of {len(case.outcomes)} variables cannot be restored, "
        f"and no variable was changed{case.lines}\nWith partial=True the others are restored."
    )
    for name, array in variables.items():
        np.testing.assert_array_equal(array, case.variables[name])


def test_the_names_that_are_asked_for_are_those_of_the_checkpoint(run):
    other = {"other_w": like(W), "other_b": like(B)}

    restore("m-1", {"w": other["other_w"], "b": other["other_b"]})

    np.testing.assert_array_equal(other["other_w"], W)
    np.testing.assert_array_equal(other["other_b"], B)


def test_many_lines_are_counted(run):
    tensors = {f"layer-{number:03}": np.float32(number) for number in range(100)}
    save_bundle(Path("big"), tensors)

    missing = {f"{number:03}": np.zeros((), np.float32) for number in range(1000)}
    text = str(restore("big", missing, partial=True))

    lines = text.splitlines()
    assert len(lines) == 1 + 21 + 21
    assert lines[0] == "big: 0 of 1,000 variables restored"
    assert lines[1].startswith("  missing      000")
    assert lines[21] == "               and 980 more"
    assert lines[22] == "  not used     layer-000"
    assert lines[42] == "               and 80 more"


def write_damage(path: Path) -> str:
    flip(data_file(path), 0)  # b is the first
    return (
        "m-1.data-00000-of-00001: tensor 'b' at byte 0: checksum of its data does not match: "
        "stored 0x"
    )


def cut_short(path: Path) -> str:
    data = data_file(path)
    data.write_bytes(data.read_bytes()[:30])
    return (
        "m-1.data-00000-of-00001: tensor 'w' at byte 24: ends at byte 48 of the file, which has 30"
    )


def remove_data(path: Path) -> str:
    data_file(path).unlink()
    return f"cannot read {Path.cwd()}/m-1.data-00000-of-00001: it is not there"


@pytest.mark.parametrize(
    ("damage", "readable"),
    [(write_damage, {"w", "global_step"}), (cut_short, {"b", "global_step"}), (remove_data, set())],
)
def test_what_cannot_be_read_changes_nothing(
    run, damage: Callable[[Path], str], readable: set[str]
):
    variables = {name: like(value) for name, value in SAVED.items()}
    text = damage(Path("m-1"))

    with pytest.raises(RestoreError, match=re.escape(text)):
        restore("m-1", variables)
    for name, array in variables.items():
        np.testing.assert_array_equal(array, like(SAVED[name]))

    report = restore("m-1", variables, partial=True)
    assert set(report.restored) == readable
    assert {each.name: each.outcome for each in report.unmatched} == dict.fromkeys(
        SAVED.keys() - readable, Outcome.UNREADABLE
    )
    for name, array in variables.items():
        np.testing.assert_array_equal(array, SAVED[name] if name in readable else 99)


def test_checksums_are_checked_unless_one_asks_not_to(run):
    write_damage(Path("m-1"))
    b = like(B)

    report = restore("m-1", {"b": b}, verify=False)

    assert report.restored == ("b",)
    assert b[0] != B[0]
    assert b[1] == B[1]


@pytest.mark.parametrize(
    ("variables", "error", "text"),
    [
        ([W], TypeError, "variables are given by name in a mapping, not in a list"),
        ({"w": [1.0]}, TypeError, "variable 'w': a list cannot be filled, only an array"),
        ({"w": np.float32(1)}, TypeError, "variable 'w': a float32 cannot be filled, only"),
        ({1: 2}, TypeError, "variable '1': a int cannot be filled, only an array"),
        ({"w": np.broadcast_to(W[0], (2, 3))}, ValueError, "variable 'w': its array is read-only"),
    ],
    ids=["no names", "a list", "a numpy scalar", "an int", "a read-only array"],
)
def test_what_cannot_be_filled_is_refused_first(tmp_path, variables, error, text):
    with pytest.raises(error, match=re.escape(text)):
        restore(tmp_path / "no such checkpoint", variables)


def test_no_checkpoint_is_told_as_for_reading(run):
    with pytest.raises(NoSuchCheckpointError, match=r"has no state file .* complete is m-1"):
        restore(run, {})
    with pytest.raises(NoSuchCheckpointError, match=r"there is no n-1\.index"):
        restore("n-1", {})


# Kinds of arrays.

VALUES: dict[str, Any] = {
    "a scalar": np.float32(2.5),
    "no elements": np.zeros((0, 3), np.int32),
    "strings": np.array([b"a\0", b"", "größe".encode()], object),
    "a string with zeros at its end": np.array(b"ab\0\0", object),
    "bfloat16": np.array([1.5, -2.0], ml_dtypes.bfloat16),
    "a scalar of bfloat16": np.array(1.5, ml_dtypes.bfloat16),
    "float8": np.array([1.5, -2.0], ml_dtypes.float8_e4m3fn),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j], np.complex64),
}


WAYS = [
    pytest.param(version, value, id=f"{name}, {version}")
    for name, value in VALUES.items()
    for version in ("v2", "v1")
    if version == "v2" or ("float8" not in name and "bfloat16" not in name)
]


@pytest.mark.parametrize(("version", "value"), WAYS)
def test_every_kind_of_value(tmp_path, version, value):
    save_bundle(tmp_path / "m", {"v": value}, version=version)
    array = like(value)

    restore(tmp_path / "m", {"v": array})

    assert array.dtype == np.asarray(value).dtype
    np.testing.assert_array_equal(array, value)


LAYOUTS: dict[str, Callable[[], Any]] = {
    "columns first": lambda: np.zeros((2, 3), np.float32, order="F"),
    "every other column": lambda: np.zeros((2, 6), np.float32)[:, ::2],
    "the other order of bytes": lambda: np.zeros((2, 3), ">f4"),
    "a matrix": lambda: np.zeros((2, 3), np.float32).view(np.matrix),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_however_the_array_lies_in_memory(run, make):
    array = make()

    restore("m-1", {"w": array})

    np.testing.assert_array_equal(np.asarray(array), W)


@pytest.mark.parametrize("version", ["v2", "v1"])
def test_a_partitioned_tensor_is_one_variable(tmp_path, version):
    whole = np.arange(20, dtype=np.float32).reshape(10, 2)
    save_bundle(tmp_path / "m", {"w": Partitioned(whole, [3, 1])}, version=version)
    array = like(whole)

    report = restore(tmp_path / "m", {"w": array})

    assert report.restored == ("w",)
    np.testing.assert_array_equal(array, whole)


# Names.

KEY = "net/w/.ATTRIBUTES/VARIABLE_VALUE"
COUNTER = "save_counter/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture
def tree(tmp_path):
    """Save the variable ``net/w`` as `tf.train.Checkpoint` does; return the prefix."""
    graph = TrackableObjectGraph()
    root, net, w, counter = (graph.nodes.add() for _ in range(4))
    root.children.add(node_id=1, local_name="net")
    root.children.add(node_id=3, local_name="save_counter")
    net.children.add(node_id=2, local_name="w")
    for node, name, key in ((w, "w", KEY), (counter, "save_counter", COUNTER)):
        node.attributes.add(name="VARIABLE_VALUE", full_name=name, checkpoint_key=key)
    tensors = {KEY: W, COUNTER: np.int64(1), OBJECT_GRAPH_KEY: graph.SerializeToString()}
    return save_bundle(tmp_path / "tree" / "m-1", tensors)


@pytest.mark.parametrize("name", [KEY, "net/w"])
def test_readable_paths_are_names_too(tree, name):
    array = like(W)

    report = restore(tree, {name: array})

    np.testing.assert_array_equal(array, W)
    assert report.restored == (name,)
    assert report.unused == (COUNTER,)


def test_a_path_that_is_missing_is_told_what_comes_near(tree):
    with pytest.raises(RestoreError, match=r"missing      w: did you mean 'net/w'\?"):
        restore(tree, {"w": like(W)})


@pytest.mark.parametrize("average", ["ExponentialMovingAverage", "mine"])
def test_averages_stand_for_the_variables_that_have_one(tmp_path, average):
    tensors = {"a": W, f"a/{average}": W * 2, "b": B, "a/other": W * 3}
    save_bundle(tmp_path / "m", tensors)
    model = {"a": like(W), "b": like(B)}

    options = {} if average == "ExponentialMovingAverage" else {"average": average}
    names = average_names(tmp_path / "m", model, **options)
    restore(tmp_path / "m", {names[name]: array for name, array in model.items()})

    assert names == {"a": f"a/{average}", "b": "b"}
    np.testing.assert_array_equal(model["a"], W * 2)
    np.testing.assert_array_equal(model["b"], B)


def test_the_package_has_them():
    assert ckptd_client.restore is restore
    assert ckptd_client.average_names is average_names
    assert ckptd_client.RestoreReport.__doc__
