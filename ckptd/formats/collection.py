"""Makes many values at once without the garbage collector going through them again and again."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_MANY: Final = 10_000


@contextmanager
def collection_paused(values: int) -> Iterator[None]:
    """Pause the garbage collector while so many values are made, that have no cycles.

    To go through a hundred thousand of them, and through whatever else the process holds, takes as
    long as to make them. Few do without.
    """
    if values < _MANY or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
