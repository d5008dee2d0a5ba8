"""Models of other projects whose config or weights are damaged or hostile are missing data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brainhive_cli.core import hub
from brainhive_cli.core.errors import MissingData
from brainhive_cli.models import encoders

Damage = Callable[[Path], object]


def config(changes: dict[str, Any], name: str = "config.json") -> Damage:
    def change(folder: Path) -> None:
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changes))

    return change


def processor(changes: dict[str, Any]) -> Damage:
    return config(changes, "preprocessor_config.json")


def cut(pattern: str) -> Damage:
    def change(folder: Path) -> None:
        file = next(folder.glob(pattern))
        file.write_bytes(file.read_bytes()[:-100])

    return change


def test_a_damaged_model_is_missing_data(tmp_path: Path) -> None:
    vae = [config({"_class_name": "UNet2DConditionModel"}), config({"block_out_channels": [8, "x"]})]
    vit = [config({"hidden_size": "x"}), config({"image_size": 0}), processor({"image_mean": "x"})]
    for source, damages in (("demo:encoder", vit), ("demo:generator/vae", vae)):
        for number, damage in enumerate([*damages, cut("*.safetensors")]):
            folder = tmp_path / f"{len(damages)}-{number}"
            damage(shutil.copytree(hub.folder(source), folder))
            with pytest.raises(MissingData) as caught:
                encoders.resolve(str(folder)).build().module  # noqa: B018
            assert "\n" not in caught.value.message and caught.value.hint
