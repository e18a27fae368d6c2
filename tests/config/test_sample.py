"""The sample and the JSON Schema agree with the table of keys and with each other."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ckptd.config.keys import (
    LOG_KEYS,
    MODEL_DIRS_KEYS,
    POLICY_KEYS,
    TOP_LEVEL_KEYS,
    TRASH_KEYS,
)
from ckptd.config.load import load_config
from ckptd.config.schema import json_schema
from ckptd.config.values import Config
from ckptd.errors import ConfigError
from ckptd.retention.policy import Policy

FOLDER = Path(__file__).parents[2] / "config"
SAMPLE = (FOLDER / "ckptd.yaml").read_text(encoding="utf-8")
COMMENTED_KEY = re.compile(r"^( *)#(?=[a-z])", re.MULTILINE)


class EditorLoader(yaml.SafeLoader):
    """Reads YAML 1.2 (core schema), as the editors do that check by a JSON Schema."""


EditorLoader.yaml_implicit_resolvers = {}
for tag, pattern, first in [
    ("tag:yaml.org,2002:bool", r"true|false", "tf"),
    ("tag:yaml.org,2002:null", r"~|null|", ["~", "n", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    ("tag:yaml.org,2002:float", r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?", "-+0123456789"),
]:
    EditorLoader.add_implicit_resolver(tag, re.compile(f"(?:{pattern})$"), list(first))
EditorLoader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(str(node.value)))


def as_an_editor_reads(text: str) -> Any:
    return yaml.load(text, Loader=EditorLoader)


def is_valid(text: str) -> bool:
    return bool(jsonschema.Draft7Validator(json_schema()).is_valid(as_an_editor_reads(text)))


def uncommented(text: str) -> str:
    return COMMENTED_KEY.sub(r"\1", text)


def prose_of_the_sample() -> str:
    lines = [line.strip().removeprefix("# ") for line in SAMPLE.splitlines() if "# " in line]
    return " ".join(lines)


def commented_lines() -> list[str]:
    return [line.strip() for line in SAMPLE.splitlines() if COMMENTED_KEY.match(line)]


def one_uncommented(line: str) -> str:
    (index,) = [n for n, each in enumerate(SAMPLE.splitlines()) if each.strip() == line]
    lines = SAMPLE.splitlines()
    lines[index] = uncommented(lines[index])
    return "\n".join(lines)


@pytest.mark.processes
def test_the_schema_file_is_made_of_the_table_of_keys():
    """To rewrite it: python -m ckptd.config.schema > config/ckptd.schema.json"""
    command = [sys.executable, "-m", "ckptd.config.schema"]
    made = subprocess.run(command, check=True, capture_output=True, cwd=FOLDER.parent).stdout

    assert (FOLDER / "ckptd.schema.json").read_bytes() == made
    assert json.loads(made) == json_schema()


def test_the_schema_is_one():
    jsonschema.Draft7Validator.check_schema(json_schema())


def test_the_sample_loads():
    config = load_config(SAMPLE, "ckptd.yaml")

    assert [entry.path for entry in config.model_dirs] == ["/srv/models/*"]
    assert config.model_dirs[0].policy == Policy(max_to_keep=5, keep_checkpoint_every_n_hours=2.0)


def test_the_sample_shows_the_defaults_of_all_that_it_does_not_set():
    config = load_config(SAMPLE, "ckptd.yaml")

    assert config == Config(version=1, model_dirs=config.model_dirs)


@pytest.mark.parametrize("line", commented_lines())
def test_each_commented_key_of_the_sample_can_be_uncommented(line):
    load_config(one_uncommented(line), "ckptd.yaml")


def test_the_sample_with_all_its_comments_undone_says_nothing_but_the_defaults():
    text = uncommented(SAMPLE)
    shown = as_an_editor_reads(text)

    load_config(text, "ckptd.yaml")
    for keys, values in [
        (TOP_LEVEL_KEYS, shown),
        (LOG_KEYS, shown["log"]),
        (POLICY_KEYS, shown["defaults"]),
        (TRASH_KEYS, shown["defaults"]["trash"]),
    ]:
        assert values.keys() == keys.keys()
        for name, key in keys.items():
            if key.has_default and name not in {"log", "defaults", "policies", "model_dirs"}:
                assert values[name] == key.shape.to_json(key.default), name
    entry = shown["model_dirs"][0]
    assert entry.keys() >= MODEL_DIRS_KEYS.keys() - POLICY_KEYS.keys()


@pytest.mark.parametrize(
    "key",
    [*TOP_LEVEL_KEYS.values(), *LOG_KEYS.values(), *MODEL_DIRS_KEYS.values()],
    ids=lambda key: key.name,
)
def test_the_sample_describes_every_key_in_the_words_of_the_table(key):
    assert key.description in prose_of_the_sample()


def test_the_sample_fits_a_terminal():
    assert max(map(len, SAMPLE.splitlines())) <= 100


@pytest.mark.parametrize("text", [SAMPLE, uncommented(SAMPLE)], ids=["as it is", "uncommented"])
def test_the_sample_is_valid_by_the_schema(text):
    assert is_valid(text)


def test_the_sample_names_the_schema_beside_it():
    (name,) = re.findall(r"\$schema=(\S+)", SAMPLE)

    assert (FOLDER / name).exists()


@pytest.mark.parametrize(
    ("name", "key"),
    [(name, key) for name, key in TOP_LEVEL_KEYS.items() if name not in {"version", "policies"}],
)
def test_the_example_of_a_key_loads_and_is_valid(name, key):
    text = f"version: 1\n{name}: {key.example}\n"

    load_config(text, "ckptd.yaml")
    assert is_valid(text)


def entry(name: str, text: str) -> str:
    other = "keep_steps: [7]" if name == "max_to_keep" else "max_to_keep: 5"
    return f"version: 1\nmodel_dirs:\n- path: /m\n  {other}\n  {name}: {text}\n"


@pytest.mark.parametrize("key", POLICY_KEYS.values(), ids=POLICY_KEYS)
def test_the_example_and_the_default_of_a_policy_key_load_and_are_valid(key):
    for text in (key.example, key.format(key.default)):
        load_config(entry(key.name, text), "ckptd.yaml")
        assert is_valid(entry(key.name, text)), text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("max_to_keep", "0"),
        ("max_to_keep", "5.5"),
        ("max_to_keep", '"5"'),
        ("max_to_keep", "true"),
        ("max_to_keep", "3-20"),
        ("max_to_kep", "3"),
        ("keep_checkpoint_every_n_hours", "0"),
        ("keep_checkpoint_every_n_hours", "2h"),
        ("keep_steps", "7"),
        ("keep_steps", "[1, 1]"),
        ("keep_within", "6"),
        ("keep_within", "1h30m"),
        ("meta_graph", "on"),
        ("trash", "{keep: 1h}"),
        ("trash", "3600"),
        ("min_age", "off"),
        ("max_bytes", "5GB"),
        ("path", "/n"),
    ],
)
def test_an_editor_and_the_daemon_refuse_alike(name, text):
    with pytest.raises(ConfigError):
        load_config(entry(name, text), "ckptd.yaml")
    if name != "path":  # a key twice is beyond a schema
        assert not is_valid(entry(name, text))


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\ndefaults:\npolicies:\nlog:\nmodel_dirs:\n",
        "version: 1\nmodel_dirs: [{path: /m, trash: 1h, keep_steps: [1, 2], max_to_keep: 'off'}]",
        "version: 1\npolicies: {a: {keep_checkpoint_every_n_hours: 1e-3}, b: }\n",
    ],
)
def test_an_editor_and_the_daemon_accept_alike(text):
    load_config(text, "ckptd.yaml")
    assert is_valid(text)
