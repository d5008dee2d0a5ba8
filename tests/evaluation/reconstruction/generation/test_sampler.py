"""Tests that settings and conditions reach the generator."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.evaluation.reconstruction.generation import Sampler
from brainhive_cli.evaluation.reconstruction.recipe import Recipe
from brainhive_cli.models import Conditioning, Decoded, priors
from brainhive_cli.models.generators import Sampling, sdxl
from brainhive_cli.models.priors._fusion_network import FusionPrior
from tests.repositories import text_encoders

SEEDS = [1, 2]
SMALL = {"resolution_px": 32, "steps": 2}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def speaking(tmp_path_factory, generator):
    """Folder of the tiny generator with text encoders."""
    folder = Path(
        shutil.copytree(generator, tmp_path_factory.mktemp("speaking") / "generator")
    )
    text_encoders.write(folder)
    return str(folder)


def tokens(prior):
    return torch.randn(
        len(SEEDS), prior.dim, generator=torch.Generator().manual_seed(0)
    )


def sampler_of(speaking, prior, adapter=None, **fields):
    fusion = priors.load(str(prior), adapter=adapter)
    recipe = Recipe(**fields)
    build = sdxl.Config(source=speaking).build
    return Sampler(build, fusion, recipe, recipe.sampling, CPU), Decoded(
        {"token": tokens(fusion)}
    )


def generated(speaking, prior, **fields):
    sampler, decoded = sampler_of(speaking, prior, **{**SMALL, **fields})
    return sampler.sample(decoded, SEEDS)


@torch.inference_mode()
def expected(speaking, prior, adapter="skip", **fields):
    generator, fusion = (
        sdxl.Config(source=speaking).build(),
        FusionPrior.load(str(prior)),
    )
    fusion.attach(generator)
    token = tokens(fusion)
    token, empty = (
        fusion.adapt(t) if adapter == "apply" else t
        for t in (token, torch.zeros_like(token))
    )
    given, null = (Conditioning(embeddings=fusion.project(t)) for t in (token, empty))
    return generator.generate(
        given, SEEDS, 32, Sampling(**{"steps": 2, **fields}), null
    )


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("how", "unlike"),
    [
        ({"guidance": 3.0, "adapter": "apply"}, {"guidance": 3.0}),
        ({"prompt": "a", "scheduler": "ddim", "steps": 3}, {}),
    ],
    ids=lambda how: ",".join(how),
)
def test_a_setting_reaches_the_generator_and_changes_pictures(
    speaking, prior, how, unlike
):
    generated_set = generated(speaking, prior, **how)

    assert (generated_set - expected(speaking, prior, **how)).abs().max() < 1e-5
    assert (generated_set - expected(speaking, prior, **unlike)).abs().max() > 1 / 255


def test_an_overflow_names_the_item_seed_and_precision(speaking, prior, tmp_path):
    """SDXL's autoencoder overflowed in half precision, and drew black pictures."""
    folder = Path(shutil.copytree(speaking, tmp_path / "overflows"))
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["decoder.conv_out.bias"] *= torch.inf
    save_file(state, path)
    sampler, decoded = sampler_of(str(folder), prior, **SMALL)
    with pytest.raises(BrainhiveError, match=r"a/cat.*\b1\b.*fp32.*\b2 of 2\b"):
        sampler.sample(decoded, SEEDS, items=["a/cat", "a/dog"])
