"""Writer of target stores: locks, shared rows and values that do not fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.stores import (
    StorePlan,
    open_writers,
)

ALONE = Launch(0, 1, torch.device("cpu"))
IDS = [f"p{number}" for number in range(6)]
VALUES = np.random.default_rng(0).normal(size=(6, 3, 2, 2)).astype(np.float32)


@pytest.fixture
def plans(tmp_path):
    """Plan a store of latents, and a store of vectors with a further dataset."""
    latents = StorePlan(
        tmp_path / "latents.h5", IDS, IDS, (3, 2, 2), "float32", {"encoder": "a"}
    )
    vectors = StorePlan(
        tmp_path / "vectors.h5",
        IDS,
        IDS,
        (12,),
        "float16",
        {"encoder": "b"},
        extra_shapes={"sizes": (2,)},
    )
    return [latents, vectors]


def write_rows(writers, rows):
    rows = np.asarray(rows)
    latents, vectors = writers
    latents.write(rows, VALUES[rows])
    flat_values = VALUES[rows].reshape(len(rows), -1)
    vectors.write(rows, flat_values, sizes=np.stack([rows, -rows], 1))


def test_a_store_that_another_command_writes_is_refused(plans):
    with (
        open_writers(plans, ALONE) as writers,
        pytest.raises(BrainhiveError, match=r"latents\.h5 .*another command"),
        open_writers(plans, ALONE),
    ):
        write_rows(writers, [0])


def test_processes_fill_the_rows_pending_in_the_main_process(plans, monkeypatch):
    with open_writers(plans, ALONE) as writers:
        write_rows(writers, [0, 1])
    # the main process looked before the first row was written
    pending_rows = {plan.path: np.arange(len(IDS)) for plan in plans}
    monkeypatch.setattr(Launch, "run_on_main", lambda launch, act: pending_rows)
    with open_writers(plans, replace(ALONE, rank=1, processes=2)) as writers:
        assert all(len(writer.pending_rows) == len(IDS) for writer in writers)
