"""Fuzzing by coverage: libFuzzer looks for files that make a reader do what it has not done before.

    make fuzz                              every target, RUNS executions of each
    make fuzz TARGET=bundle RUNS=1000000   one of them
    make fuzz TARGET=bundle INPUT=FILE     that one file, to see again what it did

What was found interesting is kept in ``.fuzz/corpus`` and is where the next run begins; a file that
broke something lies in ``.fuzz/broken``. It becomes a test in ``tests/fuzz/test_regressions.py``.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

FOLDER: Final = Path(".fuzz")
_RSS_LIMIT_MIB: Final = 2048
_SECONDS: Final = 20
"""For one file; a reader that takes longer is broken."""
_FROM_LIBFUZZER: Final = 0.3
"""How often libFuzzer's own mutation is taken, which knows no format; its result is sealed."""


def main() -> int:
    """Run what is asked for; return 1 if a target broke."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.run")
    parser.add_argument("target", nargs="?", default="all")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--file", type=Path, default=None)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _fuzz(options.target, options.runs)
        return 0
    return _run_each(options.target, options.runs, options.file)


def _run_each(wanted: str, runs: int, file: Path | None) -> int:
    from fuzz.seeds import seeds
    from fuzz.targets import TARGETS

    names = list(TARGETS) if wanted == "all" else [wanted]
    if unknown := set(names) - TARGETS.keys():
        print(f"no target {', '.join(unknown)}; there are: {' '.join(TARGETS)}", file=sys.stderr)
        return 2
    if file is not None:
        TARGETS[wanted].read(file.read_bytes())
        print(f"{file}: {wanted} reads it, or says what is wrong with it")
        return 0
    broken = []
    for name in names:
        corpus = FOLDER / "corpus" / name
        corpus.mkdir(parents=True, exist_ok=True)
        (FOLDER / "broken").mkdir(exist_ok=True)
        for number, data in enumerate(seeds()[name]):
            (corpus / f"seed-{number}").write_bytes(data)
        print(f"== {name}: {runs:,} executions", flush=True)
        command = [sys.executable, "-m", "fuzz.run", name, "--runs", str(runs), "--inside"]
        if subprocess.run(command, check=False).returncode:
            broken.append(name)
            print(
                f"== {name} is broken. To see it again, with the file that is named above:\n"
                f"   make fuzz TARGET={name} INPUT={FOLDER}/broken/{name}-...",
                flush=True,
            )
    print(f"== broken: {', '.join(broken) or 'none'}")
    return bool(broken)


def _fuzz(name: str, runs: int) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["ckptd"]):
        from fuzz.targets import TARGETS

    target = TARGETS[name]
    arguments = [
        *(f"-runs={runs}", f"-rss_limit_mb={_RSS_LIMIT_MIB}", f"-timeout={_SECONDS}"),
        *("-max_len=65536", "-len_control=0", "-print_final_stats=1"),
        *("-use_value_profile=0", f"-artifact_prefix={FOLDER}/broken/{name}-"),
        str(FOLDER / "corpus" / name),
    ]
    # Setup puts another Mutate in the place of this one.
    mutate = _mutator(target.mutations, lambda data, size: atheris.Mutate(data, size))  # noqa: PLW0108
    atheris.Setup([name, *arguments], target.read, custom_mutator=mutate)
    atheris.Fuzz()


def _mutator(mutations: Any, mutate: Callable[[bytes, int], bytes]) -> Callable[..., bytes]:
    from fuzz.wire import sealed, split_at_magic

    def damage(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < _FROM_LIBFUZZER:
            changed = mutate(bytes(data), max_size)
            *tables, behind = split_at_magic(changed)
            return b"".join((*map(sealed, tables), behind))[:max_size]
        changed = bytes(data)
        for _ in range(random.choice((1, 1, 2, 3))):
            changed = random.choice(mutations)(changed, random)
        return changed[:max_size]

    return damage


if __name__ == "__main__":
    sys.exit(main())
