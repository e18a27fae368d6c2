"""Checkpoints on disk with whatever tensors a test needs, and ways to damage them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckptd_client.writing import save_checkpoint


def save_bundle(prefix: Path, tensors: Mapping[str, Any], **options: Any) -> Path:
    """Write a V2 checkpoint, its directory too."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(prefix, tensors, **options)
    return prefix


def data_file(prefix: Path, shard: int = 0, num_shards: int = 1) -> Path:
    """Return the path of a shard."""
    return Path(f"{prefix}.data-{shard:05d}-of-{num_shards:05d}")


def flip(path: Path, at: int) -> None:
    """Change one byte of a file, counted from its end where `at` is negative."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
