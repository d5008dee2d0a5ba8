"""Schedules, moving averages, parameter groups and selection of an epoch."""

import copy

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.training.alignment.stages import Stage, Train
from brainhive_cli.training.alignment.training.optimisation import (
    Learner,
    is_below,
    make_lr_scheduler,
)


def make_optimizer(lr=0.5):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr, momentum=0.9)


def list_learning_rates(optimizer, schedule, steps):
    """List the learning rate of each step."""
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 7), (3, 5), (6, 1)])
def test_the_cosine_ends_with_the_last_step_of_its_stage(epochs, steps):
    ours, torchs = make_optimizer(), make_optimizer()
    stage = Stage(epochs=epochs, lr=0.5)

    learning_rates = list_learning_rates(
        ours, make_lr_scheduler(ours, stage, steps), epochs * steps
    )

    total = epochs * steps
    expected = list_learning_rates(torchs, CosineAnnealingLR(torchs, total), total)
    assert learning_rates == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0.5, 2, 4])
def test_a_warmup_rises_by_equal_steps_to_the_peak(warmup, schedule):
    optimizer, count = make_optimizer(), round(6 * warmup)
    stage = Stage(epochs=4, lr=0.5, warmup_epochs=warmup, schedule=schedule)

    learning_rates = list_learning_rates(
        optimizer, make_lr_scheduler(optimizer, stage, 6), 24
    )

    rise = [0.5 * (step + 1) / count for step in range(count)]
    fall = [0.5] * (24 - count)
    if schedule == "cosine" and count < 24:
        other_optimizer = make_optimizer()
        fall = list_learning_rates(
            other_optimizer, CosineAnnealingLR(other_optimizer, 24 - count), 24 - count
        )
    assert learning_rates == pytest.approx(rise + fall, abs=1e-9)


def test_one_cycle_is_torchs_whose_rise_takes_three_tenths():
    for fields, share in (({}, 0.3), ({"warmup_epochs": 1}, 0.25)):
        ours, torchs = make_optimizer(), make_optimizer()
        stage = Stage(epochs=4, lr=0.5, schedule="one_cycle", final_div=50.0, **fields)
        cycle = OneCycleLR(
            torchs, 0.5, total_steps=40, pct_start=share, final_div_factor=50.0
        )
        learning_rates = list_learning_rates(
            ours, make_lr_scheduler(ours, stage, 10), 40
        )
        assert learning_rates == pytest.approx(list_learning_rates(torchs, cycle, 40))


def make_learner(model, steps=1, **knobs):
    learner = Learner(model, torch.nn.ModuleList(), Train(**knobs), steps)  # type: ignore[arg-type]
    learner.enter_stage()
    return learner


def test_the_moving_average_forgets_its_start_and_ends_its_ramp():
    """Source: TensorFlow ExponentialMovingAverage: min(decay, (1 + n) / (10 + n))."""
    model = torch.nn.Linear(1, 1, bias=False)
    learner = make_learner(model, 40, ema=0.6, epochs=1)
    (averaged,) = learner.scored_modules.parameters()
    decays = []
    for step in range(40):
        initial_averaged = averaged.item()
        model.weight.grad = torch.ones(1, 1)
        learner.step()
        weight = model.weight.item()
        # the first update copies the weights
        if step:
            decays.append((averaged.item() - weight) / (initial_averaged - weight))
        else:
            assert averaged.item() == weight

    # n of the second step is 2
    assert decays[0] == pytest.approx(3 / 12, abs=1e-3)
    assert decays[8] == pytest.approx(11 / 20, abs=1e-3)
    assert decays[12] == pytest.approx(0.6, abs=1e-2)
    assert decays[20] == pytest.approx(0.6, abs=1e-2)


def test_the_best_epoch_is_kept_and_of_equal_ones_the_last():
    model = torch.nn.Linear(1, 1, bias=False)
    learner = make_learner(model, epochs=9)
    kept_epochs = []
    for number, score in enumerate((0.2, 0.5, 0.5, 0.4, 0.0)):
        model.weight.data.fill_(number)
        learner.steps_done, learner.loss_sum = 3, 7.0
        learner.finish_epoch(torch.full((2,), number), score, score)
        kept_epochs.append(
            (learner.selected_epoch, learner.score, learner.ranks[0].item())
        )
        assert learner.epoch == number + 1
        assert (learner.steps_done, learner.loss_sum) == (0, 0.0)
    assert kept_epochs == [
        (1, 0.2, 0),
        (2, 0.5, 1),
        (3, 0.5, 2),
        (3, 0.5, 2),
        (3, 0.5, 2),
    ]
    assert (learner.best_epoch, learner.best_top1) == (3, 0.5)

    # without scores the last stays; the weights of the kept epoch do not move with it
    learner.finish_epoch(torch.empty(0), None, None)
    assert (learner.selected_epoch, learner.score, learner.best_epoch) == (6, 0.0, 3)
    model.weight.data.fill_(70)
    learner.load_selected()
    assert model.weight.item() == 4
    assert not model.training


def test_rates_and_decay_of_parts_are_groups_of_their_own():
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.LayerNorm(2))
    )
    for decay, n_plain in (("all", 0), ("not_biases", 2), ("weights", 3)):
        learner = make_learner(
            model, decay=decay, lr=0.1, weight_decay=0.3, lr_of={"1": 0.5, "1.0": 2}
        )
        groups = {
            id(parameter): (group["weight_decay"], group["lr"])
            for group in learner.optimizer.param_groups
            for parameter in group["params"]
        }
        assert len(groups) == 4
        assert sum(weight == 0 for weight, _ in groups.values()) == n_plain
        assert {weight for weight, _ in groups.values()} <= {0.0, 0.3}
        for name, parameter in model.named_parameters():
            # the deepest part that is named counts
            factor = 2 if name.startswith("1.0") else 1
            assert groups[id(parameter)][1] == pytest.approx(0.1 * factor)


def test_a_part_is_itself_or_below_one_that_is_named():
    names = ["backbone", "fuser.share"]
    for name, is_named in (
        ("backbone", True),
        ("backbone.block", True),
        ("backbone2", False),
        ("fuser", False),
        ("fuser.share.0", True),
        ("a.backbone", False),
    ):
        assert is_below(name, names) == is_named
    assert not is_below("backbone", [])


def test_stages_follow_the_epochs_and_freeze_their_modules():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].bias.requires_grad_(False)  # which never learns
    stages = [
        {"epochs": 2, "lr": 0.1, "freeze": ["0"]},
        {"epochs": 1, "lr": 0.2, "freeze": ["1"]},
        {"epochs": 3, "lr": 0.3},
    ]
    learner = make_learner(model, stages=stages)
    for epoch, stop, lr, learned in (
        (0, 2, 0.1, {"1.weight", "1.bias"}),
        (1, 2, 0.1, {"1.weight", "1.bias"}),
        (2, 3, 0.2, {"0.weight"}),
        (3, 6, 0.3, {"0.weight", "1.weight", "1.bias"}),
        (5, 6, 0.3, {"0.weight", "1.weight", "1.bias"}),
    ):
        learner.epoch = epoch
        learner.enter_stage()
        assert learner.stage_end == stop
        assert learner.peak_lr == lr
        names = {
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        assert names == learned
        assert len(learner.parameters) == len(learned)
        learner.train()
        assert [module.training for module in model] == [epoch >= 2, epoch not in (2,)]
    assert {"0.bias"} == {n for n, _ in model.named_parameters()} - set(
        learner.learnable
    )


@pytest.mark.parametrize(
    "knobs",
    [
        {"stages": [{"epochs": 1, "freeze": ["2"]}]},
        {"stages": [{"epochs": 1}, {"epochs": 1, "freeze": ["0", "1"]}]},
        {"lr_of": {"head": 2.0}},
        {"start_pull": 0.5},
    ],
    ids=str,
)
def test_what_a_stage_cannot_do_is_refused(knobs):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with pytest.raises(RecipeError):
        make_learner(model, **knobs)


def test_gradients_are_clipped_and_forgotten():
    model = torch.nn.Linear(1, 1, bias=False)
    steps = {}
    for norm in (0.5, None):
        learner = make_learner(model, epochs=1, grad_norm=norm)
        model.weight.grad = torch.full((1, 1), 3.0)
        learner.step()
        assert model.weight.grad is None
        (state,) = learner.optimizer.state.values()
        # Adam keeps (1 - beta) of the first gradient
        steps[norm] = state["exp_avg"].item() / (1 - learner.settings.betas[0])
    assert steps == pytest.approx({0.5: 0.5, None: 3.0}, rel=1e-4)


def test_a_continued_training_has_all_that_it_had(tmp_path):
    def begin():
        torch.manual_seed(0)
        return make_learner(torch.nn.Linear(2, 1), 3, ema=0.9, epochs=2)

    def continue_training(learner):
        for parameter in learner.parameters:
            parameter.grad = torch.ones_like(parameter)
        learner.step()
        learner.steps_done += 1

    whole_training = begin()
    continue_training(whole_training)
    whole_training.finish_epoch(torch.tensor([2.0]), 0.5, 0.25)
    saved = copy.deepcopy(whole_training.state_dict())
    continue_training(whole_training)
    second_training = begin()
    second_training.load_state_dict(saved)
    assert (
        second_training.epoch,
        second_training.steps_done,
        second_training.score,
    ) == (
        1,
        0,
        0.25,
    )
    assert (
        second_training.best_top1,
        second_training.best_epoch,
        second_training.selected_epoch,
    ) == (0.5, 1, 1)
    continue_training(second_training)
    for single_parameter, other_parameter in zip(
        whole_training.scored_modules.parameters(),
        second_training.scored_modules.parameters(),
        strict=True,
    ):
        assert torch.equal(single_parameter, other_parameter)
    for key in ("ranks", "model", "schedule"):
        with pytest.raises(BrainhiveError):
            begin().load_state_dict({n: v for n, v in saved.items() if n != key})
