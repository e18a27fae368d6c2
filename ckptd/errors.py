"""Every error that ckptd raises on purpose.

    CkptdError                      exit 1
    |-- ConfigError                 exit 4   the configuration cannot be used; .problems
    |-- FormatError                          a file is not what its name promises
    |   |-- CorruptIndexError
    |   |-- CorruptTensorError               one tensor's data; .tensor .file .offset
    |   |-- CorruptGraphError                a meta graph, a SavedModel or a frozen graph
    |   |-- CorruptStateFileError
    |   `-- CorruptRecordError               one of ckptd's own files
    |-- StorageError                         the disk refused; .operation .path .reason
    |   |-- NotPermittedError       exit 12
    |   |-- NoSpaceError
    |   |-- NotFoundError                    one name inside a directory
    |   |-- NoSuchDirectoryError    exit 13
    |   `-- DirectoryReplacedError           the path leads to another directory now
    |-- BusyError                   exit 11  someone else holds it
    |-- NoDaemonError               exit 10
    |-- NoSuchCheckpointError       exit 13
    |-- NoSuchTensorError                    the checkpoint or graph has no tensor of that name
    |-- RestoreError                         variables that a checkpoint cannot fill; .report
    |-- MissingLibraryError                  an optional library is needed; says which extra has it
    `-- StalePlanError                       the directory is no longer what the plan saw

The text of each says what was tried, on what, what was found and, where there is something,
what to do. Programming errors stay ordinary exceptions.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class CkptdError(Exception):
    """Base of all: its text is meant for the person in front of the terminal."""

    exit_status: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing wrong in a configuration: where (1-based line and column), which key, what."""

    source: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}:{self.column}"
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class ConfigError(CkptdError):
    """The configuration cannot be used; carries all that is wrong with it, not the first only."""

    exit_status = 4

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class FormatError(CkptdError):
    """A file's bytes are not what its name promises."""


class CorruptIndexError(FormatError):
    """Not the index of a checkpoint: the text names the part that is wrong."""


class CorruptTensorError(FormatError):
    """A tensor's data is not what the checkpoint promises.

    `tensor` is its name, `file` the file's name or path or the shard's number in words, `offset` the
    first byte of the tensor's data in it, where that is known.
    """

    def __init__(
        self, tensor: str, problem: str, *, file: str = "", offset: int | None = None
    ) -> None:
        self.tensor = tensor
        self.problem = problem
        self.file = file
        self.offset = offset
        where = f"{printable(file)}: " if file else ""
        at = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{where}tensor {printable(tensor)!r}{at}: {problem}")


class CorruptGraphError(FormatError):
    """Not a meta graph, SavedModel or frozen graph, or one that contradicts itself."""


class CorruptStateFileError(FormatError):
    """Not a state file that TensorFlow would read: the text says why."""


class CorruptRecordError(FormatError):
    """One of ckptd's own files (ledger, intent) does not parse."""


class StorageError(CkptdError):
    """The operating system refused an operation on a model directory."""

    def __init__(
        self, operation: str, path: str, reason: str, *, number: int | None = None
    ) -> None:
        self.operation = operation
        self.path = path
        self.reason = reason
        self.number = number
        super().__init__(f"cannot {operation} {printable(path)}: {reason}")


class NotPermittedError(StorageError):
    """EACCES, EPERM or a read-only file system."""

    exit_status = 12


class NoSpaceError(StorageError):
    """ENOSPC or EDQUOT: the file system or the quota is full."""


class NotFoundError(StorageError):
    """A name is not in the directory (any more)."""


class NoSuchDirectoryError(StorageError):
    """The model directory does not exist, or the path is no directory."""

    exit_status = 13


class DirectoryReplacedError(StorageError):
    """The path no longer leads to the directory that was opened."""


class BusyError(CkptdError):
    """Another process holds what was asked for."""

    exit_status = 11


class NoDaemonError(CkptdError):
    """No daemon answers at the socket."""

    exit_status = 10


class NoSuchCheckpointError(CkptdError):
    """The model directory holds no such checkpoint."""

    exit_status = 13


class NoSuchTensorError(CkptdError, KeyError):
    """No tensor, variable or operation has that name; the text names what comes near.

    A `KeyError` too, for readers are mappings; unlike that one it shows its text as it is.
    """

    __str__ = Exception.__str__


class RestoreError(CkptdError):
    """Some variables cannot be filled from a checkpoint; `report` has what became of each."""

    def __init__(self, text: str, report: object) -> None:
        self.report = report
        super().__init__(text)


class MissingLibraryError(CkptdError):
    """What was asked for needs a library that is not installed; the text says how to get it."""


class StalePlanError(CkptdError):
    """What the plan was made from has changed; plans are executed once and soon."""


_BY_ERRNO: dict[int, type[StorageError]] = {
    errno.EACCES: NotPermittedError,
    errno.EPERM: NotPermittedError,
    errno.EROFS: NotPermittedError,
    errno.ENOSPC: NoSpaceError,
    errno.EDQUOT: NoSpaceError,
    errno.ENOENT: NotFoundError,
}


def storage_error(operation: str, path: str, error: OSError) -> StorageError:
    """Return the StorageError for `error`, met while trying to `operation` on `path`."""
    kind = _BY_ERRNO.get(error.errno or 0, StorageError)
    return kind(operation, path, os.strerror(error.errno or 0), number=error.errno)


def printable(text: str) -> str:
    r"""Return `text` so that it cannot break a line, forge one, or speak to a terminal.

    Control characters, separators and bytes that are not UTF-8 are written as escapes:

    >>> printable("model\nckptd: all is well\x1b[2J")
    'model\\nckptd: all is well\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


_BYTES = range(0xDC80, 0xDD00)  # bytes that are not UTF-8, as os.fsdecode hands them over


def _escape(character: str) -> str:
    code = ord(character)
    if code in _BYTES:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
