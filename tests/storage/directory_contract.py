"""What every `Directory` promises: one suite, run over the real disk and over the one in memory."""

import errno
from collections.abc import Callable, Iterator

import pytest

from ckptd.checkpoints.listing import Entry, Kind
from ckptd.errors import NotFoundError, StorageError
from ckptd.storage.directory import Directory
from ckptd.storage.removal import empty_and_remove

STRANGE_NAMES = [
    pytest.param("two\nlines", id="newline"),
    pytest.param("bad\udcff.index", id="not UTF-8"),
    pytest.param("-rf *", id="shell"),
    pytest.param("мера-模型", id="other scripts"),
    pytest.param("n" * 255, id="as long as a name can be"),
]

NO_NAMES = [
    pytest.param("", id="empty"),
    pytest.param(".", id="itself"),
    pytest.param("..", id="parent"),
    pytest.param("a/b", id="slash"),
    pytest.param("/etc/hostname", id="absolute"),
    pytest.param("a\0b", id="NUL"),
    pytest.param("a\ud800", id="no bytes stand for it"),
]

Step = Callable[[Directory], object]

TAKES_A_NAME: list[tuple[str, Callable[[Directory, str], object]]] = [
    ("entry", lambda d, n: d.entry(n)),
    ("read", lambda d, n: d.read(n, limit=10)),
    ("read_through", lambda d, n: d.read_through(n).__enter__()),
    ("create", lambda d, n: d.create(n, b"x")),
    ("append", lambda d, n: d.append(n, b"x")),
    ("rename", lambda d, n: d.rename(n, "new")),
    ("rename to", lambda d, n: d.rename("file", n)),
    ("replace", lambda d, n: d.replace(n, "new")),
    ("replace to", lambda d, n: d.replace("file", n)),
    ("exchange", lambda d, n: d.exchange(n, "file")),
    ("exchange with", lambda d, n: d.exchange("file", n)),
    ("link", lambda d, n: d.link(n, "new")),
    ("link to", lambda d, n: d.link("file", n)),
    ("clone", lambda d, n: d.clone(n, "new")),
    ("clone to", lambda d, n: d.clone("file", n)),
    ("copy", lambda d, n: d.copy(n, "new")),
    ("copy to", lambda d, n: d.copy("file", n)),
    ("unlink", lambda d, n: d.unlink(n)),
    ("make_directory", lambda d, n: d.make_directory(n)),
    ("remove_directory", lambda d, n: d.remove_directory(n)),
    ("open_directory", lambda d, n: d.open_directory(n)),
    ("sync_file", lambda d, n: d.sync_file(n)),
    ("lock", lambda d, n: d.lock(n).__enter__()),
]

NEEDS_A_FILE = [
    pytest.param(step, id=name)
    for name, step in TAKES_A_NAME
    if name not in {"entry", "create", "append", "make_directory", "lock"} and " " not in name
]

MAKES_A_NAME: list[tuple[str, Step]] = [
    ("create", lambda d: d.create("taken", b"x")),
    ("rename", lambda d: d.rename("file", "taken")),
    ("link", lambda d: d.link("file", "taken")),
    ("copy", lambda d: d.copy("file", "taken")),
    ("clone", lambda d: d.clone("file", "taken")),
    ("make_directory", lambda d: d.make_directory("taken")),
]

WANTS_A_FILE: list[tuple[str, Step]] = [
    ("read", lambda d: d.read("odd", limit=10)),
    ("read_through", lambda d: d.read_through("odd").__enter__()),
    ("append", lambda d: d.append("odd", b"x")),
    ("link", lambda d: d.link("odd", "new")),
    ("copy", lambda d: d.copy("odd", "new")),
    ("clone", lambda d: d.clone("odd", "new")),
    ("sync_file", lambda d: d.sync_file("odd")),
]


def names(directory: Directory) -> list[str]:
    return sorted(entry.name for entry in directory.list())


def content(directory: Directory, name: str) -> bytes:
    return directory.read(name, limit=2**30)


def present(directory: Directory, name: str) -> Entry:
    entry = directory.entry(name)
    assert entry is not None
    return entry


class DirectoryContract:
    """Each implementation subclasses this and gives an empty `directory`."""

    @pytest.fixture
    def directory(self) -> Directory:
        raise NotImplementedError

    def test_a_new_file_is_listed_as_it_is(self, directory: Directory) -> None:
        directory.create("m-1.index", b"four")

        (found,) = directory.list()
        assert found == directory.entry("m-1.index")
        assert (found.name, found.kind, found.size, found.links) == ("m-1.index", Kind.FILE, 4, 1)
        assert found.identity.device == directory.identity[0]

    def test_a_file_is_made_of_pieces_that_are_asked_for_one_by_one(
        self, directory: Directory
    ) -> None:
        sizes = []

        def pieces() -> Iterator[bytes | bytearray | memoryview]:
            for piece in (b"one", memoryview(bytearray(b"two")), b"", bytearray(b"three")):
                yield piece
                sizes.append(present(directory, "m-1.data").size)

        directory.create("m-1.data", pieces())

        assert content(directory, "m-1.data") == b"onetwothree"
        assert sizes == [3, 6, 6, 11]

    def test_a_file_of_no_pieces_is_empty(self, directory: Directory) -> None:
        directory.create("empty", iter(()))

        assert content(directory, "empty") == b""

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_an_error_while_pieces_are_made_leaves_no_file(
        self, directory: Directory, error: type[BaseException]
    ) -> None:
        def pieces() -> Iterator[bytes]:
            yield b"one"
            raise error

        with pytest.raises(error):
            directory.create("m-1.data", pieces())

        assert names(directory) == []

    def test_pieces_are_not_asked_for_where_the_name_is_taken(self, directory: Directory) -> None:
        directory.create("taken", b"theirs")

        with pytest.raises(StorageError):
            directory.create("taken", (pytest.fail("was asked for") for _ in range(1)))

        assert content(directory, "taken") == b"theirs"

    def test_a_missing_name_has_no_entry(self, directory: Directory) -> None:
        assert directory.entry("absent") is None

    @pytest.mark.parametrize("name", STRANGE_NAMES)
    def test_any_name_a_disk_may_hold_comes_back_unchanged(
        self, directory: Directory, name: str
    ) -> None:
        directory.create(name, b"x")

        assert names(directory) == [name]
        directory.unlink(name)
        assert names(directory) == []

    @pytest.mark.parametrize("name", NO_NAMES)
    @pytest.mark.parametrize("step", [pytest.param(s, id=i) for i, s in TAKES_A_NAME])
    def test_what_is_no_bare_name_is_refused(
        self, directory: Directory, step: Callable[[Directory, str], object], name: str
    ) -> None:
        directory.create("file", b"x")

        with pytest.raises(StorageError) as caught:
            step(directory, name)

        assert caught.value.number == errno.EINVAL
        assert names(directory) == ["file"]

    @pytest.mark.parametrize("step", NEEDS_A_FILE)
    def test_a_missing_name_is_reported_as_missing(
        self, directory: Directory, step: Callable[[Directory, str], object]
    ) -> None:
        directory.create("file", b"x")

        with pytest.raises(NotFoundError, match="absent"):
            step(directory, "absent")

        assert names(directory) == ["file"]

    @pytest.mark.parametrize("kind", ["file", "directory"])
    @pytest.mark.parametrize("step", [pytest.param(s, id=i) for i, s in MAKES_A_NAME])
    def test_an_existing_name_is_refused_and_left(
        self, directory: Directory, step: Step, kind: str
    ) -> None:
        directory.create("file", b"mine")
        if kind == "file":
            directory.create("taken", b"theirs")
        else:
            directory.make_directory("taken")
        before = present(directory, "taken")

        with pytest.raises(StorageError) as caught:
            step(directory)

        assert caught.value.number == errno.EEXIST
        assert directory.entry("taken") == before
        assert content(directory, "file") == b"mine"

    @pytest.mark.parametrize("step", [pytest.param(s, id=i) for i, s in WANTS_A_FILE])
    def test_only_a_regular_file_will_do(self, directory: Directory, step: Step) -> None:
        directory.make_directory("odd")

        with pytest.raises(StorageError, match="it is a directory, not a regular file"):
            step(directory)

        assert names(directory) == ["odd"]

    @pytest.mark.parametrize(
        ("offset", "size", "expected"),
        [
            (0, None, b"0123456789"),
            (4, None, b"456789"),
            (4, 3, b"456"),
            (8, 30, b"89"),
            (10, None, b""),
            (30, 5, b""),
            (0, 0, b""),
        ],
    )
    def test_a_part_of_a_file_is_read(
        self, directory: Directory, offset: int, size: int | None, expected: bytes
    ) -> None:
        directory.create("file", b"0123456789")

        assert directory.read("file", offset=offset, size=size, limit=10) == expected

    def test_a_file_is_read_through_whatever_becomes_of_its_name(
        self, directory: Directory
    ) -> None:
        directory.create("file", b"0123456789")
        there = present(directory, "file").identity

        with directory.read_through("file") as file:
            directory.rename("file", "elsewhere")
            directory.create("file", b"another")
            buffer = memoryview(bytearray(4))
            pieces = [bytes(buffer[: file.read_into(buffer, offset)]) for offset in (0, 8, 12)]

            assert pieces == [b"0123", b"89", b""]
            assert file.identity == there

    def test_more_than_the_limit_is_not_read(self, directory: Directory) -> None:
        directory.create("file", b"0123456789")

        with pytest.raises(StorageError, match="10 bytes, where at most 9 are expected"):
            directory.read("file", limit=9)
        assert directory.read("file", offset=1, limit=9) == b"123456789"
        assert directory.read("file", size=9, limit=9) == b"012345678"

    def test_appending_makes_a_file_and_adds_to_it(self, directory: Directory) -> None:
        directory.append("ledger", b"one\n")
        directory.append("ledger", b"two\n")

        assert content(directory, "ledger") == b"one\ntwo\n"

    def test_a_file_with_another_name_is_not_appended_to(self, directory: Directory) -> None:
        directory.create("theirs", b"theirs")
        directory.link("theirs", "ledger")

        with pytest.raises(StorageError, match="2 names"):
            directory.append("ledger", b"ours")

        assert content(directory, "theirs") == b"theirs"

    def test_renaming_keeps_the_file(self, directory: Directory) -> None:
        directory.create("old", b"x")
        before = present(directory, "old").identity

        directory.rename("old", "new")

        assert names(directory) == ["new"]
        assert present(directory, "new").identity == before

    def test_replacing_takes_the_place_at_once(self, directory: Directory) -> None:
        directory.create("checkpoint", b"old")
        directory.create("checkpoint.new", b"new")

        directory.replace("checkpoint.new", "checkpoint")

        assert names(directory) == ["checkpoint"]
        assert content(directory, "checkpoint") == b"new"

    def test_replacing_a_missing_name_is_a_rename(self, directory: Directory) -> None:
        directory.create("a", b"x")

        directory.replace("a", "b")

        assert names(directory) == ["b"]

    def test_replacing_one_name_of_a_file_by_another_leaves_one(self, directory: Directory) -> None:
        directory.create("m-1.meta", b"graph")
        directory.link("m-1.meta", "temporary")

        directory.replace("temporary", "m-1.meta")

        assert names(directory) == ["m-1.meta"]
        assert present(directory, "m-1.meta").links == 1

    def test_replacing_a_name_by_itself_keeps_it(self, directory: Directory) -> None:
        directory.create("a", b"x")

        directory.replace("a", "a")

        assert names(directory) == ["a"]

    def test_a_file_never_replaces_a_directory(self, directory: Directory) -> None:
        directory.create("file", b"x")
        directory.make_directory("inner")

        with pytest.raises(StorageError) as caught:
            directory.replace("file", "inner")

        assert caught.value.number == errno.EISDIR
        assert names(directory) == ["file", "inner"]

    def test_an_exchange_swaps_both_or_says_that_it_cannot(self, directory: Directory) -> None:
        directory.create("a", b"was a")
        directory.create("b", b"was b")

        swapped = directory.exchange("a", "b")

        expected = (b"was b", b"was a") if swapped else (b"was a", b"was b")
        assert (content(directory, "a"), content(directory, "b")) == expected

    def test_a_link_is_the_same_file(self, directory: Directory) -> None:
        directory.create("m-1.meta", b"graph")

        directory.link("m-1.meta", "m-2.meta")

        assert present(directory, "m-1.meta").identity == present(directory, "m-2.meta").identity
        assert present(directory, "m-2.meta").links == 2
        directory.unlink("m-1.meta")
        assert content(directory, "m-2.meta") == b"graph"
        assert present(directory, "m-2.meta").links == 1

    def test_a_copy_is_another_file_with_the_same_bytes(self, directory: Directory) -> None:
        data = bytes(range(256)) * 4_100
        directory.create("m-1.meta", data)

        directory.copy("m-1.meta", "m-2.meta")

        assert content(directory, "m-2.meta") == data
        assert (
            present(directory, "m-1.meta").identity.inode
            != present(directory, "m-2.meta").identity.inode
        )

    def test_a_clone_is_a_copy_or_nothing(self, directory: Directory) -> None:
        directory.create("m-1.meta", b"graph" * 1_000)

        if directory.clone("m-1.meta", "m-2.meta"):
            assert content(directory, "m-2.meta") == b"graph" * 1_000
        else:
            assert names(directory) == ["m-1.meta"]

    def test_an_empty_file_is_written_read_and_copied(self, directory: Directory) -> None:
        directory.create("empty", b"")
        directory.copy("empty", "copy")

        assert content(directory, "copy") == b""

    def test_unlinking_is_for_files(self, directory: Directory) -> None:
        directory.make_directory("inner")

        with pytest.raises(StorageError) as caught:
            directory.unlink("inner")

        assert caught.value.number == errno.EISDIR
        assert names(directory) == ["inner"]

    def test_removing_a_directory_is_for_empty_ones(self, directory: Directory) -> None:
        directory.make_directory("inner")
        inner = directory.open_directory("inner")
        inner.create("file", b"x")

        with pytest.raises(StorageError) as caught:
            directory.remove_directory("inner")
        assert caught.value.number == errno.ENOTEMPTY

        inner.unlink("file")
        inner.close()
        directory.remove_directory("inner")
        assert names(directory) == []

    def test_a_file_is_no_directory(self, directory: Directory) -> None:
        directory.create("file", b"x")

        for step in (directory.open_directory, directory.remove_directory):
            with pytest.raises(StorageError) as caught:
                step("file")
            assert caught.value.number == errno.ENOTDIR

    def test_names_move_between_directories(self, directory: Directory) -> None:
        directory.make_directory("trash")
        trash = directory.open_directory("trash")
        for name in ("renamed", "replaced", "linked", "copied", "swapped"):
            directory.create(name, name.encode())
        trash.create("replaced", b"old")
        trash.create("swapped", b"other")

        directory.rename("renamed", "renamed", into=trash)
        directory.replace("replaced", "replaced", into=trash)
        directory.link("linked", "linked", into=trash)
        directory.copy("copied", "copied", into=trash)
        swapped = directory.exchange("swapped", "swapped", into=trash)

        assert names(directory) == ["copied", "linked", "swapped", "trash"]
        assert names(trash) == ["copied", "linked", "renamed", "replaced", "swapped"]
        assert content(trash, "replaced") == b"replaced"
        assert content(trash, "swapped") == (b"swapped" if swapped else b"other")
        trash.close()

    def test_an_existing_name_in_another_directory_is_refused(self, directory: Directory) -> None:
        directory.make_directory("trash")
        trash = directory.open_directory("trash")
        directory.create("file", b"mine")
        trash.create("file", b"theirs")

        for step in (directory.rename, directory.link, directory.copy):
            with pytest.raises(StorageError) as caught:
                step("file", "file", into=trash)
            assert caught.value.number == errno.EEXIST

        assert content(trash, "file") == b"theirs"
        trash.close()

    def test_a_directory_that_stays_verifies(self, directory: Directory) -> None:
        directory.make_directory("inner")
        inner = directory.open_directory("inner")

        directory.verify()
        inner.verify()

        assert inner.path == f"{directory.path}/inner"
        assert inner.identity != directory.identity
        inner.close()

    def test_a_path_leads_here_or_nowhere(self, directory: Directory) -> None:
        directory.create("file", b"x")

        assert directory.leads_here(directory.path) is True
        assert directory.leads_here(f"{directory.path}/./") is True
        assert directory.leads_here(f"{directory.path}/absent") is None
        assert directory.leads_here(f"{directory.path}/file") is None

    def test_syncing_succeeds_where_there_is_something(self, directory: Directory) -> None:
        directory.create("file", b"x")

        directory.sync_file("file")
        directory.sync()

        assert not directory.weak_sync

    def test_free_space_is_a_number_of_bytes(self, directory: Directory) -> None:
        assert directory.free_bytes() > 0

    def test_a_lock_has_one_holder(self, directory: Directory) -> None:
        with directory.lock("lock") as first, directory.lock("lock") as second:
            assert (first, second) == (True, False)
        with directory.lock("lock") as again:
            assert again

    def test_a_refused_lock_does_not_unlock(self, directory: Directory) -> None:
        with directory.lock("lock"):
            with directory.lock("lock") as refused:
                assert not refused
            with directory.lock("lock") as still_refused:
                assert not still_refused

    def test_the_lock_file_stays(self, directory: Directory) -> None:
        with directory.lock("lock"):
            before = present(directory, "lock")
        with directory.lock("lock"):
            pass

        assert directory.entry("lock") == before

    def test_closing_twice_is_harmless_and_ends_all_work(self, directory: Directory) -> None:
        directory.create("file", b"x")

        directory.close()
        directory.close()

        with pytest.raises(StorageError) as caught:
            directory.list()
        assert caught.value.number == errno.EBADF

    def test_a_flat_directory_is_emptied_and_removed(self, directory: Directory) -> None:
        directory.make_directory("trash")
        trash = directory.open_directory("trash")
        for name in ("m-1.index", "m-1.data-00000-of-00001"):
            trash.create(name, b"x")
        trash.close()

        empty_and_remove(directory, "trash")

        assert names(directory) == []

    def test_a_directory_inside_is_reported_and_left(self, directory: Directory) -> None:
        directory.make_directory("trash")
        trash = directory.open_directory("trash")
        trash.create("a", b"x")
        trash.make_directory("inner")
        trash.create("z", b"x")

        with pytest.raises(StorageError, match="inner: it is a directory, not a file that ckptd"):
            empty_and_remove(directory, "trash")

        assert names(trash) == ["inner"]
        trash.close()

    def test_what_is_no_directory_is_not_emptied(self, directory: Directory) -> None:
        directory.create("trash", b"x")

        with pytest.raises(StorageError):
            empty_and_remove(directory, "trash")
        with pytest.raises(NotFoundError):
            empty_and_remove(directory, "absent")

        assert names(directory) == ["trash"]
