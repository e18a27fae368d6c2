"""`ckptd demo`: a daemon keeps the directory of a small run; the run is killed in a save and resumes.

Everything is real: a daemon and a trainer, each a process of its own, and files on this disk. All of
it lies in a new directory below ``demo-run``, which is left for a person to look at.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

import ckptd_client
from ckptd.cli.amounts import age_text, count_text, size_text
from ckptd.cli.screen import Screen
from ckptd.cli.verb import DONE, FAILED, verb
from ckptd.config.load import load_config
from ckptd.errors import CkptdError, NoDaemonError, printable
from ckptd.keeper.keeper import Keeper
from ckptd.keeper.plan import DirectoryPlan
from ckptd.protocol.control import Verb
from ckptd.protocol.conversation import ask
from ckptd.retention.candidate import Outcome
from ckptd.retention.policy import Policy
from ckptd.storage.disk import open_model_directory

_CONFIG: Final = """\
# The configuration of this demo: hours and days scaled down to seconds and steps.
version: 1
rescan_interval: 1s
model_dirs:
  - path: {model}
    max_to_keep: 4
    # of those that leave the last four, one for each 0.001 h (3.6 s) is kept for good
    keep_checkpoint_every_n_hours: 0.001
    keep_every_n_steps: 1000
"""

_TRAIN_SECONDS: Final = 16.0
_SAVES: Final = 2
"""Checkpoints that there must be before the trainer is killed, however long that takes."""
_MORE_STEPS: Final = 2000
_PATIENCE: Final = 30.0
_FRAME: Final = 0.15


@verb("demo", json=False)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("demo-run"),
    show_default=True,
    help="Where to put it; each demo makes a new directory in there.",
)
def demo(screen: Screen, *, directory: Path) -> int:
    """See a run kept, killed in a save, and resumed.

    A daemon keeps the directory of a small model that is trained for about half a minute.
    """
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
    try:
        with _Scene(_new_directory(directory), console) as scene:
            scene.play()
    except _GoneWrongError as error:
        screen.warn(str(error))
        return FAILED
    return DONE


class _GoneWrongError(Exception):
    """The demo cannot go on; the text says why."""


class _Scene:
    """The processes of one demo, and what is told of them."""

    def __init__(self, home: Path, console: Console) -> None:
        self.home = home
        self.model = home / "model"
        self.model.mkdir()
        self.config_file = home / "ckptd.yaml"
        self.config_file.write_text(_CONFIG.format(model=self.model.resolve()))
        self.console = console
        self._processes: list[subprocess.Popen[str]] = []
        # A socket's path has at most 107 bytes, which a directory of somebody's may exceed.
        self._short = tempfile.TemporaryDirectory(prefix="ckptd-")
        self.socket = f"{self._short.name}/ckptd.sock"
        self._told = 0

    def __enter__(self) -> "_Scene":  # noqa: PYI034 (Self is in typing from Python 3.11 on)
        for number in (signal.SIGTERM, signal.SIGHUP):
            # A terminal that is closed must not leave the daemon behind.
            signal.signal(number, lambda got, _: sys.exit(128 + got))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._short.cleanup()

    def play(self) -> None:
        """Show it all."""
        where = printable(os.path.relpath(self.home))
        self.heading("1  A daemon keeps a directory that is still empty")
        self.say(f"The policy, in {where}/ckptd.yaml:")
        rules = [line for line in self.config_file.read_text().splitlines() if line[:4] == "    "]
        for line in rules:
            self.say(line, style="cyan")
        self.start_daemon()
        self.say("The daemon runs: `ckptd run --config ckptd.yaml`.")

        self.heading("2  A training program that knows nothing of ckptd saves into it")
        self.say("A network learns, in numpy, to tell two spirals apart; it never removes a file.")
        trainer = self.start_trainer(100_000)
        self.watch(trainer, until=time.monotonic() + _TRAIN_SECONDS)
        while not self.has_saved() and trainer.poll() is None:  # a busy host takes longer
            self.watch(trainer, until=time.monotonic() + 1.0)

        self.heading("3  It is killed in the middle of a save")
        torn = self.kill_in_a_save(trainer)
        self.say("SIGKILL while it wrote the data of a checkpoint. What it left behind:")
        self.event(f"  {printable(torn)}", style="yellow")
        self.after_the_kill()

        self.heading("4  Started again, it resumes from there")
        trainer = self.start_trainer(_MORE_STEPS)
        self.watch(trainer, until=time.monotonic() + _PATIENCE, passing=True)
        self.settle()

        self.heading("5  What is left")
        self.summary()
        self.say("Try next:", style="bold")
        for command in (
            f"ckptd plan {where}/model --config {where}/ckptd.yaml",
            f"ckptd plan {where}/model --max-to-keep 1",
            f"ckptd history {where}/model",
            f"ckptd undo {where}/model",
            f"ckptd list {where}/model",
        ):
            self.say(f"  {command}", style="green")
        if Path(sys.argv[0]).parent.name == "bin" and "VIRTUAL_ENV" not in os.environ:
            program = os.path.relpath(sys.argv[0])
            self.say(f"(`ckptd` is {printable(program)} here, unless its environment is activated)")

    def start_daemon(self) -> None:
        """Start `ckptd run`, and wait until it answers."""
        command = [sys.executable, "-m", "ckptd", "run", "--config", str(self.config_file)]
        with (self.home / "ckptd.log").open("w") as log:
            daemon = subprocess.Popen(  # noqa: S603 - our own program
                [*command, "--socket", self.socket], stderr=log, text=True
            )
        self._processes.append(daemon)
        deadline = time.monotonic() + _PATIENCE
        while daemon.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(NoDaemonError):
                ask(self.socket, Verb.PING)
                return
            time.sleep(0.05)
        raise _GoneWrongError(f"the daemon does not start: see {self.home / 'ckptd.log'}")

    def start_trainer(self, steps: int) -> "subprocess.Popen[str]":
        """Start the training program."""
        command = [sys.executable, "-m", "ckptd.cli.demo_trainer", str(self.model)]
        trainer = subprocess.Popen(  # noqa: S603 - our own program
            [*command, "--steps", str(steps), "--save-steps", "200"],
            stdout=subprocess.PIPE,
            text=True,
            # A network so small is slowed by threads, on a busy host to a standstill.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        assert trainer.stdout is not None
        os.set_blocking(trainer.stdout.fileno(), False)
        self._processes.append(trainer)
        return trainer

    def watch(
        self, trainer: "subprocess.Popen[str]", *, until: float, passing: bool = False
    ) -> None:
        """Show saves as they arrive and what the daemon does, until then or the trainer's end.

        A `passing` picture leaves the screen in the end.
        """
        with self.live(passing=passing) as live:
            while time.monotonic() < until:
                ended = trainer.poll() is not None
                self.tell(trainer)
                if live is not None:
                    live.update(self.picture(), refresh=True)
                if ended:
                    break
                time.sleep(_FRAME)
        if live is None:
            self.tell(trainer)

    @contextlib.contextmanager
    def live(self, *, passing: bool) -> Iterator[Live | None]:
        """Draw a picture that moves, on a terminal; elsewhere lines must do."""
        if not self.console.is_terminal:
            yield None
            return
        with Live(console=self.console, auto_refresh=False, transient=passing) as live:
            yield live

    def tell(self, trainer: "subprocess.Popen[str]") -> None:
        """Print what the trainer has said and what the daemon has done since."""
        assert trainer.stdout is not None
        for line in trainer.stdout:
            self.event(f"trainer  {line.rstrip()}", style="dim")
        with self.keeper() as keeper:
            done = keeper.history()
        for event in done[self._told :]:
            name = printable(str(event.get("name", "")))
            if event["event"] == "removed":
                why = "; ".join(event["reasons"])
                self.event(f"ckptd    removed {name}: {why}", style="red")
            else:
                self.event(f"ckptd    {event['event'].replace('_', ' ')} {name}", style="green")
        self._told = len(done)

    @contextlib.contextmanager
    def keeper(self) -> Iterator[Keeper]:
        """Open the directory to look at it, with the daemon's own policy."""
        with Keeper(open_model_directory(str(self.model)), self.policy(), time.time) as keeper:
            yield keeper

    def policy(self) -> Policy:
        config = load_config(self.config_file.read_text(), str(self.config_file))
        return config.model_dirs[0].policy

    def picture(self) -> Group:
        """Return what is in the directory now, and why it stays."""
        with self.keeper() as keeper:
            plan = keeper.plan()
            saved = keeper.bytes_saved(plan)
        return Group(Text(), _table(plan), Text(_notes(plan, saved), style="dim"))

    def has_saved(self) -> bool:
        """Say whether there is enough to show: a few checkpoints, and a state file that names one."""
        there = sum(1 for _ in self.model.glob("*.index"))
        return there >= _SAVES and ckptd_client.latest_checkpoint(self.model) is not None

    def kill_in_a_save(self, trainer: "subprocess.Popen[str]") -> str:
        """Kill the trainer when it has written a part of a checkpoint; return what is left of it."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and trainer.poll() is None:
            torn = [path.name for path in self.model.glob("*.data-*.tempstate*")]
            if torn:
                trainer.send_signal(signal.SIGKILL)
                trainer.wait()
                left = [path.name for path in self.model.glob("*.data-*.tempstate*")]
                if left:
                    self.tell(trainer)
                    return left[0]
                trainer = self.start_trainer(100_000)  # it was faster: once more
            time.sleep(0.001)
        raise _GoneWrongError("the trainer ended before it could be killed")

    def after_the_kill(self) -> None:
        """Show that what the state file names can be restored."""
        latest = ckptd_client.latest_checkpoint(self.model)
        if latest is None:
            raise _GoneWrongError(
                f"the state file in {printable(str(self.model))} names nothing complete"
            )
        with self.keeper() as keeper:
            plan = keeper.plan()
        known = ", ".join({leftover.what for leftover in plan.survey.inventory.leftovers})
        self.say(f"ckptd knows it for what it is, a {known}, and counts it for nothing.")
        self.say(f"The state file still names {Path(latest).name}, complete to the last byte:")
        for line in (self.model / "checkpoint").read_text().splitlines():
            self.say(f"  {line}", style="cyan")

    def settle(self) -> None:
        """Wait until the daemon has nothing left to do."""
        deadline = time.monotonic() + 5
        with self.keeper() as keeper:
            while time.monotonic() < deadline:
                plan = keeper.plan()
                if not plan.restatements and len(plan.staying) == len(plan.verdicts):
                    return
                time.sleep(0.1)

    def summary(self) -> None:
        """Show the last plan, and what it came to."""
        with self.keeper() as keeper:
            plan = keeper.plan()
            saved = keeper.bytes_saved(plan)
            removed = sum(line["event"] == "removed" for line in keeper.history())
            trash = keeper.trash()
        self.console.print(_table(plan))
        metas = [c.meta_graph for c in plan.survey.checkpoints.values() if c.meta_graph is not None]
        inodes = {meta.identity.inode for meta in metas}
        self.say(
            f"{len(plan.verdicts)} checkpoints stay, {removed} were removed, each with a reason; "
            f"the last {len(trash)} can be brought back."
        )
        names, stored = count_text(len(metas), "name"), count_text(len(inodes), "inode")
        self.say(
            f"The meta graph has {names} and {stored}: {size_text(saved)} are not stored again."
        )
        self.say("")

    def heading(self, text: str) -> None:
        """Print the title of a part."""
        self.console.print()
        self.console.print(Text(text, style="bold"))

    def say(self, text: str, style: str = "") -> None:
        """Print a line."""
        self.console.print(Text(text, style=style))

    def event(self, text: str, style: str = "") -> None:
        """Print what has happened: on a terminal one line, cut where it ends; elsewhere all of it."""
        cut = self.console.is_terminal
        overflow: Literal["ellipsis", "fold"] = "ellipsis" if cut else "fold"
        line = Text(text, style=style)
        self.console.print(line, no_wrap=cut, overflow=overflow, crop=cut)


def _new_directory(parent: Path) -> Path:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            with contextlib.suppress(FileExistsError):
                home = parent / str(number)
                home.mkdir()
                return home
    except OSError as error:
        raise CkptdError(f"cannot make a directory in {printable(str(parent))}: {error}") from error
    raise CkptdError(f"{printable(str(parent))} is full of demos: remove some")


def _table(plan: DirectoryPlan) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("step", "size", "age"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("stays because", overflow="fold")
    for verdict in plan.verdicts:
        checkpoint, saved_at = verdict.checkpoint, verdict.decision.candidate.saved_at
        reasons = ", ".join(reason.text for reason in verdict.decision.reasons)
        outcome = "" if verdict.outcome is Outcome.KEEP else "goes: "
        table.add_row(
            f"{checkpoint.global_step:,}",
            size_text(checkpoint.bytes),
            age_text(plan.at - (saved_at or plan.at)),
            Text(outcome + reasons, style="red" if outcome else "green"),
        )
    return table


def _notes(plan: DirectoryPlan, saved: int) -> str:
    metas = [c.meta_graph for c in plan.survey.checkpoints.values() if c.meta_graph is not None]
    inodes = len({meta.identity.inode for meta in metas})
    current = next((s.current for s in plan.survey.statements), None)
    named = printable(current) if current else "nothing yet"
    return (
        f"state file: {named}   meta graphs: {len(metas)} names, {inodes} stored "
        f"({size_text(saved)} saved)"
    )
