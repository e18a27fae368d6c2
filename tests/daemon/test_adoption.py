"""Which directories a configuration means."""

from daemon.harness import keeping
from hypothesis import given
from hypothesis import strategies as st

from ckptd.config.values import ModelDirs
from ckptd.daemon.adoption import search


def found(*entries):
    watched: list[str] = []
    result = search(entries, watched.append)
    return result, watched


def test_each_directory_belongs_to_the_first_entry_that_matches(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    one, rest = keeping(tmp_path / "b"), keeping(tmp_path / "*")
    result, _ = found(one, rest)

    assert {c.path.rpartition("/")[2]: c.entry for c in result.found} == {
        "a": rest,
        "b": one,
        "c": rest,
    }


def test_what_is_listed_is_watched_first(tmp_path):
    (tmp_path / "a" / "run").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    result, watched = found(keeping(tmp_path / "*" / "run"))

    assert [c.path for c in result.found] == [str(tmp_path / "a" / "run")]
    assert set(watched) == {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "b")}


def test_the_nearest_existing_directory_is_watched_for_a_missing_one(tmp_path):
    result, watched = found(keeping(tmp_path / "x" / "y" / "run"), keeping(tmp_path / "z" / "*"))

    assert watched == [str(tmp_path), str(tmp_path)]
    assert [path for path, _ in result.missing] == [str(tmp_path / "x" / "y" / "run")]


def test_one_directory_under_two_names_is_found_once(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "run")
    result, _ = found(keeping(tmp_path / "alias"), keeping(tmp_path / "run"))

    assert [(c.path, c.real_path) for c in result.found] == [
        (str(tmp_path / "alias"), str(tmp_path / "run"))
    ]


def test_ckptds_own_directories_are_no_runs(tmp_path):
    (tmp_path / "run" / ".ckptd").mkdir(parents=True)
    result, _ = found(keeping(tmp_path / "*" / ".*"))

    assert result.found == ()


NAMES = st.text("ab.*?[]", min_size=1, max_size=3).filter(lambda name: name not in {".", ".."})


@given(st.sets(NAMES, max_size=5), NAMES)
def test_it_finds_what_the_entry_matches(tmp_path_factory, names, pattern):
    top = tmp_path_factory.mktemp("models")
    for name in names:
        (top / name).mkdir()
    entry = ModelDirs(path=f"{top}/{pattern}")
    result, _ = found(entry)

    assert {c.path for c in result.found} == {
        f"{top}/{name}" for name in names if entry.matches(f"{top}/{name}")
    }
