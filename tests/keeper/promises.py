"""The promises P1, P2 and P6 as questions to a directory, asked after every kill, loss and refusal."""

from collections.abc import Callable, Collection, Mapping
from contextlib import closing

from keeper.trainer import complete_in, is_complete, keeper_of, listed_in, names_in, state_of

from ckptd.checkpoints.listing import Kind
from ckptd.storage.directory import Directory


def check_reader(directory: Directory, must_stay: Collection[str]) -> list[str]:
    """Return what is wrong for a reader of TensorFlow who looks right now (P1, P2)."""
    named = {state_of(directory).model_checkpoint_path, *listed_in(directory)}
    wrong = [
        f"the state file names {name}, which is not complete"
        for name in named
        if not is_complete(directory, name)
    ]
    wrong += [f"{name} is lost" for name in set(must_stay) - complete_in(directory)]
    return wrong


def check_restart(
    directory: Directory,
    clock: Callable[[], float],
    must_stay: Collection[str],
    policy: Mapping[str, object],
) -> list[str]:
    """Return what is wrong after a new keeper has finished what was interrupted."""
    everything = {f"m-{step}" for step in range(1, 5)}
    keeper = keeper_of(directory, clock, **policy)
    keeper.sweep()
    keeper.purge()
    wrong = check_reader(directory, must_stay)
    in_trash = {removed.name for removed in keeper.trash()}
    for name in everything:
        files = {n for n in names_in(directory) if n.startswith((f"{name}.index", f"{name}.data"))}
        if len(files) == 1:
            wrong.append(f"{name} is split: {files}")
        if files and name in in_trash:
            wrong.append(f"{name} is both in place and in the trash")
    removed = {line["name"] for line in keeper.history() if line["event"] == "removed"}
    wrong += [f"{n} was removed and no line says so" for n in in_trash - removed]
    again = keeper.sweep()
    if again.changed and keeper.sweep().changed:
        wrong.append("the directory does not come to rest")
    left = _temporaries(directory)
    wrong += [f"{name} is left behind" for name in left]
    graphs = {n for n in names_in(directory) if n.endswith(".meta")}
    if not graphs:
        wrong.append("the meta graph of the run is lost")
    return wrong


def _temporaries(directory: Directory) -> list[str]:
    with closing(directory.open_directory(".ckptd")) as own:
        found = [entry.name for entry in own.list() if entry.name.startswith(".ckptd-tmp-")]
        for entry in own.list():
            if entry.kind is Kind.DIRECTORY:
                with closing(own.open_directory(entry.name)) as inner:
                    names = [e.name for e in inner.list()]
                found += [name for name in names if name.startswith((".ckptd-tmp-", "gone-"))]
    return found
