"""Prove an installed wheel: run by .ci/run in an environment that has ckptd and nothing else of ours.

python -I wheel_check.py ENVIRONMENT
"""

import json
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ENVIRONMENT = Path(sys.prefix)


def ckptd(*arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [str(ENVIRONMENT / "bin" / "ckptd"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = f"ckptd {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    assert done.returncode == status, said
    assert "Traceback" not in done.stderr, said
    return done.stdout


def main() -> None:
    top_level = {path.parts[0] for path in metadata.files("ckptd") or () if path.suffix == ".py"}
    assert top_level == {"ckptd", "ckptd_client"}, top_level

    assert "plan" in ckptd("--help")
    sample = ENVIRONMENT / "share" / "ckptd" / "ckptd.yaml"
    ckptd("check-config", str(sample))
    json.loads((ENVIRONMENT / "share" / "ckptd" / "ckptd.schema.json").read_text())
    assert (ENVIRONMENT / "lib" / "systemd" / "system" / "ckptd.service").is_file()

    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        trainer = [sys.executable, "-I", "-m", "ckptd.cli.demo_trainer", str(run)]
        subprocess.run([*trainer, "--steps", "60", "--save-steps", "10"], check=True, timeout=120)
        before = sorted(path.name for path in run.iterdir())

        rules = ("--max-to-keep", "2", "--keep-steps", "20")
        plan = json.loads(ckptd("plan", str(run), *rules, "--json"))
        (directory,) = plan["model_dirs"]
        assert [c["global_step"] for c in directory["keep"]] == [20, 50, 60], directory["keep"]
        assert sorted(path.name for path in run.iterdir()) == before, "a plan changed the directory"
        assert ckptd("plan", str(run), *rules, "--exit-code", status=5)

        ckptd("sweep", str(run), *rules)
        left = {path.stem for path in run.glob("*.index")}
        assert left == {"spirals-20", "spirals-50", "spirals-60"}, left
        ckptd("undo", str(run))
        assert {path.stem for path in run.glob("*.index")} == left | {"spirals-40"}
        ckptd("plan", str(run), *rules, "--exit-code")
    print(f"wheel: ckptd {metadata.version('ckptd')} starts, checks its sample, sweeps and undoes")


if __name__ == "__main__":
    main()
