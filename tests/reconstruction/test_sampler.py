"""The painter: every setting of a recipe reaches the generator, and the prior's tokens with it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import text_encoders
import torch

from brainhive_cli import generators
from brainhive_cli.core.conditioning import Conditioning
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.views import to_pictures
from brainhive_cli.generators import sdxl
from brainhive_cli.priors.fusion_prior import FusionPrior
from brainhive_cli.reconstruction.sampler import Sampler, Sampling

SEEDS = [1, 2]
SMALL: dict[str, Any] = {"resolution_px": 32, "steps": 2}
CPU = Launch(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory, generator: Path) -> str:
    """The tiny generator, with text encoders."""
    folder = Path(shutil.copytree(generator, tmp_path_factory.mktemp("speaking") / "generator"))
    text_encoders.write(folder)
    return str(folder)


def tokens(prior: FusionPrior) -> torch.Tensor:
    return torch.randn(len(SEEDS), prior.dim, generator=torch.Generator().manual_seed(0))


def painted(speaking: str, prior: Path, **how: Any) -> np.ndarray:
    fusion = FusionPrior.load(str(prior))
    painter = Sampler(Sampling(**{**SMALL, **how}), sdxl.Config(source=speaking).build, fusion, CPU)
    return np.stack([np.asarray(p, np.int16) for p in painter.draw(tokens(fusion), SEEDS)])


@torch.inference_mode()
def expected(
    speaking: str, prior: Path, scheduler: str = "", adapter: str = "skip", **how: Any
) -> np.ndarray:
    made, fusion = sdxl.Config(source=speaking).build(), FusionPrior.load(str(prior))
    fusion.attach(made)
    token = tokens(fusion)
    token, empty = (fusion.adapt(t) if adapter == "apply" else t for t in (token, torch.zeros_like(token)))
    given, null = (Conditioning(embeddings=fusion.tokens(t)) for t in (token, empty))
    asked = {**SMALL, **how, "scheduler": scheduler or None}
    size_px = asked.pop("resolution_px")
    for key in asked.keys() - generators.Sampling.model_fields:
        del asked[key]
    pictures = to_pictures(made.generate(given, SEEDS, size_px, generators.Sampling(**asked), null))
    return np.stack([np.asarray(p, np.int16) for p in pictures])


@pytest.mark.parametrize(
    ("how", "unlike"),
    [
        ({"guidance": 3.0}, {}),
        ({"guidance": 3.0, "adapter": "apply"}, {"guidance": 3.0}),
        ({"guidance": 3.0, "negative_prompt": "b"}, {"guidance": 3.0}),
        ({"prompt": "a"}, {}),
        ({"scheduler": "ddim"}, {}),
        ({"steps": 3}, {}),
        ({"adapter": "apply"}, {}),
    ],
    ids=lambda how: ",".join(how),
)
def test_a_setting_reaches_the_generator_and_changes_its_pictures(speaking, prior, how, unlike):
    found = painted(speaking, prior, **how)

    assert np.abs(found - expected(speaking, prior, **how)).max() <= 1  # rounding to bytes
    assert np.abs(found - expected(speaking, prior, **unlike)).max() > 1


def test_every_step_is_told(speaking, prior):
    steps: list[int] = []
    fusion = FusionPrior.load(str(prior))
    painter = Sampler(Sampling(**SMALL), sdxl.Config(source=speaking).build, fusion, CPU)

    painter.draw(tokens(fusion), SEEDS, on_step=steps.append)

    assert steps == [1, 2]


class EvaluationSpec:
    """Stands where the generator does, and keeps what it is asked for."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.built = device.type, dtype
        self.unet = sdxl.TINY.build().unet

    def spare_memory(self, offload_to: torch.device | None, tile: bool) -> None:
        self.spared = offload_to, tile


def test_a_generator_is_put_where_the_memory_is_and_computes_in_the_precision_asked_for(prior):
    gpu = torch.device("cuda")
    for how, built, spared in (
        ({"precision": "bf16"}, ("cuda", torch.bfloat16), (None, False)),
        ({"offload": True, "vae_tiling": True}, ("cpu", torch.float16), (gpu, True)),
    ):
        found = Sampler(
            Sampling(**how), EvaluationSpec, FusionPrior.load(str(prior)), Launch(0, 1, gpu)
        ).generator
        assert (found.built, found.spared) == (built, spared)
    found = Sampler(Sampling(offload=True), EvaluationSpec, FusionPrior.load(str(prior)), CPU).generator
    assert (found.built, found.spared) == (("cpu", torch.float32), (None, False))


@pytest.mark.parametrize(
    ("asked", "taken"), [("fp16", torch.float32), ("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_a_cpu_draws_in_what_was_asked_for_but_in_fp32_for_fp16(speaking, prior, asked, taken):
    fusion = FusionPrior.load(str(prior))
    painter = Sampler(Sampling(**SMALL, precision=asked), sdxl.Config(source=speaking).build, fusion, CPU)

    pictures = painter.draw(tokens(fusion), SEEDS)

    assert painter.generator.unet.dtype == taken and pictures[0].size == (32, 32)
