"""What a configuration may not say: each refusal with its line, column, key and words."""

from typing import NamedTuple

import pytest

from ckptd.config.load import load_config
from ckptd.errors import ConfigError, ConfigProblem


class Refusal(NamedTuple):
    """One mistake in an otherwise good configuration."""

    text: str | bytes
    line: int
    column: int
    key: str
    message: str


def problems_in(text: str | bytes) -> tuple[ConfigProblem, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(text, "ckptd.yaml")
    return caught.value.problems


def check(refusal: Refusal) -> None:
    problems = problems_in(refusal.text)

    assert [(p.source, p.line, p.column, p.key) for p in problems] == [
        ("ckptd.yaml", refusal.line, refusal.column, refusal.key)
    ]
    assert refusal.message in problems[0].message


def top(line: str) -> str:
    return f"version: 1\n{line}\n"


def entry(*lines: str) -> str:
    return "version: 1\nmodel_dirs:\n- path: /m\n" + "".join(f"  {line}\n" for line in lines)


def kept(line: str) -> str:
    """Return an entry that has a rule besides `line`, which is line 5 and begins in column 3."""
    return entry("max_to_keep: 3", line)


NOT_EVEN_A_TREE = {
    "empty": Refusal("", 1, 1, "", "is empty: begin with `version: 1`"),
    "comments only": Refusal("# version: 1\n", 1, 1, "", "is empty"),
    "an empty document": Refusal("---\n...\n", 2, 1, "", "is empty"),
    "text": Refusal("keep five\n", 1, 1, "", "is no mapping of keys to values"),
    "a list": Refusal("- version: 1\n", 1, 1, "", "is no mapping of keys to values"),
    "too large": Refusal("version: 1 #" + "x" * 262_133, 1, 1, "", "is larger than 256 KiB"),
    "not UTF-8": Refusal(
        b"version: 1\nsocket: /\xc3\xa9\xff\n", 2, 11, "", "is not UTF-8: found the byte 0xff"
    ),
    "UTF-16": Refusal("version: 1".encode("utf-16-le"), 1, 2, "", "the character U+0000"),
    "a control character": Refusal("version: 1\n# \x1b[2J\n", 2, 3, "", "the character U+001B"),
    "an unseen end of line": Refusal(
        "version: 1 # \u2028a: 1\n", 1, 14, "", "the character U+2028"
    ),
    "a lone surrogate": Refusal("version: 1 # \ud800", 1, 14, "", "the character U+D800"),
    "an escape for no character": Refusal(
        top('socket: "\\UFFFFFFFF"'), 2, 12, "", "stands for no character"
    ),
    "two documents": Refusal("version: 1\n---\nversion: 1\n", 2, 1, "", "a second document begins"),
    "a tab": Refusal("version: 1\nlog:\n\tlevel: info\n", 3, 1, "", "a tab cannot indent a line"),
    "an open bracket": Refusal(
        "version: 1\nlog: {level: info\n", 3, 1, "", "is not YAML: expected ',' or '}'"
    ),
    "an unknown directive": Refusal("%YAML 2.0\n---\nversion: 1\n", 1, 1, "", "is not YAML"),
    "a star without quotes": Refusal(
        "version: 1\nmodel_dirs:\n- path: *\n", 3, 10, "", "while scanning an alias"
    ),
    "deep lists": Refusal(
        "version: 1\nlog: " + "[" * 5000, 2, 25, "log" + "[0]" * 19, "more than 20 levels deep"
    ),
    "deep mappings": Refusal("{a: " * 5000, 1, 81, ".".join("a" * 20), "more than 20 levels deep"),
    "deep dashes": Refusal("- " * 5000, 1, 41, "[0]" * 20, "more than 20 levels deep"),
}

NOT_SUPPORTED = {
    "an anchor": Refusal("version: &v 1\n", 1, 10, "version", "anchors (`&v`) are not supported"),
    "an anchor of a mapping": Refusal(
        top("log: &l {level: info}"), 2, 6, "log", "anchors (`&l`) are not supported"
    ),
    "an alias": Refusal(top("socket: *s"), 2, 9, "socket", "aliases (`*s`) are not supported"),
    "an alias as a key": Refusal(top("*s : 1"), 2, 1, "", "aliases (`*s`) are not supported"),
    "a tag": Refusal("version: !!int 1\n", 1, 10, "version", "tags (`!!int`) are not supported"),
    "a tag of one's own": Refusal(
        top("socket: !path /s"), 2, 9, "socket", "tags (`!path`) are not supported"
    ),
    "a tag for Python": Refusal(
        top("socket: !!python/name:os.system /s"),
        2,
        9,
        "socket",
        "tags (`!!python/name:os.system`)",
    ),
    "a merge key": Refusal(top("<<: {socket: /s}"), 2, 1, "<<", "merge keys are not supported"),
    "a list as a key": Refusal(
        top("? [socket]\n: /s"), 2, 3, "", "a list or a mapping cannot be a key"
    ),
    "a mapping as a key": Refusal(
        top("log:\n  ? {a: b}\n  : 1"), 3, 5, "log", "a list or a mapping cannot be a key"
    ),
    "no key": Refusal(top("? \n: /s"), 2, 2, "", "a key is missing in front of the colon"),
    "a key twice": Refusal(
        entry("max_to_keep: 5", "max_to_keep: 1"),
        5,
        3,
        "model_dirs[0].max_to_keep",
        "is set twice, first in line 4",
    ),
    "a key twice, once in quotes": Refusal(
        '{version: 1, "version": 1}', 1, 14, "version", "is set twice, first in line 1"
    ),
}

KEYS = {
    "no version": Refusal("socket: /s\n", 1, 1, "version", "is missing: write `version: 1`"),
    "a version to come": Refusal("version: 2\n", 1, 10, "version", "must be 1; found `2`"),
    "a version in quotes": Refusal(
        'version: "1"\n', 1, 10, "version", "must be written without quotes: 1"
    ),
    "an unknown key": Refusal(
        top("sockets: /s"), 2, 1, "sockets", "is not a key here; did you mean `socket`?"
    ),
    "a key like nothing": Refusal(
        top("on: 1"), 2, 1, "on", "the keys are version, socket, rescan_interval, log, defaults"
    ),
    "a key with dashes": Refusal(
        kept("keep-daily: 1"), 5, 3, "model_dirs[0].keep-daily", "did you mean `keep_daily`?"
    ),
    "a key in capitals": Refusal(
        kept("MIN_AGE: 1h"), 5, 3, "model_dirs[0].MIN_AGE", "did you mean `min_age`?"
    ),
    "a key of another program": Refusal(
        entry("save_total_limit: 5"),
        4,
        3,
        "model_dirs[0].save_total_limit",
        "did you mean `max_to_keep`?",
    ),
    "a misspelt key": Refusal(
        entry("max_to_kep: 5"), 4, 3, "model_dirs[0].max_to_kep", "did you mean `max_to_keep`?"
    ),
    "a policy key at the top": Refusal(
        top("max_to_keep: 5"), 2, 1, "max_to_keep", "belongs in defaults, in one of policies, or"
    ),
    "a path in a policy": Refusal(
        top("policies: {a: {path: /m}}"), 2, 16, "policies.a.path", "belongs in an entry of model"
    ),
    "a policy in defaults": Refusal(
        top("defaults: {policy: a}"), 2, 12, "defaults.policy", "belongs in an entry of model_dirs"
    ),
    "metrics": Refusal(top("metrics: {}"), 2, 1, "metrics", "is planned, and not supported yet"),
    "keep_best": Refusal(
        entry("keep_best: {metric: loss, count: 3}"),
        4,
        3,
        "model_dirs[0].keep_best",
        "is planned, and not supported yet",
    ),
    "max_bytes": Refusal(
        kept("max_bytes: 5GB"), 5, 3, "model_dirs[0].max_bytes", "is planned, and not supported yet"
    ),
    "min_free": Refusal(
        top("defaults:\n  min_free: 10%"),
        3,
        3,
        "defaults.min_free",
        "is planned, and not supported",
    ),
    "a key that would forge a line": Refusal(
        top('"a\\nckptd: well": 1'), 2, 1, "a\\nckptd: well", "is not a key here"
    ),
    "no value": Refusal(
        kept("min_age:"), 5, 11, "model_dirs[0].min_age", "found nothing: to leave it out, remove"
    ),
    "null": Refusal(top("socket: null"), 2, 9, "socket", "found nothing: to leave it out, remove"),
}

VALUES = {
    "log, not a mapping": Refusal(top("log: debug"), 2, 6, "log", "must be keys with values, such"),
    "log.level in capitals": Refusal(
        top("log: {level: INFO}"), 2, 14, "log.level", "found `INFO`: in small letters: info"
    ),
    "log.level unknown": Refusal(
        top("log: {level: loud}"),
        2,
        14,
        "log.level",
        "must be `debug`, `info`, `warning` or `error`; found `loud`",
    ),
    "log.format a list": Refusal(
        top("log: {format: [json]}"), 2, 15, "log.format", "or `text`; found a list"
    ),
    "rescan_interval without a unit": Refusal(
        top("rescan_interval: 30"), 2, 18, "rescan_interval", "a unit is missing, such as in 30s"
    ),
    "rescan_interval too short": Refusal(
        top("rescan_interval: 0.5s"), 2, 18, "rescan_interval", "of at least 1s"
    ),
    "rescan_interval endless": Refusal(
        top("rescan_interval: 5201w"), 2, 18, "rescan_interval", "the largest is 5200w"
    ),
    "socket relative": Refusal(
        top("socket: run/s"), 2, 9, "socket", "must be an absolute path such as /run/ckptd/ckptd.s"
    ),
    "socket too long": Refusal(
        top("socket: /" + "s" * 107), 2, 9, "socket", "the system allows 107 bytes"
    ),
    "socket with NUL": Refusal(
        top('socket: "/s\\0"'), 2, 9, "socket", "`/s\\x00`: it holds a character that cannot"
    ),
    "socket with a surrogate": Refusal(
        top('socket: "/\\ud800"'), 2, 9, "socket", "it holds a character that cannot be printed"
    ),
    "defaults a list": Refusal(
        top("defaults: [max_to_keep]"), 2, 11, "defaults", "must be keys with values, such as max_"
    ),
    "policies a list": Refusal(
        top("policies: [a]"), 2, 11, "policies", "must be names with keys below them"
    ),
    "a policy that is a number": Refusal(
        top("policies: {a: 5}"), 2, 15, "policies.a", "must be keys with values"
    ),
    "a policy's name": Refusal(
        top("policies: {7days: {max_to_keep: 5}}"), 2, 12, "policies.7days", "must be a name: a le"
    ),
    "model_dirs a mapping": Refusal(
        top("model_dirs: {path: /m}"), 2, 13, "model_dirs", "must be a list of entries, such as - "
    ),
    "model_dirs a path": Refusal(
        top("model_dirs: /m"), 2, 13, "model_dirs", "must be a list of entries"
    ),
    "an entry that is a path": Refusal(
        top("model_dirs: [/m]"), 2, 14, "model_dirs[0]", "must be keys with values, such as {path: "
    ),
    "an entry without path": Refusal(
        top("model_dirs:\n- max_to_keep: 3"),
        3,
        3,
        "model_dirs[0].path",
        "is missing: write `path: ",
    ),
}

PATHS = {
    "models": "must be an absolute path such as /srv/models/*; found `models`",
    '""': "found nothing",
    "~/models": "`~` is not expanded: write the home directory in full",
    "$HOME/models": "variables are not expanded",
    "/srv/../etc": "without `..`: write the path that is meant",
    "/srv/..": "without `..`",
    "/": "the root of the file system cannot be meant",
    "//./": "the root of the file system cannot be meant",
    "/srv/**": "`**` is not supported",
    '"/srv/a\\nb"': "`/srv/a\\nb`: it holds a character that cannot be printed",
    "[/srv]": "found a list",
    "{srv: 1}": "found a mapping",
}

POLICY_VALUES = {
    ("max_to_keep", "0"): "with 0, TensorFlow's Saver keeps every checkpoint and its Checkpoint",
    ("max_to_keep", "-1"): "below 0, TensorFlow's Saver deletes the checkpoint that it has just wr",
    ("max_to_keep", "true"): "must be a whole number of at least 1, or `unlimited` or `off`; found",
    ("max_to_keep", "on"): "found `on`",
    ("max_to_keep", '"5"'): "must be written without quotes: 5",
    ("max_to_keep", "'5'"): "must be written without quotes: 5",
    ("max_to_keep", "|\n    5"): "found `5\\n`",
    ("max_to_keep", "1:30"): "found `1:30`",
    (
        "max_to_keep",
        "0644",
    ): "found `0644`: without a 0 in front, which some programs take for octal",
    ("max_to_keep", "0x10"): "found `0x10`",
    ("max_to_keep", "0o17"): "found `0o17`",
    ("max_to_keep", "0b11"): "found `0b11`",
    ("max_to_keep", "1_000"): "found `1_000`: digits only: 1000",
    ("max_to_keep", "1,000"): "found `1,000`: digits only: 1000",
    ("max_to_keep", "1e3"): "found `1e3`",
    ("max_to_keep", "+5"): "found `+5`",
    ("max_to_keep", "5.0"): "found `5.0`",
    ("max_to_keep", ".inf"): "found `.inf`",
    ("max_to_keep", "\u0665"): "found `\u0665`",
    ("max_to_keep", "5 6"): "found `5 6`",
    (
        "max_to_keep",
        "3-20",
    ): "a range is not supported yet, it matters only with max_bytes and min_f",
    ("max_to_keep", "2147483648"): "the largest is 2147483647",
    ("max_to_keep", "9" * 5000): "the largest is 2147483647",
    ("max_to_keep", "Unlimited"): "found `Unlimited`",
    ("max_to_keep", "null"): "found nothing",
    ("max_to_keep", "~"): "found nothing",
    ("max_to_keep", "[5]"): "found a list",
    ("max_to_keep", "{n: 5}"): "found a mapping",
    ("keep_checkpoint_every_n_hours", "0"): "with 0, TensorFlow's Saver keeps every checkpoint and "
    "its CheckpointManager keeps none",
    ("keep_checkpoint_every_n_hours", "0.0"): "with 0, TensorFlow's Saver keeps every checkpoint",
    ("keep_checkpoint_every_n_hours", "1e-400"): "with 0, TensorFlow's Saver keeps every",
    ("keep_checkpoint_every_n_hours", "-2"): "must be a number of hours above 0",
    ("keep_checkpoint_every_n_hours", "2h"): "hours are written without a unit: 2",
    ("keep_checkpoint_every_n_hours", "30m"): "hours are written without a unit: 0.5",
    ("keep_checkpoint_every_n_hours", "1:30"): "found `1:30`",
    ("keep_checkpoint_every_n_hours", ".inf"): "found `.inf`",
    ("keep_checkpoint_every_n_hours", "inf"): "found `inf`",
    ("keep_checkpoint_every_n_hours", ".nan"): "found `.nan`",
    ("keep_checkpoint_every_n_hours", "1e999"): "the largest is 873600, a hundred years",
    ("keep_checkpoint_every_n_hours", "873601"): "the largest is 873600, a hundred years",
    ("keep_checkpoint_every_n_hours", '"2"'): "must be written without quotes: 2",
    ("keep_every_n_steps", "0"): "for no such rule, write off",
    ("keep_every_n_steps", "unlimited"): "must be a whole number of at least 1, or `off`",
    ("keep_steps", "100"): "must be a list such as [1000, 20000], or `off`; found `100`",
    ("keep_steps", "100,200"): "must be a list such as [1000, 20000], or `off`; found `100,200`",
    ("keep_steps", "{a: 1}"): "found a mapping",
    ("keep_steps", ""): "found nothing",
    ("keep_within", "0s"): "for no such rule, write off",
    ("keep_within", "6"): "a unit is missing, such as in 6s or 6m",
    ("keep_within", "6H"): "the units are s, m, h, d and w, in small letters and without a space",
    ("keep_within", "6 h"): "the units are s, m, h, d and w, in small letters and without a space",
    ("keep_within", "1h30m"): "one number and one unit, such as 90m for an hour and a half",
    ("keep_within", "-1h"): "must be a duration above 0 such as 90s",
    ("keep_hourly", "0"): "for no such rule, write off",
    ("keep_daily", "-1"): "must be a whole number of at least 1, or `off`; found `-1`",
    ("keep_weekly", "1w"): "found `1w`",
    ("meta_graph", "no"): "must be `share` or `off`; found `no`",
    ("meta_graph", "false"): "must be `share` or `off`; found `false`",
    ("trash", "on"): "must be a duration above 0",
    ("trash", "0s"): "for no trash at all, write off",
    ("trash", "3600"): "a unit is missing, such as in 3600s",
    ("trash", "[1h]"): "found a list",
    ("trash", ""): "found nothing",
    ("max_removals_per_sweep", "0"): "nothing would ever be removed",
    ("max_removals_per_sweep", "off"): "must be a whole number of at least 1, or `unlimited`",
    ("min_age", "600"): "a unit is missing",
    ("min_age", "off"): "must be a duration such as 90s",
}

INSIDE = {
    "a step twice": Refusal(
        kept("keep_steps: [1, 2, 1]"), 5, 22, "model_dirs[0].keep_steps[2]", "1 stands in this list"
    ),
    "a step in quotes": Refusal(
        kept('keep_steps: [1, "2"]'), 5, 19, "model_dirs[0].keep_steps[1]", "without quotes: 2"
    ),
    "a step below 0": Refusal(
        kept("keep_steps: [-1]"), 5, 16, "model_dirs[0].keep_steps[0]", "of at least 0; found `-1`"
    ),
    "a step beyond int64": Refusal(
        kept("keep_steps: [9223372036854775808]"),
        5,
        16,
        "model_dirs[0].keep_steps[0]",
        "the largest is 9223372036854775807",
    ),
    "a step that is a list": Refusal(
        kept("keep_steps: [[1]]"), 5, 16, "model_dirs[0].keep_steps[0]", "found a list"
    ),
    "an alias as a step": Refusal(
        kept("keep_steps: [*a]"), 5, 16, "model_dirs[0].keep_steps[0]", "aliases (`*a`)"
    ),
    "trash.keep_for of 0": Refusal(
        kept("trash: {keep_for: 0s}"), 5, 21, "model_dirs[0].trash.keep_for", "write trash: off"
    ),
    "trash.checkpoints of 0": Refusal(
        kept("trash: {checkpoints: 0}"), 5, 24, "model_dirs[0].trash.checkpoints", "trash: off"
    ),
    "an unknown key of trash": Refusal(
        kept("trash: {keep: 1h}"), 5, 11, "model_dirs[0].trash.keep", "did you mean `keep_for`?"
    ),
}

NO_RULE = "no rule keeps anything here, so nothing would ever be removed"
IDLE = "can never matter: max_to_keep: unlimited (line {}) keeps everything"

TOGETHER = {
    "no rule": Refusal(entry(), 3, 3, "model_dirs[0]", NO_RULE),
    "no rule, and limits": Refusal(
        entry("min_age: 1h", "trash: off"), 3, 3, "model_dirs[0]", NO_RULE
    ),
    "rules that are all off": Refusal(
        "version: 1\ndefaults: {max_to_keep: 5}\nmodel_dirs:\n"
        "- {path: /m, max_to_keep: off, keep_steps: []}\n",
        4,
        3,
        "model_dirs[0]",
        NO_RULE,
    ),
    "a policy without rules": Refusal(
        "version: 1\npolicies: {a: {}}\nmodel_dirs:\n- {path: /m, policy: a}\n",
        4,
        3,
        "model_dirs[0]",
        NO_RULE,
    ),
    "no rule, and another mistake elsewhere": Refusal(
        entry() + "- path: /n\n  max_to_keep: 5\n", 3, 3, "model_dirs[0]", NO_RULE
    ),
    "a policy that there is not": Refusal(
        "version: 1\npolicies: {vision: {max_to_keep: 5}}\nmodel_dirs:\n- {path: /m, policy: vison}",
        4,
        22,
        "model_dirs[0].policy",
        "there is no `vison` in policies; did you mean `vision`?",
    ),
    "a policy where there is none": Refusal(
        entry("policy: vision"), 4, 11, "model_dirs[0].policy", "there is no `vision` in policies"
    ),
    "unlimited, and a rule": Refusal(
        entry("max_to_keep: unlimited", "keep_daily: 7"),
        5,
        3,
        "model_dirs[0].keep_daily",
        IDLE.format(4),
    ),
    "unlimited in a policy that nobody uses, and a rule": Refusal(
        top("policies: {a: {keep_within: 1h, max_to_keep: unlimited}}"),
        2,
        16,
        "policies.a.keep_within",
        IDLE.format(2),
    ),
    "unlimited by default, and a rule of an entry": Refusal(
        "version: 1\ndefaults: {max_to_keep: unlimited}\nmodel_dirs:\n- {path: /m, keep_steps: [1]}",
        4,
        14,
        "model_dirs[0].keep_steps",
        IDLE.format(2),
    ),
    "unlimited by default, and a rule of a policy that two entries use": Refusal(
        "version: 1\ndefaults: {max_to_keep: unlimited}\npolicies: {a: {keep_daily: 7}}\n"
        "model_dirs:\n- {path: /m, policy: a}\n- {path: /n, policy: a}\n",
        3,
        16,
        "policies.a.keep_daily",
        IDLE.format(2),
    ),
    "a path twice": Refusal(
        "version: 1\ndefaults: {max_to_keep: 5}\nmodel_dirs:\n- path: /m/*\n- path: /m/./*/\n",
        5,
        9,
        "model_dirs[1].path",
        "is the path of model_dirs[0] (line 4) already",
    ),
    "a path that an earlier one takes": Refusal(
        "version: 1\ndefaults: {max_to_keep: 5}\nmodel_dirs:\n- path: /m/*\n- path: /m/resnet\n",
        5,
        9,
        "model_dirs[1].path",
        "belongs to model_dirs[0] (line 4) already, whose path /m/* matches it: move this entry",
    ),
}


@pytest.mark.parametrize("refusal", NOT_EVEN_A_TREE.values(), ids=NOT_EVEN_A_TREE)
def test_what_is_no_tree_of_yaml_is_refused(refusal):
    check(refusal)


@pytest.mark.parametrize("refusal", NOT_SUPPORTED.values(), ids=NOT_SUPPORTED)
def test_the_surprising_parts_of_yaml_are_refused(refusal):
    check(refusal)


@pytest.mark.parametrize("refusal", KEYS.values(), ids=KEYS)
def test_a_wrong_key_is_refused(refusal):
    check(refusal)


@pytest.mark.parametrize("refusal", VALUES.values(), ids=VALUES)
def test_a_wrong_value_is_refused(refusal):
    check(refusal)


@pytest.mark.parametrize(("path", "message"), PATHS.items(), ids=PATHS)
def test_a_path_that_does_not_say_which_directory_is_refused(path, message):
    text = f"version: 1\nmodel_dirs:\n- path: {path}\n  max_to_keep: 3\n"
    check(Refusal(text, 3, 9, "model_dirs[0].path", message))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [(name, text, message) for (name, text), message in POLICY_VALUES.items()],
    ids=[f"{name}: {text[:12]}" for name, text in POLICY_VALUES],
)
def test_a_wrong_value_of_a_policy_key_is_refused(name, text, message):
    other = "keep_steps: [7]" if name != "keep_steps" else "max_to_keep: 5"
    column = len(f"  {name}: ") + 1 - (not text)

    check(
        Refusal(
            entry(other, f"{name}: {text}".rstrip()), 5, column, f"model_dirs[0].{name}", message
        )
    )


@pytest.mark.parametrize("refusal", INSIDE.values(), ids=INSIDE)
def test_a_wrong_value_inside_a_value_is_refused_at_its_own_place(refusal):
    check(refusal)


@pytest.mark.parametrize("refusal", TOGETHER.values(), ids=TOGETHER)
def test_keys_that_make_no_sense_together_are_refused(refusal):
    check(refusal)


def test_all_problems_are_told_at_once_in_the_order_of_the_text():
    text = (
        "version: 2\n"
        "sockt: /s\n"
        "defaults: {keep_daily: 0}\n"
        "model_dirs:\n"
        "- path: models\n"
        "  max_to_keep: 0644\n"
        "  max_to_keep: 5\n"
        "- path: /m\n"
        "  policy: vision\n"
        "  trash: {keep_for: 5}\n"
    )

    assert [(p.line, p.column, p.key) for p in problems_in(text)] == [
        (1, 10, "version"),
        (2, 1, "sockt"),
        (3, 24, "defaults.keep_daily"),
        (5, 9, "model_dirs[0].path"),
        (6, 16, "model_dirs[0].max_to_keep"),
        (7, 3, "model_dirs[0].max_to_keep"),
        (9, 11, "model_dirs[1].policy"),
        (10, 21, "model_dirs[1].trash.keep_for"),
    ]


@pytest.mark.parametrize(
    "lost",
    [
        "default: {max_to_keep: 5}",
        "defaults: [max_to_keep]",
        "max_to_keep: 5",
        "<<: {max_to_keep: 5}",
        "defaults: {max_to_keep: 0}",
    ],
)
def test_a_rule_lost_by_a_mistake_is_one_problem_not_one_for_each_entry(lost):
    text = f"version: 1\n{lost}\nmodel_dirs:\n- path: /m\n- path: /n\n"

    assert len(problems_in(text)) == 1


def test_an_unreadable_list_of_policies_is_one_problem_not_one_for_each_entry():
    assert len(problems_in("version: 1\npolicies: 5\nmodel_dirs:\n- {path: /m, policy: a}\n")) == 1


def test_a_mistake_that_loses_no_rule_hides_no_missing_rule():
    text = "version: 2\nlog: {level: loud}\nmodel_dirs:\n- path: /m\n"

    assert [p.key for p in problems_in(text)] == ["version", "log.level", "model_dirs[0]"]


def test_a_problem_stops_no_search_in_what_has_an_anchor_or_a_tag():
    text = "version: 1\nlog: &l {level: loud}\ndefaults: !!map {max_to_keep: 0}\n"

    assert [p.key for p in problems_in(text)] == [
        "log",
        "log.level",
        "defaults",
        "defaults.max_to_keep",
    ]


def test_the_first_of_two_documents_is_checked_too():
    assert [p.line for p in problems_in("version: 2\n---\nversion: 1\n")] == [1, 2]


def test_lines_are_counted_as_editors_count_them():
    assert [p.line for p in problems_in("\ufeff# a\r\n# b\nversion: 2\r\n")] == [3]


def test_columns_are_characters_after_a_byte_order_mark():
    assert [p.column for p in problems_in("\ufeffversion: 2".encode())] == [10]


def test_the_source_cannot_forge_a_line():
    with pytest.raises(ConfigError) as caught:
        load_config("version: 2", "a\nb.yaml")

    assert str(caught.value) == "a\\nb.yaml:1:10: version: must be 1; found `2`"


def test_thousands_of_mistakes_are_told_in_bounded_time():
    text = "version: 1\n" + "".join(f"k{n}: 1\n" for n in range(20_000))

    assert len(problems_in(text)) == 20_000
