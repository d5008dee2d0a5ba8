"""The filling of stores: resumed, locked, and final only when finished."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.stores.target_writer import (
    StorePlan,
    finish_stores,
    open_writers,
)

ALONE = Launch(0, 1, torch.device("cpu"))
IDS = [f"p{number}" for number in range(6)]
VALUES = np.random.default_rng(0).normal(size=(6, 3, 2, 2)).astype(np.float32)


@pytest.fixture
def blanks(tmp_path: Path) -> list[StorePlan]:
    """A store of latents, and one of vectors with a further dataset."""
    latents = StorePlan(
        tmp_path / "latents.h5", IDS, IDS, (3, 2, 2), "float32", {"encoder": "a"}
    )
    more = {"sizes": (2,)}
    return [
        latents,
        StorePlan(
            tmp_path / "vectors.h5", IDS, IDS, (12,), "float16", {"encoder": "b"}, more
        ),
    ]


def write(writers, rows):
    rows = np.asarray(rows)
    latents, vectors = writers
    latents.write(rows, VALUES[rows])
    vectors.write(
        rows, VALUES[rows].reshape(len(rows), -1), sizes=np.stack([rows, -rows], 1)
    )


def test_a_store_that_another_command_writes_is_refused(blanks):
    with (
        open_writers(blanks, ALONE) as writers,
        pytest.raises(
            BrainhiveError, match=r"latents\.h5 is being written by another command"
        ),
        open_writers(blanks, ALONE),
    ):
        write(writers, [0])


def test_processes_fill_the_rows_that_the_main_process_found_pending(
    blanks, monkeypatch
):
    with open_writers(blanks, ALONE) as writers:
        write(writers, [0, 1])
    # the main process looked before the first row was written
    seen = {blank.path: np.arange(len(IDS)) for blank in blanks}
    monkeypatch.setattr(Launch, "run_on_main", lambda launch, act: seen)
    with open_writers(blanks, replace(ALONE, rank=1, processes=2)) as writers:
        assert all(len(writer.pending_rows) == len(IDS) for writer in writers)


def test_embeddings_that_are_not_finite_count_as_absent_and_float16_takes_what_it_holds(
    tmp_path,
):
    values = np.ones((len(IDS), 3), np.float32)
    values[1, 2] = np.nan
    blank = StorePlan(tmp_path / "a.h5", IDS, IDS, (3,), "float16", {"encoder": "a"})
    with open_writers([blank], ALONE) as writers:
        with pytest.raises(
            BrainhiveError, match=r"values up to 70000 do not fit into float16"
        ) as caught:
            writers[0].write(
                np.arange(len(IDS)), np.where(np.isnan(values), np.nan, 70_000.0)
            )
        assert caught.value.hint == "dtype=float32"
        writers[0].write(np.arange(len(IDS)), values)
        finish_stores(writers, ALONE)

    store = TargetStore.open(tmp_path / "a.h5")
    assert store.health.non_finite == store.remeasure_health().non_finite == 1
    assert np.flatnonzero(~store.done).tolist() == [1] and store.find_rows(
        [IDS[1], IDS[0]]
    ).tolist() == [-1, 0]
