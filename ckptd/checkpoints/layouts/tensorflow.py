"""TensorFlow's file names, parsed in this module only.

A V2 checkpoint with prefix ``model.ckpt-1200`` in two shards is

    model.ckpt-1200.index
    model.ckpt-1200.data-00000-of-00002
    model.ckpt-1200.data-00001-of-00002
    model.ckpt-1200.meta                    (its meta graph, where the trainer writes one)
    model.ckpt-1200.debug                   (save_debug_info=True)

A V1 checkpoint is the bare prefix, or ``model.ckpt-1200-00000-of-00002`` for each shard; a bare
name could be anybody's, so V1 files are only candidates here and their bytes decide.

While it saves, TensorFlow leaves ``*.tempstate<digits>``, ``*.tmp<32 hex>``, ``<prefix>_temp/``
(with ``_<32 hex>`` in old releases) and ``<prefix>.part-...``; after a crash nobody removes them.
"""

import re
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import NamedTuple


class Role(Enum):
    """What a file is to its checkpoint."""

    INDEX = "index"
    META_GRAPH = "meta"
    DATA = "data"
    V1_SHARD = "v1 shard"
    DEBUG_INFO = "debug"


class FileName(NamedTuple):
    """What the name of a checkpoint's file says; shard and count only for shards."""

    prefix: str
    role: Role
    shard: int = 0
    num_shards: int = 0


STATE_FILE = "checkpoint"
"""What TensorFlow calls the state file unless `latest_filename` says otherwise."""

_SUFFIXES = {"index": Role.INDEX, "meta": Role.META_GRAPH, "debug": Role.DEBUG_INFO}
_DATA_SUFFIX = re.compile(r"data-(?P<shard>\d{5})-of-(?P<count>\d{5})\Z", re.ASCII)
_V1_SHARD = re.compile(r"(?s)(?P<prefix>.+)-(?P<shard>\d{5})-of-(?P<count>\d{5})\Z", re.ASCII)
_STEP = re.compile(r"(?s)(?P<series>.+?)-(?P<step>-?\d+)\Z", re.ASCII)
_TEMPORARY_FILE = re.compile(
    r"(?s).*(?:\.tempstate\d+|\.tmp[0-9a-f]{32}|\.part-\d{5}-of-\d{5}(?:\..+)?)\Z", re.ASCII
)
_TEMPORARY_DIRECTORY = re.compile(r"(?s).+_temp(?:_[0-9a-f]{32})?\Z", re.ASCII)

_LARGEST_STEP = 2**63 - 1  # global_step is an int64 variable
_PAD_WIDTH = 8  # of pad_step_number=True


def parse_file_name(name: str) -> FileName | None:
    """Return what `name` says, or None where TensorFlow would not have built it.

    >>> parse_file_name("model.ckpt-1200.data-00001-of-00002")
    FileName(prefix='model.ckpt-1200', role=<Role.DATA: 'data'>, shard=1, num_shards=2)

    Shards count from zero and stay below the count:

    >>> parse_file_name("model.ckpt-1200.data-00002-of-00002")
    """
    prefix, _, suffix = name.rpartition(".")
    if not prefix:
        return None
    role = _SUFFIXES.get(suffix)
    if role is not None:
        return FileName(prefix, role, 0, 0)
    numbers = _shard_numbers(suffix)
    return FileName(prefix, Role.DATA, *numbers) if numbers is not None else None


def parse_v1_name(name: str) -> FileName:
    """Return what `name` says if it is a V1 checkpoint's file, which only its bytes can tell.

    >>> parse_v1_name("m-7-00000-of-00002")
    FileName(prefix='m-7', role=<Role.V1_SHARD: 'v1 shard'>, shard=0, num_shards=2)
    >>> parse_v1_name("m-7").num_shards
    1
    """
    match = _V1_SHARD.match(name)
    if match is not None and (numbers := _checked_numbers(match)) is not None:
        return FileName(match["prefix"], Role.V1_SHARD, *numbers)
    return FileName(name, Role.V1_SHARD, 0, 1)


def looks_like_v1(name: str) -> bool:
    """Say whether a file without suffix is worth opening to see if it is a V1 checkpoint.

    >>> [looks_like_v1(n) for n in ("model.ckpt", "m-7", "m-7-00000-of-00002", "notes", "graph.pbtxt")]
    [True, True, True, False, False]
    """
    return (
        name.endswith(".ckpt") or _STEP.match(name) is not None or _V1_SHARD.match(name) is not None
    )


def parse_step(prefix: str) -> tuple[str, int | None]:
    """Split a prefix into the name that its series shares and the global_step.

    >>> parse_step("my-model-170"), parse_step("model.ckpt"), parse_step("m--3")
    (('my-model', 170), ('model.ckpt', None), ('m', -3))

    Padded steps are eight digits wide; other leading zeros are not TensorFlow's, so the whole name
    is a series of its own and nothing will rotate it:

    >>> parse_step("m-00000005"), parse_step("m-007"), parse_step("m--0")
    (('m', 5), ('m-007', None), ('m--0', None))
    """
    match = _STEP.match(prefix)
    if match is None:
        return prefix, None
    text = match["step"]
    if len(text) > len(str(-_LARGEST_STEP)):
        return prefix, None
    step = int(text)
    canonical = text in {str(step), f"{step:0{_PAD_WIDTH}d}"}
    return (match["series"], step) if canonical and abs(step) <= _LARGEST_STEP else (prefix, None)


def parse_series(prefix: str) -> tuple[str, int | None]:
    """Return a key of the series that a prefix belongs to, and the global_step.

    A name without a step is a series of its own, apart from the steps that start with it. The slash
    keeps the two keys apart: no prefix holds one.

    >>> parse_series("model.ckpt-170"), parse_series("model.ckpt")
    (('model.ckpt', 170), ('model.ckpt/', None))
    """
    series, step = parse_step(prefix)
    return (f"{series}/", None) if step is None else (series, step)


def leftover(name: str, *, is_directory: bool) -> str | None:
    """Say what a save that did not finish left under `name`, or None if it is no such thing.

    >>> leftover("m-1.index.tempstate1234", is_directory=False)
    'temporary file of a save'
    >>> leftover("m-1_temp", is_directory=True)
    'temporary directory of a save'
    """
    if is_directory:
        return "temporary directory of a save" if _TEMPORARY_DIRECTORY.match(name) else None
    if ".t" not in name and ".part-" not in name:  # ten times faster than the pattern
        return None
    return "temporary file of a save" if _TEMPORARY_FILE.match(name) else None


def v1_shard_names(prefix: str, num_shards: int) -> Iterator[str]:
    """Yield the names that a V1 checkpoint in `num_shards` shards consists of."""
    for shard in range(num_shards):
        yield f"{prefix}-{shard:05d}-of-{num_shards:05d}"


def shard_name(prefix: str, shard: int, num_shards: int) -> str:
    """Return the name of one data shard (TensorFlow's ``DataFilename``).

    >>> shard_name("m-7", 0, 1)
    'm-7.data-00000-of-00001'
    """
    return f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"


def index_name(prefix: str) -> str:
    """Return the name of the index (TensorFlow's ``MetaFilename``)."""
    return f"{prefix}.index"


def meta_graph_name(prefix: str) -> str:
    """Return the name of the meta graph (``meta_graph_filename``)."""
    return f"{prefix}.meta"


def temporary_name(name: str, number: int) -> str:
    """Return what a file is called while it is written: `leftover` knows it if it is never finished.

    >>> temporary_name("m-7.index", 1234)
    'm-7.index.tempstate1234'
    """
    return f"{name}.tempstate{number}"


def v1_pattern(prefix: str, num_shards: int) -> str:
    """Return what TensorFlow calls a sharded V1 checkpoint: a pattern, not a name.

    >>> v1_pattern("m-7", 2)
    'm-7-?????-of-00002'
    """
    return f"{prefix}-?????-of-{num_shards:05d}"


_V1_PATTERN = re.compile(r"(?s)(?P<prefix>.+)-\?{5}-of-(?P<count>\d{5})\Z", re.ASCII)


def prefix_of_path(path: str) -> str:
    """Return the checkpoint's name in a path of the state file.

    >>> prefix_of_path("/srv/run/m-7"), prefix_of_path("m-7-?????-of-00002")
    ('m-7', 'm-7')
    """
    name = path.rsplit("/", 1)[-1]
    match = _V1_PATTERN.match(name)
    return match["prefix"] if match is not None else name


def v1_shards_of_path(path: str) -> int:
    """Return how many V1 shards a path of the state file names; 0 for one that is no pattern.

    >>> v1_shards_of_path("/srv/run/m-7-?????-of-00002"), v1_shards_of_path("m-7")
    (2, 0)
    """
    match = _V1_PATTERN.match(path)
    return int(match["count"]) if match is not None else 0


@lru_cache(maxsize=4096)  # a directory repeats a few of them for ever
def _shard_numbers(suffix: str) -> tuple[int, int] | None:
    match = _DATA_SUFFIX.match(suffix)
    return _checked_numbers(match) if match is not None else None


def _checked_numbers(match: re.Match[str]) -> tuple[int, int] | None:
    shard, count = int(match["shard"]), int(match["count"])
    return (shard, count) if shard < count else None
