"""Alignments of tokens: published values, few pairs of wide tokens, and what each of them leaves as it is."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.measurement.alignments import Coral, Moments, Procrustes, Ridge

KINDS = parts.kinds("alignments")
LABEL_FREE = [kind for kind in KINDS if not parts.load("alignments", kind).Config.is_paired]
PUBLISHED = {"atol": 5e-5, "rtol": 0.0}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("penalty", ["1", "0.1"])
def test_coral_is_the_published_one(penalty: str, golden: Path) -> None:
    known = load_file(golden / "calibrate" / "coral.safetensors")

    aligned = Coral(ridge=float(penalty)).fit(known["source"], known["target"])

    identity = torch.eye(known["source"].shape[1])
    torch.testing.assert_close(aligned(identity), known[f"expected.matrix_{penalty}"], **PUBLISHED)
    torch.testing.assert_close(aligned(known["source"]), known[f"expected.aligned_{penalty}"], **PUBLISHED)


def test_moments_are_the_published_ones(golden: Path) -> None:
    known = load_file(golden / "calibrate" / "coral.safetensors")
    aligned = Moments().fit(known["source"], known["target"])
    torch.testing.assert_close(aligned(known["source"]), known["expected.moments"], **PUBLISHED)


@pytest.mark.parametrize("rho", ["0", "0.3"])
def test_the_procrustes_rotation_is_the_published_one(rho: str, golden: Path) -> None:
    known = load_file(golden / "calibrate" / "procrustes.safetensors")

    aligned = Procrustes(rho=float(rho)).fit(known["tokens"], known["references"])

    identity = torch.eye(known["tokens"].shape[1])
    torch.testing.assert_close(aligned(identity), known[f"expected.rotation_{rho}"], **PUBLISHED)
    torch.testing.assert_close(aligned(known["tokens"]), known[f"expected.rotated_{rho}"], **PUBLISHED)


def test_the_ridge_towards_the_identity_is_the_published_one(golden: Path) -> None:
    known = load_file(golden / "calibrate" / "procrustes.safetensors")

    part = Ridge(penalty=float(known["penalty"]))
    aligned = part.fit(known["tokens"], known["references"])

    identity = torch.eye(known["tokens"].shape[1])
    torch.testing.assert_close(aligned(identity), known["expected.ridge_to_identity"], **PUBLISHED)


def symmetric_power(matrix: Tensor, power: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values**power) @ vectors.T


def coral_by_definition(tokens: Tensor, references: Tensor) -> Tensor:
    penalty = Coral().ridge * torch.eye(tokens.shape[1])
    source, target = torch.cov(tokens.T) + penalty, torch.cov(references.T) + penalty
    return symmetric_power(source, -0.5) @ symmetric_power(target, 0.5)


def procrustes_by_definition(tokens: Tensor, references: Tensor) -> Tensor:
    cross = tokens.T @ references
    pull = Procrustes().rho * torch.linalg.matrix_norm(cross, 2)
    left, _, right = torch.linalg.svd(cross + pull * torch.eye(tokens.shape[1]))
    return left @ right


def ridge_by_definition(tokens: Tensor, references: Tensor) -> Tensor:
    identity = torch.eye(tokens.shape[1], dtype=torch.float64)
    gram = tokens.T @ tokens + Ridge().penalty * identity
    return identity + torch.linalg.solve(gram, tokens.T @ (references - tokens))


@pytest.mark.parametrize(
    ("part", "definition"),
    [(Coral, coral_by_definition), (Procrustes, procrustes_by_definition), (Ridge, ridge_by_definition)],
)
def test_few_wide_tokens_are_aligned_as_by_the_full_matrix(part, definition) -> None:
    tokens, references = draw(2, 5, 40)
    unseen = draw(9, 40, seed=1)

    aligned = part().fit(tokens, references)(unseen)

    torch.testing.assert_close(aligned, unseen @ definition(tokens, references))


@pytest.mark.parametrize("kind", LABEL_FREE)
def test_an_alignment_without_labels_brings_the_new_distribution_to_the_old(kind: str) -> None:
    scales = torch.linspace(1, 5, 6)
    references, tokens = 2 + scales * draw(300, 6), -3 * draw(200, 6, seed=1)

    part = parts.load("alignments", kind).Config(**({"ridge": 1e-6} if kind == "coral" else {}))
    aligned = part.fit(tokens, references)(tokens)

    torch.testing.assert_close(aligned.std(0), references.std(0), rtol=0.01, atol=0)
    torch.testing.assert_close(part.fit(tokens, references.flip(0))(tokens), aligned)  # rows are no pairs


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(LABEL_FREE)))
def test_an_alignment_by_pairs_finds_the_rotation_of_a_new_subject(kind: str) -> None:
    rotation = torch.linalg.qr(draw(6, 6)).Q
    tokens, unseen = draw(300, 6, seed=1), draw(20, 6, seed=2)

    # the pull towards the identity is what keeps procrustes from the rotation
    part = parts.load("alignments", kind).Config(**({"rho": 0} if kind == "procrustes" else {}))
    aligned = part.fit(tokens, tokens @ rotation)(unseen)

    torch.testing.assert_close(aligned, unseen @ rotation, rtol=0, atol=0.1)


def test_procrustes_keeps_lengths_and_what_is_orthogonal_to_all_pairs() -> None:
    tokens, references, unseen = draw(5, 40), draw(5, 40, seed=1), draw(9, 40, seed=2)
    basis = torch.linalg.qr(torch.cat([tokens, references]).T).Q
    orthogonal = unseen - unseen @ basis @ basis.T

    aligned = Procrustes().fit(tokens, references)

    torch.testing.assert_close(aligned(unseen).norm(dim=1), unseen.norm(dim=1))
    torch.testing.assert_close(aligned(orthogonal), orthogonal)


def test_a_dimension_that_does_not_vary_gets_the_mean_alone() -> None:
    tokens, references = draw(20, 3), draw(30, 3, seed=1)
    tokens[:, 1] = 0.1

    aligned = Moments().fit(tokens, references)(tokens + torch.tensor([0, 2, 0]))

    torch.testing.assert_close(aligned[:, 1], (references[:, 1].mean() + 2).expand(20))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 5])
def test_the_fewest_float32_tokens_of_1024_dimensions_give_a_finite_map(kind: str, count: int) -> None:
    tokens, references = draw(2, count, 1024).float()
    unseen = draw(7, 1024, seed=1).float()

    aligned = parts.load("alignments", kind).Config().fit(tokens, references)(unseen)

    assert aligned.dtype == torch.float32 and aligned.shape == unseen.shape and aligned.isfinite().all()
