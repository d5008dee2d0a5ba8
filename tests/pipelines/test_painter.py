"""From tokens to pictures: what the generator is asked for."""

from typing import Any

import pytest
import torch

from brainhive_cli import launch
from brainhive_cli.generators.sdxl import TINY
from brainhive_cli.pipelines._reconstruction.painter import Painter, Sampling
from brainhive_cli.priors import fusion_prior
from brainhive_cli.recipe import Run


@pytest.mark.parametrize(
    ("asked", "taken"), [("fp16", torch.float32), ("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_a_cpu_draws_in_what_was_asked_for_but_in_fp32_for_fp16(asked: Any, taken: torch.dtype) -> None:
    prior = fusion_prior.TINY.build({"vae": 8}, TINY.build().unet)
    how = Sampling(precision=asked, resolution_px=16, steps=1)
    painter = Painter(how, TINY.build, prior, launch.start(Run(device="cpu")))

    with torch.no_grad():
        (picture,) = painter.draw(torch.zeros(1, prior.dim), [0])

    assert painter.generator.unet.dtype == taken and picture.size == (16, 16)
