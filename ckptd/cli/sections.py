"""Lists under a title: what the verbs have to show, before anybody decides how it looks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ckptd.errors import printable


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a section. What `folds` may take several lines, the rest never does."""

    heading: str
    right: bool = False
    folds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A titled list: `KEEP  5 checkpoints` above its rows; in a pipe, `word` begins each row.

    `lead` is said below the title; where the section `gathers`, so is what the last column says of
    every row alike. `long` says that all rows are shown, however many.
    """

    title: str
    word: str
    columns: tuple[Column, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    lead: str = ""
    colour: str = ""
    long: bool = False
    gathers: bool = False


def problems_section(texts: Iterable[str]) -> Section:
    """Return what is wrong, never folded."""
    return Section(
        title="PROBLEMS",
        word="problem",
        colour="red",
        columns=(Column("text", folds=True),),
        rows=[(text,) for text in texts],
        long=True,
    )


def shared_widths(
    sections: Iterable[Section], *, headings: bool
) -> dict[tuple[Column, ...], list[int]]:
    """Return how wide each column but the last must be, which takes what is left."""
    widths: dict[tuple[Column, ...], list[int]] = {}
    for section in sections:
        shared = widths.setdefault(
            section.columns[:-1],
            [len(column.heading) * headings for column in section.columns[:-1]],
        )
        for row in section.rows:
            for place, cell in enumerate(row[:-1]):
                shared[place] = max(shared[place], len(printable(cell)))
    return widths
