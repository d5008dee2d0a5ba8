"""The memory estimates: bytes that live at once, of shapes alone."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from brainhive_cli.data import memory_estimate
from brainhive_cli.generators import sdxl
from brainhive_cli.pipelines import train_prior
from brainhive_cli.prior_training.examples import batches
from brainhive_cli.prior_training.optimisation import Learner
from brainhive_cli.prior_training.plan import memory
from brainhive_cli.prior_training.samples import _draw
from brainhive_cli.priors import fusion_prior
from brainhive_cli.reconstruction.memory import estimate
from brainhive_cli.reconstruction.sampler import Sampling

WIDE = {
    **sdxl._architecture.TINY,
    "unet": {**sdxl._architecture.TINY["unet"], "block_out_channels": (64, 128)},
}

TINY = json.dumps(sdxl._architecture.TINY)
HEAVY_VAE = json.dumps(
    {
        **sdxl._architecture.TINY,
        "vae": {**sdxl._architecture.TINY["vae"], "block_out_channels": (128, 128, 128)},
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


def test_the_estimate_of_drawing_is_less_with_less_at_once_and_parts_elsewhere():
    prior = fusion_prior.TINY.build({"vae": 8}, sdxl.TINY.build().unet)
    config = sdxl.Config(source="random", architecture=WIDE)

    def moments(**how: object) -> dict[str, int]:
        return estimate(config, Sampling(**how), prior).moments  # type: ignore[arg-type]

    many, few, guided = moments(batch_size=20), moments(batch_size=10), moments(batch_size=10, guidance=5.0)
    assert many["denoising"] > few["denoising"] > 0
    assert guided == {"denoising": many["denoising"], "decoding": few["decoding"]}
    two, four, eight = (moments(batch_size=n)["decoding"] for n in (2, 4, 8))
    assert 0 < two < four == eight  # the VAE takes four at a time
    assert moments(batch_size=2, vae_tiling=True)["decoding"] < two
    whole, offloaded = (estimate(config, Sampling(offload=o), prior).held["weights"] for o in (False, True))
    assert offloaded < whole


def test_bytes_are_told_in_a_unit_that_shows_them():
    found = memory_estimate.Footprint(4, {"weights": 3 * 2**30, "optimiser": 1}, {"a": 2**29, "b": 2**20})

    assert str(found) == "3.5 GiB for 4 at once: weights 3.0 GiB, optimiser 1 MiB, a 512 MiB or b 1 MiB"


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("train.gradient_checkpointing=true",),
        ("train.accumulate=2", "cache_latents=true"),
        ("freeze=[fusion_encoder]", "train.ema=0.9", "train.min_snr_gamma=5"),
        ("train.precision=bf16", "prior.hidden_size=512", "prior.intermediate_size=2048"),
        ("generator={kind: sdxl, source: random, architecture: " + HEAVY_VAE + "}", "train.batch_size=2"),
    ],
)
def test_the_estimate_of_training_is_what_a_true_step_takes(settings, begun, more):
    """Within 1 %: a GPU's attention keeps a sum a query, a CPU's a little else."""
    generator = f"generator={{kind: sdxl, source: random, architecture: {json.dumps(WIDE)}}}"
    settings = (*settings, generator, *more)
    what = train_prior.Recipe.resolve("train-prior", None, {}, settings)
    training = begun(*settings)
    learner = Learner(training.prior, what.freeze, what.train)
    size = what.train.batch_size * what.train.accumulate

    def step(number: int) -> None:
        steps = range(number, number + 1)
        for batch in batches(training.pictures, steps, size, what.train.accumulate, 0, 0, training.launch):
            training.loss(batch).backward()
        learner.update()

    step(0)
    live = memory_estimate.Live(training.generator.unet, training.generator.vae, training.prior)
    with live:
        step(1)

    planned = memory(what)
    assert planned.moments["a step"] == pytest.approx(live.peak, rel=0.01)
    states = [t for state in learner.optimizer.state.values() for t in state.values()]
    averages = learner.average.shadow_params if learner.average else []
    assert planned.held["optimiser"] == pytest.approx(memory_estimate.size_of([*states, *averages]), rel=0.01)
    networks = (training.generator.unet, training.generator.vae, training.prior)
    assert planned.held["weights"] == sum(map(memory_estimate.size_of, networks))


def test_the_estimate_of_training_counts_what_is_there_beside_a_step(settings):
    def planned(*more: str) -> memory_estimate.Footprint:
        what = train_prior.Recipe.resolve("train-prior", None, {}, (*settings, *more))
        return memory(what)

    plain, drawing = planned(), planned("sampler={kind: sdxl, source: random, architecture: " + TINY + "}")
    sampler = sdxl.TINY.build()
    beside = memory_estimate.size_of(sampler.unet) + memory_estimate.size_of(sampler.vae)
    assert drawing.moments == {**plain.moments, "drawing": plain.moments["drawing"] + beside}
    assert planned("train.optimizer=adamw8bit").held["optimiser"] == plain.held["optimiser"] / 4
    assert planned("train.precision=bf16").held["weights"] < plain.held["weights"]
    assert "drawing" not in planned("sample_items=0").moments
    large = planned("prior.hidden_size=2048", "run.processes=2")
    assert large.moments["a step"] == large.held["optimiser"]  # gradients, and once more to average them


def test_weights_in_half_precision_to_start_from_are_trained_in_float32(settings, begun, tmp_path):
    prior = begun(*settings).prior.half()
    projection = {f"image_proj.{name}": weight for name, weight in prior.proj.state_dict().items()}
    attention = prior.attn_adapter.state_dict().items()
    renamed = {name.replace("attn_processors", "ip_adapter"): weight for name, weight in attention}
    save_file(projection | renamed, tmp_path / "ip-adapter.safetensors")

    plain, started = (
        memory(train_prior.Recipe.resolve("train-prior", None, {}, (*settings, f"prior.start_from={file}")))
        for file in ("null", tmp_path / "ip-adapter.safetensors")
    )

    assert started == plain


def test_the_estimate_of_drawing_on_the_way_is_what_it_takes(settings, begun):
    """Within a tenth: the sampler holds a few latents."""
    settings = (*settings, f"generator={{kind: sdxl, source: random, architecture: {HEAVY_VAE}}}")
    settings = (*settings, "resolution_px=64", "sample_items=4")
    training = begun(*settings)
    networks = (training.generator.unet, training.generator.vae, training.prior)

    live = memory_estimate.Live(*networks)
    with live:
        _draw(training, training.generator, np.arange(4))

    planned = memory(train_prior.Recipe.resolve("train-prior", None, {}, settings))
    assert planned.moments["drawing"] == pytest.approx(live.peak, rel=0.1)
