"""Priors of any kind: found by their folder, described without weights, from heads to conditioning."""

import json
from pathlib import Path

import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.models import priors
from brainhive_cli.models.clip_conditions import CaptionTokens
from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.heads import Decoded
from brainhive_cli.models.priors import fusion_prior, identity

DIMS = {"vae": 24, "synclr_vit_b_16": 12}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of a small Fusion Prior."""
    torch.manual_seed(0)
    fusion_prior.TINY.build(DIMS, sdxl.TINY.build()).save(tmp_path / "prior")
    return tmp_path / "prior"


def test_a_folder_of_brainhives_layout_is_a_fusion_prior_and_identity_a_kind_without_weights(saved):
    assert priors.load(str(saved)).kind == priors.describe(str(saved)).kind == "fusion-prior"
    assert priors.load("identity").kind == priors.describe("identity").kind == "identity"
    assert priors.describe("identity").digest == "" and not [*priors.load("identity").parameters()]


def test_a_folder_that_names_its_kind_is_loaded_as_that_kind(saved, monkeypatch, tmp_path, code_allowed):
    lines = ("from brainhive_cli.core import parts", "class Config(parts.Config): pass", "TINY = Config()")
    (tmp_path / "pack_of_parts").mkdir()
    (tmp_path / "pack_of_parts/my_prior.py").write_text(
        "\n".join([*lines, "def load(reference): return 'mine'"])
    )
    monkeypatch.syspath_prepend(tmp_path)
    (saved / "config.json").write_text(json.dumps({"kind": "pack_of_parts.my_prior"}))

    assert priors.kind_of(str(saved)) == "pack_of_parts.my_prior"
    assert priors.load(str(saved)) == "mine"


def test_a_description_needs_no_weights_until_its_digest_is_read(saved):
    described = priors.describe(str(saved))
    digest = described.digest
    (saved / "proj" / fusion_prior.WEIGHTS).unlink()

    again = priors.describe(str(saved))

    assert (again.dims, again.dim, again.folder) == (DIMS, 32, saved)
    assert again.fuser == {"dim": 32, "intermediate_size": 64}
    assert len(digest) == 64 and again.digest != digest


def test_an_option_that_a_kind_has_not_is_refused_and_one_that_is_none_is_not(saved):
    assert priors.load("identity", adapter=None).kind == "identity"
    assert priors.load(str(saved), scale=0.5).attn_adapter.scale == 0.5
    with pytest.raises(RecipeError, match="kind identity has no option adapter"):
        priors.load("identity", adapter="skip")


def test_what_is_neither_kind_nor_folder_is_missing():
    with pytest.raises(MissingData, match="no folder 'no/such'"):
        priors.load("no/such")


def test_a_fusion_prior_conditions_on_the_token_with_or_without_its_adapter(saved):
    token = torch.randn(3, 32)
    plain, adapted = priors.load(str(saved)), priors.load(str(saved), adapter="apply")

    with torch.no_grad():
        found = plain.condition(Decoded({"token": token}), [0, 1, 2]).embeddings
        other = adapted.condition(Decoded({"token": token}), [0, 1, 2]).embeddings

        assert torch.equal(found, plain.tokens(token))
        assert torch.equal(other, plain.tokens(plain.adapt(token))) and not torch.equal(found, other)
        assert torch.equal(plain.null(2, [0, 1])[1:].embeddings, plain.tokens(torch.zeros(1, 32)))
    with pytest.raises(BrainhiveError, match="takes the head token, the model has latent"):
        plain.condition(Decoded({"latent": token}), [0, 1, 2])


def test_what_training_conditions_on_goes_through_fuser_and_adapter_and_can_be_dropped(saved):
    prior = priors.load(str(saved))
    embeddings = {key: torch.randn(2, dim) for key, dim in DIMS.items()}

    with torch.no_grad():
        found = prior.condition_on_embeddings(embeddings).embeddings
        half = prior.condition_on_embeddings(embeddings, torch.tensor([[1.0], [0.0]])).embeddings

        assert torch.equal(found, prior(embeddings))
        assert torch.equal(half[0], found[0])
        assert torch.equal(half[1], prior.tokens(prior.adapt(torch.zeros(1, 32)))[0])
        assert torch.equal(found, prior.tokens(prior.adapt(prior.fuser(embeddings))))


def test_the_identity_prior_passes_heads_on_by_name():
    decoded = Decoded(
        {"latent": torch.randn(3, 4, 2, 2), "image": torch.randn(3, 5, 8), "other": torch.randn(3, 1)},
        {"caption": ["a", "b", "c"]},
    )

    found = priors.load("identity").condition(decoded, [0, 1, 2])

    assert found.start is decoded.tensors["latent"] and found.embeddings is decoded.tensors["image"]
    assert found.texts == ["a", "b", "c"] and found.images is None and found.decoded is decoded
    assert len(found) == 3 and len(priors.load("identity").null(3, [0, 1, 2])) == 0


def test_the_identity_prior_can_be_given_other_names_and_refuses_heads_without_any():
    decoded = Decoded({"token": torch.randn(2, 8), "semantic": torch.randn(2, 6)})

    token = priors.load("identity").condition(decoded, [0, 1]).embeddings
    named = identity.Config(embeddings=("semantic",)).build({}, None).condition(decoded, [0, 1])

    assert torch.equal(token, decoded.tensors["token"][:, None])
    assert torch.equal(named.embeddings, decoded.tensors["semantic"][:, None])
    with pytest.raises(BrainhiveError, match="no condition among the heads semantic"):
        priors.load("identity").condition(Decoded({"semantic": torch.randn(2, 6)}), [0, 1])


def test_the_identity_prior_without_any_names_conditions_on_nothing_but_keeps_the_heads():
    decoded = Decoded({"image": torch.randn(2, 8), "i": torch.randn(2, 8)})
    names = dict.fromkeys(("embeddings", "texts", "images", "start", "masks"), ())

    found = identity.Config(**names).build({}, None).condition(decoded, [0, 1])

    assert found.decoded is decoded
    assert not [name for name, value in vars(found).items() if value is not None and name != "decoded"]


def test_ids_of_a_caption_head_become_words_where_the_vocabulary_is_known():
    ids = CaptionTokens("demo:films", 12).ids("a red fish in the sky")
    heads = Decoded({"caption": torch.stack([ids, ids]), "image": torch.zeros(2, 4, 8)})
    prior = identity.Config(texts=("caption",), vocabulary="demo:films").build({}, None)
    assert prior.condition(heads, [0, 1]).texts == ["a red fish in the sky"] * 2
    assert isinstance(
        identity.Config(texts=("caption",)).build({}, None).condition(heads, [0, 1]).texts, torch.Tensor
    )
