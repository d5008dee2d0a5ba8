"""A model of two heads on voxels of two widths goes through every command that a model goes through."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from two import in_two
from worlds import at_home

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.demo import voxels
from brainhive_cli.evaluation.reconstruction import conditions
from brainhive_cli.evaluation.reconstruction.generation import StimulusHeads
from brainhive_cli.models import priors
from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.heads import Decoded
from brainhive_cli.training.alignment import trained
from brainhive_cli.training.alignment.trained import TrainedModel

DATASET = "dataset={kind: demo, noise: 0.1, space: voxels, subjects: 2}"
LATENT, TOKENS = (f"python:tests.contracts.parts.targets:{name}" for name in ("latent", "tokens"))
GENERATOR = "generator=" + yaml.safe_dump(
    sdxl.TINY.model_dump(mode="json"), default_flow_style=True, width=10**6
)
ALIGN = (
    DATASET,
    f"heads={{latent: '{LATENT}', tokens: '{TOKENS}'}}",
    "terms=[{prediction: latent, loss: mse}, {prediction: tokens, loss: {kind: clip, cosine_weight: 1.0}}]",
    "head=tokens",
    "backbone.kind=tests.contracts.parts.two_heads",
    "mode=joint",
    "seeds=1",
    "train.epochs=24",
    "train.batch_size=256",
    "train.lr=0.005",
    "train.precision=fp32",
    "train.selection=last",
)
SMALL = ("resolution_px=32", "steps=2", "repeats=1", "items=4", "metrics=[pixcorr]")
NARROW = ("dim=16", "fuser={kind: fusion_encoder, intermediate_size: 16}", "train.epochs=8")
SUMMED_IN_ANOTHER_ORDER = 1e-4
"""Two processes add gradients in another order than one, over all steps of a training."""
Go = Callable[..., Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, go: Go) -> Any:
    """A home with the targets of both heads embedded and the model trained."""
    home = tmp_path_factory.mktemp("two_heads")
    with at_home(home):
        go("embed", DATASET, f"encoders=['{LATENT}', '{TOKENS}']")
        yield home, go("train-align", *ALIGN).folder


def model_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "cells" / "all_seed-1" / "model" / "model.safetensors")


def test_the_model_folder_says_what_signals_and_heads_it_has(world: Any) -> None:
    _, run = world
    config = json.loads((run / "cells" / "all_seed-1" / "model" / "config.json").read_text())

    masks = [voxels.regions(subject) for subject in (1, 2)]
    widths = [len(mask["early"]) for mask in masks]
    assert config["spec"]["widths"] == widths and widths[0] != widths[1] and config["spec"]["names"] == []
    early = [np.flatnonzero(mask["early"]).tolist() for mask in masks]
    assert config["spec"]["regions"]["early"] == early
    assert {name: head["shape"] for name, head in config["heads"].items()} == {
        "latent": [4, 8, 8],
        "tokens": [4, 16],
    }


@pytest.mark.parametrize("head", ["tokens", "latent"])
def test_either_head_retrieves_above_chance(world: Any, go: Go, head: str) -> None:
    _, run = world

    scopes = go("eval-retrieval", f"align_run={run}", f"head={head}", "sheet_rows=0").metrics.scopes

    for subject in ("sub-01", "sub-02"):
        top5 = scopes[f"all_seed-1 · {subject}"]["top5"]
        assert top5.low > top5.chance


def test_the_identity_prior_reconstructs_from_both_heads(world: Any, go: Go, tmp_path: Path) -> None:
    _, run = world

    result = go("reconstruct", f"align_run={run}", "prior=identity", GENERATOR, *SMALL)

    for subject in ("sub-01", "sub-02"):
        assert len(list((result.folder / "samples/all_seed-1" / subject).rglob("*.png"))) == 4
    pixcorr = result.metrics.scopes["brain"]["pixcorr"]
    assert (pixcorr.n, pixcorr.split) == (8, "test")


def test_pictures_are_compared_by_the_head_of_retrieval_block_by_block(
    world: Any, go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = world
    align, rows = trained.open_model(str(run), Paths()), np.arange(7)
    heads = StimulusHeads.of(align, priors.load("identity"), torch.device("cpu"))
    whole = Decoded.join([*heads.iterate_blocks("test", rows)])
    monkeypatch.setattr(conditions, "MAX_NUMBERS", 1000)  # three pictures of 256 + 64 numbers

    blocks = [
        heads.compare(block.tensors) for block in heads.iterate_blocks("test", rows, heads.compared_keys)
    ]
    mean = heads.average("test").tensors
    result = go("reconstruct", f"align_run={run}", "prior=identity", GENERATOR, *SMALL, "best_of=2")

    assert [len(block) for block in blocks] == [7]  # of tokens alone 15 fit
    assert torch.equal(torch.cat(blocks), whole.tensors["tokens"].flatten(1))
    every = Decoded.join(
        [*heads.iterate_blocks("test", np.arange(len(align.dataset.images("test"))))]
    ).tensors
    for name in ("latent", "tokens"):
        torch.testing.assert_close(mean[name], every[name].mean(0, keepdim=True))
    assert "best of 2 by its decoded head" in result.metrics.overall["pixcorr"].protocol


def test_latents_of_another_autoencoder_are_refused(world: Any, go: Go) -> None:
    _, run = world
    other = GENERATOR.replace("seed: 0", "seed: 1")
    assert other != GENERATOR

    with pytest.raises(BrainhiveError, match=r"latent predicts .*, the generator is of latents:") as caught:
        go("reconstruct", f"align_run={run}", "prior=identity", other, *SMALL)
    assert "autoencoder" in caught.value.hint


def test_sampled_heads_are_the_same_for_whoever_decodes_them(world: Any) -> None:
    _, run = world
    first, second = (trained.open_model(str(run), Paths()) for _ in range(2))
    cell, cpu = first.cells[0], torch.device("cpu")

    one, rows = TrainedModel(first, cell, cpu).decoded(2, "test")
    other, _ = TrainedModel(second, cell, cpu).decoded(2, "test")
    member = TrainedModel(second, cell, cpu)
    predicted = member.encode(member.trials(2, "test"))

    assert len(one) == len(rows) == len(set(one.texts["note"]))
    assert torch.equal(one.tensors["tokens"], other.tensors["tokens"])
    assert not torch.equal(one.tensors["tokens"].flatten(1), predicted)


class Killed(Exception):
    """Raised in the middle of an epoch."""


def test_killed_and_resumed_it_has_the_same_weights(
    world: Any, go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = world
    loop = importlib.import_module("brainhive_cli.training.alignment.loop")
    runs, steps, draw = f"paths.runs={tmp_path}", 0, loop.Batches.draw

    def stop(*given: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 20:
            raise Killed
        return draw(*given)

    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(loop.Batches, "draw", stop)
    with pytest.raises(Killed):
        go("train-align", *ALIGN, runs)
    assert list(tmp_path.rglob("checkpoints/*.pt"))
    monkeypatch.undo()
    resumed = model_of(go("train-align", *ALIGN, runs).folder)

    whole = model_of(run)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], each) for name, each in whole.items())


def _train(launch: Launch, *overrides: str) -> None:
    pipeline = importlib.import_module("brainhive_cli.commands.train_align")
    pipeline.run(pipeline.Recipe.resolve("train-align", None, {}, overrides), launch)


def test_two_processes_give_what_one_gives(world: Any, tmp_path: Path) -> None:
    _, run = world

    in_two(_train, *ALIGN, f"paths.runs={tmp_path}")

    (shared,) = (tmp_path / "train-align").iterdir()
    for name, each in model_of(run).items():
        torch.testing.assert_close(model_of(shared)[name], each, atol=SUMMED_IN_ANOTHER_ORDER, rtol=1e-3)


def test_tokens_alone_are_one_head_and_latents_cannot_be_fused(world: Any, go: Go) -> None:
    short = (DATASET, *ALIGN[4:], "backbone={kind: voxel_ridge, hidden: 32}", "head=null", *NARROW)

    run = go("train-align", *short, f"encoders=['{TOKENS}']").folder
    scopes = go("eval-retrieval", f"align_run={run}", "sheet_rows=0").metrics.scopes

    config = json.loads((run / "cells/all_seed-1/model/config.json").read_text())
    assert config["heads"]["token"]["shape"] == [4, 16]
    top5 = scopes["all_seed-1 · sub-01"]["top5"]
    assert top5.low > top5.chance
    with pytest.raises(RecipeError, match=r"latent \[4, 8, 8\], .* cannot be fused") as caught:
        go("train-align", *short, f"encoders=['{LATENT}', '{TOKENS}']")
    assert "head of its own" in caught.value.hint
    pipeline = importlib.import_module("brainhive_cli.commands.train_align")
    recipe = pipeline.Recipe.resolve("train-align", None, {}, (*short, f"encoders=['{LATENT}']"))
    assert "cannot be fused" in str(describe_missing(pipeline.inputs(recipe)))


def test_a_model_that_learns_from_targets_decodes_without_them(world: Any, go: Go) -> None:
    """Its forward refuses to run in training, so what is trained is `learn`, on the targets it overrides."""
    heads = f"heads={{tokens: '{TOKENS}'}}"
    given = (DATASET, heads, "terms=[{prediction: tokens, loss: mse}]", *ALIGN[5:])
    model = "backbone.kind=tests.contracts.parts.autoregressive"
    run = go("train-align", *given, model, "train.epochs=96").folder  # it learns slowly

    align = trained.open_model(str(run), Paths())
    member = TrainedModel(align, align.cells[0], torch.device("cpu"))
    decoded, rows = member.decoded(1, "test")
    true = member.images("test", rows)  # which are not scaled

    error = (decoded.tensors["tokens"].flatten(1) - true).square().mean()
    assert error < 0.8 * (true - true.mean(0)).square().mean()
    scopes = go("eval-retrieval", f"align_run={run}", "sheet_rows=0").metrics.scopes
    top5 = scopes["all_seed-1 · sub-01"]["top5"]
    assert top5.low > top5.chance


def test_a_diffusion_prior_learns_with_its_brain_model_and_then_alone(
    world: Any, go: Go, tmp_path: Path
) -> None:
    prior = "prior: {kind: mindeye1, head: tokens, depth: 1, heads: 2, dim_head: 8, timesteps: 4}"
    given = (
        *(DATASET, ALIGN[1], *ALIGN[5:7], "mode=joint", "train.batch_size=256", "train.precision=fp32"),
        *("train.selection=last", "train.epochs=1", "head=tokens"),
        "terms=[{prediction: latent, loss: mse}, {prediction: tokens, loss: clip}, "
        "{prediction: denoised, loss: mse, weight: 30}]",
        f"backbone={{kind: with_prior, backbone: {{kind: tests.contracts.parts.two_heads}}, {prior}}}",
        "seeds=1",
    )
    together = go("train-align", *given).folder
    start = together / "cells/all_seed-1/model"
    stages = f"train.stages=[{{epochs: 1, freeze: [backbone.brain], start_from: {start}}}]"
    alone = go("train-align", *given, stages).folder
    result = go("reconstruct", f"align_run={alone}", "prior=identity", GENERATOR, *SMALL)

    before, after = model_of(together), model_of(alone)
    of_backbone = [name for name in after if name.startswith("backbone.")]
    has_changed = [name for name in of_backbone if not torch.equal(before[name], after[name])]
    assert has_changed and all(name.startswith("backbone.prior.") for name in has_changed)
    assert result.metrics.scopes["brain"]["pixcorr"].n == 8


def test_a_ridge_is_fitted_in_one_pass_to_heads_of_any_shape(world: Any, go: Go) -> None:
    """The targets of held-out pictures are not learned; a reconstruction takes latents and tokens."""
    given = (DATASET, ALIGN[1], "head=tokens", "mode=joint", "seeds=1", "backbone={kind: ridge, alpha: 100}")

    run = go("train-align", *given).folder
    validated = json.loads((run / "cells/all_seed-1/metrics.json").read_text())
    scopes = go("eval-retrieval", f"align_run={run}", "sheet_rows=0").metrics.scopes
    result = go("reconstruct", f"align_run={run}", "prior=identity", GENERATOR, *SMALL)

    for subject in ("sub-01", "sub-02"):
        top5 = scopes[f"all_seed-1 · {subject}"]["top5"]
        assert top5.low > top5.chance
    top5 = validated["scopes"]["all_seed-1"]["top5"]
    assert top5["these_subjects"][0] > top5["chance"]
    assert validated["facts"]["cells"]["all_seed-1"]["selected_on"] == "last epoch"
    assert result.metrics.scopes["brain"]["pixcorr"].n == 8
    for idle in ("train.epochs=3", "terms=[{prediction: tokens}]", "loss=mse", "signal.repetitions=single"):
        with pytest.raises(RecipeError, match="has no effect on ridge, which is fitted in closed form"):
            go("train-align", *given, idle)
    with pytest.raises(RecipeError, match="no fuser is trained on ridge"):
        go("train-align", DATASET, "backbone.kind=ridge", "fuser.kind=mean")
