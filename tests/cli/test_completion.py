"""Completion: the scripts load, and offer verbs, options, steps and names."""

import shutil
import subprocess
import sys

import pytest
from click.shell_completion import BashComplete

from ckptd.cli import main


def offered(*arguments, incomplete=""):
    """What the shell is offered for the next word."""
    completion = BashComplete(main, {}, "ckptd", "_CKPTD_COMPLETE")
    return [item.value for item in completion.get_completions(list(arguments), incomplete)]


def test_verbs_and_options_are_completed():
    assert offered(incomplete="pl") == ["plan"]
    assert "--max-to-keep" in offered("plan", incomplete="--max-t")
    assert offered("plan", "--max-to-keep", incomplete="unl") == ["unlimited"]
    assert offered("completion", incomplete="f") == ["fish"]


def test_steps_and_names_of_the_directory_are_completed(ckptd, model_directory):
    run = model_directory(100, 200)
    (run.path / "m-300.index").touch()

    assert offered("pin", str(run)) == ["100", "200", "m-100", "m-200"]
    assert offered("pin", str(run), incomplete="m-2") == ["m-200"]
    assert offered("unpin", str(run)) == []
    ckptd("pin", run, 100)
    assert offered("unpin", str(run)) == ["m-100"]
    ckptd("sweep", run, "--max-to-keep", 1)
    ckptd("unpin", run, 100)
    ckptd("sweep", run, "--max-to-keep", 1)
    assert offered("undo", str(run)) == ["m-100"]


def test_completion_never_fails(model_directory, tmp_path):
    run = model_directory()
    run.save(7, prefix="a\nb")

    assert offered("pin", str(tmp_path / "missing")) == []
    assert offered("pin", str(run)) == ["7"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(ckptd, shell):
    ended = ckptd("completion", shell)

    assert ended.status == 0
    assert "_CKPTD_COMPLETE" in ended.out


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_script_parses(process, shell, tmp_path):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    script = tmp_path / "script"
    script.write_text(process("completion", shell).out)

    subprocess.run([program, "-n", script], check=True, timeout=60)


def test_bash_completes_by_the_script(process, environment, model_directory, tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    run = model_directory(100, 250)
    script = tmp_path / "script"
    script.write_text(process("completion", "bash").out)
    program = tmp_path / "bin" / "ckptd"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ckptd "$@"\n')
    program.chmod(0o755)
    typed = f"""
        source {script}
        COMP_WORDS=(ckptd pin {run} 2) COMP_CWORD=3
        _ckptd_completion ckptd 2 {run}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """

    done = subprocess.run(
        [bash, "--norc", "-c", typed],
        env={**environment, "PATH": f"{program.parent}:{environment['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.stderr == ""
    assert done.stdout.split() == ["250"]
