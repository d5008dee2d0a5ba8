"""Keys of training that make it the reference's: initial weights, weight decay, the last batch, dropout."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cell_data import HERE, PICTURES, batches_of, data_of, layout_of
from torch import nn
from trials import make_trials

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.models.heads import FUSED, TOKEN, Head
from brainhive_cli.models.priors.fusion_prior import FusionPrior
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.initialisation import (
    REFERENCE_SD,
    _draw_as_reference,
    initial_aligner,
    take_over,
)
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.optimisation import Learner
from brainhive_cli.training.alignment.recipe import Recipe, Stage, Train

EMBEDDING = np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)
LEARNED = PICTURES - 15
"""Pictures of `data_of` that are not held out."""
REFERENCE_KINDS = ["brain_mlp", "brain_projection", "ts_conv", "nice", "atm", "eeg_net"]


def long(kind: str) -> Layout:
    """A layout whose signals are long enough for convolutions."""
    layout = layout_of(data_of(EMBEDDING), kind)
    return replace(layout, spec=replace(layout.spec, samples=250), heads={TOKEN: Head((32,), FUSED)})


@pytest.mark.parametrize(
    ("last_batch", "sizes"), [("even", [15, 15, 15]), ("keep", [16, 16, 13]), ("drop", [16, 16])]
)
def test_trials_that_fill_no_batch_are_spread_kept_or_left_out(last_batch, sizes):
    batches = batches_of(data_of(EMBEDDING), last_batch=last_batch)

    epochs = [batches.epoch(1, epoch) for epoch in range(8)]

    assert [len(rows) for rows in epochs[0]] == sizes and batches.steps == len(sizes)
    assert all(len(set(np.concatenate(epoch))) == sum(sizes) for epoch in epochs)  # each once
    seen = set(np.concatenate([rows for epoch in epochs for rows in epoch]))
    assert len(seen) == LEARNED  # what one epoch leaves out, another takes


def test_an_epoch_of_things_eeg_ends_with_156_trials_as_the_references_does():
    signal, pictures = np.zeros((16540, 1, 1), np.float32), np.arange(16540)
    data = CellData([make_trials(1, signal, pictures, ("Oz",))], Targets({}), np.zeros(16540, bool), None)

    sizes = [len(rows) for rows in batches_of(data, last_batch="keep", batch_size=1024).epoch(2025, 0)]

    assert sizes == 16 * [1024] + [156]


def test_processes_share_a_small_last_batch_as_one_sees_it():
    data = data_of(EMBEDDING)
    one, *two = (
        batches_of(data, launch, last_batch="keep")
        for launch in (HERE, *(replace(HERE, rank=rank, processes=2) for rank in (0, 1)))
    )
    last = one.epoch(3, 0)[-1]

    shares = [batches.draw(batches.epoch(3, 0)[-1], 4)[1]["e"] for batches in two]

    whole = torch.from_numpy(EMBEDDING[one.samples.stimulus[torch.from_numpy(last)]])
    assert [len(share) for share in shares] == [6, 7]
    assert {tuple(row) for row in torch.cat(shares).tolist()} == {tuple(row) for row in whole.tolist()}


@pytest.mark.parametrize(
    ("last_batch", "size", "processes", "told"),
    [("keep", 44, 2, "smallest of 1: fewer"), ("drop", 64, 1, "45 trials into 0 batches")],
)
def test_batches_that_leave_a_process_nothing_are_refused(last_batch, size, processes, told):
    with pytest.raises(RecipeError, match=told) as caught:
        launch = replace(HERE, processes=processes)
        batches_of(data_of(EMBEDDING), launch, last_batch=last_batch, batch_size=size)
    assert "train.last_batch=even" in caught.value.hint


def test_a_training_that_is_left_no_trial_says_so():
    everything = replace(data_of(EMBEDDING), held_out=np.ones(len(EMBEDDING), bool))
    with pytest.raises(RecipeError, match="no trial is left to train on") as caught:
        batches_of(everything, HERE)
    assert "train.validation" in caught.value.hint


@pytest.mark.parametrize("kind", REFERENCE_KINDS)
def test_reference_weights_are_those_that_transformers_draws(kind):
    from transformers import PretrainedConfig, PreTrainedModel

    class Model(PreTrainedModel):
        config_class = PretrainedConfig

        def __init__(self, backbone: nn.Module, fuser: nn.Module) -> None:
            super().__init__(PretrainedConfig())
            self.backbone, self.fuser = backbone, fuser
            torch.manual_seed(5)
            self.post_init()

    theirs, ours = Aligner(long(kind)), Aligner(long(kind))
    Model(theirs.backbone, theirs.fuser)
    torch.manual_seed(5)
    ours.apply(_draw_as_reference)

    expected = theirs.state_dict()
    drawn = [name for name, module in ours.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    assert len(drawn) >= 5
    for name in drawn:
        found = ours.state_dict()[f"{name}.weight"]
        assert torch.equal(found, expected[f"{name}.weight"])
        assert found.std().item() == pytest.approx(REFERENCE_SD, rel=0.25)
        assert not (expected.get(f"{name}.bias", torch.zeros(1))).any()


def test_the_recipe_decides_the_initial_weights_which_a_model_folder_or_prior_replaces(tmp_path):
    data = data_of(EMBEDDING)
    made = {init: initial_aligner(1, layout_of(data), data, init) for init in ("torch", "reference")}
    spreads = {init: model.backbone.proj_in.weight.std().item() for init, model in made.items()}
    assert spreads["torch"] == pytest.approx((3 * 24) ** -0.5, rel=0.15)  # uniform up to 1 / √fan-in
    assert spreads["reference"] == pytest.approx(0.02, rel=0.15)
    made["torch"].save(tmp_path / "model")

    begun = initial_aligner(2, layout_of(data), data, "reference")
    take_over(begun, tmp_path / "model")
    frozen = initial_aligner(2, layout_of(data), replace(data, fuser=made["torch"].fuser), "reference")

    assert torch.equal(begun.backbone.proj_in.weight, made["torch"].backbone.proj_in.weight)
    theirs = made["torch"].fuser.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in frozen.fuser.state_dict().items())


def learner_of(model: torch.nn.Module, **knobs: Any) -> Learner:
    """A learner of a model in its first stage, of which an epoch has one step."""
    learner = Learner(model, torch.nn.ModuleList(), Train(**knobs), 1)
    learner.enter_stage()
    return learner


@pytest.mark.parametrize("kind", REFERENCE_KINDS)
def test_what_does_not_decay_is_what_transformers_trainer_leaves_out(kind):
    from transformers import Trainer

    model = Aligner(long(kind))
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, exempt = learner_of(model, decay="weights").optimizer.param_groups
    (every,) = learner_of(model).optimizer.param_groups

    theirs = Trainer.get_decay_parameter_names(None, model)
    assert {names[p] for p in decayed["params"]} == set(theirs) and len(exempt["params"]) > 3
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.05, 0.0)
    assert len(every["params"]) == len(names) and every["weight_decay"] == 0.05


def test_not_biases_is_what_mindeyes_trainings_leave_out():
    """Source: `no_decay` of Train.py of MindEye1 and MindEye2; no parameter of theirs is named LayerNorm."""
    brain = {"kind": "mindeye2", "hidden": 4}
    prior = {"kind": "mindeye1", "depth": 1, "heads": 1, "dim_head": 4, "timesteps": 3, "head": "image"}
    spec, heads = SignalSpec((), 1, (1,), (5,)), {"image": Head((2, 4), "e")}
    model = Aligner(Layout(spec, heads, {"kind": "with_prior", "backbone": brain, "prior": prior}))

    decayed, exempt = learner_of(model, decay="not_biases", weight_decay=0.01).optimizer.param_groups

    names = {parameter: name for name, parameter in model.named_parameters()}
    assert {names[each] for each in exempt["params"]} == {name for name in names.values() if "bias" in name}
    assert "backbone.brain.backbone.clip_proj.0.weight" in {names[each] for each in decayed["params"]}
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.01, 0.0)


@pytest.mark.parametrize(("grad_norm", "expected"), [(None, 1e3), (1.0, 1.0)])
def test_gradients_are_clipped_unless_their_norm_may_be_any(grad_norm, expected):
    model = torch.nn.Linear(1, 1, bias=False)
    learner = learner_of(model, grad_norm=grad_norm, stages=[Stage(epochs=1, schedule="constant")])
    model.weight.grad = torch.full((1, 1), 1e3)

    learner.step()

    mean = learner.optimizer.state[model.weight]["exp_avg"] / (
        1 - learner.optimizer.param_groups[0]["betas"][0]
    )
    assert mean.item() == pytest.approx(expected, rel=1e-4)


def test_dropout_in_the_priors_fuser_changes_what_is_learned_and_not_the_fuser(
    go, small, world, tmp_path, prior
):
    settings = (*small, "subjects=1", "train.epochs=1", f"prior={prior}", f"paths.runs={tmp_path}")
    still, dropped = (go("train-align", *settings, f"train.prior_dropout={p}").folder for p in (0, 0.5))

    model, other = (aligners.load(run / "cells" / "sub-01_seed-1" / "model") for run in (dropped, still))
    assert model.layout.fuser["dropout"] == 0.5  # so it stands in the model folder
    weights = (each.backbone.proj_in.weight for each in (model, other))
    assert not torch.equal(*weights)
    theirs = FusionPrior.load(prior).fusion_encoder["vision_model"].state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.fuser.state_dict().items())


def test_keys_that_would_act_on_nothing_are_refused(go, small, world, tmp_path):
    here = f"paths.runs={tmp_path}"
    with pytest.raises(RecipeError, match=r"prior_dropout .*without a prior"):
        Recipe.resolve("train-align", None, {}, ["train.prior_dropout=0.1"])
    with pytest.raises(RecipeError, match="no effect on weights of a run"):
        Recipe.resolve("train-align", None, {}, ["mode=finetune", f"train.init={other_init()}"])
    with pytest.raises(RecipeError, match="without a prior"):
        Recipe.resolve("train-align", None, {}, ["sweep.train.prior_dropout=0,0.1"])
    assert Recipe.resolve("train-align", None, {}, ["sweep.prior=demo:prior", "train.prior_dropout=0.1"])
    go("train-align", *small, here, "subjects=1", "mode=joint", "train.epochs=1")
    with pytest.raises(RecipeError, match="without a prior"):
        go("train-align", *small, here, "mode=finetune", "subjects=2", "train.prior_dropout=0.1")


def other_init() -> str:
    return {"torch": "reference", "reference": "torch"}[Train().init]


@pytest.mark.parametrize(
    "override",
    ["train.last_batch=keep", "train.decay=weights", f"train.init={other_init()}", "train.prior_dropout=0.1"],
)
def test_each_key_makes_another_run(override):
    made = [Recipe.resolve("train-align", None, {"prior": "demo:prior"}, given) for given in ([], [override])]
    assert made[0].fingerprint() != made[1].fingerprint()
