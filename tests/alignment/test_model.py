"""The aligner's model folder: what is saved is what is loaded, and damage is told in one line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from brainhive_cli import aligner
from brainhive_cli.alignment.model import SIMILARITIES, Aligner, Layout
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError

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
    Aligner(LAYOUT).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "layout",
    [
        LAYOUT,
        replace(LAYOUT, window_ms=None, prior="demo:prior"),
        replace(LAYOUT, subject_layer="token", similarity="centred_cosine"),
    ],
)
def test_a_saved_aligner_comes_back_the_same(tmp_path: Path, layout: Layout) -> None:
    made = Aligner(layout).eval()
    made.losses = {"0.logit_scale": torch.tensor(1.5)}
    made.save(tmp_path)
    found = aligner.load(tmp_path)
    signal, subject = torch.randn(3, 2, 10), torch.tensor([0, 1, 0])
    embeddings = {"vae": torch.randn(3, 6), "CLIP": torch.randn(3, 4)}
    assert found.layout == layout and not found.training and found.losses == made.losses
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
        (change_config('"subject_layer": "none"', '"subject_layer": "linear"'), "is damaged"),
        (change_config('"samples": 10,', ""), "is damaged: .*'samples'"),
    ],
)
def test_a_damaged_model_folder_is_one_clear_error(
    folder: Path, damage: Callable[[Path], None], what: str
) -> None:
    damage(folder)
    with pytest.raises(BrainhiveError, match=what) as caught:
        aligner.load(folder)
    assert "\n" not in caught.value.message and caught.value.hint


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model_folder_without_a_file_is_missing_data(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(MissingData, match=f"has no {name}"):
        aligner.load(folder)


def test_a_part_that_this_version_lacks_is_named(folder: Path) -> None:
    change_config("brain_mlp", "brain_mlp_9")(folder)
    with pytest.raises(RecipeError, match="no backbone called 'brain_mlp_9'"):
        aligner.load(folder)


def test_a_folder_of_before_there_were_subject_layers_is_read(folder: Path) -> None:
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    for newer in ("subject_layer", "similarity"):
        del fields[newer]
    path.write_text(json.dumps(fields))
    assert aligner.load(folder).layout == LAYOUT


@pytest.mark.parametrize(("key", "name"), [("subject_layer", "tokens"), ("similarity", "dot")])
def test_a_layout_that_names_what_there_is_not_lists_what_there_is(key: str, name: str) -> None:
    with pytest.raises(RecipeError, match=f"no {key.replace('_', ' ')} called '{name}'") as caught:
        Aligner(replace(LAYOUT, **{key: name}))
    assert "token" in caught.value.hint or "centred_cosine" in caught.value.hint


def test_a_prior_goes_with_plain_tokens_only() -> None:
    with pytest.raises(BrainhiveError, match="centred_cosine centres tokens, the prior demo:prior"):
        Aligner(replace(LAYOUT, prior="demo:prior", similarity="centred_cosine"))


def test_the_cosine_of_centred_tokens_is_the_correlation_of_plain_ones() -> None:
    torch.manual_seed(0)
    plain, centred = Aligner(LAYOUT).eval(), Aligner(replace(LAYOUT, similarity="centred_cosine")).eval()
    for block in (plain.backbone.block, plain.fuser.block):  # a fresh LayerNorm leaves nothing to centre
        torch.nn.init.normal_(block.layers[0].norm.bias)
    centred.load_state_dict(plain.state_dict())
    tokens = encoded(plain)
    expected = torch.corrcoef(torch.cat(tokens))[:3, 3:]
    torch.testing.assert_close(cosines(*encoded(centred)), expected)
    assert not torch.allclose(cosines(*tokens), expected, atol=1e-3)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_cosine_of_tokens_with_several_heads_is_the_mean_of_the_heads(similarity: str) -> None:
    torch.manual_seed(0)
    model = Aligner(replace(LAYOUT, similarity=similarity)).eval()
    assert model.heads == (8,)
    whole = encoded(model)
    model.fuser.heads = (5, 3)  # type: ignore[assignment]
    assert model.heads == (5, 3)
    plain = Aligner(LAYOUT).eval()
    plain.load_state_dict(model.state_dict())
    parts = zip(*(token.split((5, 3), dim=1) for token in encoded(plain)), strict=True)
    compare = cosines if similarity == "cosine" else lambda a, b: torch.corrcoef(torch.cat([a, b]))[:3, 3:]
    expected = torch.stack([compare(signal, image) for signal, image in parts]).mean(0)
    torch.testing.assert_close(cosines(*encoded(model)), expected)
    assert not torch.allclose(cosines(*whole), expected, atol=1e-3)


def encoded(model: Aligner) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    signal, vae, clip = (torch.randn(3, *shape, generator=generator) for shape in ((2, 10), (6,), (4,)))
    with torch.no_grad():
        return model.encode_signal(signal), model.encode_image({"vae": vae, "CLIP": clip})


def cosines(signal: Tensor, image: Tensor) -> Tensor:
    return torch.nn.functional.normalize(signal) @ torch.nn.functional.normalize(image).T
