"""A daemon in a thread, checkpoints on a real disk, and a service manager that listens."""

import io
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ckptd.config.values import Config, LogSettings, ModelDirs
from ckptd.daemon.instance import Instance
from ckptd.daemon.log import Log
from ckptd.daemon.notify import Notifier
from ckptd.daemon.service import Service, run_daemon
from ckptd.formats.bundle_writer import encode_bundle
from ckptd.formats.state_file import StateFile, format_state_file
from ckptd.protocol.control import Verb
from ckptd.protocol.conversation import ask
from ckptd.retention.policy import Policy

INDEX, DATA = encode_bundle({"weights": np.arange(16, dtype=np.float32)})


def write(path: Path, data: bytes) -> None:
    """Write as a careful trainer does: nobody sees half of it."""
    temporary = path.with_name(f"{path.name}.tempstate")
    temporary.write_bytes(data)
    temporary.replace(path)


def save(directory: Path, step: int, *, keep: tuple[int, ...] = ()) -> None:
    """Write one checkpoint as a trainer does: data, index, state file."""
    name = f"m-{step}"
    write(directory / f"{name}.data-00000-of-00001", DATA)
    write(directory / f"{name}.index", INDEX)
    listed = tuple(f"m-{one}" for one in (*keep, step))
    state = StateFile(model_checkpoint_path=name, all_model_checkpoint_paths=listed)
    write(directory / "checkpoint", format_state_file(state))


def steps(directory: Path) -> list[int]:
    """Return the global_steps of what is there."""
    return sorted(int(path.stem.partition("-")[2]) for path in directory.glob("*.index"))


def eventually(
    condition: Callable[[], Any], *, within: float = 10.0, what: str = "the condition"
) -> float:
    """Wait until `condition` holds; return how many seconds that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < within, f"{what} did not come true in {within} s"
        time.sleep(0.005)
    return time.monotonic() - start


KEEP_2 = Policy(max_to_keep=2, trash=None)


def a_config(*entries: ModelDirs, rescan_interval: float = 600.0, **keys: Any) -> Config:
    log = LogSettings(level="debug", format="json")
    return Config(
        version=1, rescan_interval=rescan_interval, model_dirs=entries, **{"log": log, **keys}
    )


def keeping(path: Path | str, policy: Policy = KEEP_2) -> ModelDirs:
    return ModelDirs(path=str(path), policy_name="test", policy=policy)


@dataclass
class Daemon:
    """`run_daemon` in a thread; `config` may be replaced, or be an error that loading raises."""

    config: Config | Exception
    socket: str
    stream: io.StringIO = field(default_factory=io.StringIO)
    stop: threading.Event = field(default_factory=threading.Event)
    options: dict[str, Any] = field(default_factory=dict)
    status: int | None = None
    error: BaseException | None = None
    thread: threading.Thread | None = None

    def start(self) -> "Daemon":
        self.thread = threading.Thread(target=self._run, name="daemon-under-test")
        self.thread.start()
        return self

    def load(self) -> Config:
        if isinstance(self.config, Exception):
            raise self.config
        return self.config

    def _run(self) -> None:
        try:
            self.status = run_daemon(
                self.load,
                self.socket,
                stop=self.stop,
                stream=self.stream,
                **{"environ": {}, **self.options},
            )
        except BaseException as error:
            self.error = error

    def ready(self) -> "Daemon":
        eventually(lambda: self.events("ready") or self.error, what="READY")
        assert self.error is None, self.error
        return self

    def ask(self, verb: Verb = Verb.STATUS, directory: Path | None = None) -> dict[str, Any]:
        return ask(self.socket, verb, str(directory) if directory else None, timeout=10.0)

    def entry(self, path: Path) -> dict[str, Any]:
        """Return what the status says of one directory."""
        rows: dict[str, dict[str, Any]] = {row["path"]: row for row in self.ask()["model_dirs"]}
        return rows.get(str(path), {})

    def log(self) -> list[dict[str, Any]]:
        lines = self.stream.getvalue().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == name]

    def end(self) -> int | None:
        self.stop.set()
        assert self.thread is not None
        self.thread.join(30.0)
        assert not self.thread.is_alive()
        return self.status


class OpenDaemon(Daemon):
    """A daemon into which a test can reach, to break a part of it or to speak for a signal."""

    service: Service

    def _run(self) -> None:
        log = Log(LogSettings(level="debug", format="json"), self.stream)
        notifier = Notifier(self.options.get("environ", {}))
        with Instance(self.socket, {}) as instance, notifier:
            self.service = Service(
                self.load(), self.load, instance, log=log, notifier=notifier, stop=self.stop
            )
            self.status = self.service.run()


@dataclass
class Manager:
    """A service manager: the datagrams that a daemon sends it, in their order."""

    socket: socket.socket
    address: str
    heard: list[str] = field(default_factory=list)

    def messages(self) -> list[str]:
        with suppress(BlockingIOError):
            while True:
                self.heard.append(self.socket.recv(4096).decode())
        return self.heard
