"""The standard streams as a program in a pipeline needs them.

What an encoding cannot say is escaped, a reader that has gone is no error, and a stream that was
closed before the program began is one that nobody reads.
"""

import io
import os
import sys
from pathlib import Path
from typing import TextIO

from ckptd.errors import storage_error


def prepare() -> None:
    """Make standard output and standard error fit for any text. Safe to call twice."""
    if sys.stdout is None:
        sys.stdout = _nobody()
    if sys.stderr is None:
        sys.stderr = _nobody()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write(stream: TextIO, text: str) -> None:
    """Write and flush. A closed pipe is met with silence, then and for the rest of the run.

    Who runs `ckptd sweep | head -1` has read enough; the sweep itself goes on. Raises
    `StorageError` where the text cannot be written for another reason, such as a full disk.
    """
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _silence(stream)
    except OSError as error:
        _silence(stream)
        name = "standard error" if stream is sys.stderr else "standard output"
        raise storage_error("write to", name, error) from error


def _silence(stream: TextIO) -> None:
    """Lead a stream nowhere, or the interpreter's last flush would fail once more."""
    descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.dup2(descriptor, stream.fileno())
    finally:
        os.close(descriptor)


def _nobody() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")
