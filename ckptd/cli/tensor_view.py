"""What `ckptd inspect` knows of each tensor, before it is decided how to show it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from ckptd.errors import CkptdError, MissingLibraryError
from ckptd.formats.arrays import Array
from ckptd.formats.object_graph import OBJECT_GRAPH_KEY
from ckptd.formats.tensors import StoredTensor, TensorSource
from ckptd_client.pieces import check, touch

INSPECT_SCHEMA: Final = "ckptd.inspect/1"

LARGEST_VALUE: Final = 1000
"""Elements of a tensor that `--value` shows."""

_QUICK: Final = 2**20  # bytes that are read just to see whether they are there


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be told of each tensor."""

    patterns: tuple[str, ...]
    tree: bool
    statistics: bool
    value: bool


@dataclass(frozen=True, slots=True)
class Readable:
    """What an object graph says of a key: its readable path, and whose slot it is, if one's."""

    path: str
    slot_name: str = ""
    slot_of: str = ""
    aliases: tuple[str, ...] = ()
    """Other paths to it."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path to it; a slot variable is also known by the variable that it is of."""
        return (self.path, *self.aliases, *((self.slot_of,) if self.slot_of else ()))


@dataclass(frozen=True, slots=True)
class TensorView:
    """One tensor, and what was asked for of it."""

    tensor: StoredTensor
    readable: Readable | None
    problem: str
    """Why it cannot be read, as far as that was tried."""
    statistics: Any = None
    """`ckptd_client.statistics.Statistics`, where they were asked for and can be had."""
    value: Array | None = None

    @property
    def name(self) -> str:
        """The readable path, or the key."""
        return self.tensor.name if self.readable is None else self.readable.path

    @property
    def elements(self) -> int:
        """How many elements its shape makes."""
        return count_of(self.tensor)


def count_of(tensor: StoredTensor) -> int:
    """Return how many elements a tensor has."""
    count = 1
    for size in tensor.shape:
        count *= size
    return count


def wanted_by(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return the question whether a name is wanted: all are, without a pattern.

    >>> [wanted_by(["dense*/kernel", "a[0]"])(name) for name in ("dense_1/kernel", "bias", "a[0]")]
    [True, False, True]
    """
    if not patterns:
        return lambda _: True
    exact = frozenset(patterns)  # what has brackets in its name is no pattern then
    return lambda name: name in exact or any(fnmatchcase(name, each) for each in patterns)


def selected(
    tensors: Mapping[str, StoredTensor],
    readable: Mapping[str, Readable],
    patterns: Sequence[str],
) -> list[StoredTensor]:
    """Return the tensors that a pattern wants, by key or by one of their readable paths."""
    wanted = wanted_by(patterns)
    return [
        tensor
        for key, tensor in tensors.items()
        if wanted(key) or (key in readable and any(map(wanted, readable[key].paths)))
    ]


def views(
    source: TensorSource,
    tensors: Iterable[StoredTensor],
    readable: Mapping[str, Readable],
    *,
    lazy: bool,
    statistics: bool = False,
    value: bool = False,
) -> Iterator[TensorView]:
    """Look at tensors one by one. With a `lazy` source, to read a tensor costs next to nothing."""
    for tensor in tensors:
        problem, found, array = "", None, None
        is_graph = tensor.name == OBJECT_GRAPH_KEY  # no data: a message that `--tree` shows
        try:
            if is_graph and (statistics or value):
                check(source, tensor)
            elif statistics:
                found = _statistics(source, tensor)
            elif tensor.nbytes <= _QUICK or (lazy and tensor.data_type.itemsize is not None):
                touch(source, tensor)
            if value and not is_graph and count_of(tensor) <= LARGEST_VALUE:
                array = source.read(tensor.name, verify=True)
        except CkptdError as error:
            problem = str(error)
        yield TensorView(tensor, readable.get(tensor.name), problem, found, array)


def _statistics(source: TensorSource, tensor: StoredTensor) -> Any:
    from ckptd_client.statistics import tensor_statistics  # noqa: PLC0415 (only where asked for)

    try:
        return tensor_statistics(source, tensor)
    except MissingLibraryError:
        check(source, tensor)
        return None  # nothing is wrong with the tensor
