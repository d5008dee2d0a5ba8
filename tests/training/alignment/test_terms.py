"""Loss terms: their weights over epochs and their active epochs."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import load_file

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.models import Course, LossContext
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.terms import Term, check_active, find_mixing
from brainhive_cli.training.alignment.training.objective import Objective

PREDICTED = {
    "a": torch.tensor([[1.0, 2.0], [3.0, 5.0]]),
    "b": torch.tensor([[0.0], [1.0]]),
}
TARGETS = {
    "a": torch.tensor([[1.0, 1.0], [1.0, 1.0]]),
    "b": torch.tensor([[2.0], [2.0]]),
}


def course(**fields):
    return Course.model_validate({"from": 0.0, "to": 1.0, "epochs": [2, 6], **fields})


def test_a_cosine_course_equals_mindeyes_temperatures(golden):
    """Golden values: a cosine from the first to the last of them, an epoch each."""
    losses = load_file(golden / "havir" / "losses.safetensors")
    (expected,) = (
        loss.double()
        for name, loss in losses.items()
        if name.startswith("out.temperatures_")
    )
    fields = {"from": expected[0].item(), "to": expected[-1].item(), "course": "cosine"}
    weight_course = course(**fields, epochs=[0, len(expected) - 1])

    values = torch.tensor(
        [weight_course.value_at(epoch) for epoch in range(len(expected))]
    )

    torch.testing.assert_close(values.double(), expected, rtol=1e-5, atol=0)


def test_terms_add_up_with_the_weights_of_the_epoch():
    terms = [
        Term(prediction="a", loss="mse", weight=2.0, epochs=(0, 3)),
        Term(prediction="b", loss="l1", weight=course(epochs=[0, 4])),
        Term(prediction="a", loss="l1", weight=0.5),
    ]
    objective = Objective(terms)
    mse, l1_a, l1_b = (0 + 1 + 4 + 16) / 4, (0 + 1 + 2 + 4) / 4, 1.5

    values = [
        objective(PREDICTED, TARGETS, LossContext(epoch=epoch)).item()
        for epoch in (0, 2, 3)
    ]

    assert values == pytest.approx(
        [
            2 * mse + 0.5 * l1_a,
            2 * mse + 0.5 * l1_b + 0.5 * l1_a,
            0.75 * l1_b + 0.5 * l1_a,
        ]
    )


@pytest.mark.parametrize(("epoch", "name"), [(0, "stage1_first"), (49, "stage1_last")])
def test_an_objective_has_samgas_loss_of_its_first_stage(golden, epoch, name):
    """Golden values: .9 MMD + .1 CLIP in the first epoch, .5 of both in the last."""
    tensors = load_file(golden / "methods" / "samga_loss.safetensors")
    clip = {
        "kind": "clip",
        "initial_logit_scale": math.log(1 / 0.07),
        "learn_scale": False,
        "normalise_signal": False,
        "scale_by": "softplus",
    }
    weights = {"mmd": course(**{"from": 0.9, "to": 0.5}, epochs=[0, 49])}
    weights["clip"] = course(**{"from": 0.1, "to": 0.5}, epochs=[0, 49])
    objective = Objective(
        [
            Term(prediction="token", loss="mmd", weight=weights["mmd"]),
            Term(prediction="token", loss=clip, weight=weights["clip"]),
        ]
    )
    signal, image = tensors["signal_near"], tensors["image_near"]

    value = objective({"token": signal}, {"token": image}, LossContext(epoch=epoch))

    # float32 sums in another order
    assert value.item() == pytest.approx(tensors[f"expected.{name}"].item(), abs=5e-6)


def test_the_two_terms_of_atm_s_have_its_loss_and_gradients():
    """Source: ATMS_retrieval.py of dongyangli-del/EEG_Image_decode, written again in
    plain torch.
    """
    random = torch.Generator().manual_seed(0)
    token, image, text = (torch.randn(6, 5, generator=random) for _ in range(3))
    recipe = Recipe.resolve("train-align", "papers/atm-s", {}, [])
    objective = Objective(recipe.loss_terms)
    (scale,) = objective.parameters()
    signals = [token.clone().requires_grad_() for _ in range(2)]
    expected_scale = scale.detach().clone().requires_grad_()

    value = objective(
        {"token": signals[0]}, {"token": image, "text": text}, LossContext()
    )
    value.backward()

    expected = torch.zeros(())
    for share, target in ((0.99, image), (0.01, text)):
        logits = expected_scale * signals[1] @ F.normalize(target, dim=-1).T
        pairs = torch.arange(6)
        loss = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        expected = expected + share * loss
    expected.backward()

    assert scale.item() == pytest.approx(math.log(1 / 0.07), abs=1e-5)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(signals[0].grad, signals[1].grad)
    torch.testing.assert_close(scale.grad, expected_scale.grad)
    assert scale.grad is not None
    assert scale.grad.abs() > 1e-3


def test_terms_that_cannot_be_trained_are_refused():
    for terms, message in (
        (
            [{}, {"epochs": (5, 7)}],
            r"terms\[1\] .* 5 epochs",
        ),
        ([{"epochs": (0, 3)}], "epoch 3"),
    ):
        with pytest.raises(RecipeError, match=message):
            check_active(
                [Term.model_validate({"prediction": "a", **term}) for term in terms], 5
            )
    with pytest.raises(ValidationError, match="epochs"):
        Term.model_validate({"prediction": "a", "epochs": ["2/3", "1/3"]})
    with pytest.raises(RecipeError, match="a term names the prediction 'c'") as caught:
        Objective([Term(prediction="c", target="a")])(PREDICTED, TARGETS, LossContext())
    assert "a, b" in caught.value.hint


def test_terms_in_turn_within_an_epoch_mix_signals_in_turn():
    fields = [
        {"prediction": "a", "loss": "mixco", "epochs": [0, "1/4"]},
        {"prediction": "a", "loss": "soft_clip", "epochs": ["1/4", "1/1"]},
    ]
    terms = [Term.model_validate(field).in_stage(0, 1) for field in fields]

    check_active(terms, 1)

    assert [find_mixing(terms, moment / 4) for moment in range(4)] == [
        (0.15, 1),
        *[(0, 1)] * 3,
    ]
    assert [[term.weight_at(moment / 4) for term in terms] for moment in range(2)] == [
        [1, 0],
        [0, 1],
    ]


TEMPERATURE = 0.004


def test_losses_and_gradients_do_not_depend_on_bfloat16_networks():
    for loss, shape in (
        ({"kind": "soft_clip", "temperature": TEMPERATURE}, (500,)),
        ({"kind": "mixco", "temperature": TEMPERATURE}, (500,)),
        ({"kind": "sobel"}, (4, 16, 16)),
    ):
        random = torch.Generator().manual_seed(0)
        target = (
            torch.randn(1, *shape, generator=random)
            + torch.randn(32, *shape, generator=random) / 2
        )
        objective = Objective([Term(prediction="head", loss=loss)])
        losses_of_types = []
        for is_mixed in (False, True):
            noise = 3 * torch.randn(target.shape, generator=random.manual_seed(1))
            predicted = (target + noise).requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                value = objective({"head": predicted}, {"head": target}, LossContext())
            value.backward()
            losses_of_types.append(predicted.grad)

        assert (
            losses_of_types[1] - losses_of_types[0]
        ).norm() < 1e-4 * losses_of_types[0].norm(), loss
