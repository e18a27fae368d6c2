"""`ckptd plan`: says what would happen, and does nothing."""

import os

import pytest

RULE = ("--max-to-keep", 2)


def test_a_plan_says_what_stays_and_goes_and_why(ckptd, model_directory):
    run = model_directory(100, 200, 300)

    ended = ckptd("plan", run, *RULE, "--now", run.clock)

    assert ended.status == 0
    assert ended.err == ""
    lines = ended.out.splitlines()
    assert lines[0].startswith(f"{run}: 2 stay, 1 go: frees ")
    assert lines[1].split()[:3] == ["keep", "300", "m-300"]
    assert lines[1].endswith("30 min  newest, named by the state file, last 1 of 2")
    assert lines[3].split()[:3] == ["remove", "100", "m-100"]
    assert lines[3].endswith("2 h  not in the last 2")


def test_a_plan_changes_nothing_at_all(ckptd, model_directory):
    run = model_directory(100, 200, 300)
    (run.path / "m-400.data-00000-of-00001").write_bytes(b"half")
    before = run.fingerprint()

    for format_ in ((), ("--json",)):
        ckptd("plan", run, *RULE, "--now", run.clock, *format_)

    assert run.fingerprint() == before
    assert not (run.path / ".ckptd").exists()


def test_a_plan_changes_nothing_where_ckptd_has_been_at_work(ckptd, model_directory):
    run = model_directory(100, 200, 300)
    ckptd("sweep", run, *RULE, "--now", run.clock)
    before = run.fingerprint()

    ckptd("plan", run, "--max-to-keep", 1, "--now", run.clock)

    assert run.fingerprint() == before


def test_the_json_of_a_plan_is_as_its_schema_says(ckptd, model_directory, valid):
    run = model_directory(100, 200, 300)
    (run.path / "m-400.data-00000-of-00001").write_bytes(b"half")
    (run.path / "notes.txt").write_text("mine")

    document = ckptd("plan", run, *RULE, "--json", "--now", run.clock).document

    valid(document)
    (entry,) = document["model_dirs"]
    assert entry["path"] == str(run)
    assert [each["name"] for each in entry["keep"]] == ["m-200", "m-300"]
    assert [(each["name"], each["global_step"]) for each in entry["remove"]] == [("m-100", 100)]
    assert [each["name"] for each in entry["partial"]] == ["m-400"]
    assert entry["strangers"] == ["notes.txt"]


def test_without_a_rule_everything_stays_and_the_plan_says_so(ckptd, model_directory):
    run = model_directory(100, 200)

    ended = ckptd("plan", run)

    assert ended.out.splitlines()[0] == f"{run}: 2 stay; no rule is set: everything stays"
    assert "remove" not in ended.out


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--max-to-keep", 2), 5),  # one goes
        (("--max-to-keep", 9), 5),  # none goes, but the state file is to list three
        (("--max-to-keep", "unlimited"), 0),
        ((), 0),
    ],
)
def test_exit_code_tells_whether_there_is_work(ckptd, model_directory, options, status):
    run = model_directory(100, 200, 300)
    (run.path / "checkpoint").write_text(
        'model_checkpoint_path: "m-300"\nall_model_checkpoint_paths: "m-300"\n'
    )

    assert ckptd("plan", run, *options, "--exit-code", "--now", run.clock).status == status
    assert ckptd("plan", run, *options, "--now", run.clock).status == 0


def test_a_directory_that_fails_does_not_stop_the_others(ckptd, model_directory, tmp_path):
    run = model_directory(100)
    missing = tmp_path / "missing"

    ended = ckptd("plan", missing, run)

    assert ended.status == 3
    assert str(run) in ended.out
    assert ended.err == f"ckptd: cannot open {missing}: No such file or directory\n"


def test_now_replaces_the_clock(ckptd, model_directory):
    run = model_directory(100, 200)

    young = ckptd("plan", run, "--max-to-keep", 1, "--min-age", "3h", "--now", run.clock)
    old = ckptd("plan", run, "--max-to-keep", 1, "--min-age", "3h", "--now", run.now + 1e6)

    assert "remove" not in young.out
    assert "remove" in old.out


def test_the_brake_is_told(ckptd, model_directory, valid):
    run = model_directory(*range(1, 6))
    options = ("--max-to-keep", 1, "--max-removals-per-sweep", 3, "--now", run.clock)

    ended = ckptd("plan", run, *options)

    assert "1 stay, 4 held back" in ended.out
    assert "4 removals at once, more than max_removals_per_sweep (3)" in ended.out
    assert ckptd("plan", run, *options, "--exit-code").status == 0
    document = ckptd("plan", run, *options, "--json").document
    valid(document)
    assert len(document["model_dirs"][0]["hold"]) == 4


def test_a_directory_is_reached_by_a_relative_path_and_by_a_link(process, model_directory):
    run = model_directory(100)
    link = run.path.parent / "link"
    link.symlink_to(run.path)

    for way in (os.path.relpath(run.path), link):
        assert process("plan", way).out.startswith(f"{run}: 1 stay")
