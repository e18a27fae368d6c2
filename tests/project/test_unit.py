"""The systemd unit: tight, sound, and in agreement with the program that it starts."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ckptd import errors
from ckptd.protocol.conversation import HOST_SOCKET

UNIT = Path(__file__).parents[2] / "systemd" / "ckptd.service"
ANALYZE = shutil.which("systemd-analyze") or ""

MOST_EXPOSED = 10  # tenths, of 100

needs_systemd = pytest.mark.skipif(not ANALYZE, reason="systemd-analyze is not installed")


def settings() -> dict[str, str]:
    """Return the last value of each setting."""
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]\w+=", line))


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ANALYZE, *arguments, str(UNIT)], capture_output=True, text=True, check=False, timeout=60
    )


@needs_systemd
def test_its_exposure_is_at_most_one_tenth():
    verdict = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}")

    assert verdict.returncode == 0, verdict.stdout[-200:]
    score = re.search(r"exposure level for ckptd\.service: (\d+\.\d+)", verdict.stdout)
    assert score is not None
    assert float(score[1]) <= MOST_EXPOSED / 10


@needs_systemd
def test_systemd_finds_nothing_wrong_but_that_the_program_is_not_installed():
    said = [line for line in analyze("verify").stderr.splitlines() if "ckptd.service" in line]

    assert [line for line in said if "is not executable" not in line] == []


def test_comments_stand_on_lines_of_their_own():
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        assert line.startswith(("#", "[")) or " #" not in line, line


def test_every_loosening_has_its_comment_above_it():
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    loose = ("ProtectHome=read-only", "PrivateUsers=no", "UMask=0022", "RestrictAddressFamilies=")
    for start in loose:
        (place,) = [number for number, line in enumerate(lines) if line.startswith(start)]
        comment = place - 1
        while lines[comment].startswith("#") and "Loosened" not in lines[comment]:
            comment -= 1
        assert "Loosened" in lines[comment], start


def test_peers_are_seen_with_their_own_uid():
    assert settings()["PrivateUsers"] == "no"


def test_it_starts_the_program_as_it_is_installed():
    assert settings()["ExecStart"] == "/usr/bin/ckptd run --config /etc/ckptd/ckptd.yaml"
    assert settings()["Type"] == "notify"


def test_its_socket_is_the_hosts():
    assert f"/run/{settings()['RuntimeDirectory']}/ckptd.sock" == HOST_SOCKET


def test_what_trying_again_cannot_mend_is_not_tried_again():
    statuses = {int(status) for status in settings()["RestartPreventExitStatus"].split()}

    assert statuses == {
        2,
        errors.ConfigError.exit_status,
        errors.BusyError.exit_status,
        errors.NotPermittedError.exit_status,
    }
