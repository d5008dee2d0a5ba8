"""Alignments of tokens: published values, distributions and rotations."""

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.core.recipes import parts
from brainhive_cli.measurement.alignments import (
    Coral,
    Moments,
    Procrustes,
    RidgeAlignment,
)

KINDS = parts.list_kinds("alignments")
LABEL_FREE = [
    kind for kind in KINDS if not parts.load("alignments", kind).Config.is_paired
]
PUBLISHED = {"atol": 5e-5, "rtol": 0.0}


def draw(*shape, seed=0):
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


@pytest.mark.parametrize(
    ("penalty", "alignment"), [("0.1", Coral(ridge=0.1)), ("1", Coral())]
)
def test_coral_is_the_published_one(golden, penalty, alignment):
    published = load_file(golden / "calibrate" / "coral.safetensors")

    aligned = alignment.fit(published["source"], published["target"])

    identity = torch.eye(published["source"].shape[1])
    torch.testing.assert_close(
        aligned(identity), published[f"expected.matrix_{penalty}"], **PUBLISHED
    )
    torch.testing.assert_close(
        aligned(published["source"]),
        published[f"expected.aligned_{penalty}"],
        **PUBLISHED,
    )


def test_moments_are_the_published_ones(golden):
    published = load_file(golden / "calibrate" / "coral.safetensors")
    aligned = Moments().fit(published["source"], published["target"])
    torch.testing.assert_close(
        aligned(published["source"]), published["expected.moments"], **PUBLISHED
    )


@pytest.mark.parametrize("rho", ["0", "0.3"])
def test_the_procrustes_rotation_is_the_published_one(golden, rho):
    published = load_file(golden / "calibrate" / "procrustes.safetensors")

    aligned = Procrustes(rho=float(rho)).fit(
        published["tokens"], published["references"]
    )

    identity = torch.eye(published["tokens"].shape[1])
    torch.testing.assert_close(
        aligned(identity), published[f"expected.rotation_{rho}"], **PUBLISHED
    )
    torch.testing.assert_close(
        aligned(published["tokens"]), published[f"expected.rotated_{rho}"], **PUBLISHED
    )


def test_a_plan_instead_of_pairs_gives_the_published_rotation(golden):
    """The golden values are the polar factor of Q^T P G, for whitened signals Q, a
    transport plan P and pictures G of length 1.
    """
    published = load_file(golden / "methods" / "test_time.safetensors")
    signals, plan = published["expected.whitened"], published["expected.sinkhorn"]
    gallery = torch.nn.functional.normalize(published["image_tokens"], dim=-1)

    aligned = Procrustes(rho=0).fit(signals, plan @ gallery)

    identity = torch.eye(signals.shape[1])
    torch.testing.assert_close(
        aligned(identity), published["expected.rotation"], **PUBLISHED
    )
    torch.testing.assert_close(
        aligned(signals), published["expected.rotated"], **PUBLISHED
    )


def test_the_ridge_towards_the_identity_is_the_published_one(golden):
    published = load_file(golden / "calibrate" / "procrustes.safetensors")

    alignment = RidgeAlignment(penalty=float(published["penalty"]))
    aligned = alignment.fit(published["tokens"], published["references"])

    identity = torch.eye(published["tokens"].shape[1])
    torch.testing.assert_close(
        aligned(identity), published["expected.ridge_to_identity"], **PUBLISHED
    )


@pytest.mark.parametrize("kind", LABEL_FREE)
def test_alignment_without_labels_matches_the_old_distribution(
    kind,
):
    scales = torch.linspace(1, 5, 6)
    references, tokens = 2 + scales * draw(300, 6), -3 * draw(200, 6, seed=1)

    alignment = parts.load("alignments", kind).Config(
        **({"ridge": 1e-6} if kind == "coral" else {})
    )
    aligned = alignment.fit(tokens, references)(tokens)

    torch.testing.assert_close(aligned.std(0), references.std(0), rtol=0.01, atol=0)
    # rows are no pairs
    torch.testing.assert_close(
        alignment.fit(tokens, references.flip(0))(tokens), aligned
    )


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(LABEL_FREE)))
def test_alignment_by_pairs_finds_the_rotation_of_a_new_subject(kind):
    rotation = torch.linalg.qr(draw(6, 6)).Q
    tokens, unseen = draw(300, 6, seed=1), draw(20, 6, seed=2)

    # the pull towards the identity is what keeps procrustes from the rotation
    alignment = parts.load("alignments", kind).Config(
        **({"rho": 0} if kind == "procrustes" else {})
    )
    aligned = alignment.fit(tokens, tokens @ rotation)(unseen)

    torch.testing.assert_close(aligned, unseen @ rotation, rtol=0, atol=0.1)
