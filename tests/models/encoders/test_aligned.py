"""Human-aligned encoders are named after base and alignment, and have the width that they state."""

from typing import Any

import pytest
import torch

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models import encoders

DREAMSIM = ("dino-b16", "dinov2-b14", "synclr-b16", "clip-b32-openai", "clip-b32-laion400m")


@pytest.mark.parametrize("name", ["dreamsim", *(f"{base}+dreamsim" for base in DREAMSIM), "siglip2+alignet"])
def test_a_network_of_full_size_has_the_width_it_states(name: str) -> None:
    config = encoders.resolve({"kind": name, "source": "random"})
    with torch.device("meta"):  # shapes without weights
        embedding = config.build().module(torch.empty(2, 3, config.image_px, config.image_px))
    assert embedding.shape == (2, config.dim)


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("dinov2-b14+dreamsim", "dinov2-b14+dreamsim"),
        ("synclr_b16_dreamsim", "synclr-b16+dreamsim"),
        ("dreamsim", "dreamsim"),
        ("dino-b16+glocal", "dino-b16+glocal"),
        ({"kind": "siglip2+alignet", "source": "hub:me/mine"}, "siglip2+alignet--me--mine"),
        ({"kind": "dino-b16+dreamsim", "source": "/weights/models"}, "dino-b16+dreamsim--local--models"),
    ],
)
def test_an_aligned_encoder_is_named_after_base_and_alignment(reference: Any, name: str) -> None:
    assert encoders.resolve(reference).name == name


def test_an_unknown_alignment_guesses_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no encoder called 'dinov2-b14\+dreamsin'") as caught:
        encoders.resolve("dinov2-b14+dreamsin")
    assert caught.value.hint.startswith("did you mean dinov2-b14-dreamsim?")
