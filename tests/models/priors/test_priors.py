"""Priors of any kind: found by their folder, described without weights, from heads to
conditioning.
"""

from pathlib import Path

import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.models import priors
from brainhive_cli.models.clip_conditions import Vocabulary
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


def test_priors_are_found_by_folder_or_kind_and_described_without_weights(saved):
    assert (
        priors.load(str(saved)).kind == "fusion-prior"
        and priors.load("identity").kind == "identity"
    )
    assert priors.describe("identity").digest == "" and not [
        *priors.load("identity").parameters()
    ]
    described = priors.describe(str(saved))
    digest = described.digest
    assert priors.load(str(saved), scale=0.5).scale == 0.5
    (saved / "proj" / fusion_prior.WEIGHTS).unlink()

    again = priors.describe(str(saved))

    assert (again.kind, again.dims, again.dim, again.folder) == (
        "fusion-prior",
        DIMS,
        32,
        saved,
    )
    assert len(digest) == 64 and again.digest != digest
    assert priors.load("identity", adapter=None).kind == "identity"
    with pytest.raises(RecipeError, match="kind identity has no option adapter"):
        priors.load("identity", adapter="skip")
    with pytest.raises(MissingData, match="no folder 'no/such'"):
        priors.load("no/such")


def test_a_fusion_prior_conditions_on_the_token_with_or_without_its_adapter(saved):
    token = torch.randn(3, 32)
    plain, adapted = priors.load(str(saved)), priors.load(str(saved), adapter="apply")

    with torch.no_grad():
        found = plain.condition(Decoded({"token": token}), [0, 1, 2]).embeddings
        other = adapted.condition(Decoded({"token": token}), [0, 1, 2]).embeddings

        assert torch.equal(found, plain.project(token))
        assert torch.equal(
            other, plain.project(plain.adapt(token))
        ) and not torch.equal(found, other)
        assert torch.equal(
            plain.null(2, [0, 1])[1:].embeddings, plain.project(torch.zeros(1, 32))
        )
    with pytest.raises(
        BrainhiveError, match="takes the head token, the model has latent"
    ):
        plain.condition(Decoded({"latent": token}), [0, 1, 2])


def test_the_identity_prior_passes_heads_on_by_names_that_can_be_others():
    heads = {
        "latent": torch.randn(3, 4, 2, 2),
        "image": torch.randn(3, 5, 8),
        "other": torch.randn(3, 1),
    }
    decoded, other = (
        Decoded(heads, {"caption": ["a", "b", "c"]}),
        Decoded({"semantic": torch.randn(2, 6)}),
    )

    found = priors.load("identity").condition(decoded, [0, 1, 2])
    named = (
        identity.Config(embeddings=("semantic",))
        .build({}, None)
        .condition(other, [0, 1])
    )

    assert found.start is heads["latent"] and found.embeddings is heads["image"]
    assert (
        found.texts == ["a", "b", "c"]
        and found.images is None
        and found.decoded is decoded
    )
    assert len(found) == 3 and len(priors.load("identity").null(3, [0, 1, 2])) == 0
    assert torch.equal(named.embeddings, other.tensors["semantic"][:, None])
    with pytest.raises(BrainhiveError, match="no condition among the heads semantic"):
        priors.load("identity").condition(other, [0, 1])


def test_ids_of_a_caption_head_become_words_where_the_vocabulary_is_known():
    ids = Vocabulary("demo:films", 12).encode("a red fish in the sky")
    heads = Decoded({"caption": torch.stack([ids, ids]), "image": torch.zeros(2, 4, 8)})
    prior = identity.Config(texts=("caption",), vocabulary="demo:films").build({}, None)
    assert prior.condition(heads, [0, 1]).texts == ["a red fish in the sky"] * 2
    assert isinstance(
        identity.Config(texts=("caption",))
        .build({}, None)
        .condition(heads, [0, 1])
        .texts,
        torch.Tensor,
    )


def test_a_folder_with_a_dot_in_its_name_is_no_import_path(tmp_path, monkeypatch):
    (tmp_path / "own.prior").mkdir()
    (tmp_path / "own.prior/config.json").write_text('{"kind": "mindeye1"}')
    monkeypatch.chdir(tmp_path)

    assert priors.find_kind("own.prior") == "mindeye1"
    assert priors.find_kind("own.package") == "own.package"
    assert priors.find_kind("identity:embeddings") == "identity"
