"""The sampler: every setting of a recipe reaches the generator, and the prior's conditioning too."""

import ctypes
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import text_encoders
import torch

from brainhive_cli.core.device_memory import KEPT_BYTES, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.evaluation.reconstruction.generation import Sampler
from brainhive_cli.evaluation.reconstruction.recipe import Output
from brainhive_cli.models import priors
from brainhive_cli.models.generators import Sampling, sdxl
from brainhive_cli.models.heads import Conditioning, Decoded, Head
from brainhive_cli.models.priors.fusion_prior import FusionPrior

SEEDS = [1, 2]
SMALL: dict[str, Any] = {"resolution_px": 32, "steps": 2}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory, generator: Path) -> str:
    """The tiny generator, with text encoders."""
    folder = Path(shutil.copytree(generator, tmp_path_factory.mktemp("speaking") / "generator"))
    text_encoders.write(folder)
    return str(folder)


def tokens(prior: FusionPrior) -> torch.Tensor:
    return torch.randn(len(SEEDS), prior.dim, generator=torch.Generator().manual_seed(0))


def sampler_of(speaking: str, prior: Path, adapter: str | None = None, **how: Any) -> tuple[Sampler, Decoded]:
    fusion = priors.load(str(prior), adapter=adapter)
    output = Output(**{key: value for key, value in how.items() if key in Output.model_fields})
    sampling = Sampling(**{key: value for key, value in how.items() if key in Sampling.model_fields})
    build = sdxl.Config(source=speaking).build
    return Sampler(build, fusion, output, sampling, CPU), Decoded({"token": tokens(fusion)})


def generated(speaking: str, prior: Path, **how: Any) -> torch.Tensor:
    sampler, decoded = sampler_of(speaking, prior, **{**SMALL, **how})
    return sampler.sample(decoded, SEEDS)


@torch.inference_mode()
def expected(speaking: str, prior: Path, adapter: str = "skip", **how: Any) -> torch.Tensor:
    generator, fusion = sdxl.Config(source=speaking).build(), FusionPrior.load(str(prior))
    fusion.attach(generator)
    token = tokens(fusion)
    token, empty = (fusion.adapt(t) if adapter == "apply" else t for t in (token, torch.zeros_like(token)))
    given, null = (Conditioning(embeddings=fusion.tokens(t)) for t in (token, empty))
    return generator.generate(given, SEEDS, 32, Sampling(**{"steps": 2, **how}), null)


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
    found = generated(speaking, prior, **how)

    assert (found - expected(speaking, prior, **how)).abs().max() < 1e-5
    assert (found - expected(speaking, prior, **unlike)).abs().max() > 1 / 255


def test_each_step_is_counted(speaking, prior):
    steps: list[int] = []
    sampler, decoded = sampler_of(speaking, prior, **SMALL)

    sampler.sample(decoded, SEEDS, on_step=steps.append)

    assert steps == [1, 2]


class BuiltGenerator:
    """Stands in for a generator, and keeps how it was built."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.built = device.type, dtype
        self.unet = sdxl.TINY.build().unet

    def spare_memory(self, offload_to: torch.device | None, tile: bool) -> None:
        self.spared = offload_to, tile


def test_a_generator_is_put_where_the_memory_is_and_computes_in_the_chosen_precision(prior):
    def built(device: torch.device, **how: Any) -> BuiltGenerator:
        fusion = FusionPrior.load(str(prior))
        return Sampler(BuiltGenerator, fusion, Output(**how), Sampling(), device).generator

    gpu = torch.device("cuda")
    for how, place, spared in (
        ({"precision": "bf16"}, ("cuda", torch.bfloat16), (None, False)),
        ({"offload": True, "tiling": True}, ("cpu", torch.float16), (gpu, True)),
    ):
        found = built(gpu, **how)
        assert (found.built, found.spared) == (place, spared)
    found = built(CPU, offload=True)
    assert (found.built, found.spared) == (("cpu", torch.float32), (None, False))


@pytest.mark.parametrize(
    ("chosen", "taken"), [("fp16", torch.float32), ("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_a_cpu_computes_in_the_chosen_precision_but_in_fp32_for_fp16(speaking, prior, chosen, taken):
    sampler, decoded = sampler_of(speaking, prior, **SMALL, precision=chosen)

    media = sampler.sample(decoded, SEEDS)

    assert sampler.generator.unet.dtype == taken and media.shape == (2, 3, 32, 32)


def test_latents_of_another_autoencoder_are_refused_as_a_start():
    decoded = Decoded({"token": torch.randn(2, 16), "latent": torch.randn(2, 4, 8, 8)})
    own = sdxl.TINY.build().latent_space

    def sample(space: str) -> torch.Tensor:
        heads = {"token": Head((16,)), "latent": Head((4, 8, 8), "vae", space)}
        output, sampling = Output(resolution_px=32), Sampling(steps=2, strength=0.5)
        sampler = Sampler(sdxl.TINY.build, priors.load("identity"), output, sampling, CPU, heads)
        return sampler.sample(decoded, SEEDS)

    assert sample(own).shape == (2, 3, 32, 32)
    with pytest.raises(BrainhiveError, match="the head latent predicts vae of latents:other"):
        sample("latents:other")


def test_memory_that_a_step_frees_is_kept_for_the_next_one(speaking: str, prior: Path, monkeypatch):
    options: dict[int, int] = {}
    library = SimpleNamespace(mallopt=options.__setitem__)  # glibc's own shows no option that was set
    load = ctypes.CDLL
    monkeypatch.setattr(
        ctypes, "CDLL", lambda name, *more, **other: load(name, *more, **other) if name else library
    )
    sampler, _ = sampler_of(speaking, prior)
    assert sampler.generator
    assert options == dict.fromkeys((M_TRIM_THRESHOLD, M_MMAP_THRESHOLD), KEPT_BYTES)
