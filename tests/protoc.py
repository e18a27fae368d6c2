"""Compiles the .proto files of a room, to compare with the descriptors in the tree."""

import subprocess
import sys
from pathlib import Path


def assert_compiled(proto: Path, name: str, scratch: Path) -> None:
    """Fail unless `proto/name` is what its .proto files compile to."""
    source = proto.parents[2]
    files = sorted(str(path.relative_to(source)) for path in proto.glob("*.proto"))
    # In a process of its own: protoc and TensorFlow bring two copies of one C++ library.
    options = [f"--proto_path={source}", f"--descriptor_set_out={scratch / name}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, *files], check=True)
    where = proto.relative_to(source)
    assert (scratch / name).read_bytes() == (proto / name).read_bytes(), (
        "the .proto files have changed; in the root of the tree run: "
        "python -m grpc_tools.protoc --proto_path=. "
        f"--descriptor_set_out={where / name} $(ls {where}/*.proto)"
    )
