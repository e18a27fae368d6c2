"""Found damaged: it counts as partial until it is saved again, over restarts, and costs no good one."""

import json

import pytest
from keeper.trainer import Clock, Trainer, keeper_of, listed_in, names_in, state_of
from storage.memory_directory import MemoryDirectory

from ckptd.checkpoints.inventory import Checkpoint
from ckptd.errors import NoSuchCheckpointError
from ckptd.keeper.keeper import Keeper, find_step
from ckptd.keeper.ledger import Ledger, Verified, decode_ledger, encode_ledger
from ckptd.keeper.verification import Damage, Verification, verify_checkpoint

LONG_AGO = 3600.0


@pytest.fixture
def directory() -> MemoryDirectory:
    return MemoryDirectory()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trainer(directory, clock) -> Trainer:
    return Trainer(directory, clock)


def data_of(name: str) -> str:
    return f"{name}.data-00000-of-00001"


def flip(directory: MemoryDirectory, name: str, clock: Clock) -> None:
    """Flip a bit of a checkpoint's data, as a disk does: the file's time does not change."""
    file = data_of(name)
    entry = directory.entry(file)
    assert entry is not None
    data = bytearray(directory.read(file, limit=2**20))
    data[9] ^= 1
    inode = directory.disk.inodes[entry.identity.inode]
    inode.data = bytes(data)
    assert directory.entry(file) == entry


def verify(keeper: Keeper) -> list[tuple[Checkpoint, Verification]]:
    """Verify what has not been verified, without writing it down."""
    return [
        (checkpoint, verify_checkpoint(checkpoint, keeper.directory.read_through))
        for checkpoint in keeper.plan().unverified()
    ]


def scrub(keeper: Keeper) -> list[str]:
    """Verify, write down, sweep; return the names that were verified."""
    found = verify(keeper)
    keeper.record_verified(found)
    keeper.sweep()
    return [checkpoint.name for checkpoint, _ in found]


def damaged_in(keeper: Keeper) -> dict[str, str]:
    partials = keeper.plan().survey.inventory.partials
    return {partial.name: partial.reason for partial in partials if partial.damaged is not None}


def test_a_damaged_checkpoint_is_partial_and_costs_no_good_one(directory, clock, trainer):
    for step in range(1, 6):
        trainer.save(step)
    flip(directory, "m-5", clock)
    clock.now += LONG_AGO
    keeper = keeper_of(directory, clock, max_to_keep=2, trash=None)

    found = verify(keeper)
    lines = keeper.record_verified(found)
    keeper.sweep()

    assert [line["name"] for line in lines] == ["m-5"]
    assert keeper.history()[-1]["event"] == "removed"
    assert "damaged" in [line["event"] for line in keeper.history()]
    (reason,) = damaged_in(keeper).values()
    assert reason.startswith("damaged: m-5.data-00000-of-00001: tensor 'w' at byte 0: checksum")
    assert state_of(directory).model_checkpoint_path == "m-4"
    assert listed_in(directory) == ["m-3", "m-4"]
    assert {n.removesuffix(".index") for n in names_in(directory) if n.endswith(".index")} == {
        "m-3",
        "m-4",
        "m-5",
    }


def test_the_mark_outlives_the_keeper_and_each_checkpoint_is_read_once(directory, clock, trainer):
    trainer.save(1)
    trainer.save(2)
    flip(directory, "m-2", clock)
    clock.now += LONG_AGO
    assert scrub(keeper_of(directory, clock, max_to_keep=5)) == ["m-2", "m-1"]

    later = keeper_of(directory, clock, max_to_keep=5)

    assert damaged_in(later).keys() == {"m-2"}
    assert scrub(later) == []
    assert not later.sweep().changed


def test_the_newest_is_verified_first(directory, clock, trainer):
    for step in (3, 1, 2):
        trainer.save(step)
    clock.now += LONG_AGO

    assert scrub(keeper_of(directory, clock, max_to_keep=5)) == ["m-2", "m-1", "m-3"]


def test_saving_again_heals(directory, clock, trainer):
    trainer.save(1)
    trainer.save(2)
    flip(directory, "m-2", clock)
    clock.now += LONG_AGO
    keeper = keeper_of(directory, clock, max_to_keep=5)
    scrub(keeper)
    assert state_of(directory).model_checkpoint_path == "m-1"

    trainer.save(2)
    keeper.sweep()

    assert damaged_in(keeper) == {}
    assert state_of(directory).model_checkpoint_path == "m-2"
    clock.now += LONG_AGO
    assert scrub(keeper) == ["m-2"]
    assert damaged_in(keeper) == {}


def test_what_is_found_sound_after_all_counts_again(directory, clock, trainer):
    trainer.save(1)
    trainer.save(2)
    flip(directory, "m-2", clock)
    clock.now += LONG_AGO
    keeper = keeper_of(directory, clock, max_to_keep=5)
    scrub(keeper)
    flip(directory, "m-2", clock)  # a backup was copied over it, with its time

    (partial,) = keeper.plan().survey.inventory.partials
    assert partial.damaged is not None
    again = verify_checkpoint(partial.damaged, directory.read_through)
    lines = keeper.record_verified([(partial.damaged, again)])

    assert [line["event"] for line in lines] == ["found_sound"]
    assert damaged_in(keeper) == {}


def test_a_meta_graph_that_is_written_late_makes_no_damaged_one_new(directory, clock, trainer):
    trainer.save(1)
    trainer.save(2)
    flip(directory, "m-2", clock)
    clock.now += LONG_AGO
    directory.set_mtime("m-2.meta", clock())

    scrub(keeper_of(directory, clock, max_to_keep=5))

    assert state_of(directory).model_checkpoint_path == "m-1"


@pytest.mark.parametrize("change", ["removed", "saved again", "a moment ago", "in doubt"])
def test_what_is_not_sure_is_not_written_down(directory, clock, trainer, change):
    trainer.save(1)
    trainer.save(2)
    flip(directory, "m-2", clock)
    clock.now += 1.0 if change == "a moment ago" else LONG_AGO
    keeper = keeper_of(directory, clock, max_to_keep=5)
    keeper.sweep()
    found = [(c, v) for c, v in verify(keeper) if c.name == "m-2"]
    assert found[0][1].damages
    if change == "removed":
        directory.unlink("m-2.index")
    elif change == "saved again":
        trainer.save(2)
    elif change == "in doubt":
        refused = Damage(data_of("m-2"), "cannot be read: Input/output error", in_doubt=True)
        found = [(found[0][0], Verification("m-2", (refused,), 1, 0))]

    assert keeper.record_verified(found) == []
    assert damaged_in(keeper) == {}
    assert "m-2" not in keeper.plan().ledger.verified


def test_a_checkpoint_that_goes_while_it_is_read_is_no_damage(directory, clock, trainer):
    trainer.save(1)
    trainer.save(2)
    clock.now += LONG_AGO
    keeper = keeper_of(directory, clock, max_to_keep=1, trash=None)
    (newest, oldest) = verify_all = [v.checkpoint for v in reversed(keeper.plan().verdicts)]
    keeper.sweep()  # m-1 goes

    found = [(c, verify_checkpoint(c, directory.read_through)) for c in verify_all]

    assert {damage.problem for damage in found[1][1].damages} == {"the file is missing"}
    assert keeper.record_verified(found) == []
    assert keeper.plan().ledger.verified.keys() == {newest.name}
    assert oldest.name not in damaged_in(keeper)


def test_what_is_about_to_go_is_not_read(directory, clock, trainer):
    for step in range(1, 4):
        trainer.save(step)
    clock.now += LONG_AGO

    assert [c.name for c in keeper_of(directory, clock, max_to_keep=1).plan().unverified()] == [
        "m-3"
    ]


def test_a_directory_without_ckptd_and_without_damage_is_left_without_a_trace(
    directory, clock, trainer
):
    trainer.save(1)
    clock.now += LONG_AGO
    keeper = keeper_of(directory, clock)

    assert keeper.record_verified(verify(keeper)) == []
    assert directory.entry(".ckptd") is None


def test_damage_that_is_not_sure_leaves_no_trace_either(directory, clock, trainer):
    trainer.save(1)
    flip(directory, "m-1", clock)
    keeper = keeper_of(directory, clock)
    found = verify(keeper)
    assert found[0][1].damages

    assert keeper.record_verified(found) == []
    assert directory.entry(".ckptd") is None

    clock.now += LONG_AGO
    assert [line["event"] for line in keeper.record_verified(found)] == ["damaged"]


def test_a_damaged_checkpoint_cannot_be_pinned(directory, clock, trainer):
    trainer.save(1)
    trainer.save(2)
    flip(directory, "m-2", clock)
    clock.now += LONG_AGO
    keeper = keeper_of(directory, clock, max_to_keep=5)
    scrub(keeper)

    with pytest.raises(NoSuchCheckpointError, match=r"m-2 .* is not complete: damaged: m-2.data"):
        find_step(keeper.plan(), "m-2")


def test_what_is_gone_is_forgotten(directory, clock, trainer):
    for step in range(1, 4):
        trainer.save(step)
    clock.now += LONG_AGO
    keeper = keeper_of(directory, clock, max_to_keep=3, trash=None)
    keeper.sweep()
    scrub(keeper)
    assert keeper.plan().ledger.verified.keys() == {"m-1", "m-2", "m-3"}

    keeper.policy = keeper_of(directory, clock, max_to_keep=1, trash=None).policy
    keeper.sweep()
    trainer.save(4)
    keeper.sweep()

    assert keeper.plan().ledger.verified.keys() == set()
    assert keeper.plan().survey.remembered().verified.keys() == set()


def test_the_ledger_keeps_what_was_verified():
    ledger = Ledger(
        verified={"m-1": Verified("ab" * 16, 1.5, "m-1.index: bad"), "é": Verified("", 2.0)}
    )

    assert decode_ledger(encode_ledger(ledger)) == ledger


def test_a_ledger_of_before_is_still_read():
    document = json.loads(encode_ledger(Ledger()))
    del document["verified"]

    assert decode_ledger(json.dumps(document).encode()) == Ledger()


def test_what_was_in_the_trash_while_it_was_read_and_came_back_is_no_damage(
    directory, clock, trainer
):
    trainer.save(1)
    trainer.save(2)
    clock.now += LONG_AGO
    keeper = keeper_of(directory, clock, max_to_keep=1)
    oldest = keeper.plan().verdicts[0].checkpoint
    keeper.sweep()
    found = verify_checkpoint(oldest, directory.read_through)
    assert found.damages
    keeper.undo(lambda removed: removed.name == "m-1", by="somebody")
    assert {entry.name: entry for entry in directory.list()}["m-1.index"] == oldest.index

    assert keeper.record_verified([(oldest, found)]) == []
    assert damaged_in(keeper) == {}


def test_a_preserved_one_that_heals_is_preserved_still(directory, clock, trainer):
    for step in (1, 2, 3):
        trainer.save(step)
        clock.now += 2 * 3600.0
    keeper = keeper_of(
        directory, clock, max_to_keep=1, keep_checkpoint_every_n_hours=1.0, trash=None
    )
    keeper.sweep()
    before = keeper.plan().ledger
    assert "m-2" in next(iter(before.series.values())).preserved
    flip(directory, "m-2", clock)
    scrub(keeper)
    assert damaged_in(keeper).keys() == {"m-2"}
    keeper.sweep()
    assert keeper.plan().ledger.checkpoints == before.checkpoints  # its time of saving, too
    flip(directory, "m-2", clock)  # a backup was copied over it, with its time
    (partial,) = keeper.plan().survey.inventory.partials
    assert partial.damaged is not None

    again = verify_checkpoint(partial.damaged, directory.read_through)
    keeper.record_verified([(partial.damaged, again)])
    keeper.sweep()

    after = keeper.plan().ledger
    assert after.series == before.series
    assert after.checkpoints == before.checkpoints
    assert "m-2.index" in names_in(directory)
