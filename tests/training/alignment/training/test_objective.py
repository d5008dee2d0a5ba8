"""Weighted sum of loss terms."""

import math

import pytest
import torch
from torch import nn

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.models.losses import LossContext
from brainhive_cli.training.alignment.terms import Term
from brainhive_cli.training.alignment.training.objective import Objective

GENERATOR = torch.Generator().manual_seed(0)
PREDICTED = {name: torch.randn(4, 6, generator=GENERATOR) for name in "ab"}
TARGETS = {name: torch.randn(4, 6, generator=GENERATOR) for name in "abc"}
CONTEXT = LossContext()


def term(**fields):
    return Term.model_validate({"prediction": "a", **fields})


def test_a_term_may_have_the_target_of_another_name():
    value = Objective([term(target="c", loss="mse")])(PREDICTED, TARGETS, CONTEXT)
    expected = (PREDICTED["a"] - TARGETS["c"]).square().mean()
    torch.testing.assert_close(value, expected)
    for wrong_term in (term(target="x"), term(prediction="x", target="a")):
        with pytest.raises(RecipeError):
            Objective([wrong_term])(PREDICTED, TARGETS, CONTEXT)
    # a term that is not active asks for nothing
    idle = term(prediction="x", epochs=[5, 6])
    Objective([idle, term()])(PREDICTED, TARGETS, CONTEXT)


def test_terms_of_one_loss_learn_one_scale():
    shared = Objective([term(), term(prediction="b", loss_of=0), term()])
    names = [name for name, _ in shared.named_parameters()]
    assert names == ["0.logit_scale", "2.logit_scale"]
    assert shared[1] is shared[0]


def test_only_contrastive_losses_compare_centred_vectors():
    def centre(values):
        return {name: value - value.mean(1, True) for name, value in values.items()}

    for loss, is_contrastive in (("clip", True), ("mse", False)):
        plain_objective, centred = (
            Objective([term(loss=loss)], flag) for flag in (False, True)
        )
        arguments = (PREDICTED, TARGETS)
        of_centred = plain_objective(*map(centre, arguments), CONTEXT)
        expected = (
            of_centred if is_contrastive else plain_objective(*arguments, CONTEXT)
        )
        torch.testing.assert_close(centred(*arguments, CONTEXT), expected)


WAVE = {"base": 0.0, "peak": 2.0, "epochs": [0, 4]}


def test_the_moment_counts_steps_of_the_epoch():
    objective = Objective([term(loss="mse", weight=WAVE)])
    whole_square = (PREDICTED["a"] - TARGETS["a"]).square().mean().item()
    for epoch, step in ((2, 8), (2, 10), (3, 15)):
        context = LossContext(epoch=epoch, step=step, steps=4)
        value = objective(PREDICTED, TARGETS, context).item()
        assert value == pytest.approx(2 * whole_square * math.sin(math.pi * step / 16))


def test_a_step_in_which_no_term_counts_learns_nothing():
    objective = Objective([term(loss="mse", weight=WAVE)])
    predicted = {name: value.clone() for name, value in PREDICTED.items()}
    for value in predicted.values():
        value.requires_grad_()
    loss = objective(predicted, TARGETS, LossContext(epoch=0, step=0, steps=4))
    loss.backward()
    assert loss.shape == ()
    assert loss == 0
    for value in predicted.values():
        assert value.grad is not None
        assert (value.grad == 0).all()


class Odd(nn.Module):
    """Loss that returns any value."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, *_):
        return self.value


@pytest.mark.parametrize("value", [torch.zeros(1), torch.zeros(2, 3), 0.5, None])
def test_a_loss_gives_one_number(value):
    objective = Objective([term()])
    objective[0] = Odd(value)
    with pytest.raises(RecipeError):
        objective(PREDICTED, TARGETS, CONTEXT)
    objective[0] = Odd(torch.tensor(0.25))
    assert objective(PREDICTED, TARGETS, CONTEXT) == 0.25


def test_the_first_active_contrastive_term_compares_pairs():
    fixed = {"kind": "clip", "learn_scale": False, "initial_logit_scale": 0.0}
    terms = [
        term(loss="mse"),
        term(prediction="b", target="c", loss=fixed, epochs=[0, 1]),
        term(loss=fixed),
    ]
    objective = Objective(terms)
    for epoch, prediction, target in ((0, "b", "c"), (1, "a", "a")):
        context = LossContext(epoch=epoch)
        pairs = objective.compare_pairs(PREDICTED, TARGETS, context)
        expected = torch.cosine_similarity(PREDICTED[prediction], TARGETS[target])
        torch.testing.assert_close(pairs, expected)
    with pytest.raises(RecipeError):
        Objective(terms[:1]).compare_pairs(PREDICTED, TARGETS, CONTEXT)


def test_learned_scales_go_on_and_fixed_ones_stay():
    fixed = {"kind": "clip", "learn_scale": False}
    objective = Objective([term(), term(loss=fixed), term()])
    initial_copies = [value.clone() for value in objective.parameters()]
    learned = {
        "0.logit_scale": torch.tensor(7.0),
        "1.logit_scale": torch.tensor(8.0),
        "2.logit_scale": torch.ones(3),
        "9.logit_scale": torch.tensor(9.0),
    }
    objective.copy_matching(learned)
    assert objective[0].logit_scale == 7.0
    assert list(objective.parameters())[1:] == initial_copies[1:]
