"""The aligner's model folder: what is saved is what is loaded, and damage is told in one line."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from brainhive_cli import aligner
from brainhive_cli.aligner import Aligner, Layout
from brainhive_cli.errors import BrainhiveError, MissingData, RecipeError

LAYOUT = Layout(
    backbone={"kind": "brain_mlp"},
    fuser={"kind": "fusion_encoder", "intermediate_size": 8},
    dims={"vae": 6, "CLIP": 4},
    encoders={"vae": "vae", "clip-b32": "CLIP"},
    dim=8,
    channels=("Oz", "POz"),
    samples=10,
    window_ms=(0.0, 40.0),
    scale=0.2,
    subjects=(3, 1),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    Aligner(LAYOUT, 1.5).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("layout", [LAYOUT, replace(LAYOUT, window_ms=None, prior="demo:prior")])
def test_a_saved_aligner_comes_back_the_same(tmp_path: Path, layout: Layout) -> None:
    made = Aligner(layout, 1.5).eval()
    made.save(tmp_path)
    found = aligner.load(tmp_path)
    signal, subject = torch.randn(3, 2, 10), torch.tensor([0, 1, 0])
    embeddings = {"vae": torch.randn(3, 6), "CLIP": torch.randn(3, 4)}
    assert found.layout == layout and not found.training and found.logit_scale.item() == 1.5
    torch.testing.assert_close(found.encode_signal(signal, subject), made.encode_signal(signal, subject))
    torch.testing.assert_close(found.encode_image(embeddings), made.encode_image(embeddings))
    assert found.encode_signal(signal).shape == found.encode_image(embeddings).shape == (3, 8)


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])


def change_config(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (cut_weights, "is damaged"),
        (change_config("{", ""), "is damaged"),
        (change_config('"dim": 8', '"dim": 16'), "is damaged"),
        (change_config('"dim": 8', '"size": 8'), "is damaged: .*'size'"),
        (change_config('"samples": 10,', ""), "is damaged: .*'samples'"),
    ],
)
def test_a_damaged_model_folder_is_one_clear_error(
    folder: Path, damage: Callable[[Path], None], what: str
) -> None:
    damage(folder)
    with pytest.raises(BrainhiveError, match=what) as caught:
        aligner.load(folder)
    assert "\n" not in caught.value.what and caught.value.hint


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model_folder_without_a_file_is_missing_data(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(MissingData, match=f"has no {name}"):
        aligner.load(folder)


def test_a_part_that_this_version_lacks_is_named(folder: Path) -> None:
    change_config("brain_mlp", "brain_mlp_9")(folder)
    with pytest.raises(RecipeError, match="no backbone called 'brain_mlp_9'"):
        aligner.load(folder)
