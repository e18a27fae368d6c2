"""A trainer that writes checkpoints into a `Directory` as TensorFlow does, and a reader's view of it."""

from collections.abc import Callable, Sequence

import numpy as np

from ckptd.errors import CkptdError
from ckptd.formats.bundle_index import read_promise
from ckptd.formats.bundle_writer import encode_bundle
from ckptd.formats.state_file import StateFile, format_state_file, parse_state_file
from ckptd.keeper.keeper import Keeper
from ckptd.retention.policy import Policy
from ckptd.storage.directory import Directory

GRAPH = b"a meta graph, the same each time"
START = 1_700_000_000.0


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Trainer:
    """Saves as `tf.compat.v1.train.Saver` (no times, `head` before each name) or as CheckpointManager."""

    def __init__(
        self,
        directory: Directory,
        clock: Clock,
        *,
        series: str = "m",
        managed: bool = False,
        head: str = "",
        state_file: str = "checkpoint",
    ) -> None:
        self.directory = directory
        self.clock = clock
        self.series = series
        self.managed = managed
        self.head = head
        self.state_file = state_file
        self.saved: list[tuple[str, float]] = []
        self.last_preserved = clock() - 1.0

    def save(
        self, step: int, *, graph: bytes | None = GRAPH, every: float = 60.0, state: bool = True
    ) -> str:
        """Let `every` seconds pass and save; the order of files is TensorFlow's."""
        self.clock.now += every
        name = f"{self.series}-{step}"
        index, data = encode_bundle({"w": np.full(8, float(step))})
        self._put(f"{name}.data-00000-of-00001", data)
        self._put(f"{name}.index", index)
        if state:
            self.saved = [(n, t) for n, t in self.saved if n != name]
            self.saved.append((name, self.clock()))
            self.write_state()
        if graph is not None:
            self._put(f"{name}.meta", graph)
        return name

    def write_state(self) -> None:
        """Write the state file from what this trainer remembers, as both of TensorFlow's writers do."""
        paths = tuple(self.head + name for name, _ in self.saved)
        state = StateFile(model_checkpoint_path=paths[-1], all_model_checkpoint_paths=paths)
        if self.managed:
            state = StateFile(
                model_checkpoint_path=paths[-1],
                all_model_checkpoint_paths=paths,
                all_model_checkpoint_timestamps=tuple(time for _, time in self.saved),
                last_preserved_timestamp=self.last_preserved,
            )
        self._put(self.state_file, format_state_file(state))

    def _put(self, name: str, data: bytes) -> None:
        temporary = f"{name}.tmp{'0' * 32}"
        self.directory.create(temporary, data)
        self.directory.replace(temporary, name)
        set_mtime = getattr(self.directory, "set_mtime", None)
        if set_mtime is not None:
            set_mtime(name, self.clock())


def keeper_of(directory: Directory, clock: Callable[[], float], **policy: object) -> Keeper:
    """Return a keeper with a policy of these keys."""
    return Keeper(directory, Policy(**policy), clock)  # type: ignore[arg-type]


def names_in(directory: Directory) -> set[str]:
    """Return the names in a model directory, less ckptd's own."""
    return {entry.name for entry in directory.list()} - {".ckptd"}


def complete_in(directory: Directory) -> set[str]:
    """Return the checkpoints that a reader of TensorFlow could restore, by their files alone."""
    return {
        entry.name.removesuffix(".index")
        for entry in directory.list()
        if entry.name.endswith(".index")
        and is_complete(directory, entry.name.removesuffix(".index"))
    }


def is_complete(directory: Directory, name: str) -> bool:
    """Say whether the bytes that the index promises are there."""
    try:
        promise = read_promise(directory.read(f"{name}.index", limit=2**20))
        for shard, size in promise.shard_sizes.items():
            found = directory.entry(f"{name}.data-{shard:05d}-of-{promise.num_shards:05d}")
            if found is None or found.size < size:
                return False
    except CkptdError:
        return False
    return True


def state_of(directory: Directory, name: str = "checkpoint") -> StateFile:
    """Return what the state file says."""
    return parse_state_file(directory.read(name, limit=2**20))


def listed_in(directory: Directory, name: str = "checkpoint") -> Sequence[str]:
    """Return the names that the state file lists."""
    return [
        path.rsplit("/", 1)[-1] for path in state_of(directory, name).all_model_checkpoint_paths
    ]
