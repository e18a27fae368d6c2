"""The policy keys as options: `--max-to-keep 3` says what `max_to_keep: 3` says in YAML."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import click
from click.shell_completion import CompletionItem

from ckptd.cli.verb import PolicyOption
from ckptd.config.keys import POLICY_KEYS
from ckptd.config.scalars import Scalar
from ckptd.config.shapes import Key
from ckptd.retention.policy import Policy

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Given(NamedTuple):
    """A value that was given: `off` is None for some keys, and is not the same as no option."""

    value: Any


class PolicyValue(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.2
    """What one policy key may hold."""

    def __init__(self, key: Key) -> None:
        self.name = key.name
        self._key = key

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value, or refuse it in the configuration's own words."""
        if isinstance(value, Given):
            return value
        try:
            return Given(self._key.parse(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the words that stand for something."""
        del ctx, param
        words = self._key.shape.words if isinstance(self._key.shape, Scalar) else ("off",)
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def policy_options(command: _Command) -> _Command:
    """Give a verb one option for each policy key, passed on by the key's name."""
    for key in reversed(tuple(POLICY_KEYS.values())):
        option = click.option(
            f"--{key.name.replace('_', '-')}",
            key.name,
            cls=PolicyOption,
            type=PolicyValue(key),
            metavar=key.form,
            help=_first_sentence(key.description),
        )
        command = option(command)
    return command


def given(options: Mapping[str, Given | None]) -> dict[str, Any]:
    """Return the policy keys that were given, as fields of a `Policy`."""
    return {name: option.value for name, option in options.items() if option is not None}


def overridden(policy: Policy, options: Mapping[str, Given | None]) -> Policy:
    """Return `policy` with what the options say instead."""
    return replace(policy, **given(options))


def policy_text(policy: Policy) -> str:
    """Write a policy's rules, and its limits where they are not the built-in ones.

    >>> policy_text(Policy(max_to_keep=3, keep_within=7200.0))
    'max_to_keep: 3, keep_within: 2h'
    >>> policy_text(Policy())
    'no rule is set: everything stays'
    """
    told = [
        f"{key.name}: {key.format(value)}"
        for key in POLICY_KEYS.values()
        if (value := getattr(policy, key.name)) != key.default
    ]
    return ", ".join(told if policy.has_rules else ["no rule is set: everything stays", *told])


def _first_sentence(text: str) -> str:
    return text.split(". ", 1)[0].removesuffix(".") + "."
