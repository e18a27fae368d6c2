"""`ckptd run`: the daemon."""

import os

import click

from ckptd.cli.arguments import FilePath
from ckptd.cli.screen import Screen
from ckptd.cli.targets import load_config_file, read_config
from ckptd.cli.verb import verb
from ckptd.protocol.conversation import listening_path


@verb("run", statuses=(4, 11, 12, 13), json=False)
@click.option(
    "--config", "config_file", metavar="FILE", type=FilePath(), required=True, help="What to keep."
)
@click.option(
    "--socket", metavar="PATH", help="Listen here, whatever the configuration and CKPTD_SOCKET say."
)
def run(screen: Screen, *, config_file: str, socket: str | None) -> int:
    """Run the daemon.

    It keeps the model directories of the configuration, until told to stop. SIGTERM and SIGINT
    stop it, SIGHUP has it read the configuration again.
    """
    del screen
    # The help of all verbs must not wait for what only the daemon needs.
    from ckptd.daemon.service import run_daemon  # noqa: PLC0415

    config = read_config(config_file)
    path = listening_path(os.environ, os.getuid(), socket or config.socket)
    return run_daemon(lambda: load_config_file(config_file), path)
