"""`ckptd check-config`: all that is wrong with a configuration, or what it comes to."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from ckptd.cli.amounts import count_text
from ckptd.cli.arguments import FilePath
from ckptd.cli.screen import Screen
from ckptd.cli.sections import Column, Section
from ckptd.cli.targets import matching, read_config
from ckptd.cli.verb import DONE, IN_PART, all_option, verb
from ckptd.config.keys import POLICY_KEYS, TOP_LEVEL_KEYS
from ckptd.config.load import BUILT_IN
from ckptd.config.values import Config, ModelDirs

CONFIG_SCHEMA: Final = "ckptd.config/1"

_COLUMNS: Final = (Column("key"), Column("value", folds=True), Column("from", folds=True))


@verb("check-config", statuses=(IN_PART, 4, 12, 13))
@click.argument("file", metavar="FILE", type=FilePath())
@all_option
def check_config(screen: Screen, *, file: str) -> int:
    """Check a configuration, and show what it comes to.

    All problems are told at once, as FILE:LINE:COLUMN: KEY: what is wrong. Of a good configuration
    each policy key is shown with where its value comes from; the built-in ones with --all.
    """
    config = read_config(file)
    search = matching(config.model_dirs)
    found = [
        sorted(each.path for each in search.found if each.entry is entry)
        for entry in config.model_dirs
    ]
    if screen.as_json:
        screen.document(_document(file, config, found))
    else:
        _show(screen, file, config, found)
    for problem in search.problems:
        screen.warn(problem)
    return IN_PART if search.problems else DONE


def _show(screen: Screen, file: str, config: Config, found: Sequence[Sequence[str]]) -> None:
    rescan = TOP_LEVEL_KEYS["rescan_interval"].format(config.rescan_interval)
    socket = config.socket or "the default one"
    screen.heading(file, f"good; socket: {socket}, rescan_interval: {rescan}")
    if not config.model_dirs:
        screen.line("no entry in model_dirs: nothing is watched")
    for entry, directories in zip(config.model_dirs, found, strict=True):
        count = count_text(len(directories), "directory")
        note = f"{count} now"
        if entry.policy_name is not None:
            note += f", policy {entry.policy_name}"
        if not screen.draws_tables:
            screen.heading(entry.path, note)
        everything = screen.show_all or not screen.draws_tables
        section = Section(
            title=entry.path,
            word="key",
            note=note,
            columns=_COLUMNS,
            rows=list(_rows(entry, everything=everything)),
            long=True,
        )
        screen.sections([section])


def _rows(entry: ModelDirs, *, everything: bool) -> Iterator[tuple[str, str, str]]:
    for name, key in POLICY_KEYS.items():
        origin = entry.origins[name]
        if everything or origin != BUILT_IN:
            yield name, key.format(getattr(entry.policy, name)), origin


def _document(file: str, config: Config, found: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {
        "schema": CONFIG_SCHEMA,
        "source": file,
        "socket": config.socket,
        "rescan_interval": config.rescan_interval,
        "model_dirs": [
            {
                "path": entry.path,
                "policy": entry.policy_name,
                "directories": list(directories),
                "keys": {
                    name: {
                        "value": key.shape.to_json(getattr(entry.policy, name)),
                        "from": entry.origins[name],
                    }
                    for name, key in POLICY_KEYS.items()
                },
            }
            for entry, directories in zip(config.model_dirs, found, strict=True)
        ],
    }
