"""The aligner's model folder: what is saved is what is loaded, and damage is one clear error."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from layouts import one_token, spec_of
from torch import Tensor

from brainhive_cli import aligner
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.models.heads import FUSED, TOKEN, Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.layout import Layout, tokens_of
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.recipe import Recipe

SPEC = replace(spec_of(("Oz", "POz"), 10, (3, 1)), rate_hz=250.0, times_s=tuple(n / 250 for n in range(10)))
LAYOUT = one_token(
    SPEC,
    8,
    {"vae": 6, "CLIP": 4},
    encoders={"vae": "vae", "clip-b32": "CLIP"},
    backbone={"kind": "brain_mlp"},
)
VOXELS = SignalSpec((), 1, (5, 2), (7, 4), regions={"V1": ((0, 1, 6), (3,)), "V2": ((2,), ())})
TWO = replace(
    LAYOUT,
    heads={TOKEN: Head((8,), FUSED), "latent": Head((2, 3, 3), "latent", "digest of the autoencoder")},
    encoders={"vae": "vae", "clip-b32": "CLIP", "latent": "latent"},
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
        replace(LAYOUT, prior="demo:prior"),
        replace(LAYOUT, subject_layer="linear", similarity="centred_cosine"),
        TWO,
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


def flip_a_byte(name: str) -> Callable[[Path], None]:
    def flip(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)

    return flip


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
        (change_config("{", ""), r"config\.json is not valid JSON"),
        (change_config('"format": 7', '"format": "x"'), r"config\.json: format: "),
        (change_config('"selection": ""', '"selection": 1'), r"config\.json: learned\.selection: "),
        (change_config('"prior": ""', '"prior": 0.2'), r"config\.json: prior: "),
        (change_config("        8\n", "        16\n"), r"has shape .*, .* is needed"),
        (change_config('"target": "fused"', '"targets": "fused"'), r"config\.json: heads\.token\.targets"),
        (change_config('"prior": ""', '"size": 8'), r"config\.json: size"),
        (change_config('"subject_layer": "none"', '"subject_layer": "linear"'), "has shape none"),
        (flip_a_byte("model.safetensors"), r"model\.safetensors is damaged"),
        (flip_a_byte("learned.safetensors"), r"learned\.safetensors is damaged"),
        (change_config('"samples": 10,', ""), r"config\.json: spec\.samples"),
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


def test_heads_of_any_shape_are_predicted_and_compared_flattened() -> None:
    model = Aligner(replace(TWO, retrieval_heads=("latent",))).eval()
    latent = torch.randn(3, 2, 3, 3)

    predicted, targets = model.predict(torch.randn(3, 2, 10)), model.targets({"latent": latent})
    decoded = model.decode(torch.randn(3, 2, 10), None, [1, 2, 3])

    assert {name: tuple(each.shape) for name, each in predicted.items()} == {
        "token": (3, 8),
        "latent": (3, 2, 3, 3),
    }
    assert list(targets) == ["latent"] and targets["latent"] is latent
    assert torch.equal(model.encode_image({"latent": latent}), latent.flatten(1))
    assert decoded.tensors["latent"].shape == (3, 2, 3, 3) and len(decoded) == 3
    with pytest.raises(BrainhiveError, match="compares the head latent, and only token is given"):
        model.encode_image({"vae": torch.randn(3, 6), "CLIP": torch.randn(3, 4)})
    with pytest.raises(BrainhiveError, match=r"gives latent \[2, 9\], the heads are latent \[2, 3, 3\]"):
        model.targets({"latent": latent.flatten(2)})


def test_tokens_of_one_encoder_are_fused_token_by_token() -> None:
    shapes = {"vae": (5, 6), "CLIP": (5, 4)}
    model = Aligner(replace(LAYOUT, heads={TOKEN: Head((*tokens_of(shapes), 8), FUSED)})).eval()

    image = model.encode_image({key: torch.randn(3, *shape) for key, shape in shapes.items()})

    assert image.shape == model.encode_signal(torch.randn(3, 2, 10)).shape == (3, 40)
    for refused in ({"vae": (5, 6), "CLIP": (4,)}, {"vae": (4, 8, 8)}):
        with pytest.raises(RecipeError, match="cannot be fused"):
            tokens_of(refused)


def test_which_head_retrieval_compares_is_named_where_it_could_be_either() -> None:
    heads = {name: Head((4,), name) for name in ("one", "other")}
    with pytest.raises(RecipeError, match="heads one, other, and nothing says which") as caught:
        _ = replace(LAYOUT, heads=heads).compared
    assert caught.value.hint.startswith("head=one")
    assert replace(LAYOUT, heads={"one": heads["one"]}).compared == ("one",)


def test_signals_of_each_subjects_own_width_are_taken(tmp_path: Path) -> None:
    layout = replace(LAYOUT, spec=VOXELS, backbone={"kind": "voxel_ridge", "hidden": 8})
    made = Aligner(layout).eval()
    made.save(tmp_path)
    found = aligner.load(tmp_path)

    assert found.layout == layout
    for subject, width in enumerate(VOXELS.widths):
        signal, index = torch.randn(3, width, 1), torch.full((3,), subject)
        torch.testing.assert_close(found.encode_signal(signal, index), made.encode_signal(signal, index))
    with pytest.raises(
        BrainhiveError, match="voxel count 5 matches no training subject: subject 5, 2 with 7, 4"
    ):
        made.encode_signal(torch.randn(3, 5, 1))
    for change in ({"backbone": {"kind": "linear"}}, {"subject_layer": "linear"}):
        with pytest.raises(BrainhiveError, match="subjects have different widths: 7, 4"):
            Aligner(replace(layout, **change))


@pytest.mark.parametrize(("key", "name"), [("subject_layer", "tokens"), ("similarity", "dot")])
def test_a_layout_that_names_what_there_is_not_lists_what_there_is(
    tmp_path: Path, key: str, name: str
) -> None:
    Aligner(LAYOUT).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: name}))
    with pytest.raises(BrainhiveError, match=f"{key}: .*'(linear|centred_cosine)'.*{name}"):
        aligner.load(tmp_path)


def test_a_prior_goes_with_plain_tokens_only() -> None:
    with pytest.raises(RecipeError, match="but the prior demo:prior draws from tokens as they are"):
        Recipe.model_validate({"prior": "demo:prior", "similarity": "centred_cosine"})


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


@pytest.mark.parametrize("similarity", ["cosine", "centred_cosine"])
def test_the_cosine_of_several_heads_is_the_mean_of_theirs(similarity: str) -> None:
    heads, names = {"vae": Head((6,), "vae"), "CLIP": Head((4,), "CLIP")}, ("vae", "CLIP")
    model = Aligner(replace(LAYOUT, heads=heads, similarity=similarity, retrieval_heads=names)).eval()
    embeddings = {"vae": torch.randn(3, 6), "CLIP": torch.randn(3, 4)}
    predicted = model.predict(torch.randn(3, 2, 10))

    found = cosines(model.join(predicted), model.encode_image(embeddings))

    compare = cosines if similarity == "cosine" else lambda a, b: torch.corrcoef(torch.cat([a, b]))[:3, 3:]
    expected = torch.stack([compare(predicted[name], embeddings[name]) for name in names]).mean(0)
    torch.testing.assert_close(found, expected)


def encoded(model: Aligner) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    signal, vae, clip = (torch.randn(3, *shape, generator=generator) for shape in ((2, 10), (6,), (4,)))
    with torch.no_grad():
        return model.encode_signal(signal), model.encode_image({"vae": vae, "CLIP": clip})


def cosines(signal: Tensor, image: Tensor) -> Tensor:
    return torch.nn.functional.normalize(signal) @ torch.nn.functional.normalize(image).T


ROUTED = replace(
    LAYOUT,
    dims={"low": 6, "high": 6},
    encoders={"low": "low", "high": "high"},
    fuser={"kind": "router", "hidden": 5, "signal_dim": 12},
)


def test_a_fuser_maps_what_the_backbone_gives_by_the_map_that_targets_pass_too(tmp_path: Path) -> None:
    made = Aligner(ROUTED).eval()
    made.save(tmp_path)
    model = aligner.load(tmp_path)
    signal, subject = torch.randn(3, 2, 10), torch.tensor([0, 1, 0])
    raw = model.backbone(signal, subject)
    assert raw.shape == (3, 12)
    expected = model.fuser.share(model.fuser.signal(raw))  # type: ignore[union-attr,operator]
    for tokens in (
        model.predict(signal, subject)[TOKEN],
        model.learn(signal, subject, {}, None)[0][TOKEN],
        model.decode(signal, subject, [0, 1, 2]).tensors[TOKEN],
        model.encode_signal(signal, subject),
    ):
        assert tokens.shape == (3, 8) and torch.equal(tokens, expected)


def test_a_subjects_bias_weighs_layers_in_training_alone() -> None:
    """Else a picture's token would tell whose signal it is compared with."""
    model = Aligner(ROUTED)
    embeddings = {key: torch.randn(2, 6) for key in ROUTED.dims}
    subject = torch.tensor([0, 1])
    with torch.no_grad():
        model.fuser.subject_bias += torch.tensor([[5.0, 0.0], [0.0, 5.0]])  # type: ignore[union-attr,operator]
    model.fuser.bias_dropout = 0.0  # type: ignore[union-attr]
    everyone = model.targets(embeddings)[TOKEN]
    assert not torch.allclose(model.train().targets(embeddings, subject)[TOKEN], everyone)
    assert torch.equal(model.eval().targets(embeddings, subject)[TOKEN], everyone)
