"""A trained cell, opened: heads decoded once, and vectors that retrieval compares."""

import pytest
import torch

from brainhive_cli.core.recipe import Paths
from brainhive_cli.evaluation.retrieval.measure import open_gallery
from brainhive_cli.measurement.ranks import ranks
from brainhive_cli.training.alignment import trained
from brainhive_cli.training.alignment.trained import TrainedModel

CPU = torch.device("cpu")


@pytest.fixture
def member(go, small, world) -> TrainedModel:
    run = go("train-align", *small).folder
    align = trained.open_model(str(run), Paths())
    return TrainedModel(align, align.cells[0], CPU)


def test_a_cell_decodes_its_heads_once(member):
    decoded, rows = member.decoded(1, "test")
    responses = member.trials(1, "test")
    tokens = member.encode(responses)

    assert torch.equal(decoded.tensors["token"], tokens) and rows.tolist() == responses.stimulus.tolist()
    assert member.trials(1, "test") is responses
    assert member.decoded(1, "test")[0] is decoded
    assert member.images("test", rows).shape == tokens.shape


def test_a_model_ranks_what_its_trials_showed_and_leaves_out_what_it_has_seen(member):
    trials, gallery = member.trials(1, "test"), open_gallery([member], ["test"])

    scores = member.rank(trials, gallery)

    target = torch.from_numpy(trials.stimulus)  # all test pictures are candidates, in their order
    expected = ranks(member.encode(trials), member.images("test", gallery.tested), target)
    assert scores.ranks.tolist() == expected.tolist() and list(scores.labels) == list(trials.image_ids)
    assert not member.seen(1, "test", trials.stimulus).any()
