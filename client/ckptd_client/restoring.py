"""Fills a program's arrays from a checkpoint, and says for each one what became of it.

This is what `tf.compat.v1.train.Saver.restore` does for variables: the whole model, some of it, under
other names, or another model's weights to begin from.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from ckptd.errors import CkptdError, RestoreError, printable
from ckptd.formats.arrays import Array, numpy_dtype
from ckptd.formats.near_names import hint
from ckptd.formats.object_graph import OBJECT_GRAPH_KEY
from ckptd_client.loading import CheckpointReader, load_checkpoint
from ckptd_client.opening import OpenedCheckpoint, open_checkpoint

_AVERAGE: Final = "ExponentialMovingAverage"
_SHOWN: Final = 20
"""Lines of one kind in a text; the report itself has them all."""


class Outcome(Enum):
    """What became of one variable."""

    RESTORED = "restored"
    MISSING = "missing"
    """The checkpoint has no tensor of that name."""
    OTHER_SHAPE = "other shape"
    OTHER_TYPE = "other type"
    UNREADABLE = "unreadable"
    """Its data is damaged or not there."""


@dataclass(frozen=True, slots=True)
class Restored:
    """One variable: the name it was asked for under, the outcome, and in words why."""

    name: str
    outcome: Outcome
    why: str = ""

    def __str__(self) -> str:
        text = f"{self.outcome.value:<11}  {printable(self.name)}"
        return f"{text}: {self.why}" if self.why else text


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What matched, what did not and why, and what of the checkpoint nobody asked for."""

    prefix: str
    variables: tuple[Restored, ...]
    unused: tuple[str, ...]
    """The keys of the checkpoint's tensors that no variable has asked for, in their order."""

    @property
    def restored(self) -> tuple[str, ...]:
        """The names that were filled; in the report of a `RestoreError`, that could have been."""
        return tuple(v.name for v in self.variables if v.outcome is Outcome.RESTORED)

    @property
    def unmatched(self) -> tuple[Restored, ...]:
        """The variables that were left as they were."""
        return tuple(v for v in self.variables if v.outcome is not Outcome.RESTORED)

    def __str__(self) -> str:
        count = f"{len(self.restored):,} of {len(self.variables):,} variables restored"
        return "\n".join([f"{printable(self.prefix)}: {count}", *self._lines()])

    def _refusal(self) -> str:
        count = f"{len(self.unmatched):,} of {len(self.variables):,} variables cannot be restored"
        lines = [f"{printable(self.prefix)}: {count}, and no variable was changed"]
        return "\n".join([*lines, *self._lines(), "With partial=True the others are restored."])

    def _lines(self) -> Iterator[str]:
        for lines in (
            [str(variable) for variable in self.unmatched],
            [f"{'not used':<11}  {printable(name)}" for name in self.unused],
        ):
            yield from (f"  {line}" for line in lines[:_SHOWN])
            if len(lines) > _SHOWN:
                yield f"  {'':<11}  and {len(lines) - _SHOWN:,} more"


def restore(
    ckpt_dir_or_file: str | os.PathLike[str] | None,
    variables: Mapping[str, Array],
    *,
    partial: bool = False,
    verify: bool = True,
) -> RestoreReport:
    """Fill arrays with the tensors of a checkpoint, in place.

    `variables` maps names in the checkpoint to writable arrays of the program, as the dict that a
    `Saver` takes: to restore under other names, give the checkpoint's names as the keys. Where the
    checkpoint has an object graph, readable paths are names too. Each array must have the tensor's
    shape and type; nothing is converted but the order of bytes.

    Unless `partial`, a variable that cannot be filled raises `RestoreError`, which lists every such
    variable (its `report` has them), and no array has been changed. With `partial` the others are
    filled, and the report says which were not, and why. Checksums are checked before anything is
    changed, unless `verify` is false.

    Raises what `open_checkpoint` raises, `NoSuchCheckpointError` also for the None of a
    `latest_checkpoint` that has found nothing; `TypeError` or `ValueError` for what cannot be filled
    whatever the checkpoint holds.
    """
    _require_arrays(variables)
    with open_checkpoint(ckpt_dir_or_file) as opened:
        reader = CheckpointReader(opened)
        keys: dict[str, str] = {}
        outcomes = []
        for name, array in variables.items():
            stored = reader.stored(name)
            if stored is None:
                near = hint(name, reader.variables).removeprefix("; ")
                outcomes.append(Restored(name, Outcome.MISSING, near))
                continue
            keys[name] = stored.name
            outcomes.append(_outcome(name, array, stored.name, opened, verify=verify))
        unused = opened.tensors.keys() - keys.values() - {OBJECT_GRAPH_KEY}
        report = RestoreReport(
            reader.prefix, tuple(outcomes), tuple(name for name in reader if name in unused)
        )
        if report.unmatched and not partial:
            raise RestoreError(report._refusal(), report)  # noqa: SLF001 (of this module)
        for name in report.restored:  # read again, not held: a tensor may not lie in one piece
            variables[name][...] = opened.read(keys[name])
        return report


def average_names(
    ckpt_dir_or_file: str | os.PathLike[str] | None,
    names: Iterable[str],
    *,
    average: str = _AVERAGE,
) -> dict[str, str]:
    """Return for each variable the name of its moving average, its own where there is none.

    What `tf.train.ExponentialMovingAverage.variables_to_restore` is for: evaluating with the averaged
    weights. `average` is what the program named that object.

        names = average_names(prefix, model)
        restore(prefix, {names[name]: array for name, array in model.items()})
    """
    with load_checkpoint(ckpt_dir_or_file) as reader:
        averages = {name: f"{name}/{average}" for name in names}
        return {
            name: shadow if reader.has_tensor(shadow) else name for name, shadow in averages.items()
        }


def _require_arrays(variables: Mapping[str, Array]) -> None:
    if not isinstance(variables, Mapping):
        kind = type(variables).__name__
        raise TypeError(f"variables are given by name in a mapping, not in a {kind}")
    for name, array in variables.items():
        if not isinstance(array, np.ndarray):
            kind = type(array).__name__
            raise TypeError(
                f"variable {printable(str(name))!r}: a {kind} cannot be filled, only an array"
            )
        if not array.flags.writeable:
            raise ValueError(f"variable {printable(str(name))!r}: its array is read-only")


def _outcome(
    name: str, array: Array, key: str, opened: OpenedCheckpoint, *, verify: bool
) -> Restored:
    """Say whether `array` can be filled with a tensor, after a look at all of that."""
    stored = opened.tensors[key]
    if stored.shape != array.shape:
        why = f"{list(stored.shape)} in the checkpoint, {list(array.shape)} here"
        return Restored(name, Outcome.OTHER_SHAPE, why)
    try:
        if numpy_dtype(stored.data_type) != array.dtype.newbyteorder("="):
            why = f"{stored.data_type.name} in the checkpoint, {array.dtype} here"
            return Restored(name, Outcome.OTHER_TYPE, why)
        opened.read(key, verify=verify)
    except CkptdError as error:
        return Restored(name, Outcome.UNREADABLE, str(error))
    return Restored(name, Outcome.RESTORED)
