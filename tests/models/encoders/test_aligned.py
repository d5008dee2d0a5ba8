"""Names and widths of human-aligned encoders."""

import torch

from brainhive_cli.models import encoders


def test_a_network_of_full_size_has_its_stated_width_and_names():
    for name in ("dino-b16+dreamsim", "siglip2+alignet"):
        config = encoders.resolve({"kind": name, "source": "random"})
        with torch.device("meta"):  # shapes without weights
            embedding = config.build().module(
                torch.empty(2, 3, config.image_px, config.image_px)
            )
        assert embedding.shape == (2, config.dim)
    for reference, name in (
        ("synclr_b16_dreamsim", "synclr-b16+dreamsim"),
        ("dino-b16+glocal", "dino-b16+glocal"),
        (
            {"kind": "siglip2+alignet", "source": "hub:me/mine"},
            "siglip2+alignet--me--mine",
        ),
    ):
        assert encoders.resolve(reference).name == name
