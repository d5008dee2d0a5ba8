"""SigLIP 2 ViT-B/16, aligned with human judgements by AligNet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from brainhive_cli.core.base import MissingData
from brainhive_cli.core.runs import fill, read
from brainhive_cli.models import encoders, strip_prefix
from brainhive_cli.models.encoders import Encoder
from brainhive_cli.models.encoders._tokens import TokenConfig
from brainhive_cli.models.encoders._weights import (
    build_untrained,
    describe_weights,
    find_folder,
)
from brainhive_cli.models.encoders.timm import build_outputs

if TYPE_CHECKING:
    from torch import Tensor

FILE = "alignet_siglip2_b.safetensors"
SIDE_PX = 224
DOWNLOAD_HINT = (
    f"put {FILE} there: "
    "https://github.com/ViCCo-Group/dimpred/releases/tag/alignet-weights-v1"
)


class Config(TokenConfig):
    """Pooled output of the image tower, before AligNet's heads (`pre_logits`).

    Source: Muttenthaler et al. 2025 (Nature 647, 349–355). Weights and preprocessing as
    in dimpred's version for PyTorch: GELU by tanh, pixels in 0..1 without mean and std.
    """

    cites = ("muttenthaler2025", "tschannen2025")
    dim = 768
    image_px = SIDE_PX
    licence = "Apache-2.0, CC-BY-4.0"
    is_alignment = True
    weight_files = (FILE,)

    source: str = Field("models", description=f"folder of {FILE}, or `random`")
    architecture: dict[str, Any] = Field(
        {}, description="arguments of timm, for a network of another size"
    )

    def build(self) -> Encoder:
        """Prepare preprocessing and network.

        Raises:
            MissingData: if the weights are absent.
        """
        import timm

        # without a classifier
        arguments = {"num_classes": 0, "act_layer": "gelu_tanh", **self.architecture}
        make = partial(timm.create_model, "vit_base_patch16_siglip_224", **arguments)
        if self.source == "random":
            load = partial(build_untrained, make)
            weights = {"source": "random"}
        else:
            folder = find_folder(self.source, [FILE], DOWNLOAD_HINT)
            load = partial(_load, make, folder / FILE)
            weights = describe_weights(self.source, folder, [FILE])

        side_px: int = self.architecture.get("img_size", SIDE_PX)
        return Encoder(
            network=lambda: build_outputs(load(), self.output),
            preprocess=lambda picture: _squash(picture, side_px),
            preprocessing=(
                f"squash to {side_px} × {side_px} bicubic without antialiasing, 0..1"
            ),
            weights=weights,
        )


TINY = Config(
    source="random", architecture=encoders.TINY_ARCHITECTURES["siglip2-alignet"]
)


def _load(make: Callable[[], Any], path: Path) -> Any:
    """Build the network, and load the image tower of a checkpoint."""
    import torch

    # on the meta device, the network takes over the file's tensors
    with torch.device("meta"):
        network = make()
    state = strip_prefix(read(path, DOWNLOAD_HINT), "encoder.")
    fill(network, state, path, DOWNLOAD_HINT, MissingData)
    return network


def _squash(picture: Any, side_px: int) -> Tensor:
    """Resize a picture to [3, H, W] in 0..1.

    The resizing equals OpenCV's INTER_CUBIC, with which the network was trained.
    """
    from torch import nn
    from torchvision.transforms.v2.functional import pil_to_tensor

    pixels = pil_to_tensor(picture)[None].float()  # [1, 3, H, W] in 0..255
    pixels = nn.functional.interpolate(pixels, (side_px, side_px), mode="bicubic")
    # bicubic interpolation overshoots the range of bytes
    return pixels[0].add(0.5).floor().clamp(0, 255).div(255)
