"""Model folders of the aligner: saving, loading and damage."""

import json
from dataclasses import replace

import pytest
import torch

from brainhive_cli import aligner
from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.data.stores.training_history import TrainingHistory
from brainhive_cli.models import FUSED_TARGET, TOKEN_HEAD, Head, SignalSpec
from brainhive_cli.training.alignment import FROM_MEAN, Aligner, is_model, read_config
from brainhive_cli.training.alignment.model_files import (
    WEIGHT_FILES,
    holds_model,
    read_history,
)
from tests.worlds.model_layouts import make_signal_spec, make_token_layout

SPEC = replace(
    make_signal_spec(("Oz", "POz"), 10, (3, 1)),
    rate_hz=250.0,
    times_s=tuple(n / 250 for n in range(10)),
)
LAYOUT = make_token_layout(
    SPEC,
    8,
    {"vae": 6, "CLIP": 4},
    encoders={"vae": "vae", "clip-b32": "CLIP"},
    backbone={"kind": "brain_mlp"},
)
VOXELS = SignalSpec(
    (), 1, (5, 2), (7, 4), regions={"V1": ((0, 1, 6), (3,)), "V2": ((2,), ())}
)
TWO = replace(
    LAYOUT,
    heads={
        TOKEN_HEAD: Head((8,), FUSED_TARGET),
        "latent": Head((2, 3, 3), "latent", "digest of the autoencoder"),
    },
    encoders={"vae": "vae", "clip-b32": "CLIP", "latent": "latent"},
)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    Aligner(LAYOUT).save(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_aligner_comes_back_the_same(tmp_path):
    signal, subject = torch.randn(3, 2, 10), torch.tensor([0, 1, 0])
    embeddings = {"vae": torch.randn(3, 6), "CLIP": torch.randn(3, 4)}
    learned = replace(
        LAYOUT, prior="demo:prior", subject_layer="linear", similarity="centred_cosine"
    )
    for number, layout in enumerate((learned, TWO)):
        created_aligner = Aligner(layout).eval()
        created_aligner.losses = {"0.logit_scale": torch.tensor(1.5)}
        created_aligner.save(tmp_path / str(number))
        loaded = aligner.load(tmp_path / str(number))
        assert loaded.layout == layout
        assert not loaded.training
        assert loaded.losses == created_aligner.losses
        torch.testing.assert_close(
            loaded.encode_signal(signal, subject),
            created_aligner.encode_signal(signal, subject),
        )
        torch.testing.assert_close(
            loaded.encode_image(embeddings), created_aligner.encode_image(embeddings)
        )
        assert (
            loaded.encode_signal(signal).shape
            == loaded.encode_image(embeddings).shape
            == (3, 8)
        )


def test_a_damaged_model_folder_is_one_clear_error(folder):
    content, damaged = (folder / "config.json").read_text(), []
    for old_text, new_text, pattern in (
        ('"format": 8', '"format": "x"', r"config\.json: format: "),
        ("        8\n", "        16\n", r"has shape "),
        ("brain_mlp", "brain_mlp_9", "brain_mlp_9"),
    ):
        assert old_text in content
        (folder / "config.json").write_text(content.replace(old_text, new_text))
        with pytest.raises(BrainhiveError, match=pattern) as caught:
            aligner.load(folder)
        damaged.append(caught.value)
    (folder / "config.json").write_text(content)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-50])
    with pytest.raises(BrainhiveError, match="damaged") as caught:
        aligner.load(folder)
    assert all(
        "\n" not in error.message and error.hint
        for error in tuple(damaged) + (caught.value,)
    )


def test_heads_of_any_shape_are_predicted_and_compared_flattened():
    model = Aligner(replace(TWO, retrieval_heads=("latent",))).eval()
    latent = torch.randn(3, 2, 3, 3)

    predicted, targets = (
        model.predict(torch.randn(3, 2, 10)),
        model.compute_targets({"latent": latent}),
    )
    decoded = model.decode(torch.randn(3, 2, 10), None, [1, 2, 3])

    assert {
        name: tuple(prediction.shape) for name, prediction in predicted.items()
    } == {
        "token": (3, 8),
        "latent": (3, 2, 3, 3),
    }
    assert list(targets) == ["latent"]
    assert targets["latent"] is latent
    assert torch.equal(model.encode_image({"latent": latent}), latent.flatten(1))
    assert decoded.tensors["latent"].shape == (3, 2, 3, 3)
    assert len(decoded) == 3
    with pytest.raises(BrainhiveError, match=r"latent.* token"):
        model.encode_image({"vae": torch.randn(3, 6), "CLIP": torch.randn(3, 4)})


def test_signals_of_each_subjects_own_width_are_taken(tmp_path):
    layout = replace(LAYOUT, spec=VOXELS, backbone={"kind": "voxel_ridge", "hidden": 8})
    created_aligner = Aligner(layout).eval()
    created_aligner.save(tmp_path)
    loaded = aligner.load(tmp_path)

    assert loaded.layout == layout
    for subject, width in enumerate(VOXELS.widths):
        signal, index = torch.randn(3, width, 1), torch.full((3,), subject)
        torch.testing.assert_close(
            loaded.encode_signal(signal, index),
            created_aligner.encode_signal(signal, index),
        )
    with pytest.raises(
        BrainhiveError,
        match=r"5 voxels.*\(5, 2\) have 7, 4",
    ):
        created_aligner.encode_signal(torch.randn(3, 5, 1))


def test_cosines_of_centred_tokens_are_correlations_of_tokens():
    torch.manual_seed(0)
    plain_aligner, centred = (
        Aligner(LAYOUT).eval(),
        Aligner(replace(LAYOUT, similarity="centred_cosine")).eval(),
    )
    # a fresh LayerNorm leaves nothing to centre
    for block in (plain_aligner.backbone.block, plain_aligner.fuser.block):
        torch.nn.init.normal_(block.layers[0].norm.bias)
    centred.load_state_dict(plain_aligner.state_dict())
    tokens = encoded(plain_aligner)
    expected = torch.corrcoef(torch.cat(tokens))[:3, 3:]
    torch.testing.assert_close(cosines(*encoded(centred)), expected)
    assert not torch.allclose(cosines(*tokens), expected, atol=1e-3)


def test_the_cosine_of_joined_heads_is_the_mean_of_theirs():
    heads = {"one": Head((3,), "one"), "two": Head((2, 2), "two")}
    layout = replace(
        TWO,
        heads=heads,
        dims={},
        encoders={"one": "one", "two": "two"},
        retrieval_heads=("two", "one"),
        similarity=FROM_MEAN,
    )
    model, generator = Aligner(layout), torch.Generator().manual_seed(0)
    for parameter in model.means.values():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    left_cosine, right_cosine = (
        {
            name: torch.randn(5, *head.shape, generator=generator)
            for name, head in heads.items()
        }
        for _ in range(2)
    )

    cosine_similarity = torch.cosine_similarity(
        model.join_heads(left_cosine), model.join_heads(right_cosine)
    )

    for row in range(5):
        cosine_similarities = [
            torch.cosine_similarity(
                (left_cosine[name][row] - model.means[name]).flatten(),
                (right_cosine[name][row] - model.means[name]).flatten(),
                0,
            )
            for name in heads
        ]
        assert cosine_similarity[row].item() == pytest.approx(
            sum(map(float, cosine_similarities)) / 2, abs=1e-5
        )
    # one head is compared as it is, without its mean
    single_aligner = Aligner(replace(layout, retrieval_heads=("two",)))
    single_aligner.load_state_dict(model.state_dict())
    expected = (left_cosine["two"] - model.means["two"]).flatten(1)
    torch.testing.assert_close(single_aligner.join_heads(left_cosine), expected)
    plain_aligner = Aligner(
        replace(layout, similarity="cosine", retrieval_heads=("one",))
    )
    torch.testing.assert_close(
        plain_aligner.join_heads(left_cosine), left_cosine["one"]
    )


def encoded(model):
    generator = torch.Generator().manual_seed(1)
    signal, vae, clip = (
        torch.randn(3, *shape, generator=generator) for shape in ((2, 10), (6,), (4,))
    )
    with torch.no_grad():
        return model.encode_signal(signal), model.encode_image(
            {"vae": vae, "CLIP": clip}
        )


def cosines(signal, image):
    return (
        torch.nn.functional.normalize(signal) @ torch.nn.functional.normalize(image).T
    )


def test_people_have_their_place_among_the_subjects():
    model = Aligner(LAYOUT)
    index = model.make_subject_index(1, 3)
    assert index is not None
    assert index.tolist() == [1, 1, 1]
    assert model.make_subject_index(3, 1).tolist() == [0]  # type: ignore[union-attr]
    assert model.make_subject_index(2, 3) is None
    assert model.make_subject_index(None, 3) is None
    assert model.device == torch.device("cpu")


@pytest.mark.parametrize("shape", [(3, 3, 10), (3, 2, 9), (2, 10), (3, 1, 2, 10)])
def test_signals_of_another_size_are_refused(shape):
    model = Aligner(LAYOUT)
    for index in (None, torch.zeros(3, dtype=torch.int64)):
        with pytest.raises(BrainhiveError):
            model.predict(torch.zeros(shape), index)


def test_a_head_is_predicted_alone_where_it_is_named():
    model = Aligner(TWO).eval()
    signal = torch.randn(3, 2, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole_predictions, single_predictions = (
            model.predict(signal),
            model.predict(signal, names=["latent"]),
        )
    assert "latent" in single_predictions
    assert torch.equal(single_predictions["latent"], whole_predictions["latent"])


def test_only_what_is_given_becomes_a_target():
    model = Aligner(TWO).eval()
    latent = torch.randn(2, 2, 3, 3)
    fused = {"vae": torch.randn(2, 6), "CLIP": torch.randn(2, 4)}
    assert list(model.compute_targets({})) == []
    assert list(model.compute_targets({"latent": latent})) == ["latent"]
    assert list(model.compute_targets({**fused, "latent": latent})) == [
        "token",
        "latent",
    ]
    assert list(model.compute_targets(fused)) == ["token"]
    with pytest.raises(BrainhiveError):
        model.compute_targets({"latent": latent[:, :1]})


def test_one_centred_head_has_no_mean_and_keeps_its_length():
    model = Aligner(replace(LAYOUT, similarity="centred_cosine"))
    token = torch.randn(4, 8)
    heads = model.join_heads({TOKEN_HEAD: token})
    torch.testing.assert_close(heads, token - token.mean(1, True))


def test_a_model_is_told_from_a_run_by_its_files(folder):
    assert is_model(folder)
    assert holds_model(folder)
    (folder / "metrics.json").touch()
    assert not is_model(folder)
    assert not holds_model(folder)
    (folder / "metrics.json").unlink()
    (folder / "config.json").rename(folder / "other.json")
    assert not is_model(folder)
    assert not is_model(folder / "model.safetensors")
    torch.save({"a": torch.ones(1)}, folder / "x.pth")
    assert is_model(folder / "x.pth")
    assert not holds_model(folder / "x.pth")
    torch.save({"ridge.linears.0.weight": torch.ones(1)}, folder / "y.pt")
    assert holds_model(folder / "y.pt")


def test_weights_have_the_name_of_here_or_of_upstream(folder):
    model = aligner.load(folder)
    first_name, second = WEIGHT_FILES
    (folder / first_name).rename(folder / second)
    loaded = aligner.load(folder)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    (folder / second).unlink()
    with pytest.raises(MissingData) as caught:
        aligner.load(folder)
    assert first_name in caught.value.message
    for path in (None, 3, torch.zeros(9, 99)):
        with pytest.raises(RecipeError) as refused:
            aligner.load(path)  # type: ignore[arg-type]
        assert refused.value.message.isprintable()


def test_a_folder_without_a_record_has_an_empty_history(
    folder,
):
    fields, learned = read_config(folder)
    assert "format" not in fields
    assert "learned" not in fields
    assert read_history(folder).caveats == learned.caveats
    config = json.loads((folder / "config.json").read_text())
    del config["learned"]
    (folder / "config.json").write_text(json.dumps(config))
    assert read_history(folder).caveats == TrainingHistory().caveats
    assert read_config(folder)[0] == fields


def test_heads_to_compare_are_those_of_the_model():
    with pytest.raises(RecipeError):
        Aligner(replace(TWO, retrieval_heads=("token", "absent")))
    known_targets = {"token": torch.ones(2, 8)}
    with pytest.raises(BrainhiveError):
        Aligner(replace(TWO, retrieval_heads=("token", "latent"))).join_heads(
            known_targets
        )
