"""Damaged files of every kind: an answer or a `CkptdError`, in bounded time and memory.

What is damaged, and how, is in `fuzz.seeds` and `fuzz.mutations`; `make fuzz` does the same by
coverage, and for longer.
"""

from collections.abc import Sequence

import pytest
from fuzz.seeds import seeds
from fuzz.targets import TARGETS, mutated
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from ckptd.formats.tensor_proto import LARGEST_FILL

STEPS = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1)), min_size=1, max_size=5)
EXAMPLES = {"meta_graph": 120, "meta_graph_text": 100, "saved_model": 100, "graph_file": 120}
FILLED = {"tensor_proto": LARGEST_FILL, "graph_file": 2 * LARGEST_FILL}
"""A constant may stand for more than it takes, up to a bound; all of a graph's together, too."""
FROM_TENSORFLOW = (
    *("bundle", "verification", "v1", "meta_graph"),
    *("freezing", "saved_model", "graph_file", "state_file"),
)


def damaged(name: str, files: Sequence[bytes], which: int, steps: Sequence[tuple[int, int]]):
    data = mutated(name, files[which % len(files)], steps)
    note(f"TARGETS[{name!r}].read(bytes.fromhex({data[:4096].hex()!r}))")
    return data


def test_every_target_has_files_to_damage():
    assert seeds().keys() == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_sound_files_are_read(name, bounded):
    for data in seeds()[name]:
        with bounded(len(data), more_memory=FILLED.get(name, 0)):
            TARGETS[name].read(data)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_refused_or_read(name, bounded):
    @settings(max_examples=EXAMPLES.get(name, 200), suppress_health_check=[HealthCheck.too_slow])
    @given(which=st.integers(0, 99), steps=STEPS)
    def check(which, steps):
        data = damaged(name, seeds()[name], which, steps)
        with bounded(len(data), more_memory=FILLED.get(name, 0)):
            TARGETS[name].read(data)

    check()


@pytest.mark.parametrize("name", ["table", "index", "meta_graph", "state_file", "object_graph"])
def test_every_truncation_is_refused_or_read(name):
    for data in seeds()[name][:2]:
        for size in range(0, len(data), 1 + len(data) // 400):
            TARGETS[name].read(data[:size])


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", FROM_TENSORFLOW)
def test_damaged_files_of_tensorflow_are_refused_or_read(name, bounded, tensorflow_files):
    for data in tensorflow_files[name]:
        TARGETS[name].read(data)

    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(which=st.integers(0, 99), steps=STEPS)
    def check(which, steps):
        data = damaged(name, tensorflow_files[name], which, steps)
        with bounded(len(data), more_memory=FILLED.get(name, 0)):
            TARGETS[name].read(data)

    check()
