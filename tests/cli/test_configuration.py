"""`check-config`, and the verbs that take their policy from a configuration."""

import pytest

GOOD = """\
version: 1
defaults: {max_to_keep: 1}
policies:
  wide: {max_to_keep: 2, min_age: 10m}
model_dirs:
  - {path: PLACE/wide-*, policy: wide}
  - {path: PLACE/*}
  - {path: PLACE/later/one}
"""


@pytest.fixture
def config(tmp_path):
    """Write a configuration; PLACE stands for the directory of the runs."""

    def write(text=GOOD):
        file = tmp_path / "ckptd.yaml"
        file.write_text(text.replace("PLACE", str(tmp_path / "runs")))
        return file

    return write


@pytest.fixture
def runs(model_directory):
    """Two runs, of which one is of the wide ones."""
    return [model_directory(100, 200, 300, name=name) for name in ("runs/narrow", "runs/wide-1")]


def test_every_problem_is_told_where_it_is(ckptd, config):
    file = config("version: 1\ndefaults: {max_to_keep: 0}\nmodle_dirs: []\n")

    ended = ckptd("check-config", file, "--json")

    assert ended.status == 4
    first, second, _ = ended.err.splitlines()
    assert first.startswith(f"{file}:2:25: defaults.max_to_keep: must be a whole number")
    assert second.startswith(f"{file}:3:1: modle_dirs: ")
    assert [problem["line"] for problem in ended.error["problems"]] == [2, 3]


def test_a_good_one_is_shown_with_what_holds_and_where_it_comes_from(ckptd, config, runs):
    file = config()

    ended = ckptd("check-config", file)

    assert ended.status == 0
    lines = ended.out.splitlines()
    assert lines[0] == f"{file}: good; socket: the default one, rescan_interval: 1m"
    assert lines[1].endswith("wide-*: 1 directory now, policy wide")
    assert lines[2].split() == ["key", "max_to_keep", "2", f"{file}:4", "(policy", "wide)"]
    assert any(line.split()[1:4] == ["min_age", "10m", f"{file}:4"] for line in lines)
    assert any(line.endswith("/*: 1 directory now") for line in lines)
    assert any(line.endswith("built-in") for line in lines)


def test_the_json_of_a_good_one_is_as_its_schema_says(ckptd, config, runs, valid):
    document = ckptd("check-config", config(), "--json").document

    valid(document)
    assert [entry["directories"] for entry in document["model_dirs"]] == [
        [str(runs[1])],
        [str(runs[0])],
        [],
    ]
    assert document["model_dirs"][1]["keys"]["max_to_keep"]["value"] == 1


def test_a_configuration_gives_every_directory_its_policy(ckptd, config, runs):
    ended = ckptd("sweep", "--config", config(), "--json")

    assert ended.status == 0
    assert [len(run.checkpoints()) for run in runs] == [1, 2]
    assert [entry["path"] for entry in ended.document["model_dirs"]] == [str(r) for r in runs]
    assert "later/one: there is no such directory now" in ended.err


def test_a_directory_takes_the_entry_that_matches_it(ckptd, config, runs):
    file = config()

    out = ckptd("plan", runs[1], "--config", file).out

    assert out.startswith(f"{runs[1]}: 2 stay, 1 go")


def test_a_directory_is_matched_by_where_it_leads_to(ckptd, config, runs, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(runs[1].path)

    assert ckptd("plan", link, "--config", config()).out.startswith(f"{runs[1]}: 2 stay, 1 go")


def test_options_come_before_the_configuration(ckptd, config, runs):
    out = ckptd("plan", runs[1], "--config", config(), "--max-to-keep", "off").out

    assert "no rule is set: everything stays" in out


def test_a_directory_of_no_entry_is_refused(ckptd, config, model_directory):
    other = model_directory(100, name="elsewhere")

    ended = ckptd("plan", other, "--config", config())

    assert ended.status == 2
    assert f"no entry of model_dirs in {config()} matches {other}" in ended.err


def test_a_configuration_that_matches_nothing_is_told(ckptd, config):
    ended = ckptd("plan", "--config", config("version: 1\n"))

    assert (ended.status, ended.out) == (0, "")
    assert ended.err == "ckptd: the configuration matches no directory now: nothing to do\n"
    assert ckptd("check-config", config("version: 1\n")).out.endswith(
        "no entry in model_dirs: nothing is watched\n"
    )
