"""Where networks of a generator are while memory is spared."""

from typing import Any

import torch
from torch import nn

from brainhive_cli.models.generators._components import Placement


class Moved(nn.Module):
    """Keeps the devices that it was moved to."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[str] = []

    def _apply(self, change: Any, recurse: bool = True) -> Any:
        self.devices.append(change(torch.zeros(1)).device.type)
        return self


def test_networks_are_on_the_device_only_while_they_are_used():
    unet, vae = Moved(), Moved()
    placement = Placement((unet, vae), torch.device("cpu"))
    placement.use(unet)
    assert unet.devices == vae.devices == ["cpu"]
    placement.offload(torch.device("meta"))
    placement.use(unet)
    placement.use(vae)
    placement.use()
    assert unet.devices == ["cpu", "meta", "cpu", "cpu"] and vae.devices == ["cpu", "cpu", "meta", "cpu"]
    assert placement.device.type == "meta"
