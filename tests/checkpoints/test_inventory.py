"""What a listing holds: each family of files, alone, damaged, and mixed with those of others."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest
from builders import MONDAY, checkpoint, data, entry
from hypothesis import example, given
from hypothesis import strategies as st

from ckptd.checkpoints.inventory import (
    OWN_DIRECTORY,
    Checkpoint,
    Format,
    Inspector,
    Inventory,
    Partial,
    take_inventory,
)
from ckptd.checkpoints.listing import Entry, Kind
from ckptd.errors import CorruptIndexError, FormatError
from ckptd.formats.bundle_index import IndexPromise


@dataclass(frozen=True)
class Contents:
    """What is in the files, by name; files that nobody speaks of are not what they should be."""

    promises: Mapping[str, IndexPromise] = field(default_factory=dict)
    v1: frozenset[str] = frozenset()
    state_files: frozenset[str] = frozenset()

    def index(self, entry: Entry) -> IndexPromise:
        if entry.name not in self.promises:
            raise CorruptIndexError(f"{entry.name}: bad magic number")
        return self.promises[entry.name]

    def v1_shard(self, entry: Entry) -> None:
        if entry.name not in self.v1:
            raise FormatError(f"{entry.name}: not a sorted table")

    def is_state_file(self, entry: Entry) -> bool:
        return entry.name in self.state_files


def promises(*sizes: int) -> IndexPromise:
    """Return the promise of as many shards, each of at least this size."""
    return IndexPromise(len(sizes), dict(enumerate(sizes)), tensors=3)


def v2(**sizes: Iterable[int]) -> Contents:
    """Return sound indexes: ``v2(m_7=[8])`` is that of m-7 in one shard of 8 bytes."""
    return Contents({f"{p.replace('_', '-')}.index": promises(*s) for p, s in sizes.items()})


def v1(*names: str) -> Contents:
    """Return sound V1 files."""
    return Contents(v1=frozenset(names))


def only(found: tuple[Checkpoint, ...]) -> Checkpoint:
    (one,) = found
    return one


def partial(inventory: Inventory) -> Partial:
    """Return the only thing that an inventory holds: a partial checkpoint."""
    (one,) = inventory.partials
    assert everything(inventory) == list(one.files)
    return one


def names(entries: Iterable[Entry]) -> list[str]:
    return [entry.name for entry in entries]


def everything(inventory: Inventory) -> list[Entry]:
    """Return every entry of an inventory, as often as it is in it."""
    return [
        *(entry for found in inventory.checkpoints for entry in found.files),
        *(entry for found in inventory.partials for entry in found.files),
        *(found.entry for found in inventory.leftovers),
        *inventory.state_files,
        *inventory.strangers,
        *inventory.own,
    ]


def test_an_empty_directory_holds_nothing():
    assert not everything(take_inventory([], Contents()))


def test_an_unsharded_v2_checkpoint_is_complete():
    found = only(take_inventory(checkpoint("m-7", 8, meta_graph=True), v2(m_7=[8])).checkpoints)

    assert (found.name, found.series, found.global_step) == ("m-7", "m", 7)
    assert (found.format, found.num_shards) == (Format.V2, 1)
    assert names(found.files) == ["m-7.index", "m-7.meta", "m-7.data-00000-of-00001"]
    assert found.index == entry("m-7.index")
    assert found.meta_graph == entry("m-7.meta")
    assert found.bytes == 100 + 100 + 8


def test_a_sharded_v2_checkpoint_is_complete():
    files = [*reversed(checkpoint("m-7", 8, 9, 10)), entry("m-7.debug")]

    found = only(take_inventory(files, v2(m_7=[8, 9, 10])).checkpoints)

    assert found.num_shards == 3
    assert found.meta_graph is None
    assert names(found.files) == [
        "m-7.index",
        "m-7.debug",
        "m-7.data-00000-of-00003",
        "m-7.data-00001-of-00003",
        "m-7.data-00002-of-00003",
    ]


def test_a_checkpoint_without_step_is_a_series_of_its_own():
    contents = Contents({"model.ckpt.index": promises(8)})

    found = only(take_inventory(checkpoint("model.ckpt", 8), contents).checkpoints)

    assert (found.series, found.global_step) == ("model.ckpt/", None)


def test_a_checkpoint_without_step_is_apart_from_the_steps_of_the_same_name():
    contents = Contents({"model.ckpt.index": promises(8), "model.ckpt-7.index": promises(8)})
    files = [*checkpoint("model.ckpt", 8), *checkpoint("model.ckpt-7", 8)]

    found = take_inventory(files, contents).checkpoints

    assert len({one.series for one in found}) == 2


@pytest.mark.parametrize("size", [8, 9, 4096])
def test_a_shard_may_be_longer_than_promised(size):
    inventory = take_inventory(checkpoint("m-7", size), v2(m_7=[8]))

    assert only(inventory.checkpoints).name == "m-7"


def test_a_shard_that_holds_no_tensor_may_be_missing():
    contents = Contents({"m-7.index": IndexPromise(3, {0: 8}, tensors=1)})

    inventory = take_inventory([entry("m-7.index"), data("m-7", 8, 8, 8)[0]], contents)

    assert only(inventory.checkpoints).num_shards == 3


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        pytest.param(
            [entry("m-7.index"), data("m-7", 8, 8)[0]],
            "shard 1 of 2 is missing",
            id="missing shard",
        ),
        pytest.param([entry("m-7.index")], "shard 0 of 2 is missing", id="index alone"),
        pytest.param(
            checkpoint("m-7", 8, 7), "shard 1 of 2 is short: 7 of 8 bytes", id="short shard"
        ),
        pytest.param(
            checkpoint("m-7", 0, 8), "shard 0 of 2 is short: 0 of 8 bytes", id="empty shard"
        ),
        pytest.param(
            checkpoint("m-7", 8, 8, 8), "shard 0 of 2 is missing", id="shards of another count"
        ),
        pytest.param(data("m-7", 8, 8), "it has no index", id="only data"),
        pytest.param(
            [*data("m-7", 8, 8), entry("m-7.meta")], "it has no index", id="data and meta graph"
        ),
        pytest.param([entry("m-7.meta")], "only its meta graph is there", id="only meta graph"),
        pytest.param(
            [entry("m-7.meta"), entry("m-7.debug")],
            "only its meta graph is there",
            id="meta graph and debug information",
        ),
    ],
)
def test_a_v2_checkpoint_with_something_missing_is_partial(files, reason):
    found = partial(take_inventory(files, v2(m_7=[8, 8])))

    assert (found.name, found.reason) == ("m-7", reason)
    assert sorted(found.files) == sorted(files)


def test_sizes_in_a_reason_can_be_read():
    found = partial(take_inventory(checkpoint("m-7", 1_234_567), v2(m_7=[2_000_000])))

    assert found.reason == "shard 0 of 1 is short: 1,234,567 of 2,000,000 bytes"


def test_an_index_that_is_none_makes_a_partial_checkpoint_with_the_reason():
    found = partial(take_inventory(checkpoint("m-7", 8), Contents()))

    assert found.reason == "m-7.index: bad magic number"


def test_debug_information_alone_is_a_stranger():
    inventory = take_inventory([entry("m-7.debug")], Contents())

    assert names(inventory.strangers) == ["m-7.debug"]


def test_shards_of_an_earlier_save_with_another_count_belong_to_the_checkpoint():
    stale = data("m-7", 8, 8, 8, 8)

    found = only(take_inventory([*stale, *checkpoint("m-7", 8, 8)], v2(m_7=[8, 8])).checkpoints)

    assert found.num_shards == 2
    assert set(stale) <= set(found.files)
    assert found.index.name == "m-7.index"


def test_stale_shards_are_no_substitute_for_those_promised():
    files = [entry("m-7.index"), *data("m-7", 8, 8, 8, 8)]

    assert partial(take_inventory(files, v2(m_7=[8, 8]))).reason == "shard 0 of 2 is missing"


def test_a_prefix_that_begins_another_prefix_is_a_checkpoint_of_its_own():
    files = [*checkpoint("model-1", 8), *checkpoint("model-1-ema-5", 8), *data("model", 8)]

    inventory = take_inventory(files, v2(model_1=[8], model_1_ema_5=[8]))

    ema, model = sorted(inventory.checkpoints, key=lambda c: c.name, reverse=True)
    assert (model.series, model.global_step, len(model.files)) == ("model", 1, 2)
    assert (ema.series, ema.global_step, len(ema.files)) == ("model-1-ema", 5, 2)
    assert [(p.name, p.reason) for p in inventory.partials] == [("model", "it has no index")]


def test_two_series_in_one_directory_are_told_apart():
    files = [file for p in ("a-1", "b-1", "a-2", "b-2") for file in checkpoint(p, 8)]

    inventory = take_inventory(files, v2(a_1=[8], a_2=[8], b_1=[8], b_2=[8]))

    found = {(c.series, c.global_step) for c in inventory.checkpoints}
    assert found == {("a", 1), ("a", 2), ("b", 1), ("b", 2)}
    assert inventory.by_name()["b-2"].series == "b"


def test_a_damaged_checkpoint_does_not_hide_a_sound_one():
    files = [*checkpoint("m-7", 8), *checkpoint("m-8", 8)]

    inventory = take_inventory(files, v2(m_7=[8]))

    assert [c.name for c in inventory.checkpoints] == ["m-7"]
    assert [p.name for p in inventory.partials] == ["m-8"]


def test_an_unsharded_v1_checkpoint_is_complete():
    files = [entry("m-7", size=8), entry("m-7.meta")]

    found = only(take_inventory(files, v1("m-7")).checkpoints)

    assert (found.format, found.num_shards, found.global_step) == (Format.V1, 1, 7)
    assert names(found.files) == ["m-7", "m-7.meta"]
    assert found.index.name == "m-7"
    assert found.meta_graph == entry("m-7.meta")


def test_an_unsharded_v1_checkpoint_needs_no_meta_graph():
    assert only(take_inventory([entry("m-7")], v1("m-7")).checkpoints).meta_graph is None


SHARDS = ("m-7-00000-of-00003", "m-7-00001-of-00003", "m-7-00002-of-00003")


def test_a_sharded_v1_checkpoint_is_complete():
    found = only(take_inventory(map(entry, reversed(SHARDS)), v1(*SHARDS)).checkpoints)

    assert (found.name, found.format, found.num_shards) == ("m-7", Format.V1, 3)
    assert names(found.files) == list(SHARDS)


def test_a_sharded_v1_checkpoint_may_have_one_shard():
    found = only(
        take_inventory([entry("m-7-00000-of-00001")], v1("m-7-00000-of-00001")).checkpoints
    )

    assert (found.name, found.num_shards) == ("m-7", 1)


@pytest.mark.parametrize(
    ("there", "sound", "reason"),
    [
        pytest.param(SHARDS[:2], SHARDS, "V1 shard 2 of 3 is missing", id="missing shard"),
        pytest.param(
            [*SHARDS[:2], "m-7-00000-of-00002"],
            [*SHARDS[:2], "m-7-00000-of-00002"],
            "it has V1 shards of different saves, none of them whole",
            id="two counts, neither whole",
        ),
        pytest.param(
            [*SHARDS, "m-7.meta"],
            SHARDS[:1],
            "m-7-00001-of-00003: not a sorted table",
            id="damaged shard, with a meta graph to say whose it is",
        ),
        pytest.param(
            ["m-7", "m-7.meta"],
            [],
            "m-7: not a sorted table",
            id="damaged, with a meta graph to say whose it is",
        ),
    ],
)
def test_a_v1_checkpoint_with_something_missing_is_partial(there, sound, reason):
    found = partial(take_inventory(map(entry, there), v1(*sound)))

    assert (found.name, found.reason) == ("m-7", reason)
    assert set(names(found.files)) == set(there)


TWO = ["m-7-00000-of-00002", "m-7-00001-of-00002"]


@pytest.mark.parametrize(
    ("there", "named", "meant"),
    [
        pytest.param([*SHARDS, *TWO], 2, TWO, id="both whole, the state file names two shards"),
        pytest.param([*SHARDS, *TWO], 3, SHARDS, id="both whole, the state file names three"),
        pytest.param([*SHARDS, *TWO], None, TWO, id="both whole, none named: the newest"),
        pytest.param([*SHARDS, TWO[0]], 2, SHARDS, id="the named one is not whole"),
        pytest.param([*SHARDS, TWO[0]], None, SHARDS, id="one whole"),
        pytest.param(["m-7", *SHARDS], 0, ["m-7"], id="unsharded, as named"),
        pytest.param(["m-7", "m-7-00000-of-00001"], 1, ["m-7-00000-of-00001"], id="in one shard"),
    ],
)
def test_of_two_v1_saves_of_a_step_one_is_meant_and_the_other_belongs_to_it(there, named, meant):
    entries = [entry(name, mtime=MONDAY + place) for place, name in enumerate(there)]
    shards = {} if named is None else {"m-7": named}

    found = only(take_inventory(entries, v1(*there), v1_shards=shards).checkpoints)

    assert names(found.files[: len(meant)]) == [*meant]
    assert found.num_shards == len(meant)
    assert set(names(found.files)) == set(there)


def test_a_file_that_is_numbered_like_a_v1_shard_and_is_none_stays_a_stranger():
    inventory = take_inventory(map(entry, [*TWO, SHARDS[0]]), v1(*TWO))

    assert names(only(inventory.checkpoints).files) == TWO
    assert names(inventory.strangers) == [SHARDS[0]]


def test_a_bare_name_that_the_state_file_names_is_looked_into():
    assert only(take_inventory([entry("final")], v1("final"), named={"final"}).checkpoints)
    assert not take_inventory([entry("final")], v1("final")).checkpoints


def test_a_bare_file_beside_an_index_of_its_name_is_a_stranger():
    files = [*checkpoint("m-7", 8), entry("m-7")]
    contents = Contents({"m-7.index": promises(8)}, v1=frozenset({"m-7"}))

    inventory = take_inventory(files, contents)

    assert only(inventory.checkpoints).format is Format.V2
    assert names(inventory.strangers) == ["m-7"]


@pytest.mark.parametrize(
    "there",
    [
        pytest.param([f"train-{n:05d}-of-00010" for n in range(10)], id="one set"),
        pytest.param(
            ["train-00000-of-00010", "train-00000-of-00020"], id="two sets of different counts"
        ),
        pytest.param(["train-00000-of-00002", "train"], id="and a file of the bare name"),
        pytest.param(["train", "train-00000-of-00002"], id="which is listed first"),
        pytest.param(["train-00000-of-00001"], id="a single one"),
    ],
)
def test_numbered_files_that_are_no_tables_are_strangers(there):
    inventory = take_inventory(map(entry, there), Contents())

    assert names(inventory.strangers) == sorted(there)
    assert len(everything(inventory)) == len(there)


def test_numbered_files_do_not_touch_the_checkpoint_of_their_prefix():
    files = [*checkpoint("train", 8), entry("train-00000-of-00002")]

    inventory = take_inventory(files, v2(train=[8]))

    assert only(inventory.checkpoints).name == "train"
    assert names(inventory.strangers) == ["train-00000-of-00002"]


@pytest.mark.parametrize(
    "stranger",
    [
        entry("saved_model.pb"),
        entry("frozen.pb"),
        entry("graph.pbtxt"),
        entry("notes"),
        entry("events.out.tfevents.1700000000.host"),
        entry("m-7.index.bak"),
        entry("train-7"),
        entry("model.ckpt"),
        entry("saved_model", kind=Kind.DIRECTORY),
        entry("variables", kind=Kind.DIRECTORY),
        entry("m-7.index", kind=Kind.DIRECTORY),
        entry("m-7", kind=Kind.DIRECTORY),
        entry("m-7.index", kind=Kind.SYMLINK),
        entry("m-7.data-00000-of-00001", kind=Kind.SYMLINK),
        entry("m-7_temp", kind=Kind.SYMLINK),
        entry("m-7_temp"),
        entry("m-7.index.tempstate1", kind=Kind.SYMLINK),
        entry("m-7.index", kind=Kind.OTHER),
        entry("m-\udcff.index"),
        entry("m-\udcff.data-00000-of-00001"),
        entry("\udcff.tempstate1"),
        entry("model.ckpt-1.index\nmodel.ckpt-2"),
        entry(".index"),
        entry(".nfs000000000123"),
    ],
    ids=lambda stranger: f"{stranger.kind.value} {stranger.name!a}",
)
def test_what_is_no_checkpoints_file_is_a_stranger(stranger):
    files = checkpoint("m-8", 8)

    inventory = take_inventory([stranger, *files], v2(m_8=[8], m_7=[8]))

    assert inventory.strangers == (stranger,)
    assert only(inventory.checkpoints).name == "m-8"
    assert len(everything(inventory)) == len(files) + 1


def test_a_symbolic_link_makes_no_checkpoint_complete():
    link = entry("m-7.data-00000-of-00001", kind=Kind.SYMLINK, size=8)

    inventory = take_inventory([entry("m-7.index"), link], v2(m_7=[8]))

    assert [p.reason for p in inventory.partials] == ["shard 0 of 1 is missing"]
    assert inventory.strangers == (link,)


def test_what_an_unfinished_save_left_is_neither_checkpoint_nor_stranger():
    left = [
        entry("m-7.index.tempstate12"),
        entry("m-7_temp", kind=Kind.DIRECTORY),
        entry("checkpoint.tmp" + "0" * 32),
    ]

    inventory = take_inventory([*left, *checkpoint("m-7", 8)], v2(m_7=[8]))

    assert [(found.entry.name, found.what) for found in inventory.leftovers] == [
        ("checkpoint.tmp" + "0" * 32, "temporary file of a save"),
        ("m-7.index.tempstate12", "temporary file of a save"),
        ("m-7_temp", "temporary directory of a save"),
    ]
    assert not inventory.strangers


@pytest.mark.parametrize("name", ["checkpoint_eval", "best", "latest-2", "checkpoint-1", "x.ckpt"])
def test_a_state_file_may_have_another_name(name):
    contents = Contents(state_files=frozenset({name}))

    inventory = take_inventory([entry("checkpoint"), entry(name)], contents)

    assert names(inventory.state_files) == sorted(["checkpoint", name])
    assert not inventory.strangers


def test_a_file_that_only_its_name_calls_a_state_file_is_a_stranger():
    inventory = take_inventory([entry("checkpoint_eval")], Contents())

    assert names(inventory.strangers) == ["checkpoint_eval"]


@pytest.mark.parametrize("kind", Kind)
def test_what_stands_in_the_place_of_the_state_file_is_never_passed_over(kind):
    inventory = take_inventory([entry("checkpoint", kind=kind)], Contents())

    assert names(inventory.state_files) == ["checkpoint"]


@pytest.mark.parametrize("kind", Kind)
def test_what_is_ours_is_set_apart(kind):
    inventory = take_inventory([entry(OWN_DIRECTORY, kind=kind)], Contents())

    assert names(inventory.own) == [OWN_DIRECTORY]


PREFIXES = st.sampled_from(
    ["m", "m-7", "m-8", "m-7-ema-3", "train", "model.ckpt", "m-7.index", "-"]
)
SUFFIXES = st.sampled_from(
    [
        "",
        ".index",
        ".meta",
        ".debug",
        ".data-00000-of-00001",
        ".data-00000-of-00002",
        ".data-00001-of-00002",
        "-00000-of-00001",
        "-00000-of-00002",
        "-00001-of-00002",
        "-00002-of-00002",
        ".index.tempstate5",
        "_temp",
        ".pb",
        "\udcff",
    ]
)
NAMES = st.one_of(
    st.builds(str.__add__, PREFIXES, SUFFIXES),
    st.sampled_from(["checkpoint", "checkpoint_eval", OWN_DIRECTORY, "notes"]),
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), max_size=8, min_size=1
    ),
)
ENTRIES = st.lists(
    st.builds(
        entry,
        NAMES,
        size=st.sampled_from([0, 8, 100]),
        kind=st.sampled_from([Kind.FILE] * 9 + [Kind.DIRECTORY, Kind.SYMLINK, Kind.OTHER]),
    ),
    unique_by=lambda entry: entry.name,
    max_size=25,
)


@st.composite
def directories(draw: st.DrawFn) -> tuple[list[Entry], Inspector, set[str]]:
    """Draw a listing, what is in its files, and what its state file names."""
    entries = draw(ENTRIES)
    files = names(entries)
    some = st.sets(st.sampled_from(files)) if files else st.just(set())
    sound = draw(some)
    kinds = st.sampled_from([promises(8), promises(8, 8), promises(0), IndexPromise(2, {1: 8}, 1)])
    contents = Contents(
        {name: draw(kinds) for name in files if name in sound and name.endswith(".index")},
        v1=frozenset(sound),
        state_files=frozenset(draw(some)),
    )
    return entries, contents, draw(some)


@given(directories())
@example(([entry("m-7"), entry("m-7-00000-of-00001")], v1("m-7", "m-7-00000-of-00001"), set()))
def test_every_entry_is_in_exactly_one_place(directory):
    entries, contents, named = directory

    inventory = take_inventory(entries, contents, named=named)

    assert Counter(everything(inventory)) == Counter(entries)


@given(directories(), st.randoms(use_true_random=False))
@example(([entry("train-00000-of-00001"), entry("train")], v1("train-00000-of-00001"), set()), None)
@example(([entry("train-00000-of-00002"), entry("train")], Contents(), set()), None)
def test_the_order_of_the_listing_does_not_matter(directory, chance):
    entries, contents, named = directory
    shuffled = list(reversed(entries))
    if chance is not None:
        chance.shuffle(shuffled)

    here = take_inventory(entries, contents, named=named)
    there = take_inventory(shuffled, contents, named=named)

    assert set(here.checkpoints) == set(there.checkpoints)
    assert here.partials == there.partials
    assert here.leftovers == there.leftovers
    assert here.state_files == there.state_files
    assert here.strangers == there.strangers


@given(directories())
def test_a_complete_checkpoint_holds_regular_files_with_text_for_names(directory):
    entries, contents, named = directory

    for found in take_inventory(entries, contents, named=named).checkpoints:
        for file in found.files:
            assert file.kind is Kind.FILE
            assert file.name.startswith(found.name)
            file.name.encode()


@given(directories())
def test_a_file_more_never_makes_another_checkpoints_bytes_its_own(directory):
    entries, contents, named = directory
    before = take_inventory(entries, contents, named=named).by_name()
    more = [file for file in checkpoint("other-9", 8) if file.name not in names(entries)]

    after = take_inventory([*entries, *more], contents, named=named).by_name()

    assert {name: found for name, found in after.items() if name != "other-9"} == before
