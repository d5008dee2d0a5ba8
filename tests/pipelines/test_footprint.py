"""The memory estimate: bytes that live at once, of shapes alone."""

import torch
from torch import nn

from brainhive_cli.generators import sdxl
from brainhive_cli.pipelines._reconstruction import footprint as _footprint
from brainhive_cli.pipelines._reconstruction.painter import Sampling
from brainhive_cli.priors import fusion_prior


def test_the_peak_is_of_the_tensors_that_live_at_once_without_the_weights():
    with torch.device("meta"):
        network = nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(5)))

    peak = _footprint._peak(network, lambda: network(torch.empty(10, 1000, device="meta")))

    assert peak == 3 * 10 * 1000 * 4  # what was given, what a layer reads and what it writes


def test_attention_takes_no_matrix_of_all_pairs():
    def attend() -> None:
        query = torch.empty(1, 1, 4096, 8, device="meta")
        nn.functional.scaled_dot_product_attention(query, query, query)

    assert _footprint._peak(nn.Identity(), attend) == 2 * 4096 * 8 * 4


def test_the_estimate_is_less_with_less_at_once_and_parts_elsewhere():
    prior = fusion_prior.TINY.build({"vae": 8}, sdxl.TINY.build().unet)
    large = {
        **sdxl._architecture.TINY,
        "unet": {**sdxl._architecture.TINY["unet"], "block_out_channels": (64, 128)},
    }
    config = sdxl.Config(source="random", architecture=large)

    def weights_and_peaks(**how: object) -> list[float]:
        told = _footprint.estimate(config, Sampling(**how), prior)  # type: ignore[arg-type]
        numbers = [part.rpartition(" ")[2] for part in told.replace(" or ", ", ").split(", ")]
        return [float(number) for number in numbers]

    many, few = weights_and_peaks(batch_size=2000), weights_and_peaks(batch_size=1000)
    assert many[1] > few[1] > 0
    guided = weights_and_peaks(batch_size=1000, guidance=5.0)
    assert guided[1] == many[1] and guided[2] == few[2]
    two, four, eight = (weights_and_peaks(batch_size=n, resolution_px=4096)[2] for n in (2, 4, 8))
    assert 0 < two < four == eight  # the VAE takes four at a time
    assert weights_and_peaks(batch_size=2, resolution_px=4096, vae_tiling=True)[2] < two
