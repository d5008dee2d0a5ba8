"""Where networks of a generator are while memory is spared."""

import pytest
import torch

from brainhive_cli.core.errors import MissingData
from brainhive_cli.models.generators import _components, sdxl


def test_a_file_in_place_of_a_generators_folder_is_refused(tmp_path):
    torch.save({"other": 0}, tmp_path / "model.bin")
    with pytest.raises(MissingData, match="is a file, and generators are read") as caught:
        sdxl.Config(source=str(tmp_path / "model.bin")).check()
    assert "from_single_file" in caught.value.hint and "prior.start_from" in caught.value.hint
    (one,) = _components.list_inputs(str(tmp_path / "model.bin"))
    assert one.is_missing and one.error is not None and "is a file" in one.error.message
