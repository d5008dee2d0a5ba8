"""Models of other projects whose config or weights are damaged or hostile are missing data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

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


def flip(pattern: str) -> Damage:
    def change(folder: Path) -> None:
        content = bytearray((file := next(folder.glob(pattern))).read_bytes())
        content[len(content) // 2] ^= 255
        file.write_bytes(content)

    return change


def refused(folder: Path) -> None:
    with pytest.raises(MissingData) as caught:
        encoders.resolve(str(folder)).build().module  # noqa: B018
    assert "\n" not in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    "damage",
    [
        cut("*.safetensors"),
        config({"hidden_size": 0}),
        config({"hidden_size": "x"}),
        config({"num_hidden_layers": None}),
        config({"image_size": 0}),
        config({"patch_size": -1}),
        config({"layer_norm_eps": -1}),
        config({"model_type": ["clip"]}),
        processor({"size": -1}),
        processor({"crop_size": {"height": 8, "width": 8}}),
        processor({"resample": 10**3}),
        processor({"image_mean": "x"}),
        processor({"image_std": None}),
    ],
)
def test_a_damaged_vision_transformer_is_missing_data(tmp_path: Path, damage: Damage) -> None:
    damage(shutil.copytree(hub.folder("demo:encoder"), folder := tmp_path / "model"))
    refused(folder)


@pytest.mark.parametrize(
    "damage",
    [
        cut("*.safetensors"),
        config({"_class_name": "UNet2DConditionModel"}),
        config({"_class_name": "__dict__"}),
        config({"block_out_channels": [8, "x"]}),
        config({"down_block_types": ["OtherBlock2D"]}),
    ],
)
def test_a_damaged_autoencoder_is_missing_data(tmp_path: Path, damage: Damage) -> None:
    damage(shutil.copytree(hub.folder("demo:generator/vae"), folder := tmp_path / "model"))
    refused(folder)


@pytest.mark.parametrize(
    "damage",
    [
        cut("*.bin"),
        flip("*.bin"),
        config({"architecture": "os"}),
        config({"model_args": {"embed_dim": "x"}}),
        config({"pretrained_cfg": {"input_size": [3, "x", 1]}}),
        config({"pretrained_cfg": {"mean": "x"}}),
    ],
)
def test_a_damaged_model_of_timm_is_missing_data(tmp_path: Path, damage: Damage) -> None:
    model = timm.create_model("test_vit", num_classes=0)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    written = {"architecture": "test_vit", "num_classes": 0, "pretrained_cfg": {"input_size": [3, 160, 160]}}
    (tmp_path / "config.json").write_text(json.dumps(written))
    encoders.resolve(str(tmp_path)).build().module  # noqa: B018
    damage(tmp_path)
    refused(tmp_path)
