"""What the package offers, and what it costs to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ckptd_client

PACKAGE = Path(ckptd_client.__file__).parent


def test_every_name_is_there():
    assert ckptd_client.__all__ == sorted(ckptd_client.__all__)
    for name in ckptd_client.__all__:
        assert getattr(ckptd_client, name).__doc__
        assert name in dir(ckptd_client)
    with pytest.raises(AttributeError, match="module 'ckptd_client' has no attribute 'nothing'"):
        ckptd_client.nothing  # noqa: B018


def test_type_checkers_are_told_the_same():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imported = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ckptd_client.")
        for alias in node.names
    }
    assert imported == {
        name: f"ckptd_client.{module}" for name, module in ckptd_client._HOMES.items()
    }
    assert sorted(imported) == ckptd_client.__all__


LOADED = """
import sys
import ckptd_client
{use}
print(*sorted({{name.partition(".")[0] for name in sys.modules}}), *sys.modules)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("use", "spared"),
    [
        ("", {"numpy", "google", "crc32c", "ckptd", "dataclasses"}),
        ("ckptd_client.latest_checkpoint", {"numpy", "watchdog", "ml_dtypes"}),
        ("ckptd_client.load_checkpoint", {"watchdog", "ml_dtypes", "tensorflow", "yaml", "click"}),
    ],
    ids=["the package", "the state file", "tensors"],
)
def test_only_what_is_used_is_loaded(use, spared):
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(use=use)], check=True, capture_output=True, text=True
    )
    assert not spared & set(done.stdout.split())
