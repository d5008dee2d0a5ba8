"""The closed-form ridge of an evaluation: of studies with an effect, with a wrong
order, and with none.
"""

import numpy as np
import torch

from brainhive_cli.core.facts import Baseline
from brainhive_cli.evaluation.retrieval.baseline import (
    ORDERS,
    conclude,
    judge_ranks,
    rank_by_ridge,
    try_orders,
)
from brainhive_cli.measurement.units import Alike


def explain(
    seed: int,
    effect: float,
    subjects: int = 1,
    learned: str = "as filed",
    tested: str = "as filed",
) -> tuple[Baseline, str]:
    """Fit ridges, and give the order that they find, and the verdict as filed.

    Signals [n, 40] are of the targets of 100 training and 24 test pictures, in noise.

    Signals of the last subject lie in other orders than the pictures, which `ORDERS`
    bring into these.
    """
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.standard_normal(shape)).float()

    known, candidates, rows, alike = draw(100, 12), draw(24, 12), np.arange(24), Alike()
    ranks, shown, tried = [], [], []
    for subject in range(1, subjects + 1):
        mixing = effect * draw(12, 40) / 12**0.5
        train, test = (
            targets @ mixing + draw(len(targets), 40) for targets in (known, candidates)
        )
        if subject == subjects:
            train, test = (
                train[ORDERS[learned](np.arange(100)).copy()],
                test[ORDERS[tested](rows).copy()],
            )
        orders = {
            name: refile(np.arange(100)).copy() for name, refile in ORDERS.items()
        }
        ranked = {
            name: rank_by_ridge(train, known[order], test, candidates)
            for name, order in orders.items()
        }
        ranks.append(ranked["as filed"])
        shown.append(rows)
        tried += try_orders(subject, ranked, rows, rows, alike)
    side = judge_ranks(ranks, shown, rows, alike).side
    return conclude(tried), side


def test_a_misfiled_subject_is_named_among_others_who_are_not():
    found, _ = explain(2, 0.6, subjects=3, tested="reversed")

    assert (
        found.order
        == "training pictures of subject 3 as filed and test pictures reversed"
    )


def test_noise_is_called_misfiled_in_one_of_twenty_studies_at_most():
    """Of 30 studies 1.5 are expected at most; 5 or more have a probability of .02 where
    it is one of twenty.

    Of 300 it was 12, with three subjects 12.
    """
    found = [explain(seed, 0.0) for seed in range(30)]

    assert sum(each.order != "" for each, _ in found) <= 4
    assert sum(side != "above chance" for _, side in found) >= 24
