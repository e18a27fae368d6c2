"""`ckptd completion`: the script that teaches a shell to complete the command."""

from typing import Final

import click
from click.shell_completion import get_completion_class

from ckptd.cli.program import COMPLETION_VARIABLE, main
from ckptd.cli.screen import Screen
from ckptd.cli.verb import DONE, verb

_SHELLS: Final = ("bash", "zsh", "fish")


@verb("completion", json=False)
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(screen: Screen, *, shell: str) -> int:
    """Print the completion script of a shell.

    It completes verbs, options, directories, and the steps of a directory. For this session of
    bash: eval "$(ckptd completion bash)"; for all of them, put the script where the shell looks
    for completions.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    screen.script(kind(main, {}, "ckptd", COMPLETION_VARIABLE).source())
    return DONE
