"""The pages say what is there: every verb, event, policy key and exit status, and no dead link."""

import re
from pathlib import Path

import click
import pytest

from ckptd.cli import main
from ckptd.cli.verb import EXIT_STATUSES
from ckptd.config.keys import POLICY_KEYS
from ckptd.daemon.log import Event

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def page(name):
    return (ROOT / name).read_text()


def test_every_verb_is_described_and_has_a_help_text():
    text = page("docs/commands.md")
    for name in main.list_commands(click.Context(main)):
        command = main.get_command(click.Context(main), name)
        assert command is not None
        assert command.help
        assert f"ckptd {name}" in text


def test_every_exit_status_is_described():
    text = page("docs/commands.md")
    for status in EXIT_STATUSES:
        assert re.search(rf"^\W*{status}\b", text, re.MULTILINE), status


def test_every_event_of_the_log_is_described():
    text = page("docs/operations.md")
    assert [event.name for event in Event if f"`{event.value[0]}`" not in text] == []


def test_every_policy_key_is_described_where_its_meaning_stands():
    text = page("docs/keeping.md") + page("config/ckptd.yaml")
    assert [key for key in POLICY_KEYS if key not in text] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_link_is_dead(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_the_changelog_names_the_version_or_what_comes():
    assert "## Unreleased" in page("CHANGELOG.md")
