"""What a terminal shows: sections as tables, colour where it helps, a bar where it takes long."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from ckptd.cli.sections import Section
from ckptd.errors import printable

_FOLDED: Final = 10  # rows that are shown of more
_WIDEST_NAME: Final = 30
_INDENT: Final = 2
_BEAT: Final = 0.2  # seconds


class Drawing:
    """Draws for one stream, `width` columns wide; the text is the caller's to write."""

    def __init__(self, stream: TextIO, *, width: int, colour: bool) -> None:
        self._console = Console(
            file=stream,
            width=width,
            color_system="auto" if colour else None,
            no_color=not colour,
            markup=False,
            emoji=False,
            highlight=False,
        )

    def text(self, text: str, style: str = "") -> str:
        """Draw lines of text, wrapped between words."""
        return self._drawn(Text(printable(text), style=style, overflow="fold"))

    def section(self, section: Section, widths: Sequence[int], *, in_full: bool) -> str:
        """Draw a section; a long one is folded unless `in_full`."""
        columns, rows = section.columns, section.rows
        leads = [section.lead] if section.lead else []
        said = {row[-1] for row in rows} if section.gathers and len(rows) > 1 else set()
        if len(said) == 1:
            leads += said
            columns, rows = columns[:-1], [row[:-1] for row in rows]
        if len(rows) > _FOLDED + 2 and not (in_full or section.long):
            rows = rows[:_FOLDED]
        title = Text(section.title, style=f"bold {section.colour}".strip())
        if section.note:
            title.append("  " + printable(section.note), style="not bold default")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.show_header = len(columns) > 1
        for column, width in zip(columns, (*widths, 0), strict=False):
            table.add_column(
                column.heading,
                justify="right" if column.right else "left",
                no_wrap=not column.folds,
                overflow="fold",
                min_width=min(width, _WIDEST_NAME),
            )
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        parts: list[RenderableType] = ["", title]
        parts += [_indented(Text(printable(lead), style="dim")) for lead in leads]
        parts.append(_indented(table))
        left = len(section.rows) - len(rows)
        if left:
            parts.append(_indented(Text(f"... and {left:,} more: --all shows them", style="dim")))
        return self._drawn(*parts)

    def waiting(self, text: str, done: Callable[[float], bool]) -> None:
        """Draw a moving bar at once, until `done` (asked with seconds to wait) is true."""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            progress.add_task(printable(text), total=None)
            while not done(_BEAT):
                pass

    @contextmanager
    def progress(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """Draw a bar that is full at `total` bytes; what is given adds to it."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(printable(text), total=total)
            yield lambda done: progress.update(task, advance=done)

    def _drawn(self, *parts: RenderableType) -> str:
        with self._console.capture() as captured:
            for part in parts:
                self._console.print(part)
        return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _indented(what: RenderableType) -> Padding:
    return Padding(what, (0, 0, 0, _INDENT))
