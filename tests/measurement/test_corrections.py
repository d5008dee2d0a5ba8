"""Corrections of similarities: published values, both directions, and no influence of
the order of pictures.
"""

from itertools import product

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.linalg import fractional_matrix_power
from sklearn.covariance import ShrunkCovariance

from brainhive_cli.core.recipes import parts
from brainhive_cli.measurement import corrections, rank_targets
from brainhive_cli.measurement.corrections import (
    SHRINKAGE,
    Csls,
    Sinkhorn,
    Whitening,
    compute_cosines,
    make_tokens,
)

KINDS = parts.list_kinds("corrections")
ROUNDING = 2e-6  # golden values are float32, and CSLS doubles their error


def correct(kind, signals, gallery, similarities=None):
    compared = (
        compute_cosines(signals, gallery) if similarities is None else similarities
    )
    return parts.load("corrections", kind).Config().build()(compared, signals, gallery)


@pytest.fixture
def pair():
    """Draw tokens of 40 signals and 60 pictures, some of which are near all signals."""
    random = torch.Generator().manual_seed(0)
    gallery = torch.randn(60, 16, generator=random) + 0.5 * torch.randn(
        16, generator=random
    )
    return gallery[:40] + 1.5 * torch.randn(40, 16, generator=random), gallery


def test_corrections_in_sequence_equal_the_published_calibration(
    golden,
):
    """The golden values are whitened signals, CSLS of these, and the transport plan
    (Sinkhorn) of CSLS.
    """
    golden_values = load_file(golden / "methods" / "test_time.safetensors")

    tokens = golden_values["signal_tokens"], golden_values["image_tokens"]
    compared = correct("whitening", *tokens)
    scaled = correct("csls", *tokens, compared)
    balanced = correct("sinkhorn", *tokens, scaled)

    for corrected, name in (
        (Whitening().whiten(tokens[0]), "whitened"),
        (compared, "cosine"),
        (scaled, "csls_5"),
    ):
        torch.testing.assert_close(
            corrected, golden_values[f"expected.{name}"].double(), atol=ROUNDING, rtol=0
        )
    # the part gives the logarithm of the plan, and divides CSLS by a temperature
    logarithm = golden_values["expected.sinkhorn"].double().log()
    rounding = ROUNDING / Sinkhorn().temperature
    torch.testing.assert_close(balanced, logarithm, atol=rounding, rtol=0)


def test_an_assignment_keeps_the_order_of_the_other_pictures(
    pair,
):
    compared = compute_cosines(*pair)
    assigned = correct("assignment", *pair)

    best = assigned.argmax(1)
    assert len(best.unique()) == 40 > len(compared.argmax(1).unique())
    is_unassigned = torch.ones_like(assigned, dtype=torch.bool).scatter_(
        1, best[:, None], False
    )
    assert torch.equal(assigned[is_unassigned], compared[is_unassigned])
    assigned_sum = compared[torch.arange(40), best].sum()
    shifted = torch.stack([compared.roll(-n, 1).diagonal().sum() for n in range(60)])
    assert assigned_sum > shifted.max()


def test_tokens_and_corrected_similarities_give_the_same_ranks(pair):
    targets = torch.arange(40)
    for kind in KINDS:
        values = correct(kind, *pair)
        signals, pictures = make_tokens(values)

        target_values = values.diagonal()
        assert torch.equal(
            rank_targets(signals, pictures, targets),
            (values >= target_values[:, None] - 1e-12).sum(1),
        ), kind
        backward = (values[:, :40] >= target_values - 1e-12).sum(0)
        assert torch.equal(rank_targets(pictures[:40], signals, targets), backward), (
            kind
        )
        torch.testing.assert_close(
            torch.linalg.vector_norm(signals, dim=1), torch.ones(40).double()
        )


def test_the_order_of_signals_and_pictures_gives_nothing_away(pair):
    random = torch.Generator().manual_seed(1)
    rows, columns = (
        torch.randperm(40, generator=random),
        torch.randperm(60, generator=random),
    )

    for kind in KINDS:
        in_order = correct(kind, *pair)
        permuted = correct(kind, pair[0][rows], pair[1][columns])
        torch.testing.assert_close(
            permuted, in_order[rows][:, columns], atol=1e-9, rtol=0
        )


def test_a_constant_embedding_finds_no_more_than_guesses_do():
    """All sums are equal, so an assignment to the diagonal would always be right."""
    gallery = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(200)
    for kind, pictures in product(KINDS, (gallery, torch.ones(200, 8))):
        signals = torch.ones(200, 8)
        tokens = make_tokens(correct(kind, signals, pictures))
        hits = int((rank_targets(*tokens, targets) == 1).sum())
        # of guesses 1 is expected, and more than 5 are once in 2000 times
        assert hits <= 5


@pytest.mark.parametrize("count", [5, 40])
def test_whitening_divides_by_the_root_of_the_shrunk_covariance(count):
    """Use fewer signals than dimensions, and more."""
    random = np.random.default_rng(0)
    tokens = random.normal(size=(count, 12)) @ random.normal(size=(12, 12)) + 3

    whitened_tokens = Whitening().whiten(torch.from_numpy(tokens))

    fitted = ShrunkCovariance(shrinkage=SHRINKAGE).fit(tokens)
    root = fractional_matrix_power(fitted.covariance_, -0.5)
    whitened = (tokens - tokens.mean(0)) @ root
    whitened /= np.linalg.norm(whitened, axis=1, keepdims=True)
    np.testing.assert_allclose(whitened_tokens.numpy(), whitened, atol=1e-9)


def test_csls_takes_the_mean_of_the_nearest_on_either_side():
    """The means of two of three neighbours, by rows and by columns, are by hand."""
    similarities = torch.tensor([[0.9, 0.1, 0.5], [0.3, 0.2, 0.4], [0.0, 0.8, 0.6]])
    rows = torch.tensor([0.7, 0.35, 0.7])
    columns = torch.tensor([0.6, 0.5, 0.55])

    corrected = Csls(neighbours=2).correct(similarities, similarities, similarities)

    torch.testing.assert_close(corrected, 2 * similarities - rows[:, None] - columns)
    # more neighbours than there are: all
    corrected_with_all = Csls(neighbours=9).correct(
        similarities, similarities, similarities
    )
    means = similarities.mean(1, keepdim=True) + similarities.mean(0)
    torch.testing.assert_close(corrected_with_all, 2 * similarities - means)


def test_sinkhorns_plan_has_equal_rows_and_columns(pair, monkeypatch):
    monkeypatch.setattr(corrections, "SINKHORN_ROUNDS", 200)
    compared = compute_cosines(*pair)[:, :40]
    plan = Sinkhorn(temperature=0.3).correct(compared, *pair).exp()

    for axis in (0, 1):
        torch.testing.assert_close(plan.sum(axis), torch.ones(40).double())
    # the plan is the similarities' own, up to factors of rows and columns
    ratio = (plan.log() - compared / 0.3).numpy()
    np.testing.assert_allclose(
        ratio - ratio[:1] - ratio[:, :1] + ratio[0, 0], 0, atol=1e-9
    )
