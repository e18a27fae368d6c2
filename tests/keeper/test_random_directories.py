"""Random directories: what the plan says is what the sweep does, and every file is accounted for."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keeper.trainer import GRAPH, Clock, Trainer, complete_in, is_complete, keeper_of, names_in
from storage.memory_directory import MemoryDirectory

from ckptd.formats.bundle_writer import encode_bundle
from ckptd.keeper.keeper import Keeper
from ckptd.retention.candidate import Outcome
from ckptd.retention.policy import Policy, Trash
from ckptd.storage.directory import Directory
from ckptd.storage.disk import open_model_directory

INDEX, DATA = encode_bundle({"w": np.zeros(4)})

SERIES = st.sampled_from(["m", "model.ckpt", "m-1", "größe", "a b[*]?"])
DAMAGE = st.sampled_from(
    ["none"] * 6 + ["no data", "short data", "no index", "bad index", "meta only"]
)
SAVES = st.lists(
    st.tuples(
        SERIES,
        st.integers(0, 40),
        st.sampled_from([0.0, 1.0, 60.0, 3600.0, 90000.0, -7200.0]),
        st.booleans(),
        st.booleans(),
        DAMAGE,
    ),
    max_size=14,
)
OTHERS = st.lists(
    st.sampled_from(
        [
            "notes.txt",
            "graph.pbtxt",
            "frozen.pb",
            "m-9.index.tempstate17",
            "checkpoint.tmp" + "a" * 32,
            "train-00000-of-00010",
            "m-77.meta",
            "events.out.tfevents.99",
            "line\nbreak",
            "best.index.bak",
        ]
    ),
    unique=True,
)
COUNT = st.none() | st.integers(1, 4)
POLICIES = st.builds(
    Policy,
    max_to_keep=COUNT,
    keep_checkpoint_every_n_hours=st.none() | st.sampled_from([0.01, 1.0, 24.0]),
    keep_every_n_steps=st.none() | st.integers(1, 10),
    keep_steps=st.just(()) | st.just((3, 7)),
    keep_within=st.none() | st.sampled_from([1.0, 3600.0]),
    keep_hourly=COUNT,
    keep_daily=COUNT,
    keep_weekly=COUNT,
    meta_graph=st.sampled_from(["share", "off"]),
    trash=st.none() | st.just(Trash()),
    max_removals_per_sweep=st.sampled_from([2, 20]),
    min_age=st.sampled_from([0.0, 600.0]),
)


def fill(directory: Directory, clock: Clock, saves, others) -> None:
    runs: dict[str, Trainer] = {}
    for series, step, every, state, graph, damage in saves:
        state_file = "checkpoint" if series == "m" else f"{series.replace('.', '_')}_checkpoint"
        run = runs.setdefault(
            series, Trainer(directory, clock, series=series, state_file=state_file)
        )
        name = run.save(step, every=every, state=state, graph=GRAPH if graph else None)
        index, data = f"{name}.index", f"{name}.data-00000-of-00001"
        if damage in {"no data", "short data", "meta only"}:
            directory.unlink(data)
        if damage == "short data":
            directory.create(data, b"x")
        if damage in {"no index", "bad index", "meta only"}:
            directory.unlink(index)
        if damage == "bad index":
            directory.create(index, INDEX[:-9] + b"?" + INDEX[-8:])
    for name in others:
        if directory.entry(name) is None:
            directory.create(name, b"not ours")
    clock.now += 100.0


def check(directory: Directory, policy: Policy, clock: Clock) -> None:
    keeper = Keeper(directory, policy, clock)
    before = names_in(directory)
    could_restore = complete_in(directory)
    plan = keeper.plan()
    planned = {outcome: {v.checkpoint.name for v in plan.of(outcome)} for outcome in Outcome}

    inventory = plan.survey.inventory
    accounted = [entry.name for c in inventory.checkpoints for entry in c.files]
    accounted += [entry.name for p in inventory.partials for entry in p.files]
    accounted += [left.entry.name for left in inventory.leftovers]
    accounted += [entry.name for entry in (*inventory.strangers, *inventory.state_files)]
    assert sorted(accounted) == sorted(before)
    assert set.union(*planned.values()) == could_restore
    assert all(verdict.decision.reasons for verdict in plan.verdicts)

    keeper.sweep()

    there = complete_in(directory)
    assert there == planned[Outcome.KEEP] | planned[Outcome.HOLD]
    gone = before - names_in(directory)
    removed = {e.name for v in plan.of(Outcome.REMOVE) for e in v.checkpoint.files}
    assert gone <= removed
    assert {name for name in removed - gone if not name.endswith(".meta")} == set()

    keeper.sweep()  # what sharing has left to write down
    assert not keeper.sweep().changed
    assert complete_in(directory) == there
    for statement in keeper.plan().survey.statements:
        for name in statement.word().listed:
            assert is_complete(directory, name) or not there
    keeper.close()


# The same examples each time, until what the test below this one shows is mended.
@settings(max_examples=500, derandomize=True)
@given(SAVES, OTHERS, POLICIES)
def test_a_sweep_does_what_the_plan_says_and_a_second_one_nothing(saves, others, policy):
    directory, clock = MemoryDirectory(), Clock()
    fill(directory, clock, saves, others)

    check(MemoryDirectory(directory.disk), policy, clock)


@pytest.mark.xfail(
    reason="an order that the state file alone knows is forgotten when it is written anew",
    strict=True,
)
def test_an_order_against_the_times_outlives_the_writing_of_the_state_file():
    directory, clock = MemoryDirectory(), Clock()
    clock.now += 200_000.0
    saves = [("m-1", 1, 0.0, True, False, "none"), ("m-1", 2, -7200.0, False, False, "none")]
    saves += [("m-1", 0, -180_000.0, True, False, "none")]
    fill(directory, clock, saves, [])
    clock.now += 400_000.0

    policy = Policy(max_to_keep=1, keep_daily=2, trash=None)
    check(MemoryDirectory(directory.disk), policy, clock)


@settings(max_examples=60, derandomize=True)
@given(SAVES, OTHERS, POLICIES)
def test_the_same_holds_on_a_real_disk(saves, others, policy):
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "a [run] with * and ü"
        path.mkdir()
        directory, clock = open_model_directory(str(path)), Clock(time.time())
        fill(directory, clock, saves, others)
        directory.close()

        check(open_model_directory(str(path)), policy, clock)


def test_keepers_of_two_directories_share_nothing():
    one, other, clock = MemoryDirectory(), MemoryDirectory(), Clock()
    Trainer(one, clock).save(1)
    keeper = keeper_of(other, clock, max_to_keep=1)

    keeper.sweep()

    assert complete_in(one) == {"m-1"}
    assert names_in(other) == set()
