"""What a configuration may say, what holds where it is silent, and where each value comes from."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ckptd.config.load import BUILT_IN, load_config
from ckptd.config.values import Config, LogSettings, ModelDirs
from ckptd.errors import ConfigError, ConfigProblem
from ckptd.retention.policy import UNLIMITED, Policy, Trash


def load(text: str | bytes) -> Config:
    return load_config(text, "ckptd.yaml")


def policy(*lines: str) -> Policy:
    body = "".join(f"  {line}\n" for line in lines)
    return load(f"version: 1\nmodel_dirs:\n- path: /m\n{body}").model_dirs[0].policy


LAYERS = """\
version: 1
defaults:
  max_to_keep: 3
  min_age: 10m
  trash: off
policies:
  vision:
    max_to_keep: 5
    keep_daily: 7
model_dirs:
- path: /srv/vision/*
  policy: vision
  keep_daily: 2
- path: /srv/models
"""


def test_the_least_configuration_is_a_version():
    assert load("version: 1\n") == Config(
        version=1, socket=None, rescan_interval=60.0, log=LogSettings(), model_dirs=()
    )


def test_every_top_level_key_is_read():
    text = (
        "version: 1\nsocket: /run//ckptd/./s\nrescan_interval: 90s\nlog: {level: debug, format: json}\n"
        "model_dirs: [{path: /m/, max_to_keep: 2}]\n"
    )

    assert load(text) == Config(
        version=1,
        socket="/run/ckptd/s",
        rescan_interval=90.0,
        log=LogSettings(level="debug", format="json"),
        model_dirs=(ModelDirs(path="/m", policy=Policy(max_to_keep=2)),),
    )


@pytest.mark.parametrize("key", ["defaults", "policies", "log", "model_dirs"])
def test_a_mapping_or_list_whose_lines_are_all_comments_is_an_empty_one(key):
    assert load(f"version: 1\n{key}:\n  # max_to_keep: 5\n") == load("version: 1")


def test_an_entry_comes_before_its_policy_and_a_policy_before_the_defaults():
    first, second = load(LAYERS).model_dirs

    assert (first.path, first.policy_name) == ("/srv/vision/*", "vision")
    assert first.policy == Policy(max_to_keep=5, keep_daily=2, min_age=600.0, trash=None)
    assert (second.path, second.policy_name) == ("/srv/models", None)
    assert second.policy == Policy(max_to_keep=3, min_age=600.0, trash=None)


def test_every_policy_key_tells_its_origin():
    first, second = load(LAYERS).model_dirs

    assert first.origins["max_to_keep"] == "ckptd.yaml:8 (policy vision)"
    assert first.origins["keep_daily"] == "ckptd.yaml:13 (model_dirs[0])"
    assert first.origins["min_age"] == "ckptd.yaml:4 (defaults)"
    assert first.origins["keep_weekly"] == BUILT_IN
    assert second.origins["keep_daily"] == BUILT_IN
    assert first.origins.keys() == second.origins.keys() == set(Policy.__dataclass_fields__)


def test_an_entry_whose_lines_have_moved_is_the_same_entry():
    moved = load("# one more line\n" + LAYERS)

    assert moved == load(LAYERS)
    assert moved.model_dirs[0].origins != load(LAYERS).model_dirs[0].origins


def test_an_entry_switches_a_rule_of_the_defaults_off():
    text = "version: 1\ndefaults: {max_to_keep: 5, keep_steps: [1]}\nmodel_dirs:\n- path: /m\n"
    entry = load(text + "  max_to_keep: off\n  keep_steps: off\n  keep_daily: 3\n").model_dirs[0]

    assert entry.policy == Policy(keep_daily=3)


def test_an_entry_keeps_everything_whatever_rules_the_defaults_have():
    text = "version: 1\ndefaults: {max_to_keep: 5, keep_daily: 7}\nmodel_dirs:\n- path: /m\n"
    entry = load(text + "  max_to_keep: unlimited\n").model_dirs[0]

    assert entry.policy.max_to_keep == UNLIMITED


def test_a_policy_that_no_entry_names_is_no_mistake():
    assert load("version: 1\npolicies: {later: {max_to_keep: 5}, empty: }\n").model_dirs == ()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("max_to_keep: 5", Policy(max_to_keep=5)),
        ("max_to_keep: 2147483647", Policy(max_to_keep=2**31 - 1)),
        ("max_to_keep: unlimited", Policy(max_to_keep=UNLIMITED)),
        ('max_to_keep: "unlimited"', Policy(max_to_keep=UNLIMITED)),
        ('"max_to_keep": 5', Policy(max_to_keep=5)),
        ("keep_checkpoint_every_n_hours: 2", Policy(keep_checkpoint_every_n_hours=2.0)),
        ("keep_checkpoint_every_n_hours: 0.5", Policy(keep_checkpoint_every_n_hours=0.5)),
        ("keep_checkpoint_every_n_hours: 1e-3", Policy(keep_checkpoint_every_n_hours=0.001)),
        ("keep_checkpoint_every_n_hours: 10000.0", Policy(keep_checkpoint_every_n_hours=10000.0)),
        ("keep_every_n_steps: 1000", Policy(keep_every_n_steps=1000)),
        ("keep_steps: [200, 0, 100]", Policy(keep_steps=(0, 100, 200))),
        ("keep_steps:\n  - 9223372036854775807", Policy(keep_steps=(2**63 - 1,))),
        ("keep_within: 1.5h", Policy(keep_within=5400.0)),
        ("keep_within: '7d'", Policy(keep_within=604_800.0)),
        ("keep_hourly: 24", Policy(keep_hourly=24)),
        ("keep_daily: 7", Policy(keep_daily=7)),
        ("keep_weekly: 4", Policy(keep_weekly=4)),
    ],
)
def test_a_rule_is_read(line, expected):
    assert policy(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("meta_graph: off", Policy(max_to_keep=1, meta_graph="off")),
        ('meta_graph: "share"', Policy(max_to_keep=1, meta_graph="share")),
        ("trash: off", Policy(max_to_keep=1, trash=None)),
        ("trash: 2d", Policy(max_to_keep=1, trash=Trash(seconds=172_800.0))),
        ("trash: {}", Policy(max_to_keep=1, trash=Trash())),
        ("trash: {checkpoints: 9}", Policy(max_to_keep=1, trash=Trash(checkpoints=9))),
        (
            "trash: {keep_for: 90s, checkpoints: 1}",
            Policy(max_to_keep=1, trash=Trash(seconds=90.0, checkpoints=1)),
        ),
        ("max_removals_per_sweep: 1", Policy(max_to_keep=1, max_removals_per_sweep=1)),
        (
            "max_removals_per_sweep: unlimited",
            Policy(max_to_keep=1, max_removals_per_sweep=UNLIMITED),
        ),
        ("min_age: 0s", Policy(max_to_keep=1, min_age=0.0)),
        ("min_age: 4w", Policy(max_to_keep=1, min_age=2_419_200.0)),
    ],
)
def test_a_limit_is_read(line, expected):
    assert policy("max_to_keep: 1", line) == expected


def test_a_path_is_made_plain():
    text = "version: 1\nmodel_dirs:\n- path: //srv/./models//run 1/\n  max_to_keep: 1\n"

    assert load(text).model_dirs[0].path == "/srv/models/run 1"


@pytest.mark.parametrize(
    ("path", "directory", "expected"),
    [
        ("/srv/models", "/srv/models", True),
        ("/srv/models", "/srv/models/resnet", False),
        ("/srv/*", "/srv/models", True),
        ("/srv/*", "/srv", False),
        ("/srv/*", "/srv/.hidden", False),
        ("/srv/.*", "/srv/.hidden", True),
        ("/srv/*/ckpt", "/srv/a/ckpt", True),
        ("/srv/*/ckpt", "/srv/a/b/ckpt", False),
        ("/srv/run-?", "/srv/run-1", True),
        ("/srv/run-[0-9]", "/srv/run-x", False),
        ("/srv/gl[[]1]", "/srv/gl[1]", True),
        ("/srv/gl[1]", "/srv/gl[1]", False),
    ],
)
def test_a_path_names_directories_as_a_shell_would(path, directory, expected):
    assert ModelDirs(path=path).matches(directory) is expected


def test_a_directory_belongs_to_the_first_entry_that_matches_it():
    config = load(
        "version: 1\ndefaults: {max_to_keep: 1}\nmodel_dirs:\n- path: /m/resnet\n- path: /m/*\n"
    )

    assert config.entry_for("/m/resnet") is config.model_dirs[0]
    assert config.entry_for("/m/other") is config.model_dirs[1]
    assert config.entry_for("/n") is None


def test_the_largest_text_is_read():
    text = "version: 1 #"

    assert load(text + "x" * (256 * 1024 - len(text))) == load(text)


def test_bytes_and_text_read_alike():
    assert load(LAYERS.encode()) == load(LAYERS) == load(b"\xef\xbb\xbf" + LAYERS.encode())


def problems_in(text: str | bytes) -> tuple[ConfigProblem, ...]:
    """Return what is wrong with `text`; anything but ConfigError is a failure."""
    try:
        load(text)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - an error that names no problem helps nobody
        return error.problems
    return ()


def check_problems(text: str | bytes) -> None:
    problems = problems_in(text)

    assert [(p.line, p.column) for p in problems] == sorted((p.line, p.column) for p in problems)
    assert all(str(problem).isprintable() for problem in problems)


@given(st.text() | st.binary())
@example("[" * 2000)
@example("{a: " * 2000)
@example("? " * 2000)
@example("&a [*a]")
@example('"\\U00110000"')
@example("- !!python/object/apply:os.system [true]")
def test_no_text_raises_anything_but_its_problems(text):
    check_problems(text)


WORDS = st.sampled_from(
    """version 1 socket log level defaults policies model_dirs path policy /m /m/* max_to_keep off
    unlimited keep_steps trash keep_for 1h keep_daily meta_graph : ? - [ ] { } , & * ! | > ' " # % @ ` <<
    --- ... ~ 0 -1""".split()  # noqa: SIM905 - fifty lines of one word each say no more
)


@given(st.lists(st.tuples(WORDS, st.sampled_from(["", " ", "\n", "\n  ", ": ", "\t"]))))
def test_no_arrangement_of_its_words_raises_anything_but_its_problems(parts):
    check_problems("version: 1\n" + "".join(word + space for word, space in parts))


VALUES = st.recursive(
    st.sampled_from(["off", "5", "1h", "/m", "vision", "unlimited", "share", "", "null", "'5'"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(
            st.sampled_from(["max_to_keep", "path", "policy", "keep_for", "level", "vision"]),
            inner,
            max_size=3,
        ).map(lambda d: "{" + ", ".join(f"{k}: {v}" for k, v in d.items()) + "}"),
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["version", "socket", "log", "defaults", "policies", "model_dirs"]), VALUES
    )
)
def test_no_shape_of_value_under_any_key_raises_anything_but_its_problems(values):
    check_problems("".join(f"{name}: {value}\n" for name, value in values.items()))
