"""The memory estimates: bytes that live at once, of shapes alone."""

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from brainhive_cli.commands import train_prior
from brainhive_cli.core import memory_estimate
from brainhive_cli.core.parts import resolve
from brainhive_cli.models.generators import sdxl
from brainhive_cli.training.prior.components import Learner, training_bytes
from brainhive_cli.training.prior.examples import batches
from brainhive_cli.training.prior.samples import _generate

WIDE = {
    **sdxl.TINY.architecture,
    "unet": {**sdxl.TINY.architecture["unet"], "block_out_channels": (64, 128)},
}

HEAVY_VAE = json.dumps(
    {
        **sdxl.TINY.architecture,
        "vae": {**sdxl.TINY.architecture["vae"], "block_out_channels": (128, 128, 128)},
    }
)


def test_the_peak_is_of_the_tensors_that_live_at_once_without_the_weights():
    with torch.device("meta"):
        network = nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(5))).requires_grad_(False)

    peak = memory_estimate.peak(lambda: network(torch.empty(10, 1000, device="meta")), network)

    assert peak == 3 * 10 * 1000 * 4  # what was given, what a layer reads and what it writes


def test_what_the_way_back_needs_is_kept_and_gradients_stay():
    with torch.device("meta"):
        network = nn.Sequential(*(nn.Sequential(nn.Linear(100, 100), nn.GELU()) for _ in range(5)))

    def work() -> None:
        network(torch.empty(1000, 100, device="meta")).sum().backward()

    peak = memory_estimate.peak(work, network)

    kept = 11 * 1000 * 100 * 4  # what was given, and what each layer and each activation made
    gradients = memory_estimate.size_of(network)
    assert kept < peak < kept + 2 * 1000 * 100 * 4 + gradients


def test_attention_takes_no_matrix_of_all_pairs_there_and_back():
    def attend() -> None:
        query = torch.empty(1, 1, 4096, 8, device="meta", requires_grad=True)
        nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()

    there = torch.nn.functional.scaled_dot_product_attention
    vectors, sums = 4096 * 8 * 4, 4096 * 4

    assert vectors * 5 <= memory_estimate.peak(attend) < vectors * 8 + sums  # of a matrix that is 512 of them
    assert nn.functional.scaled_dot_product_attention is there


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("train.gradient_checkpointing=true",),
        ("train.accumulate=2", "cache_latents=true"),
        ("freeze=[fusion_encoder]", "train.ema=0.9", "train.min_snr_gamma=5"),
        ("train.precision=bf16",),
        ("generator={kind: sdxl, source: random, architecture: " + HEAVY_VAE + "}", "sample_items=0"),
    ],
)
def test_the_estimate_of_training_is_what_a_true_step_takes(settings, begun, more):
    """Within 2 %: a GPU's attention keeps a sum a query, a CPU's a little else."""
    generator = f"generator={{kind: sdxl, source: random, architecture: {json.dumps(WIDE)}}}"
    settings = (*settings, generator, *more)
    recipe = train_prior.Recipe.resolve("train-prior", None, {}, settings)
    training = begun(*settings)
    learner = Learner(training.prior, recipe.freeze, recipe.train)
    size = recipe.train.batch_size * recipe.train.accumulate

    def step(number: int) -> None:
        steps = range(number, number + 1)
        for batch in batches(training.pictures, steps, size, recipe.train.accumulate, 0, 0, training.launch):
            training.loss(batch).backward()
        learner.update()

    step(0)
    networks = (*training.generator.networks, training.prior)
    live = memory_estimate.LiveBytes(*networks)
    with live:
        step(1)

    states = [t for state in learner.optimizer.state.values() for t in state.values()]
    averages = learner.average.shadow_params if learner.average else []
    held = memory_estimate.size_of([*states, *averages]) + sum(map(memory_estimate.size_of, networks))
    assert training_bytes(recipe) - held == pytest.approx(live.peak, rel=0.02)


def test_the_estimate_of_training_counts_what_is_there_between_steps(settings):
    def planned(*more: str) -> int:
        return training_bytes(train_prior.Recipe.resolve("train-prior", None, {}, (*settings, *more)))

    plain, heavy = planned(), "{kind: sdxl, source: random, architecture: " + HEAVY_VAE + "}"
    sampler = sum(map(memory_estimate.size_of, resolve("generators", yaml.safe_load(heavy)).build().networks))
    assert planned(f"sampler={heavy}") > plain + sampler
    assert planned("sample_items=0", f"sampler={heavy}") <= plain
    assert planned("train.optimizer=adamw8bit") < plain and planned("train.precision=bf16") < plain
    assert planned("train.ema=0.9") > plain
    large = ("prior.hidden_size=2048", "sample_items=0")
    assert planned(*large, "run.processes=2") > planned(*large)  # gradients once more, to average them


def test_weights_in_half_precision_to_start_from_are_trained_in_float32(settings, begun, tmp_path):
    prior = begun(*settings).prior.half()
    projection = {f"image_proj.{name}": weight for name, weight in prior.proj.state_dict().items()}
    attention = prior.attn_adapter.state_dict().items()
    renamed = {name.replace("attn_processors", "ip_adapter"): weight for name, weight in attention}
    save_file(projection | renamed, tmp_path / "ip-adapter.safetensors")

    files = ("null", tmp_path / "ip-adapter.safetensors")
    given = [(*settings, f"prior.start_from={file}") for file in files]
    recipes = [train_prior.Recipe.resolve("train-prior", None, {}, each) for each in given]
    plain, started = (training_bytes(recipe) for recipe in recipes)

    assert started == plain


def test_the_estimate_of_drawing_on_the_way_is_what_it_takes(settings, begun):
    """Within a tenth: the sampler holds a few latents."""
    settings = (*settings, f"generator={{kind: sdxl, source: random, architecture: {HEAVY_VAE}}}")
    settings = (*settings, "resolution_px=64", "sample_items=4")
    training = begun(*settings)
    networks = (*training.generator.networks, training.prior)

    live = memory_estimate.LiveBytes(*networks)
    with live:
        _generate(training, training.generator, np.arange(4))

    generator = training.recipe.generator.skeleton(torch.float32)
    planned = generator.memory_estimate(4, 64) - sum(map(memory_estimate.size_of, generator.networks))
    assert planned == pytest.approx(live.peak, rel=0.1)
