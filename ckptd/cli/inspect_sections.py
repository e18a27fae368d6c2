"""Tensors as sections for people, and as JSON.

A tensor's name stands last: it may be of any length, and nothing is lined up behind it.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from ckptd.cli.amounts import count_text, size_text
from ckptd.cli.sections import Column, Section
from ckptd.cli.tensor_view import LARGEST_VALUE, TensorView
from ckptd.formats.object_graph import OBJECT_GRAPH_KEY
from ckptd.formats.tensors import Region, StoredTensor

_SIZE: Final = Column("size", right=True)
_DTYPE: Final = Column("dtype")
_SHAPE: Final = Column("shape", folds=True)
_SHARDS: Final = Column("shard", right=True)
_SLICES: Final = Column("slices", right=True)
_SLOT: Final = Column("slot")
_NAME: Final = Column("name", folds=True)

_LONGEST_VALUE: Final = 200  # bytes of one string
_SHOWN_SHARDS: Final = 3


def tensor_sections(
    views: Sequence[TensorView], *, show_value: bool, told: Collection[str] = ()
) -> Iterator[Section]:
    """Yield what is known of tensors: some sections may be empty.

    Problems that are `told` already, of a whole file, are not told of each tensor in it.
    """
    yield _tensors(views)
    yield _statistics(views)
    if show_value:
        yield Section(
            title="VALUES",
            word="value",
            columns=(Column("value", folds=True),),
            rows=[
                (f"{view.name} = {_value(view)}",)
                for view in views
                if not view.problem and view.tensor.name != OBJECT_GRAPH_KEY
            ],
            long=True,
        )
    damaged = damaged_of(views, told)
    yield Section(
        title="DAMAGED",
        word="damaged",
        note=f"{count_text(len(damaged), 'tensor')}: cannot be read as the checkpoint promises",
        colour="red",
        columns=(Column("what is wrong", folds=True),),
        rows=[(view.problem,) for view in damaged],
    )


def damaged_of(views: Iterable[TensorView], told: Collection[str] = ()) -> list[TensorView]:
    """Return those with a problem of their own, less what is `told` already."""
    return [view for view in views if view.problem and view.problem not in told]


def _tensors(views: Sequence[TensorView]) -> Section:
    columns = [_SIZE, _DTYPE, _SHAPE]
    cells = [
        [size_text(v.tensor.nbytes), v.tensor.data_type.name, shape_text(v.tensor.shape)]
        for v in views
    ]
    more = (
        (_SHARDS, [_shards(view.tensor.shards) for view in views], "0"),
        (_SLICES, [str(len(view.tensor.slices) or "") for view in views], ""),
        (_SLOT, [view.readable.slot_name if view.readable else "" for view in views], ""),
    )
    for column, texts, usual in more:
        if any(text not in {usual, ""} for text in texts):
            columns.append(column)
            for row, text in zip(cells, texts, strict=True):
                row.append(text)
    return Section(
        title="TENSORS",
        word="tensor",
        note=count_text(len(views), "tensor"),
        columns=(*columns, _NAME),
        rows=[(*row, _named(view)) for row, view in zip(cells, views, strict=True)],
    )


def _named(view: TensorView) -> str:
    if view.readable is not None and view.readable.slot_of:
        return view.readable.slot_of
    return view.name


def _statistics(views: Sequence[TensorView]) -> Section:
    shown = [view for view in views if view.statistics is not None]
    columns = [Column(name, right=True) for name in ("min", "max", "mean")]
    cells = [
        [number_text(value) for value in (s.minimum, s.maximum, s.mean)]
        for s in (view.statistics for view in shown)
    ]
    counts = (("zeros", "zeros"), ("NaN", "nans"), ("Inf", "infinities"))
    for heading, attribute in counts:
        found = [getattr(view.statistics, attribute) for view in shown]
        if any(found):
            columns.append(Column(heading, right=True))
            for row, count in zip(cells, found, strict=True):
                row.append(f"{count:,}")
    measures = [view.statistics.measure.value for view in shown]
    if any(measure != "values" for measure in measures):
        columns.append(Column("of"))
        for row, measure in zip(cells, measures, strict=True):
            row.append("" if measure == "values" else measure)
    return Section(
        title="STATISTICS",
        word="statistics",
        note="of the finite elements",
        columns=(*columns, _NAME),
        rows=[(*row, view.name) for row, view in zip(cells, shown, strict=True)],
    )


def totals_text(tensors: Sequence[StoredTensor], of: int) -> str:
    """Say how much some tensors `of` a number are together."""
    count = count_text(len(tensors), "tensor")
    if len(tensors) != of:
        count = f"{len(tensors):,} of {count_text(of, 'tensor')}"
    size = size_text(sum(tensor.nbytes for tensor in tensors))
    return f"{count}, {count_text(parameters(tensors), 'parameter')}, {size}"


def parameters(tensors: Iterable[StoredTensor]) -> int:
    """Return how many numbers tensors hold together; strings and variants are none."""
    return sum(math.prod(t.shape) for t in tensors if t.data_type.itemsize is not None)


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape.

    >>> shape_text((3, 4)), shape_text(())
    ('[3, 4]', '[]')
    """
    return f"[{', '.join(map(str, shape))}]"


def graph_shape_text(shape: Sequence[int | None] | None) -> str:
    """Write a shape as a graph tells it, which may not be known.

    >>> graph_shape_text((None, 3)), graph_shape_text(None)
    ('[?, 3]', '[...]')
    """
    if shape is None:
        return "[...]"
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def number_text(value: float | None) -> str:
    """Write a number in up to six digits, a whole one in all.

    >>> number_text(1 / 3), number_text(10**9), number_text(None), number_text(float("inf"))
    ('0.333333', '1000000000', '-', 'inf')
    """
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _shards(shards: Sequence[int]) -> str:
    if len(shards) > _SHOWN_SHARDS:
        return f"{shards[0]}..{shards[-1]}"
    return ", ".join(map(str, shards))


def _value(view: TensorView) -> str:
    if view.value is None:
        return (
            f"({view.elements:,} elements; {LARGEST_VALUE:,} at most are shown: "
            "`ckptd export` writes them all)"
        )
    return _nested_text(value_of(view))


def _nested_text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_nested_text, value))}]"
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, str) and len(value) > _LONGEST_VALUE:
        return f"{value[:_LONGEST_VALUE]!r}... ({len(value):,} bytes)"
    return repr(value)


def value_of(view: TensorView) -> Any:
    """Return a tensor's elements as nested lists: numbers, texts, and complex ones as pairs."""
    from ckptd_client.pieces import numbers  # noqa: PLC0415 (only where a value is asked for)

    array, data_type = view.value, view.tensor.data_type
    assert array is not None
    if data_type.itemsize is not None:
        array = numbers(array.reshape(-1), data_type).reshape(array.shape)
    return _plain(array.tolist())


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return [value.real, value.imag] if isinstance(value, complex) else value


def tensor_entry(view: TensorView) -> dict[str, Any]:
    """Return one tensor for JSON."""
    tensor, readable, statistics = view.tensor, view.readable, view.statistics
    entry: dict[str, Any] = {
        **stored_entry(tensor),
        "path": None if readable is None else readable.path,
        "slot": None,
        "problem": view.problem or None,
    }
    if readable is not None and readable.slot_of:
        entry["slot"] = {"name": readable.slot_name, "of": readable.slot_of}
    if statistics is not None:
        names = ("elements", "minimum", "maximum", "mean", "nans", "infinities", "zeros")
        entry["statistics"] = {
            "of": statistics.measure.value,
            **{name: getattr(statistics, name) for name in names},
        }
    if view.value is not None:
        entry["value"] = value_of(view)
    return entry


def stored_entry(tensor: StoredTensor) -> dict[str, Any]:
    """Return what a checkpoint says of a tensor, for JSON."""
    return {
        "name": tensor.name,
        "dtype": tensor.data_type.name,
        "shape": list(tensor.shape),
        "bytes": tensor.nbytes,
        "shards": list(tensor.shards),
        "slices": [_extents(region) for region in tensor.slices],
    }


def _extents(region: Region) -> list[list[int]]:
    return [[extent.start, extent.length] for extent in region]
