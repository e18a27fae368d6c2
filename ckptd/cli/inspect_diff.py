"""`ckptd inspect --diff`: what changed from one checkpoint to another."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from ckptd.cli.amounts import count_text
from ckptd.cli.inspect_objects import readable_names
from ckptd.cli.inspect_sections import number_text, shape_text, stored_entry
from ckptd.cli.screen import Screen
from ckptd.cli.sections import Column, Section
from ckptd.cli.tensor_view import Readable, count_of, selected
from ckptd.cli.verb import DONE, FAILED
from ckptd.errors import NoSuchTensorError, printable
from ckptd.formats.tensors import StoredTensor
from ckptd_client.comparing import Change, Difference, compare
from ckptd_client.sources import objects_in, open_tensors

DIFF_SCHEMA: Final = "ckptd.diff/1"

_NAME: Final = Column("name", folds=True)


def show_differences(screen: Screen, path: str, other: str, patterns: Sequence[str]) -> int:
    """Show what becomes of each tensor from `path` to `other`, the greatest change first.

    Returns 1 if a tensor cannot be read.
    """
    with open_tensors(path) as before, open_tensors(other) as after:
        readable: dict[str, Readable] = {}
        wanted: set[str] = set()
        for source in (before, after):
            told = readable_names(objects_in(source))
            wanted.update(tensor.name for tensor in selected(source.tensors, told, patterns))
            readable |= told
        if not wanted:
            asked = " or ".join(repr(printable(each)) for each in patterns) or "there"
            raise NoSuchTensorError(
                f"{printable(path)} and {printable(other)}: no tensor is {asked}"
            )
        differences = sorted(compare(before, after, wanted.__contains__), key=_by_change)
    status = FAILED if any(each.change is Change.UNREADABLE for each in differences) else DONE
    if screen.as_json:
        screen.document(
            {
                "schema": DIFF_SCHEMA,
                "before": path,
                "after": other,
                "same": sum(each.change is Change.SAME for each in differences),
                "differences": [
                    _entry(d, readable.get(d.name))
                    for d in differences
                    if d.change is not Change.SAME
                ],
            }
        )
        return status
    screen.heading(f"{path} -> {other}", _summary(differences))
    paths = {key: each.path for key, each in readable.items()}
    screen.sections(_sections([replace(d, name=paths.get(d.name, d.name)) for d in differences]))
    return status


def _by_change(difference: Difference) -> tuple[int, float, int]:
    relative = difference.relative
    amount = 0.0 if relative is None or math.isnan(relative) else relative
    return list(Change).index(difference.change), -amount, -difference.changed


def _summary(differences: Sequence[Difference]) -> str:
    texts = []
    for change, text in _WORDS.items():
        count = sum(each.change is change for each in differences)
        if count:
            texts.append(f"{count:,} {text}")
    return f"{count_text(len(differences), 'tensor')}: {', '.join(texts)}"


_WORDS: Final = {
    Change.SAME: "the same",
    Change.VALUES: "changed",
    Change.SHAPE: "of another shape",
    Change.DTYPE: "of another dtype",
    Change.APPEARED: "appeared",
    Change.VANISHED: "vanished",
    Change.UNREADABLE: "unreadable",
}


def _sections(differences: Sequence[Difference]) -> list[Section]:
    def rows(
        change: Change, cells: Callable[[Difference], tuple[str, ...]]
    ) -> list[tuple[str, ...]]:
        return [cells(each) for each in differences if each.change is change]

    was_is = (Column("was"), Column("is"), _NAME)
    one = (Column("dtype"), Column("shape", folds=True), _NAME)
    return [
        Section(
            title="CHANGED",
            word="changed",
            note="the largest difference, and the norm of all against that before",
            colour="yellow",
            columns=(
                Column("elements", right=True),
                Column("largest", right=True),
                Column("relative", right=True),
                _NAME,
            ),
            rows=rows(Change.VALUES, _amounts),
        ),
        Section(
            title="RESHAPED",
            word="reshaped",
            colour="yellow",
            columns=was_is,
            rows=rows(
                Change.SHAPE,
                lambda d: (*(shape_text(side.shape) for side in _both(d)), d.name),
            ),
        ),
        Section(
            title="RETYPED",
            word="retyped",
            colour="yellow",
            columns=was_is,
            rows=rows(
                Change.DTYPE,
                lambda d: (*(side.data_type.name for side in _both(d)), d.name),
            ),
        ),
        Section(
            title="APPEARED",
            word="appeared",
            colour="green",
            columns=one,
            rows=rows(Change.APPEARED, lambda d: _described(d.after, d.name)),
        ),
        Section(
            title="VANISHED",
            word="vanished",
            colour="red",
            columns=one,
            rows=rows(Change.VANISHED, lambda d: _described(d.before, d.name)),
        ),
        Section(
            title="UNREADABLE",
            word="unreadable",
            colour="red",
            columns=(Column("what is wrong", folds=True),),
            rows=rows(Change.UNREADABLE, lambda d: (d.problem,)),
            long=True,
        ),
    ]


def _amounts(difference: Difference) -> tuple[str, ...]:
    assert difference.before is not None
    of = count_of(difference.before)
    return (
        f"{difference.changed:,} of {of:,}",
        number_text(difference.largest),
        number_text(difference.relative),
        difference.name,
    )


def _both(difference: Difference) -> Iterable[StoredTensor]:
    assert difference.before is not None
    assert difference.after is not None
    return difference.before, difference.after


def _described(tensor: StoredTensor | None, name: str) -> tuple[str, ...]:
    assert tensor is not None
    return tensor.data_type.name, shape_text(tensor.shape), name


def _entry(difference: Difference, readable: Readable | None) -> dict[str, Any]:
    def side(tensor: StoredTensor | None) -> dict[str, Any] | None:
        return None if tensor is None else stored_entry(tensor)

    entry: dict[str, Any] = {
        "name": difference.name,
        "path": None if readable is None else readable.path,
        "change": difference.change.value,
        "before": side(difference.before),
        "after": side(difference.after),
    }
    if difference.change is Change.VALUES:
        entry["changed"] = difference.changed
        entry["elements"] = count_of(next(iter(_both(difference))))
        entry["largest"] = difference.largest
        entry["relative"] = difference.relative
    if difference.problem:
        entry["problem"] = difference.problem
    return entry
