"""TensorFlow as the judge: it writes into directories that ckptd keeps, and reads them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("judge.keeping", "judge.reader")

from judge.keeping import Daemon, Kept, Swept  # noqa: E402 (their asserts are rewritten on import)
from judge.loading import load_tensorflow  # noqa: E402


@pytest.fixture(scope="session")
def tf() -> Any:
    return load_tensorflow()


@pytest.fixture(
    params=[
        pytest.param(Swept, id="swept"),
        pytest.param(Daemon, id="daemon", marks=pytest.mark.processes),
    ]
)
def kept(request: pytest.FixtureRequest, tmp_path: Path, tf: Any) -> Iterator[Callable[..., Kept]]:
    """Have a new model directory kept by a policy; what keeps it stops after the test."""
    with ExitStack() as stack:

        def keep(name: str = "run", **policy: Any) -> Kept:
            kept: Kept = stack.enter_context(request.param(tmp_path / "runs" / name, **policy))
            return kept

        yield keep
