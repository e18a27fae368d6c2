"""What a verb shows: JSON for programs, tables for a terminal, one line per record for a pipe.

Standard output has the data and standard error the messages. Every text that is shown goes through
`printable` here, so that no file name can break a line or speak to a terminal.
"""

import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, TextIO

from ckptd.cli import streams
from ckptd.cli.sections import Section, shared_widths
from ckptd.errors import CkptdError, ConfigError, StorageError, printable

if TYPE_CHECKING:
    from ckptd.cli.drawing import Drawing

ERROR_SCHEMA: Final = "ckptd.error/1"

_WORTH_A_BAR: Final = 64 * 2**20  # bytes; less is read or written in no time
_NARROWEST_TABLE: Final = 60  # columns; a table in fewer is harder to read than lines


class Screen:
    """Where one run of a verb shows its data and says its messages."""

    def __init__(
        self, *, as_json: bool = False, colour: bool = True, out: TextIO, err: TextIO
    ) -> None:
        self.as_json = as_json
        self.show_all = False
        self.is_terminal = out.isatty()
        self._out = out
        self._err = err
        self._colour = (
            colour and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )
        self._width = shutil.get_terminal_size((80, 24)).columns

    @classmethod
    def of_process(cls, *, as_json: bool, colour: bool) -> "Screen":
        """Return the screen on this process's standard streams."""
        streams.prepare()
        return cls(as_json=as_json, colour=colour, out=sys.stdout, err=sys.stderr)

    @property
    def draws_tables(self) -> bool:
        """Whether tables are drawn; if not, every record is one line."""
        return self.is_terminal and self._width >= _NARROWEST_TABLE

    @property
    def has_live_messages(self) -> bool:
        """Whether a progress bar can be drawn on standard error."""
        return self._err.isatty() and os.environ.get("TERM") != "dumb" and not self.as_json

    def document(self, document: Mapping[str, Any]) -> None:
        """Show a JSON document. It is ASCII, and a number that is none becomes null."""
        streams.write(self._out, json.dumps(_finite(document), indent=2, allow_nan=False) + "\n")

    def record(self, record: Mapping[str, Any]) -> None:
        """Show one JSON object on one line."""
        streams.write(self._out, json.dumps(_finite(record), allow_nan=False) + "\n")

    def script(self, text: str) -> None:
        """Show a program's text as it is."""
        streams.write(self._out, text.rstrip("\n") + "\n")

    def line(self, text: str = "") -> None:
        """Show one line of data; on a terminal it is wrapped between words."""
        if self.draws_tables:
            streams.write(self._out, self._drawing(self._out).text(text))
        else:
            streams.write(self._out, printable(text) + "\n")

    def heading(self, path: str, *notes: str) -> None:
        """Begin what is shown of one model directory."""
        if not self.draws_tables:
            told = "; ".join(notes)
            streams.write(self._out, printable(f"{path}: {told}" if told else path) + "\n")
            return
        drawing = self._drawing(self._out)
        streams.write(self._out, drawing.text(path, "bold"))
        for note in notes:
            streams.write(self._out, drawing.text(note, "dim"))

    def sections(self, sections: Iterable[Section]) -> None:
        """Show sections, less the empty ones; those of the same columns line up."""
        shown = [section for section in sections if section.rows]
        widths = shared_widths(shown, headings=self.draws_tables)
        for section in shown:
            if self.draws_tables:
                drawn = self._drawing(self._out).section(
                    section, widths[section.columns[:-1]], in_full=self.show_all
                )
                streams.write(self._out, drawn)
            else:
                self._lines(section, shown, widths[section.columns[:-1]])

    def message(self, text: str) -> None:
        """Say something beside the data."""
        lines = (printable(line) for line in text.split("\n"))
        streams.write(self._err, "".join(f"{line}\n" for line in lines))

    def warn(self, text: str) -> None:
        """Say something that a person should know, with the program's name before it."""
        self.message(f"ckptd: {text}")

    def fail(self, error: CkptdError) -> None:
        """Say what went wrong; with `--json` also as one line of JSON."""
        if isinstance(error, ConfigError):
            self.message(str(error))  # file:line:column: as editors and other programs read it
        else:
            self.warn(str(error))
        if self.as_json:
            self.failure(type(error).__name__, str(error), error.exit_status, _parts(error))

    def failure(
        self, kind: str, message: str, exit_status: int, parts: Mapping[str, Any] | None = None
    ) -> None:
        """Say an error as one line of JSON."""
        error = {"type": kind, "message": message, "exit_status": exit_status, **(parts or {})}
        text = json.dumps({"schema": ERROR_SCHEMA, "error": error})
        streams.write(self._err, text + "\n")

    def waiting(self, text: str, done: Callable[[float], bool]) -> None:
        """Show a moving bar on standard error until `done`, asked with seconds to wait, is true."""
        self._drawing(self._err).waiting(text, done)

    def progress(self, text: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show a bar on standard error, if that is a terminal and the `total` of bytes takes time.

        Inside the block, what it gives is told how many bytes more are done.
        """
        if self.has_live_messages and total >= _WORTH_A_BAR:
            return self._drawing(self._err).progress(text, total)
        return nullcontext(lambda _: None)

    def _lines(self, section: Section, shown: Sequence[Section], widths: Sequence[int]) -> None:
        first = max(len(other.word) for other in shown)
        text = []
        for row in section.rows:
            cells = [section.word.ljust(first)]
            for column, cell, width in zip(section.columns, row, (*widths, 0), strict=True):
                clean = printable(cell)
                cells.append(clean.rjust(width) if column.right else clean.ljust(width))
            text.append("  ".join(cells).rstrip() + "\n")
        streams.write(self._out, "".join(text))

    def _drawing(self, stream: TextIO) -> "Drawing":
        # rich takes as long to import as the rest of a verb to run; a pipe does without it.
        from ckptd.cli.drawing import Drawing  # noqa: PLC0415

        return Drawing(stream, width=self._width, colour=self._colour)


def _parts(error: CkptdError) -> dict[str, Any]:
    if isinstance(error, ConfigError):
        names = ("source", "line", "column", "key", "message")
        return {
            "problems": [{name: getattr(each, name) for name in names} for each in error.problems]
        }
    if isinstance(error, StorageError):
        return {"operation": error.operation, "path": error.path, "reason": error.reason}
    return {}


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
