"""The enumerator of crash states is itself tested: it finds what is wrong, and only what is wrong.

A checkpoint c1 is there and durable. Each protocol writes c2 (data, index, state file) in its own
order; the right ones never break a promise, and of the wrong ones at least one state does.
"""

from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from storage.directory_contract import names
from storage.memory_directory import MemoryDirectory
from storage.memory_disk import MemoryDisk

DATA = {"c1": b"data of the first", "c2": b"data of the second"}
INDEX = {"c1": b"index of the first", "c2": b"index of the second"}


def careful(directory: MemoryDirectory, name: str, content: bytes) -> None:
    directory.create(f"{name}.tmp", content)
    directory.replace(f"{name}.tmp", name)


def careless(directory: MemoryDirectory, name: str, content: bytes) -> None:
    directory.create(f"{name}.tmp", content, synced=False)
    directory.replace(f"{name}.tmp", name)


Write = Callable[[MemoryDirectory, str, bytes], None]


def data(directory: MemoryDirectory, write: Write = careful) -> None:
    write(directory, "c2.data", DATA["c2"])


def index(directory: MemoryDirectory, write: Write = careful) -> None:
    write(directory, "c2.index", INDEX["c2"])


def state(directory: MemoryDirectory, write: Write = careful) -> None:
    write(directory, "checkpoint", b"latest: c2\n")


def remove(directory: MemoryDirectory) -> None:
    directory.unlink("c1.index")
    directory.unlink("c1.data")


def no_sync_at_all(directory: MemoryDirectory) -> None:
    data(directory, careless)
    index(directory, careless)
    state(directory, careless)
    directory.disk.promise("c2")


def no_directory_sync(directory: MemoryDirectory) -> None:
    data(directory)
    index(directory)
    state(directory)
    directory.disk.promise("c2")


def one_directory_sync_at_the_end(directory: MemoryDirectory) -> None:
    data(directory)
    index(directory)
    state(directory)
    directory.sync()
    directory.disk.promise("c2")


def directory_sync_before_the_state_file(directory: MemoryDirectory) -> None:
    data(directory)
    index(directory)
    directory.sync()
    state(directory)
    directory.sync()
    directory.disk.promise("c2")


def removal_after_the_state_file(directory: MemoryDirectory) -> None:
    directory_sync_before_the_state_file(directory)
    remove(directory)


def removal_before_the_state_file(directory: MemoryDirectory) -> None:
    data(directory)
    index(directory)
    directory.sync()
    remove(directory)
    state(directory)
    directory.sync()
    directory.disk.promise("c2")


def state_file_after_the_index_before_the_data(directory: MemoryDirectory) -> None:
    index(directory)
    directory.sync()
    state(directory)
    directory.sync()
    data(directory)
    directory.sync()
    directory.disk.promise("c2")


def index_before_the_data(directory: MemoryDirectory) -> None:
    index(directory)
    data(directory)
    directory.sync()
    state(directory)
    directory.sync()
    directory.disk.promise("c2")


Protocol = Callable[[MemoryDirectory], None]

RIGHT: list[Protocol] = [directory_sync_before_the_state_file, removal_after_the_state_file]
WRONG: list[tuple[Protocol, set[str]]] = [
    (
        no_sync_at_all,
        {"the state file does not parse", "names an incomplete one", "a broken promise"},
    ),
    (no_directory_sync, {"names an incomplete one", "a broken promise"}),
    (one_directory_sync_at_the_end, {"names an incomplete one"}),
    (removal_before_the_state_file, {"names an incomplete one"}),
    (state_file_after_the_index_before_the_data, {"names an incomplete one"}),
]


def after(protocol: Protocol) -> MemoryDisk:
    """Return the disk on which `protocol` ran, with c1 durable before."""
    directory = MemoryDirectory()
    directory.create("c1.data", DATA["c1"])
    directory.create("c1.index", INDEX["c1"])
    directory.create("checkpoint", b"latest: c1\n")
    directory.disk.settle()
    protocol(directory)
    return directory.disk


def found(disk: MemoryDisk) -> dict[str, bytes]:
    directory = MemoryDirectory(disk)
    return {name: directory.read(name, limit=1000) for name in names(directory)}


def violation(disk: MemoryDisk) -> str | None:
    """Return which promise the state breaks, or None."""
    files = found(disk)
    statement = files.get("checkpoint", b"")
    if statement not in {b"latest: c1\n", b"latest: c2\n"}:
        return "the state file does not parse"
    latest = statement.decode().split()[1]
    if files.get(f"{latest}.data") != DATA[latest] or files.get(f"{latest}.index") != INDEX[latest]:
        return "names an incomplete one"
    if "c2" in disk.promises and latest != "c2":
        return "a broken promise"
    return None


def violations(disks: Iterable[MemoryDisk]) -> Counter[str]:
    return Counter(broken for disk in disks if (broken := violation(disk)))


@pytest.mark.parametrize("protocol", RIGHT)
def test_no_crash_state_of_a_right_protocol_breaks_a_promise(protocol):
    states = list(after(protocol).crash_states())

    assert violations(states) == Counter()
    assert len(states) > 20


@pytest.mark.parametrize(("protocol", "expected"), WRONG)
def test_each_wrong_protocol_is_found_out(protocol, expected):
    assert set(violations(after(protocol).crash_states())) == expected


@pytest.mark.parametrize(
    ("protocol", "states", "broken"),
    [
        (no_directory_sync, 93, 34),
        (one_directory_sync_at_the_end, 67, 8),
        (directory_sync_before_the_state_file, 27, 0),
        (removal_after_the_state_file, 30, 0),
        (removal_before_the_state_file, 45, 15),
    ],
)
def test_it_counts_what_an_enumerator_of_system_call_traces_counts(protocol, states, broken):
    """The figures come from another program, which read the strace of a writer on a real disk."""
    found_states = list(after(protocol).crash_states())

    assert len(found_states) == states
    assert violations(found_states).total() == broken


@pytest.mark.parametrize("protocol", [*RIGHT, *(protocol for protocol, _ in WRONG)])
def test_what_a_finished_protocol_left_is_among_the_states(protocol):
    disk = after(protocol)

    assert disk.tree() in [state.tree() for state in disk.crash_states()]


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [(directory_sync_before_the_state_file, False), (index_before_the_data, True)],
)
def test_a_kill_leaves_an_index_without_data_only_where_the_index_comes_first(protocol, expected):
    killed = [found(disk) for disk in after(protocol).killed_states()]
    lonely = [files for files in killed if "c2.index" in files and "c2.data" not in files]

    assert bool(lonely) == expected


def listings(disk: MemoryDisk, **options: int) -> set[tuple[str, ...]]:
    return {tuple(found(state)) for state in disk.crash_states(**options)}


def test_names_not_synced_are_lost_in_every_combination():
    directory = MemoryDirectory()
    for name in ("a", "b", "c"):
        directory.create(name, b"")

    assert listings(directory.disk) == {
        (),
        ("a",),
        ("b",),
        ("c",),
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
        ("a", "b", "c"),
    }


def test_names_that_are_synced_stay():
    directory = MemoryDirectory()
    directory.create("a", b"")
    directory.sync()
    directory.disk.settle()
    directory.create("b", b"")
    directory.sync()
    directory.create("c", b"")

    assert listings(directory.disk) == {("a",), ("a", "b"), ("a", "b", "c")}


def test_a_sync_of_a_file_does_not_save_its_name():
    directory = MemoryDirectory()
    directory.create("a", b"x")
    directory.sync_file("a")

    assert () in listings(directory.disk)


def test_a_rename_happened_or_did_not():
    directory = MemoryDirectory()
    directory.create("a", b"x")
    directory.disk.settle()
    directory.rename("a", "b")

    assert listings(directory.disk) == {("a",), ("b",)}


@pytest.mark.parametrize("synced", ["here", "there"])
def test_a_rename_to_another_directory_is_saved_by_a_sync_of_either(synced):
    directory = MemoryDirectory()
    directory.make_directory("trash")
    trash = directory.open_directory("trash")
    directory.create("a", b"x")
    directory.disk.settle()
    directory.rename("a", "a", into=trash)
    (directory if synced == "here" else trash).sync()
    directory.disk.promise("in the trash")

    kept = [
        [path for path, _, _ in state.tree()]
        for state in directory.disk.crash_states()
        if state.promises
    ]
    assert kept == [["", "/trash", "/trash/a"]]


def test_an_exchange_happened_or_did_not():
    directory = MemoryDirectory()
    directory.create("a", b"1")
    directory.create("b", b"2")
    directory.disk.settle()
    directory.exchange("a", "b")

    states = [found(state) for state in directory.disk.crash_states()]
    assert states == [{"a": b"1", "b": b"2"}, {"a": b"2", "b": b"1"}]


def test_content_not_synced_is_missing_zeros_half_there_or_there():
    directory = MemoryDirectory()
    directory.create("ledger", b"old.")
    directory.disk.settle()
    directory.append("ledger", b"line")

    assert {found(state)["ledger"] for state in directory.disk.crash_states()} == {
        b"old.",
        b"old.\0\0\0\0",
        b"old.li",
        b"old.line",
    }


def test_a_loss_does_not_reach_back_over_a_sync_of_the_file():
    directory = MemoryDirectory()
    directory.create("ledger", b"")
    directory.disk.settle()
    directory.append("ledger", b"one")
    directory.disk.promise("one")
    directory.append("ledger", b"two")

    kept = [found(s)["ledger"] for s in directory.disk.crash_states() if s.promises]
    assert all(content.startswith(b"one") for content in kept)
    assert b"onetwo" in kept


def test_many_changes_not_synced_stay_within_reach():
    directory = MemoryDirectory()
    for i in range(40):
        directory.create(f"m-{i:02}", b"")
    directory.disk.settle()
    for i in range(40):
        directory.unlink(f"m-{i:02}")

    seen = listings(directory.disk, limit=5)

    everything = tuple(f"m-{i:02}" for i in range(40))
    assert everything in seen
    assert () in seen
    assert all((name,) in seen for name in everything)
    assert all(tuple(n for n in everything if n != name) in seen for name in everything)
    assert len(seen) < 5_000


def test_no_state_comes_twice():
    states = [(s.promises, s.tree()) for s in after(no_directory_sync).crash_states()]

    assert len(states) == len(set(states))


def test_a_state_can_be_worked_in_and_crash_again():
    disk = after(directory_sync_before_the_state_file)
    for state in disk.crash_states():
        directory = MemoryDirectory(state)
        directory.create("recovered", b"x")
        directory.sync()
        directory.disk.promise("recovered")

        assert all(
            "recovered" in found(s) for s in state.crash_states() if "recovered" in s.promises
        )
