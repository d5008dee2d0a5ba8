"""Similarity corrections: published values, both directions, and nothing that the order
of pictures gives.
"""

from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.measurement.corrections import (
    Sinkhorn,
    Whitening,
    as_tokens,
    compare_tokens,
)
from brainhive_cli.measurement.ranks import ranks

KINDS = parts.kinds("corrections")
ROUNDING = 2e-6  # golden values are float32, and CSLS doubles their error


def correct(
    kind: str, signals: Tensor, gallery: Tensor, similarities: Tensor | None = None
) -> Tensor:
    compared = (
        compare_tokens(signals, gallery) if similarities is None else similarities
    )
    return parts.load("corrections", kind).Config().build()(compared, signals, gallery)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """40 signals of 60 pictures, of which some are near to everything."""
    random = torch.Generator().manual_seed(0)
    gallery = torch.randn(60, 16, generator=random) + 0.5 * torch.randn(
        16, generator=random
    )
    return gallery[:40] + 1.5 * torch.randn(40, 16, generator=random), gallery


def test_corrections_one_on_top_of_the_other_are_the_published_calibration(
    golden: Path,
):
    """Golden values: whitening of the signals alone, CSLS of these, Sinkhorn's plan of
    CSLS.
    """
    known = load_file(golden / "methods" / "test_time.safetensors")

    tokens = known["signal_tokens"], known["image_tokens"]
    compared = correct("whitening", *tokens)
    scaled = correct("csls", *tokens, compared)
    balanced = correct("sinkhorn", *tokens, scaled)

    for found, name in (
        (Whitening().whiten(tokens[0]), "whitened"),
        (compared, "cosine"),
        (scaled, "csls_5"),
    ):
        torch.testing.assert_close(
            found, known[f"expected.{name}"].double(), atol=ROUNDING, rtol=0
        )
    # the part gives the logarithm of the plan, and divides CSLS by a temperature
    logarithm = known["expected.sinkhorn"].double().log()
    rounding = ROUNDING / Sinkhorn().temperature
    torch.testing.assert_close(balanced, logarithm, atol=rounding, rtol=0)


def test_an_assignment_gives_each_signal_a_picture_and_keeps_the_order_of_the_rest(
    pair,
):
    compared = compare_tokens(*pair)
    assigned = correct("assignment", *pair)

    best = assigned.argmax(1)
    assert len(best.unique()) == 40 > len(compared.argmax(1).unique())
    others = torch.ones_like(assigned, dtype=torch.bool).scatter_(
        1, best[:, None], False
    )
    assert torch.equal(assigned[others], compared[others])
    chosen = compared[torch.arange(40), best].sum()
    shifted = torch.stack([compared.roll(-n, 1).diagonal().sum() for n in range(60)])
    assert chosen > shifted.max()


def test_tokens_of_corrected_similarities_rank_as_these_do_in_both_directions(pair):
    seen = torch.arange(40)
    for kind in KINDS:
        values = correct(kind, *pair)
        signals, pictures = as_tokens(values)

        own = values.diagonal()
        assert torch.equal(
            ranks(signals, pictures, seen), (values >= own[:, None] - 1e-12).sum(1)
        ), kind
        backward = (values[:, :40] >= own - 1e-12).sum(0)
        assert torch.equal(ranks(pictures[:40], signals, seen), backward), kind
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
        plain = correct(kind, *pair)
        permuted = correct(kind, pair[0][rows], pair[1][columns])
        torch.testing.assert_close(permuted, plain[rows][:, columns], atol=1e-9, rtol=0)


def test_a_constant_embedding_finds_no_more_than_guesses_do():
    """Equal sums: an assignment that took the diagonal would find every picture."""
    gallery = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    seen = torch.arange(200)
    for kind, pictures in product(KINDS, (gallery, torch.ones(200, 8))):
        signals = torch.ones(200, 8)
        tokens: tuple[Tensor, Tensor] = as_tokens(correct(kind, signals, pictures))
        hits = int((ranks(*tokens, seen) == 1).sum())
        # of guesses 1 is expected, and more than 5 are once in 2000 times
        assert hits <= 5
