"""ckptd for programs that train or read: names and arguments are those of `tf.train`.

>>> import ckptd_client
>>> ckptd_client.latest_checkpoint("/no/such/directory") is None
True
"""

from ckptd_client.reading import (
    CheckpointState,
    checkpoint_exists,
    get_checkpoint_state,
    latest_checkpoint,
)

__all__ = [
    "CheckpointState",
    "checkpoint_exists",
    "get_checkpoint_state",
    "latest_checkpoint",
]
