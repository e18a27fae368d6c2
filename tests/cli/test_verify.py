"""`ckptd verify`: the exact damage, in words, in JSON and by the exit status."""

import os
import time

import pytest

DATA = "data-00000-of-00001"


def flip(directory, step, *, at=4, suffix=DATA):
    """Flip a bit of a file, as a disk does: its size and its time stay."""
    path = directory.path / f"m-{step}.{suffix}"
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def without_graphs(directory):
    """The fixture's meta graphs are no graphs."""
    for path in directory.path.glob("*.meta"):
        path.unlink()
    return directory


@pytest.fixture
def run(model_directory):
    return without_graphs(model_directory(100, 200, 300))


def test_a_directory_of_whole_checkpoints(ckptd, run):
    ended = ckptd("verify", run)

    assert (ended.status, ended.err) == (0, "")
    heading, *rows = ended.out.splitlines()
    assert heading == f"{run}: 3 checkpoints whole"
    assert [row.split()[:4] for row in rows] == [
        ["whole", f"m-{step}", "V2", "1"] for step in (300, 200, 100)
    ]
    assert not (run.path / ".ckptd").exists()


def test_damage_is_told_exactly_and_exits_with_1(ckptd, run):
    flip(run, 200)

    ended = ckptd("verify", run)

    assert ended.status == 1
    (row,) = [line for line in ended.out.splitlines() if line.startswith("damaged")]
    place = f"m-200.{DATA}: tensor 'w' at byte 0: "
    assert row.startswith(f"damaged  {place}checksum does not match: expected 0x")
    assert f"{run}/m-200 is damaged" in ended.err
    assert "ckptd export --skip-damaged" in ended.err


def test_one_prefix_is_verified_alone(ckptd, run):
    flip(run, 200)

    assert ckptd("verify", f"{run}/m-100").status == 0
    assert ckptd("verify", f"{run}/m-100", f"{run}/m-300.index").status == 0
    assert ckptd("verify", f"{run}/m-200.{DATA}").status == 1
    assert ckptd("verify", f"{run}/m-100", f"{run}/m-200").status == 1


def test_json(ckptd, run, valid):
    flip(run, 200)
    (run.path / f"m-300.{DATA}").unlink()

    ended = ckptd("verify", run, "--json")

    valid(ended.document)
    assert ended.status == 1
    (entry,) = ended.document["model_dirs"]
    assert [(one["name"], one["whole"]) for one in entry["checkpoints"]] == [
        ("m-200", False),
        ("m-100", True),
    ]
    (damage,) = entry["checkpoints"][0]["damages"]
    assert (damage["file"], damage["tensor"], damage["offset"]) == (f"m-200.{DATA}", "w", 0)
    assert damage["problem"] == "checksum does not match"
    assert damage["expected"] != damage["found"]
    assert entry["partial"] == [{"name": "m-300", "reason": "shard 0 of 1 is missing"}]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("run/m-7", "has no checkpoint m-7; it has m-100, m-200, m-300"),
        ("nowhere/m-7", "cannot open"),
        ("empty", "there is no checkpoint in"),
    ],
)
def test_nothing_there_exits_with_13(ckptd, run, tmp_path, path, text):
    (tmp_path / "empty").mkdir()

    ended = ckptd("verify", tmp_path / path)

    assert ended.status == 13
    assert text in ended.err


def test_a_partial_one_says_why(ckptd, run):
    (run.path / f"m-300.{DATA}").unlink()

    for path in (run, f"{run}/m-300"):
        ended = ckptd("verify", path)
        assert ended.status == 1
        assert "partial  m-300" in ended.out
        assert "shard 0 of 1 is missing" in ended.out


def test_what_is_being_written_is_nobody_s_damage(ckptd, run):
    (run.path / f"m-400.{DATA}").write_bytes(b"half of it")

    assert ckptd("verify", run).status == 0


def test_a_meta_graph_that_does_not_parse_is_damage_that_no_sweep_cares_for(ckptd, run):
    path = run.path / "m-300.meta"
    path.write_bytes(b"\xff" * 20)
    os.utime(path, (run.now, run.now))

    ended = ckptd("verify", run)

    assert ended.status == 1
    assert ended.out.splitlines()[0] == f"{run}: 2 checkpoints whole, 1 with a damaged meta graph"
    assert "not a meta graph: as binary: " in ended.out
    assert f"of {run}/m-300 only the meta graph is damaged: every tensor is good" in ended.err
    assert ckptd("list", run, "--json").document["partial"] == []


def test_damage_that_was_found_counts_from_then_on(ckptd, run):
    flip(run, 300)
    assert ckptd("verify", run).status == 1

    ended = ckptd("list", run, "--json")
    assert [one["name"] for one in ended.document["checkpoints"]] == ["m-100", "m-200"]
    (partial,) = ended.document["partial"]
    assert partial["damaged"]
    assert partial["reason"].startswith(f"damaged: m-300.{DATA}: tensor 'w' at byte 0: checksum")

    assert ckptd("sweep", run, "--max-to-keep", 1).status == 0
    assert run.checkpoints() == {"m-200", "m-300"}
    assert 'model_checkpoint_path: "m-200"' in (run.path / "checkpoint").read_text()
    assert "damaged" in [line.split()[3] for line in ckptd("history", run).out.splitlines()[1:]]


def test_damage_in_files_so_young_is_told_and_not_written_down(ckptd, run):
    flip(run, 300)
    os.utime(run.path / f"m-300.{DATA}")

    ended = ckptd("verify", run)

    assert ended.status == 1
    assert "\ndamaged  m-300" in ended.out
    assert "m-300 was written to less than 10 s ago" in ended.err
    assert "ckptd sweep" not in ended.err
    assert not (run.path / ".ckptd").exists()


def test_several_directories_stand_apart_on_a_terminal(terminal, ckptd, model_directory):
    one, other = (without_graphs(model_directory(100, name=name)) for name in ("one", "other"))
    flip(other, 100)

    lines = terminal("verify", one, other, "--no-color").out.splitlines()

    assert lines[lines.index(str(other)) - 1] == ""
    text = " ".join("\n".join(lines).split())
    assert f"m-100.{DATA}: tensor 'w' at byte 0: checksum does not match" in text
    assert not any(line == "" for line in ckptd("verify", one, other).out.splitlines())


def test_verifying_again_is_how_a_person_heals(ckptd, run):
    flip(run, 300)
    assert ckptd("verify", run).status == 1
    flip(run, 300)  # a copy was put over it, with its time

    assert ckptd("verify", f"{run}/m-300").status == 0

    assert ckptd("list", run, "--json").document["partial"] == []


def test_what_cannot_be_written_down_is_told_all_the_same(ckptd, run):
    flip(run, 300)
    (run.path / ".ckptd" / "lock").mkdir(parents=True)  # in the way

    ended = ckptd("verify", run)

    assert ended.status == 1
    assert "\ndamaged" in ended.out
    assert "what was found is not written down: " in ended.err


def test_a_saved_model_s_variables(ckptd, run, tmp_path):
    model = tmp_path / "saved"
    (model / "variables").mkdir(parents=True)
    (model / "saved_model.pb").write_bytes(b"")
    for suffix in ("index", DATA):
        (run.path / f"m-100.{suffix}").rename(model / "variables" / f"variables.{suffix}")

    ended = ckptd("verify", model)

    assert ended.status == 0
    assert ended.out.splitlines()[1].split()[:3] == ["whole", "variables", "V2"]

    data = model / "variables" / f"variables.{DATA}"
    data.write_bytes(bytes(data.stat().st_size))
    os.utime(data, (run.now, run.now))

    assert ckptd("verify", model).status == 1
    assert not (model / "variables" / ".ckptd").exists()  # nothing rotates there: no mark is of use


def test_links_are_followed_for_one_prefix(ckptd, run, tmp_path):
    links = tmp_path / "links"
    links.mkdir()
    for suffix in ("index", DATA):
        (links / f"m-100.{suffix}").symlink_to(run.path / f"m-100.{suffix}")
    assert ckptd("verify", links / "m-100").status == 0

    flip(run, 100)

    assert ckptd("verify", links / "m-100").status == 1


def test_a_bar_is_shown_on_a_terminal_only(terminal, process, run):
    big = run.path / f"m-300.{DATA}"
    with big.open("ab") as file:
        file.truncate(80 << 20)
    os.utime(big, (run.now, run.now))

    assert "reading" not in process("verify", run).err
    started = time.monotonic()
    shown = terminal("verify", run)
    assert time.monotonic() - started < 30
    assert shown.status == 0
    assert "reading" in shown.out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("inside", ["", "m-100"])
def test_a_directory_that_may_not_be_entered_exits_with_12(ckptd, run, inside):
    run.path.chmod(0)
    try:
        ended = ckptd("verify", run.path / inside)
    finally:
        run.path.chmod(0o755)

    assert ended.status == 12
    assert "Permission denied" in ended.err
