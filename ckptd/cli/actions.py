"""What a verb has done to one checkpoint or directory, said once for people and once in JSON."""

from typing import Any, Final

from ckptd.cli.screen import Screen

ACTION_SCHEMA: Final = "ckptd.action/1"


def show_action(screen: Screen, action: str, path: str, text: str, **parts: Any) -> None:
    """Show what was done: `text`, or a document with `parts`."""
    if screen.as_json:
        screen.document({"schema": ACTION_SCHEMA, "action": action, "path": path, **parts})
    else:
        screen.line(text)
