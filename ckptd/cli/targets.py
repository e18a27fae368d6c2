"""Which directories a verb is about, and the policy of each: from DIR, `--config` and options."""

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import click

from ckptd.cli.arguments import FilePath
from ckptd.cli.policy_options import Given, overridden
from ckptd.cli.screen import Screen
from ckptd.cli.verb import DONE, IN_PART
from ckptd.config.document import LARGEST
from ckptd.config.load import load_config
from ckptd.config.values import Config, ModelDirs
from ckptd.daemon.adoption import Search, search
from ckptd.errors import NotFoundError, StorageError, printable, storage_error
from ckptd.retention.policy import Policy

config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=FilePath(),
    help="Take the policy from this configuration; without DIR, all its directories.",
)


class NoSuchFileError(NotFoundError):
    """A file that was named on the command line is not there."""

    exit_status = 13


@dataclass(frozen=True, slots=True)
class Target:
    """One directory and the policy that holds there."""

    directory: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class Targets:
    """What a verb is about.

    `missing` are paths of the configuration without a directory, `doubts` say where none could be
    looked for.
    """

    found: tuple[Target, ...]
    missing: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def report(self, screen: Screen) -> int:
        """Say what is in doubt, or that there is nothing; return the exit status of that."""
        for doubt in self.doubts:
            screen.warn(doubt)
        for path in self.missing:
            screen.warn(f"{printable(path)}: there is no such directory now")
        if not (self.found or self.missing or self.doubts):
            screen.warn("the configuration matches no directory now: nothing to do")
        return IN_PART if self.doubts else DONE


def load_config_file(file: str) -> Config:
    """Return the configuration in `file`. Raises `ConfigError` or `OSError`."""
    with open(file, "rb") as opened:  # noqa: PTH123 - a path is what the person gave
        return load_config(opened.read(LARGEST + 1), file)


def read_config(file: str) -> Config:
    """Return the configuration in `file`.

    Raises `ConfigError`, or `StorageError` where the file cannot be read.
    """
    try:
        return load_config_file(file)
    except ValueError as error:
        raise NoSuchFileError("read", file, "it has characters that no path can have") from error
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            raise NoSuchFileError(
                "read", file, os.strerror(error.errno), number=error.errno
            ) from error
        raise storage_error("read", file, error) from error


def targets(
    directories: Sequence[str], config_file: str | None, options: Mapping[str, Given | None]
) -> Targets:
    """Return what DIR..., `--config` and the policy's options stand for together."""
    if config_file is None:
        if not directories:
            raise click.UsageError(
                "nothing to look at: give a model directory, or --config FILE for all of its"
            )
        policy = overridden(Policy(), options)
        return Targets(tuple(Target(each, policy) for each in dict.fromkeys(directories)))
    config = read_config(config_file)
    if directories:
        return Targets(
            tuple(
                Target(each, overridden(_entry(config, config_file, each).policy, options))
                for each in dict.fromkeys(directories)
            )
        )
    found = matching(config.model_dirs)
    return Targets(
        tuple(
            Target(each.path, overridden(each.entry.policy, options))
            for each in sorted(found.found, key=lambda candidate: candidate.path)
        ),
        missing=tuple(path for path, _ in found.missing),
        doubts=found.problems,
    )


def matching(entries: Iterable[ModelDirs]) -> Search:
    """Return the directories that entries of `model_dirs` mean now, as the daemon finds them."""
    return search(entries, lambda _: None)


def _entry(config: Config, config_file: str, directory: str) -> ModelDirs:
    """Return the entry that a directory belongs to, by the path given or the one it leads to."""
    try:
        ways = (os.path.abspath(directory), os.path.realpath(directory))  # noqa: PTH100
    except ValueError as error:
        reason = "it has characters that no path can have"
        raise StorageError("look for", directory, reason) from error
    for way in ways:
        entry = config.entry_for(way)
        if entry is not None:
            return entry
    raise click.UsageError(
        f"no entry of model_dirs in {printable(config_file)} matches {printable(ways[0])}: "
        "give its policy as options instead, without --config"
    )
