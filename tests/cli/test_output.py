"""What the output is on a terminal, in a pipe, and where there is hardly anywhere to write."""

import os
import subprocess
import sys

import pytest

EVIL = "evil\nckptd: all is well\x1b[2J\x07"
ESCAPED = "evil\\nckptd: all is well\\x1b[2J\\x07"


@pytest.fixture
def hostile(model_directory):
    """A model directory with every name that somebody might make to fool a terminal."""
    run = model_directory(100, 200)
    run.save(300, 301, prefix=EVIL).save(400, prefix="größe")
    (run.path / EVIL).touch()
    (run.path / f"{EVIL}-5.data-00000-of-00001").touch()
    with open(os.fsencode(run.path) + b"/bad\xff.txt", "wb"):
        pass
    return run


@pytest.mark.parametrize(
    "verb",
    [
        ("plan", "--max-to-keep", "1"),
        ("sweep", "--max-to-keep", "1", "--trash", "off"),
        ("list",),
        ("status",),
        ("history",),
    ],
)
def test_no_name_can_forge_a_line_or_speak_to_the_terminal(ckptd, hostile, verb):
    name, *options = verb
    ckptd("pin", hostile, f"{EVIL}-301", "--why", EVIL)

    ended = ckptd(name, hostile, *options)

    assert ended.status == 0, ended.err
    assert "\x1b" not in ended.out + ended.err
    assert not any(line.startswith("ckptd: all is well") for line in ended.out.splitlines())
    if name != "status":
        assert ESCAPED in ended.out


def test_no_name_can_forge_a_line_on_a_terminal(terminal, hostile):
    ended = terminal("plan", hostile, "--no-color")

    assert ended.status == 0
    assert "\x1b" not in ended.out
    assert ESCAPED in ended.out
    assert "bad\\xff.txt" in ended.out


def test_a_hostile_argument_is_escaped_in_messages(ckptd, tmp_path):
    missing = ckptd("plan", tmp_path / EVIL)
    unknown = ckptd("plan", f"--{EVIL}")
    step = ckptd("pin", tmp_path, EVIL)
    verb = ckptd(EVIL)

    for ended in (missing, unknown, step, verb):
        assert "\x1b" not in ended.err
        assert not any(line.startswith("ckptd: all") for line in ended.err.splitlines())
    assert [ended.status for ended in (missing, unknown, step, verb)] == [13, 2, 13, 2]


def test_a_terminal_gets_tables_that_fit(terminal, model_directory):
    run = model_directory(100, 200, 300, 400)

    ended = terminal("plan", run, "--max-to-keep", 2, "--now", run.clock)

    lines = ended.out.splitlines()
    assert lines[0] == f"\x1b[1m{run}\x1b[0m" or len(str(run)) > 80
    plain = terminal("plan", run, "--max-to-keep", 2, "--now", run.clock, NO_COLOR="1").out
    assert max(len(line) for line in plain.splitlines()) <= 80
    assert "KEEP  2 checkpoints" in plain
    assert "REMOVE  2 checkpoints, frees " in plain
    assert "\n   400  m-400  772 B  30 min  newest, named by the state file, last 1 of 2\n" in plain


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_can_be_turned_off_by_the_environment(terminal, model_directory, changes):
    run = model_directory(100)

    assert "\x1b[" in terminal("plan", run).out
    assert "\x1b[" not in terminal("plan", run, **changes).out


@pytest.mark.parametrize("arguments", [("plan", "--no-color"), ("--no-color", "plan")])
def test_colour_can_be_turned_off_by_an_option(terminal, model_directory, arguments):
    run = model_directory(100)

    assert "\x1b[" not in terminal(*arguments, run).out


def test_a_pipe_gets_one_line_for_each_record_without_colour(process, model_directory):
    run = model_directory(*range(1, 31))

    ended = process("plan", run, "--max-to-keep", 25, "--now", run.clock, COLUMNS="40")

    assert "\x1b" not in ended.out
    assert len([line for line in ended.out.splitlines() if line.startswith("keep")]) == 25


def test_a_terminal_folds_long_lists_unless_all_is_asked_for(terminal, model_directory):
    run = model_directory(*range(1, 31))

    folded = terminal("list", run, "--no-color")
    unfolded = terminal("list", run, "--no-color", "--all")

    assert "... and 20 more: --all shows them" in folded.out
    assert "m-30 " in folded.out
    assert "m-1 " not in folded.out
    assert "m-1 " in unfolded.out


@pytest.mark.parametrize("columns", [20, 1, 0])
@pytest.mark.parametrize("verb", ["plan", "list", "history", "status", "--help"])
def test_a_narrow_terminal_is_served_too(terminal, model_directory, verb, columns):
    run = model_directory(100, 200)
    arguments = () if verb.startswith("-") else (run,)

    ended = terminal(verb, *arguments, columns=columns)

    assert ended.status == 0
    assert "Traceback" not in ended.out


@pytest.mark.parametrize(
    "changes",
    [
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
@pytest.mark.parametrize("how", ["process", "terminal"])
def test_an_encoding_that_cannot_say_a_name_escapes_it(request, hostile, changes, how):
    ended = request.getfixturevalue(how)("list", hostile, **changes)

    assert ended.status == 0
    assert "Traceback" not in ended.out + ended.err
    assert "m-200" in ended.out


def test_a_closed_pipe_is_met_with_silence_and_the_work_goes_on(environment, model_directory):
    run = model_directory(*range(1, 40))
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ckptd", "sweep", run.path, "--max-to-keep", "30"],
            env=environment,
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writing)

    assert (done.returncode, done.stderr) == (0, b"")
    assert len(run.checkpoints()) == 30


@pytest.mark.parametrize("arguments", [("--help",), ("plan", "--help"), ("completion", "bash")])
def test_help_into_a_closed_pipe_is_silent(environment, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ckptd", *arguments],
            env=environment,
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writing)

    assert done.stderr == b""


def test_a_full_disk_behind_standard_output_is_told(environment, model_directory):
    run = model_directory(100)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ckptd", "plan", run.path],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )

    assert done.returncode == 1
    message = b"ckptd: cannot write to standard output: No space left on device\n"
    assert done.stderr == message


def test_closed_standard_streams_are_no_error(environment, model_directory):
    run = model_directory(100, 200)
    command = f"{sys.executable} -m ckptd sweep {run} --max-to-keep 1 >&- 2>&- <&-"

    done = subprocess.run(["/bin/sh", "-c", command], env=environment, check=False, timeout=60)

    assert done.returncode == 0
    assert run.checkpoints() == {"m-200"}


def test_data_and_messages_go_different_ways(process, model_directory, tmp_path):
    run = model_directory(100)

    ended = process("plan", run, tmp_path / "missing", "--json")

    assert ended.document["model_dirs"][0]["path"] == str(run)
    assert ended.err.startswith("ckptd: cannot open ")
    assert ended.error["path"] == str(tmp_path / "missing")
