"""4 kB of zeros in the middle of a store: whatever reads these rows refuses them, in
a line.
"""

import re
import shutil

import h5py
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.stores.signal_store import build_store_path
from brainhive_cli.data.stores.target_store import build_store_path as target_path
from brainhive_cli.data.targets import targets
from brainhive_cli.training.alignment.training import training_data

ENCODER = "brainhive_cli-models-encoders-python-example"
DATASET = "demo-noise-0.3-40-concepts"
ZEROS = 4096
EMBED = (
    f"delete it, then: brainhive embed --dataset {DATASET} --encoders {ENCODER} splits="
)
SIGNALS = (
    "delete it, then: run again what made it: prepare, or the command that needs the "
    "signals"
)


@pytest.fixture
def own_reader(world, trained_run, tmp_path, monkeypatch):
    """A copy of the world with its first subject and its run, to damage."""
    shutil.copytree(world / "embeddings", tmp_path / "embeddings")
    (tmp_path / f"signals/{DATASET}/default").mkdir(parents=True)
    shutil.copy(
        build_store_path(world / "signals", DATASET, "default", 1),
        tmp_path / f"signals/{DATASET}/default",
    )
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    return tmp_path


def zero(path, name):
    """Zero 4 kB in the middle of a dataset; returns its rows that are no longer what
    they were.
    """
    with h5py.File(path) as file:
        count, start, size = (
            len(file[name]),
            file[name].id.get_offset(),
            file[name].id.get_storage_size(),
        )
    content, middle = bytearray(path.read_bytes()), (size - ZEROS) // 2
    assert any(content[start + middle : start + middle + ZEROS])
    content[start + middle : start + middle + ZEROS] = bytes(ZEROS)
    path.write_bytes(content)
    row_bytes = size // count
    return range(middle // row_bytes, (middle + ZEROS - 1) // row_bytes + 1)


def refused(call, path, name, rows, hint):
    with pytest.raises(BrainhiveError) as caught:
        call()
    message = (
        re.escape(f"{path} is damaged: row ")
        + r"(\d+)"
        + f" of {name} does not match its checksum"
    )
    says = re.fullmatch(message, caught.value.message)
    assert says
    assert int(says[1]) in rows
    assert caught.value.hint == hint


def store_of(home, split):
    return target_path(home / "embeddings", DATASET, split, ENCODER)


def signals_of(home):
    return build_store_path(home / "signals", DATASET, "default", 1)


def test_training_refuses_targets(
    own_reader, run_command, align_overrides, monkeypatch
):
    path = store_of(own_reader, "train")
    rows = zero(path, "embedding")
    # so that they are gathered from the file
    monkeypatch.setattr(targets, "count_free_bytes", lambda device: 0)

    refused(
        lambda: run_command(
            "train-align", *align_overrides, "subjects=1", "train.epochs=1"
        ),
        path,
        "embedding",
        rows,
        f"{EMBED}train",
    )


def test_training_and_retrieval_refuse_signals(
    own_reader, run_command, align_overrides, trained_run, monkeypatch
):
    # so that they are read from the file
    monkeypatch.setattr(training_data, "count_free_bytes", lambda device: 0)
    path = signals_of(own_reader)
    rows = zero(path, "train/signal")
    refused(
        lambda: run_command(
            "train-align",
            *align_overrides,
            "subjects=1",
            "train.epochs=1",
            "signal.repetitions=single",
        ),
        path,
        "train/signal",
        rows,
        SIGNALS,
    )

    rows = zero(path, "test/signal")
    refused(
        lambda: run_command(
            "eval-retrieval",
            f"run={trained_run}",
            "subjects=1",
            "sheet_rows=0",
            f"paths.runs={own_reader / 'runs'}",
        ),
        path,
        "test/signal",
        rows,
        SIGNALS,
    )
