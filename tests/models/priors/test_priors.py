"""Priors of every kind: how they are found, described and applied."""

import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.models import Decoded, Vocabulary, priors
from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.priors import fusion_prior, identity

DIMS = {"vae": 24, "synclr_vit_b_16": 12}


@pytest.fixture
def saved(tmp_path):
    """Folder of a small Fusion Prior."""
    torch.manual_seed(0)
    fusion_prior.TINY.build(DIMS, sdxl.TINY.build()).save(tmp_path / "prior")
    return tmp_path / "prior"


def test_priors_are_loaded_by_folder_or_kind(saved):
    fusion = priors.load(str(saved), scale=0.5)
    passing = priors.load("identity", adapter=None)

    assert (fusion.kind, fusion.scale) == ("fusion-prior", 0.5)
    assert passing.kind == "identity"
    assert not list(passing.parameters())
    with pytest.raises(RecipeError, match="adapter"):
        priors.load("identity", adapter="skip")
    with pytest.raises(MissingData, match="no/such"):
        priors.load("no/such")


def test_priors_are_described_without_weights(saved):
    digest = priors.describe(str(saved)).digest
    (saved / "proj" / fusion_prior.WEIGHTS).unlink()

    described = priors.describe(str(saved))

    assert (described.kind, described.folder) == ("fusion-prior", saved)
    assert (described.dims, described.dim) == (DIMS, 32)
    assert len(digest) == 64
    assert described.digest != digest
    assert priors.describe("identity").digest == ""


def test_a_fusion_prior_needs_the_token(saved):
    prior = priors.load(str(saved), adapter="apply")
    token = torch.randn(3, 32)

    with torch.no_grad():
        embeddings = prior.condition(Decoded({"token": token}), [0, 1, 2]).embeddings
        assert torch.equal(embeddings, prior.project(prior.adapt(token)))
    with pytest.raises(BrainhiveError, match="latent"):
        prior.condition(Decoded({"latent": token}), [0, 1, 2])


def test_the_identity_prior_passes_heads_on_by_name():
    heads = {
        "latent": torch.randn(3, 4, 2, 2),
        "image": torch.randn(3, 5, 8),
        "keyframe": torch.rand(3, 3, 4, 4),
        "mask": torch.ones(3, 1, 4, 4),
        "other": torch.randn(3, 1),
    }
    decoded = Decoded(heads, {"caption": ["a", "b", "c"]})
    prior = priors.load("identity")

    conditioning = prior.condition(decoded, [0, 1, 2])

    assert conditioning.start is heads["latent"]
    assert conditioning.embeddings is heads["image"]
    assert conditioning.texts == ["a", "b", "c"]
    assert conditioning.images is heads["keyframe"]
    assert conditioning.masks is heads["mask"]
    assert conditioning.decoded is decoded
    assert len(conditioning) == 3
    assert len(prior.null(3, [0, 1, 2])) == 0


def test_the_heads_of_the_identity_prior_can_be_chosen():
    decoded = Decoded({"semantic": torch.randn(2, 6)})
    prior = identity.Config(embeddings=("semantic",)).build({}, None)

    conditioning = prior.condition(decoded, [0, 1])

    vectors = decoded.tensors["semantic"]
    assert torch.equal(conditioning.embeddings, vectors[:, None])
    with pytest.raises(BrainhiveError, match="semantic"):
        priors.load("identity").condition(decoded, [0, 1])


def test_ids_of_captions_become_words_with_a_vocabulary():
    ids = Vocabulary("demo:films", 12).encode("a red fish in the sky")
    decoded = Decoded(
        {"caption": torch.stack([ids, ids]), "image": torch.zeros(2, 4, 8)}
    )
    config = identity.Config(texts=("caption",))
    with_vocabulary = config.model_copy(update={"vocabulary": "demo:films"})

    texts = with_vocabulary.build({}, None).condition(decoded, [0, 1]).texts
    ids_alone = config.build({}, None).condition(decoded, [0, 1]).texts

    assert texts == ["a red fish in the sky"] * 2
    assert isinstance(ids_alone, torch.Tensor)


def test_a_folder_with_a_dot_in_its_name_is_no_import_path(tmp_path, monkeypatch):
    (tmp_path / "own.prior").mkdir()
    (tmp_path / "own.prior/config.json").write_text('{"kind": "mindeye1"}')
    monkeypatch.chdir(tmp_path)

    assert priors.find_kind("own.prior") == "mindeye1"
    assert priors.find_kind("own.package") == "own.package"
    assert priors.find_kind("identity:embeddings") == "identity"
