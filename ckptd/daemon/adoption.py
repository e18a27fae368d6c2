"""Which directories the configuration means, now.

`model_dirs` names them by path or by pattern. What stands before the first wildcard is the
operator's word, links and all; below it no symbolic link is followed, for whoever may make one
there must not choose what ckptd keeps.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from ckptd.checkpoints.inventory import OWN_DIRECTORY
from ckptd.checkpoints.listing import Kind
from ckptd.config.values import ModelDirs
from ckptd.errors import CkptdError, NoSuchDirectoryError
from ckptd.storage.disk import open_model_directory

_ROOT: Final = "/"

Watch = Callable[[str], None]
"""Has a directory watched in which model directories may appear; called before it is listed."""


class Candidate(NamedTuple):
    """A directory that an entry of `model_dirs` means.

    `path` is as the configuration has it, `real_path` the same without the links in the
    operator's part.
    """

    path: str
    real_path: str
    identity: tuple[int, int]
    entry: ModelDirs


class Search(NamedTuple):
    """What was found, the first matching entry for each; `missing` are plain paths without one."""

    found: tuple[Candidate, ...]
    missing: tuple[tuple[str, ModelDirs], ...]
    problems: tuple[str, ...]


def search(entries: Iterable[ModelDirs], watch: Watch) -> Search:
    """Find the model directories of `entries`."""
    found: dict[tuple[int, int], Candidate] = {}
    missing: dict[str, ModelDirs] = {}
    problems: list[str] = []
    for entry in entries:
        try:
            if not entry.is_glob:
                candidate = _plain(entry, watch)
                if candidate is None:
                    missing.setdefault(entry.path, entry)
                else:
                    found.setdefault(candidate.identity, candidate)
                continue
            for candidate in _matching(entry, watch, problems):
                found.setdefault(candidate.identity, candidate)
        except CkptdError as error:
            problems.append(str(error))
    return Search(tuple(found.values()), tuple(missing.items()), tuple(dict.fromkeys(problems)))


def top(entry: ModelDirs) -> str:
    """Return the last directory on the way of `entry` before a wildcard, or its parent.

    >>> [top(ModelDirs(path=path)) for path in ("/srv/*/runs/[ab]", "/srv/models/vision", "/*")]
    ['/srv', '/srv/models', '/']
    """
    parts = entry.path.split("/")
    return "/".join(parts[: _plain_parts(parts)]) or _ROOT


def _plain_parts(parts: Sequence[str]) -> int:
    """Return how many parts of a path come before its first wildcard, or before its last part."""
    globs = (place for place, part in enumerate(parts) if ModelDirs(path=f"/{part}").is_glob)
    return next(globs, len(parts) - 1)


def _plain(entry: ModelDirs, watch: Watch) -> Candidate | None:
    """Find the directory at a plain path; it may come back one day where it came from."""
    _watch_nearest(top(entry), watch)
    try:
        directory = open_model_directory(entry.path)
    except NoSuchDirectoryError:
        return None
    try:
        return Candidate(entry.path, directory.path, directory.identity, entry)
    finally:
        directory.close()


def _matching(entry: ModelDirs, watch: Watch, problems: list[str]) -> Iterator[Candidate]:
    parts = entry.path.split("/")
    depth = _plain_parts(parts)
    start = top(entry)
    real_start = _watch_nearest(start, watch)
    if real_start is None:
        return
    level = [Candidate(start, real_start, (0, 0), entry)]
    for last in range(depth + 1, len(parts) + 1):
        pattern = replace(entry, path="/".join(parts[:last]))
        level = [
            child
            for parent in level
            for child in _children(parent, watch, problems)
            if pattern.matches(child.path)
        ]
    yield from level


def _children(parent: Candidate, watch: Watch, problems: list[str]) -> list[Candidate]:
    watch(parent.real_path)
    try:
        directory = open_model_directory(parent.real_path)
    except NoSuchDirectoryError:
        return []  # gone since it was found
    except CkptdError as error:
        problems.append(str(error))
        return []
    try:
        if directory.path != parent.real_path:
            return []  # a link has taken its place
        entries = directory.list()
    except CkptdError as error:
        problems.append(str(error))
        return []
    finally:
        directory.close()
    return [
        Candidate(
            _join(parent.path, entry.name),
            _join(parent.real_path, entry.name),
            (entry.identity.device, entry.identity.inode),
            parent.entry,
        )
        for entry in sorted(entries)
        if entry.kind is Kind.DIRECTORY and entry.name != OWN_DIRECTORY
    ]


def _watch_nearest(path: str, watch: Watch) -> str | None:
    """Watch `path`, or what is left of the way there; return where it is, or None if it is not."""
    nearest = path
    while True:
        try:
            directory = open_model_directory(nearest)
        except NoSuchDirectoryError:
            if nearest == _ROOT:
                return None
            nearest = _parent(nearest)
            continue
        directory.close()
        watch(directory.path)
        return directory.path if nearest == path else None


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or _ROOT


def _join(path: str, name: str) -> str:
    return f"/{name}" if path == _ROOT else f"{path}/{name}"
