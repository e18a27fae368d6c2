"""The training program of the demo: a small network, numpy alone, that knows nothing of ckptd's daemon.

It learns which of two interleaved spirals a point lies on, and saves every so many steps as
`tf.compat.v1.train.Saver` would: data, index, state file, meta graph, each under a temporary name
first. Started again on the same directory, it resumes from what the state file names.

    python -m ckptd.cli.demo_trainer DIRECTORY --steps 2000 --save-steps 100
"""

import argparse
import secrets
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

import ckptd_client
from ckptd.formats.bundle_writer import encode_bundle
from ckptd.formats.meta_graph import Node, encode_meta_graph
from ckptd.formats.state_file import StateFile, format_state_file

Array = NDArray[np.float32]
Tensors = dict[str, Array]

_TURNS: Final = 8
_WIDTH: Final = 256
_BATCH: Final = 256
_PIECE: Final = 32 * 2**10
_REMEMBERED: Final = 8  # checkpoints that this trainer lists; it removes none


def spirals(random: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Return `count` points, shape [count, 2], and which spiral each is on, shape [count, 1]."""
    which = random.integers(0, 2, (count, 1))
    turn = np.sqrt(random.random((count, 1))) * _TURNS * np.pi
    angle = turn + which * np.pi
    points = np.hstack([np.cos(angle), np.sin(angle)]) * turn / (_TURNS * np.pi)
    noise = random.normal(0, 0.01, points.shape)
    return (points + noise).astype(np.float32), which.astype(np.float32)


def initial(random: np.random.Generator) -> Tensors:
    """Return the parameters of a network with two hidden layers."""
    sizes = [2, _WIDTH, _WIDTH, 1]
    tensors: Tensors = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        scale = np.sqrt(2.0 / fan_in)
        tensors[f"layer{layer}/w"] = random.normal(0, scale, (fan_in, fan_out)).astype(np.float32)
        tensors[f"layer{layer}/b"] = np.zeros(fan_out, np.float32)
    for name in list(tensors):
        tensors[f"{name}/Adam"] = np.zeros_like(tensors[name])
        tensors[f"{name}/Adam_1"] = np.zeros_like(tensors[name])
    return tensors


def train_step(tensors: Tensors, points: Array, labels: Array, step: int) -> tuple[float, float]:
    """Take one step of Adam; return the loss and the share of points judged right."""
    outputs = [points]
    for layer in range(3):
        before = outputs[-1] @ tensors[f"layer{layer}/w"] + tensors[f"layer{layer}/b"]
        outputs.append(np.maximum(before, 0) if layer < 2 else before)  # noqa: PLR2004
    probability = 1 / (1 + np.exp(-np.clip(outputs[-1], -30, 30)))
    loss = -np.mean(
        labels * np.log(probability + 1e-7) + (1 - labels) * np.log(1 - probability + 1e-7)
    )
    gradient = (probability - labels) / len(points)
    for layer in (2, 1, 0):
        weights = tensors[f"layer{layer}/w"]
        back = (gradient @ weights.T) * (outputs[layer] > 0)
        _adam(tensors, f"layer{layer}/w", outputs[layer].T @ gradient, step)
        _adam(tensors, f"layer{layer}/b", gradient.sum(axis=0), step)
        gradient = back
    return float(loss), float(np.mean((probability > 0.5) == labels))  # noqa: PLR2004


def _adam(tensors: Tensors, name: str, gradient: Array, step: int) -> None:
    first, second = tensors[f"{name}/Adam"], tensors[f"{name}/Adam_1"]
    first += 0.1 * (gradient - first)
    second += 0.001 * (gradient**2 - second)
    rate = 0.001 * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
    tensors[name] -= rate * first / (np.sqrt(second) + 1e-8)


def save(directory: Path, step: int, tensors: Tensors) -> None:
    """Write one checkpoint in TensorFlow's order of files, slowly enough to be watched."""
    prefix = f"spirals-{step}"
    index, data = encode_bundle({**tensors, "global_step": np.int64(step)})
    _write(directory / f"{prefix}.data-00000-of-00001", _pieces(data), ".tempstate")
    _write(directory / f"{prefix}.index", [index], ".tempstate")
    state = ckptd_client.get_checkpoint_state(directory)
    paths = () if state is None else state.all_model_checkpoint_paths
    names = [Path(path).name for path in paths if Path(path).name != prefix] + [prefix]
    listed = tuple(names[-_REMEMBERED:])
    text = format_state_file(
        StateFile(model_checkpoint_path=prefix, all_model_checkpoint_paths=listed)
    )
    _write(directory / "checkpoint", [text], ".tmp")
    nodes = (Node(name, "NoOp") for name in sorted(tensors))
    _write(directory / f"{prefix}.meta", [encode_meta_graph(nodes)], ".tmp")


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _PIECE):
        yield data[start : start + _PIECE]
        time.sleep(0.003)  # a real model takes seconds; a person wants to see it


def _write(path: Path, pieces: Iterator[bytes] | list[bytes], suffix: str) -> None:
    unique = secrets.token_hex(16) if suffix == ".tmp" else str(secrets.randbits(63))
    temporary = path.with_name(f"{path.name}{suffix}{unique}")
    with temporary.open("wb") as file:
        for piece in pieces:
            file.write(piece)
    temporary.replace(path)


def restore(directory: Path) -> tuple[int, Tensors] | None:
    """Return the step and the tensors of the checkpoint that the state file names."""
    prefix = ckptd_client.latest_checkpoint(directory)
    if prefix is None:
        return None
    with ckptd_client.load_checkpoint(prefix, verify=True) as reader:
        # Copies: what is read is the file itself, and training changes its tensors in place.
        tensors = {name: np.array(reader.get_tensor(name)) for name in reader}
    return int(tensors.pop("global_step")), tensors


def main() -> None:
    """Train; one line for each save."""
    parser = argparse.ArgumentParser(description="Train the demo's network.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--save-steps", type=int, default=100)
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    start, tensors = 0, initial(random)
    restored = restore(directory)
    if restored is not None:
        start, tensors = restored
        print(f"resumed from step {start:,}", flush=True)
    for step in range(start + 1, start + arguments.steps + 1):
        points, labels = spirals(random, _BATCH)
        loss, right = train_step(tensors, points, labels, step)
        if step % arguments.save_steps == 0:
            print(f"saving step {step:,}  loss {loss:.3f}  right {right:.0%}", flush=True)
            save(directory, step, tensors)


if __name__ == "__main__":
    main()
