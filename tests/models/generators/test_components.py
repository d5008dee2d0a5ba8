"""Where networks of a generator are while memory is spared."""

from typing import Any

import pytest
import torch
from torch import nn

from brainhive_cli.core.errors import MissingData
from brainhive_cli.models.generators import _components, sdxl
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


def test_a_file_in_place_of_a_generators_folder_is_refused(tmp_path):
    torch.save({"other": 0}, tmp_path / "model.bin")
    with pytest.raises(MissingData, match="is a file, and generators are read") as caught:
        sdxl.Config(source=str(tmp_path / "model.bin")).check()
    assert "from_single_file" in caught.value.hint and "prior.start_from" in caught.value.hint
    (one,) = _components.list_inputs(str(tmp_path / "model.bin"))
    assert one.is_missing and one.error is not None and "is a file" in one.error.message
