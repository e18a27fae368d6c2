"""TensorFlow, for what must answer as it does."""

from typing import Any

import pytest
from judge.loading import load_tensorflow


@pytest.fixture(scope="session")
def tf() -> Any:
    return load_tensorflow()
