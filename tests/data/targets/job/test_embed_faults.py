"""embed under blows: killed at any moment, on a disk that fills up, in several
processes, with many pictures.

A command runs in a fork of this process, which has imported everything: it starts at
once.
"""

import multiprocessing
import os
import random
import signal
import sys
import threading

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.data.files.hdf5 import get_part_path
from brainhive_cli.data.stores import TargetStore, target_store, target_writer

COLOURS = "python:brainhive_cli.models.encoders.python:example"
LARGE = "python:tests.worlds.large_encoders:load_large"
STORES = ("store.py", "embeddings.py")
NAMES = {
    COLOURS: "brainhive_cli-models-encoders-python-example",
    LARGE: "tests-worlds-large_encoders-load_large",
}


def forked(work):
    """Run `work` in a fork of this process; return its exit code, negative for a
    signal.
    """
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(300)
    process.kill()
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def killed_at(call, work, output_path=None):
    """Make `work` die by SIGKILL at its `call`-th call to or from a store; `left` gets
    what was left.
    """
    count = iter(range(call, 0, -1))

    def watch(frame, *_):
        if frame.f_code.co_filename.endswith(STORES) and next(count, 0) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched():
        threading.setprofile(watch)
        sys.setprofile(watch)
        work()
        sys.setprofile(None)
        if output_path:
            output_path.write_text(str(next(count)))

    return watched


@pytest.fixture
def settings(pictures, code_allowed):
    """Overrides for two encoders over twelve pictures, two at a time."""
    encoders = f"encoders=[{COLOURS!r}, {LARGE!r}]"
    return (
        f"dataset={{kind: image-folder, root: {pictures}}}",
        encoders,
        "batch_size=2",
        "run.workers=0",
    )


def stores(home):
    return {
        encoder: target_store.build_store_path(
            home / "embeddings", "pictures", "train", name
        )
        for encoder, name in NAMES.items()
    }


def count_finished(store, expected):
    """Count the rows that a store says it has, finished or not, and hold that each of
    them is right.
    """
    path = store if store.exists() else get_part_path(store)
    if not path.exists():
        return 0
    with h5py.File(path, "r") as file:
        is_done = file["done"][()].astype(bool)
        assert np.array_equal(file["embedding"][is_done], expected[is_done])
    return int(is_done.sum())


# `tests.soak` has more
@pytest.mark.nightly
def test_a_killed_embed_loses_no_row_and_writes_no_wrong_row(
    tmp_path, monkeypatch, pictures, settings, run_command
):
    def embed():
        run_command("embed", *settings)

    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path / "first"))
    embed()  # so that no fork has anything to import
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path / "whole"))
    calls = 10_000_000
    assert forked(killed_at(calls, embed, tmp_path / "left")) == 0
    calls -= int((tmp_path / "left").read_text())
    expected = {
        e: np.array(TargetStore.open(path).embedding)
        for e, path in stores(tmp_path / "whole").items()
    }

    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path / "killed"))
    moments, counts = random.Random(0), dict.fromkeys(NAMES, 0)
    for call in (moments.randrange(calls), moments.randrange(calls)):
        assert forked(killed_at(call, embed)) in (0, -signal.SIGKILL)
        for encoder, path in stores(tmp_path / "killed").items():
            initial_count, counts[encoder] = (
                counts[encoder],
                count_finished(path, expected[encoder]),
            )
            assert counts[encoder] >= initial_count
    embed()

    for encoder, path in stores(tmp_path / "killed").items():
        assert count_finished(path, expected[encoder]) == 12
        assert [file.name for file in path.parent.glob(f"{path.name}*")] == [path.name]


def test_a_full_disk_is_named_and_the_store_can_resume(
    home, pictures, settings, run_command, monkeypatch
):
    settings = (
        settings[0],
        "encoders=python:tests.worlds.large_encoders:load_until_full",
    ) + tuple(settings[2:])
    store = stores(home)[LARGE].with_name(
        "tests-worlds-large_encoders-load_until_full.h5"
    )

    def on_a_disk_that_fills_up():
        monkeypatch.setenv("FULL_AFTER", "9")
        ended = CliRunner().invoke(app, ["embed"] + list(settings))
        (home / "told").write_text(f"{ended.exit_code} {ended.stderr}")

    assert forked(on_a_disk_that_fills_up) == 0
    lines = (home / "told").read_text().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("1 error: ")
    assert lines[0].endswith(": File too large")
    assert "tests-worlds-large_encoders-load_until_full.h5" in lines[0]
    assert lines[1].strip().startswith("try: ")
    assert "ulimit -f" in lines[1]
    assert not store.exists()
    lacking = target_writer.TargetWriter(store).pending_rows
    # those never decoded, and what waited to be written when the disk was full
    assert len(lacking) >= 4
    files = sorted(pictures.rglob("*.png"))
    for row in set(range(12)) - set(lacking.tolist()):
        files[row].write_bytes(b"it must not be read a second time")

    run_command("embed", *settings)

    assert TargetStore.open(store).done.all()
