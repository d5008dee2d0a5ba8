"""The memory estimates of benchmarks/shapes.py: bytes that live at once, of shapes alone."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from brainhive_cli.core.device_memory import size_of
from brainhive_cli.models.generators import sdxl
from brainhive_cli.training.prior.samples import _generate

HEAVY_VAE = json.dumps(
    {
        **sdxl.TINY.architecture,
        "vae": {**sdxl.TINY.architecture["vae"], "block_out_channels": (128, 128, 128)},
    }
)


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What benchmarks/ estimates memory with."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[3] / "benchmarks")
    return importlib.import_module("shapes")


def test_the_peak_is_of_the_tensors_that_live_at_once_without_the_weights(shapes):
    with torch.device("meta"):
        network = nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(5))).requires_grad_(False)

    peak = shapes.peak(lambda: network(torch.empty(10, 1000, device="meta")), network)

    assert peak == 3 * 10 * 1000 * 4  # what was given, what a layer reads and what it writes


def test_what_the_way_back_needs_is_kept_and_gradients_stay(shapes):
    with torch.device("meta"):
        network = nn.Sequential(*(nn.Sequential(nn.Linear(100, 100), nn.GELU()) for _ in range(5)))

    def work() -> None:
        network(torch.empty(1000, 100, device="meta")).sum().backward()

    peak = shapes.peak(work, network)

    kept = 11 * 1000 * 100 * 4  # what was given, and what each layer and each activation made
    gradients = size_of(network)
    assert kept < peak < kept + 2 * 1000 * 100 * 4 + gradients


def test_attention_takes_no_matrix_of_all_pairs_there_and_back(shapes):
    def attend() -> None:
        query = torch.empty(1, 1, 4096, 8, device="meta", requires_grad=True)
        nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()

    there = torch.nn.functional.scaled_dot_product_attention
    vectors, sums = 4096 * 8 * 4, 4096 * 4

    assert vectors * 5 <= shapes.peak(attend) < vectors * 8 + sums  # of a matrix that is 512 of them
    assert nn.functional.scaled_dot_product_attention is there


def test_the_estimate_of_drawing_on_the_way_is_what_it_takes(settings, begun, shapes):
    """Within a tenth: the sampler holds a few latents."""
    settings = (*settings, f"generator={{kind: sdxl, source: random, architecture: {HEAVY_VAE}}}")
    settings = (*settings, "resolution_px=64", "sample_items=4")
    training = begun(*settings)
    networks = (*training.generator.networks, training.prior)

    live = shapes.LiveBytes(*networks)
    with live:
        _generate(training, training.generator, np.arange(4))

    generator = training.recipe.generator.build("meta")
    planned = shapes.sampling_bytes(generator, 4, 64) - sum(map(size_of, generator.networks))
    assert planned == pytest.approx(live.peak, rel=0.1)
