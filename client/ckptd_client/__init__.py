"""ckptd for programs that train or read: names and arguments are those of `tf.train`.

>>> import ckptd_client
>>> ckptd_client.latest_checkpoint("/no/such/directory") is None
True

Importing this loads nothing else: what a name needs is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckptd_client.following import checkpoints_iterator, wait_for_new_checkpoint
    from ckptd_client.graphs import export_meta_graph, import_meta_graph
    from ckptd_client.loading import (
        CheckpointReader,
        DType,
        NewCheckpointReader,
        list_variables,
        load_checkpoint,
        load_variable,
    )
    from ckptd_client.opening import OpenedCheckpoint, open_checkpoint
    from ckptd_client.reading import (
        CheckpointState,
        checkpoint_exists,
        get_checkpoint_state,
        latest_checkpoint,
    )
    from ckptd_client.restoring import RestoreReport, average_names, restore
    from ckptd_client.writing import Partitioned, save_checkpoint

__all__ = [
    "CheckpointReader",
    "CheckpointState",
    "DType",
    "NewCheckpointReader",
    "OpenedCheckpoint",
    "Partitioned",
    "RestoreReport",
    "average_names",
    "checkpoint_exists",
    "checkpoints_iterator",
    "export_meta_graph",
    "get_checkpoint_state",
    "import_meta_graph",
    "latest_checkpoint",
    "list_variables",
    "load_checkpoint",
    "load_variable",
    "open_checkpoint",
    "restore",
    "save_checkpoint",
    "wait_for_new_checkpoint",
]

_MODULES = {
    "following": ("checkpoints_iterator", "wait_for_new_checkpoint"),
    "graphs": ("export_meta_graph", "import_meta_graph"),
    "loading": (
        "CheckpointReader",
        "DType",
        "NewCheckpointReader",
        "list_variables",
        "load_checkpoint",
        "load_variable",
    ),
    "opening": ("OpenedCheckpoint", "open_checkpoint"),
    "reading": (
        "CheckpointState",
        "checkpoint_exists",
        "get_checkpoint_state",
        "latest_checkpoint",
    ),
    "restoring": ("RestoreReport", "average_names", "restore"),
    "writing": ("Partitioned", "save_checkpoint"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load what a public name needs, once."""
    module = _HOMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
