"""T10: a plan for one directory of 100,000 checkpoints, from its listing."""

import re
import statistics
import time

import pytest

from ckptd.checkpoints.inventory import take_inventory
from ckptd.checkpoints.listing import Entry, Identity, Kind
from ckptd.formats.bundle_index import IndexPromise
from ckptd.formats.collection import collection_paused
from ckptd.keeper.plan import plan_directory
from ckptd.keeper.survey import Survey
from ckptd.retention.candidate import Outcome
from ckptd.retention.policy import Policy

PROMISE = IndexPromise(num_shards=1, shard_sizes={0: 100}, tensors=1)
POLICY = Policy(
    max_to_keep=5,
    keep_checkpoint_every_n_hours=24.0,
    keep_every_n_steps=10_000,
    keep_daily=7,
    keep_weekly=4,
    max_removals_per_sweep=10**9,
)


class Known:
    """An inspector that has read every index before."""

    def index(self, entry):
        return PROMISE

    def v1_shard(self, entry):
        raise AssertionError

    def is_state_file(self, entry):
        return False


def listing(count):
    entries = []
    for step in range(count):
        saved = (1_600_000_000 + 600 * step) * 10**9
        for n, suffix in enumerate(("index", "data-00000-of-00001", "meta")):
            identity = Identity(1, 3 * step + n, 100, saved)
            entries.append(Entry(f"model.ckpt-{step}.{suffix}", Kind.FILE, identity, 1))
    return entries


def survey_and_plan(entries):
    inventory = take_inventory(entries, Known())
    survey = Survey(
        path="/runs/long",
        entries=tuple(entries),
        inventory=inventory,
        checkpoints=inventory.by_name(),
        statements=(),
        ledger=None,
        lost=False,
        pins={},
        held=None,
        problems=(),
    )
    return plan_directory(survey, POLICY, 1_600_000_000 + 600 * len(entries))


def plan(entries):
    """Plan as `Keeper.plan` does after the listing."""
    with collection_paused(len(entries)):
        return survey_and_plan(entries)


def bare(entries):
    """What any program must do: take each name apart and sort by time."""
    pattern = re.compile(r"(.+?)-(\d+)\.(index|meta|data-(\d{5})-of-(\d{5}))\Z")
    found = [(e.identity.mtime_ns, m.groups()) for e in entries if (m := pattern.match(e.name))]
    return sorted(found)


def median_time(work, argument):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work(argument)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@pytest.mark.timeout(300)
def test_t10(figures):
    small, large = listing(10_000), listing(100_000)
    assert plan(small).of(Outcome.REMOVE)

    ours = median_time(plan, large)
    tenth = median_time(plan, small)
    raw = median_time(bare, large)

    figures("T10", "plan of 100,000 checkpoints, from the listing", ours, "names taken apart", raw)
    growth = figures("T10", "the same, against 10,000 checkpoints", ours, "10,000", tenth)
    figures.note("T10", "targets: at most 1.5 s, at most 12 times the time for 10 times as many")
    assert growth <= 12
    assert ours <= 1.5
