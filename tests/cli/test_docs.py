"""docs/commands.md and the help: every verb, option and exit status is in both, and true."""

import re
from pathlib import Path

import click
import pytest

from ckptd.cli import main
from ckptd.cli.verb import EXIT_STATUSES, PolicyOption, Verb
from ckptd.config.keys import POLICY_KEYS

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
CONTEXT = click.Context(main)
VERBS = main.list_commands(CONTEXT)

DESIGNED = """run check-config plan sweep list status pin unpin undo history approve"""


def command(name) -> Verb:
    """The verb of that name."""
    found = main.get_command(CONTEXT, name)
    assert isinstance(found, Verb)
    return found


def section(name) -> str:
    """What the page says of a verb."""
    found = re.search(
        rf"^### ckptd {name}\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found, f"no section on {name}"
    return found.group(1)


def test_every_verb_of_the_design_is_there():
    assert set(DESIGNED.split()) <= set(VERBS)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_documented_with_its_options_and_exit_statuses(name):
    text = section(name)

    assert f"](#ckptd-{name})" in PAGE.read_text()
    for param in command(name).params:
        if isinstance(param, click.Option) and not isinstance(param, PolicyOption):
            assert f"`{param.opts[0]}" in text
            assert (param.help or "?") in text
    has_policy = any(isinstance(param, PolicyOption) for param in command(name).params)
    assert has_policy == ("(#policy-options)" in text)
    statuses = ", ".join(map(str, sorted(command(name).statuses)))
    assert f"Exit status: {statuses}." in text
    assert f"\n```\n$ ckptd {name}" in text


def test_every_policy_key_is_documented_in_the_words_of_the_configuration():
    text = PAGE.read_text()

    for key in POLICY_KEYS.values():
        form = key.form.replace("|", "\\|")
        assert f"| `--{key.name.replace('_', '-')} {form}` | {key.description} |" in text


def test_every_exit_status_is_documented():
    text = PAGE.read_text()

    for status, meaning in EXIT_STATUSES.items():
        assert f"| {status} | {meaning} |" in text


def test_examples_fit_on_a_terminal():
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)

    assert len(blocks) > len(VERBS)
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 80


@pytest.mark.parametrize("name", VERBS)
def test_the_help_of_a_verb_ends_with_its_exit_statuses_one_line_each(ckptd, name):
    ended = ckptd(name, "--help")

    lines = ended.out.splitlines()
    start = lines.index("Exit status:")
    assert [int(line.split()[0]) for line in lines[start + 1 :]] == sorted(command(name).statuses)
    assert max(map(len, lines)) <= 80


def test_the_program_s_help_groups_the_verbs_in_one_line_each(ckptd):
    lines = ckptd("--help").out.splitlines()

    assert [line for line in lines if line in {"Look:", "Act:", "Run:"}] == [
        "Look:",
        "Act:",
        "Run:",
    ]
    for name in VERBS:
        assert any(line.startswith(f"  {name} ") for line in lines)
    assert max(map(len, lines)) <= 80
