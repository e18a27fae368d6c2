"""Which versions of a checkpoint's format this code may read: TensorFlow's `CheckVersions`.

A file says who wrote it (``producer``), the oldest reader that understands it (``min_consumer``)
and readers known to get it wrong (``bad_consumers``). The formats of V1 and of the tensor bundle
are both at version 1, and no writer was ever too old to be read.
"""

from typing import Any, Final

from ckptd.errors import CorruptIndexError

CONSUMER: Final = 1
"""The version of the formats that ckptd reads, and the producer that it writes."""


def require_readable(version: Any) -> None:
    """Raise `CorruptIndexError` unless TensorFlow 2.21 would read a file of this `VersionDef`."""
    if version.producer < 0:
        raise CorruptIndexError(f"version of its producer is negative: {version.producer}")
    if version.min_consumer > CONSUMER:
        raise CorruptIndexError(
            f"needs a reader of version {version.min_consumer}, "
            f"TensorFlow and ckptd are at version {CONSUMER}"
        )
    if CONSUMER in version.bad_consumers:
        raise CorruptIndexError(f"must not be read by readers of version {CONSUMER}")
