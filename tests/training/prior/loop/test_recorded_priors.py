"""Losses, latents and weights of small priors, compared with recorded values."""

from typing import Any

import pytest
import torch

from brainhive_cli.core.runs import Launch, RunFolder
from brainhive_cli.training.prior.examples import load_examples
from brainhive_cli.training.prior.loop import LAST, PriorLearner, train
from brainhive_cli.training.prior.samples import draw_loss_curve, save_samples

DESIGNS = {
    "as it is": (),
    "passes with equal noise": (
        "train.accumulate=2",
        "train.equal_noise=true",
        "token_dropout=0.5",
        "train.checkpoint_steps=2",
    ),
    "the posterior of original crops": (
        "posterior=sample",
        "crop_ids=original",
        "resize=bilinear",
        "seed=3",
        "validation_items=1",
    ),
    "latents in a store": (
        "cache_latents=true",
        "train.batch_size=3",
        "train.weight_decay=0.5",
        "freeze=[fusion_encoder]",
    ),
}


@pytest.mark.parametrize("design", DESIGNS)
def test_four_steps(
    recorded,
    prior_overrides,
    begin_training,
    tmp_path,
    design,
):
    training = begin_training(*prior_overrides, "train.steps=4", *DESIGNS[design])
    folder = RunFolder(tmp_path / "run")
    learner = PriorLearner(
        training.prior, training.recipe.freeze, training.recipe.train
    )
    events = list[Any]()

    at_start = train(training, folder, learner, lambda step: None, events.append)

    pictures = training.pictures
    two = Launch(1, 2, torch.device("cpu"))
    examples = list(load_examples(pictures, range(2, 5), 5, 2, 1, 0, two))
    weights = training.prior.state_dict().values()
    recorded(
        digits=4,
        held=pictures.held_out_rows,
        learned=pictures.training_rows,
        at_start=at_start,
        at_end=training.validate(),
        samples=save_samples(training, folder, LAST),
        events=events,
        weights=[float(value.double().norm()) for value in weights],
        rates=[group["lr"] for group in learner.optimizer.param_groups],
        curve=draw_loss_curve(folder),
        rows=[
            ([batch.step] + list(batch.positions) + list(batch.rows.tolist()))
            for batch in examples
        ],
        sizes=[training.get_size_ids(batch) for batch in examples],
        latents=[training.get_latents(batch) for batch in examples],
        kept=[training.draw_dropout(batch)[0].tolist() for batch in examples],
        embeddings=[training.gather_embeddings(batch) for batch in examples],
    )
