"""The table of keys: one row for each field, parsed alike from YAML and from a command line."""

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ckptd.config.keys import (
    LOG_KEYS,
    MODEL_DIRS_KEYS,
    POLICY_KEYS,
    TOP_LEVEL_KEYS,
    TRASH_KEYS,
)
from ckptd.config.scalars import Count, Duration, Hours
from ckptd.config.shapes import Key
from ckptd.config.values import Config, LogSettings
from ckptd.retention.policy import UNLIMITED, Policy, Trash

EVERY_KEY = {
    f"{table}.{name}": key
    for table, keys in {
        "top": TOP_LEVEL_KEYS,
        "log": LOG_KEYS,
        "model_dirs": MODEL_DIRS_KEYS,
        "trash": TRASH_KEYS,
    }.items()
    for name, key in keys.items()
}


def test_the_policy_keys_are_the_fields_of_a_policy_with_its_defaults():
    assert {name: key.default for name, key in POLICY_KEYS.items()} == {
        field.name: getattr(Policy(), field.name) for field in dataclasses.fields(Policy)
    }


def test_the_other_defaults_are_those_of_the_values():
    assert {name: key.default for name, key in LOG_KEYS.items()} == dataclasses.asdict(
        LogSettings()
    )
    assert [key.default for key in TRASH_KEYS.values()] == [Trash().seconds, Trash().checkpoints]
    for name in ("socket", "rescan_interval", "log", "model_dirs"):
        assert TOP_LEVEL_KEYS[name].default == getattr(Config(version=1), name)


@pytest.mark.parametrize("key", EVERY_KEY.values(), ids=EVERY_KEY)
def test_every_key_is_described_in_whole_sentences(key):
    assert key.description[0].isupper() or key.description.startswith("`")
    assert key.description.endswith(".")
    assert "\n" not in key.description


@pytest.mark.parametrize("key", POLICY_KEYS.values(), ids=POLICY_KEYS)
def test_the_default_of_a_policy_key_can_be_written(key):
    assert key.has_default
    if key.name != "trash":
        assert key.parse(key.format(key.default)) == key.default


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_to_keep", "3", 3),
        ("max_to_keep", "unlimited", UNLIMITED),
        ("max_to_keep", "off", None),
        ("keep_checkpoint_every_n_hours", "2", 2.0),
        ("keep_checkpoint_every_n_hours", "off", None),
        ("keep_steps", "100,200", (100, 200)),
        ("keep_steps", "200, 100", (100, 200)),
        ("keep_steps", "7", (7,)),
        ("keep_steps", "off", ()),
        ("keep_within", "6h", 21_600.0),
        ("meta_graph", "off", "off"),
        ("trash", "off", None),
        ("trash", "6h", Trash(seconds=21_600.0)),
        ("max_removals_per_sweep", "unlimited", UNLIMITED),
        ("min_age", "90s", 90.0),
    ],
)
def test_a_policy_key_reads_a_command_line(name, text, value):
    assert POLICY_KEYS[name].parse(text) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("max_to_keep", "", "must be a whole number of at least 1, or `unlimited` or `off`; found"),
        ("max_to_keep", "five", "found `five`"),
        ("keep_steps", "", "must be a whole number of at least 0; found nothing"),
        ("keep_steps", "1,,2", "must be a whole number of at least 0; found nothing"),
        ("keep_steps", "1,2,1", "names 1 twice"),
        ("keep_steps", "[1]", "found `[1]`"),
        ("trash", "2", "a unit is missing"),
        ("trash", "{keep_for: 1h}", "must be a duration above 0"),
    ],
)
def test_a_policy_key_refuses_a_command_line_and_says_what_would_be_right(name, text, message):
    with pytest.raises(ValueError) as caught:
        POLICY_KEYS[name].parse(text)

    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["log", "defaults", "policies", "model_dirs"])
def test_a_key_with_keys_below_it_reads_no_single_text(name):
    with pytest.raises(ValueError, match="found `text`"):
        TOP_LEVEL_KEYS[name].parse("text")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("max_to_keep", UNLIMITED, "unlimited"),
        ("keep_checkpoint_every_n_hours", 2.0, "2"),
        ("keep_checkpoint_every_n_hours", 0.25, "0.25"),
        ("keep_steps", (1, 20), "[1, 20]"),
        ("keep_within", 5400.0, "90m"),
        ("trash", Trash(), "{keep_for: 1h, checkpoints: 2}"),
        ("trash", None, "off"),
        ("min_age", 1.5, "1.5s"),
    ],
)
def test_a_value_is_written_as_a_person_would(name, value, text):
    assert POLICY_KEYS[name].format(value) == text


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("max_to_keep", "N|unlimited|off"),
        ("keep_checkpoint_every_n_hours", "HOURS|off"),
        ("keep_steps", "N,...|off"),
        ("meta_graph", "share|off"),
        ("trash", "DURATION|off"),
        ("min_age", "DURATION"),
    ],
)
def test_the_form_fits_a_line_of_usage(name, form):
    assert POLICY_KEYS[name].form == form


def test_every_key_has_a_form():
    forms = {name: key.form for name, key in EVERY_KEY.items()}

    assert forms["top.version"] == "1"
    assert forms["top.socket"] == forms["model_dirs.path"] == "PATH"
    assert forms["top.policies"] == "{NAME: {KEY: VALUE, ...}, ...}"
    assert forms["top.model_dirs"] == "[{KEY: VALUE, ...}, ...]"


def refusal(key: Key, text: str) -> str:
    try:
        key.parse(text)
    except ValueError as error:
        return str(error)
    return ""


@given(st.text())
def test_no_text_raises_anything_but_one_printable_line(text):
    for key in EVERY_KEY.values():
        assert all(map(str.isprintable, refusal(key, text)))


@given(st.integers(1, 2**31 - 1))
def test_a_count_reads_what_it_writes(value):
    assert Count().parse(str(Count().to_json(value))) == value


@given(st.floats(1e-9, 800_000))
@example(0.00012345678901234567)
def test_hours_read_what_they_write(value):
    assert Hours().parse(str(Hours().to_json(value))) == value


@given(st.integers(0, 3_000_000_000) | st.decimals(0, 10**9, places=6))
def test_a_duration_reads_what_it_writes(value):
    assert Duration().parse(Duration().to_json(float(value))) == float(value)
