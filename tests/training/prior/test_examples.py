"""Order of a prior's examples, share of a process, and decoding."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.media.views import PictureBatch
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.training.prior import examples
from brainhive_cli.training.prior.examples import PriorExamples, load_examples

LAUNCH = Launch(0, 1, torch.device("cpu"))


def pictures_of(count=10, **changes):
    """Make pictures without files. Rows from 3 on are for training."""
    images = [None] * count
    view = None
    prior_examples = PriorExamples(
        images, Targets({}), np.arange(3, count), np.arange(3), view
    )  # type: ignore[arg-type]
    return replace(prior_examples, **changes)


@pytest.fixture
def loads(monkeypatch):
    """List the calls that would read pictures, without reading."""
    calls = list[Any]()

    def load(subject_signals, count, order, workers, launch):
        calls.append((subject_signals, count, workers, launch))
        empty = torch.empty(0)
        return (PictureBatch(np.array(rows), empty, empty, {}) for rows in order)

    monkeypatch.setattr(examples, "load_batches", load)
    return calls


def rows_of(launch=LAUNCH, **changes):
    """List step, positions and rows of each batch."""
    settings = {"steps": range(5), "size": 3, "passes": 2, "seed": 4, "workers": 0}
    drawn_examples = load_examples(
        pictures_of(), **{**settings, **changes}, launch=launch
    )
    return [
        ((batch.step,) + tuple(batch.positions) + tuple(batch.rows.tolist()))
        for batch in drawn_examples
    ]


def test_each_epoch_is_a_new_order_in_whole_steps(loads):
    rows = rows_of()
    assert len(rows) == 10
    assert [row[0] for row in rows] == [step for step in range(5) for _ in range(2)]
    # two steps of three of the seven pictures an epoch
    for epoch in range(2):
        expected = np.random.default_rng((4, epoch)).permutation(np.arange(3, 10))
        of_epoch = rows[4 * epoch : 4 * epoch + 4]
        firsts, seconds = of_epoch[::2], of_epoch[1::2]
        orders = []
        for first_order, second in zip(firsts, seconds, strict=True):
            assert first_order[1:3] == (0, 1)
            assert second[1:2] == (2,)
            orders += list(first_order[3:]) + list(second[2:])
        assert orders == expected[:6].tolist()


def test_a_resumed_training_has_the_same_order(loads):
    assert rows_of(steps=range(3, 5)) == rows_of()[6:]
    assert rows_of(seed=5) != rows_of()


def test_processes_share_the_pictures_of_a_step(loads):
    whole_rows = rows_of(size=5, passes=1)
    shares = [rows_of(replace(LAUNCH, rank=rank, processes=2), size=5, passes=1)
              for rank in (0, 1)]  # fmt: skip
    for whole_row, first_row, second in zip(whole_rows, *shares, strict=True):
        assert first_row[1:3] == (0, 1)
        assert second[1:4] == (2, 3, 4)
        assert whole_row[6:] == tuple(first_row[3:]) + tuple(second[4:])


@pytest.mark.parametrize(
    ("latents", "groups", "workers"),
    [(None, (), 3), (True, (), 0), (True, ("a",), 3), (None, ("a",), 3)],
)
def test_workers_decode_unless_nothing_is_to_be_decoded(
    loads, latents, groups, workers
):
    targets = SimpleNamespace(groups=groups)
    pictures = pictures_of(latents=latents, targets=targets)
    next(load_examples(pictures, range(1), 3, 1, 0, 3, LAUNCH))
    (call,) = loads
    assert call[1:] == (10, workers, LAUNCH)
    assert call[0] == pictures.read


def test_a_step_has_a_picture_for_each_pass_of_each_process():
    pictures = pictures_of()
    assert pictures.count_in_step(5, 2, 1) == 5
    assert pictures.count_in_step(50, 7, 1) == 7 == pictures.count_in_step(7, 1, 7)
    for size, passes, processes in ((50, 8, 1), (50, 2, 4), (3, 2, 2)):
        with pytest.raises(BrainhiveError):
            pictures.count_in_step(size, passes, processes)
