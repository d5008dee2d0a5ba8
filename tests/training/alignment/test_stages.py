"""Stages: schedules, frozen parts, what a stage starts from, and resuming in any of them."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cell_data import HERE, PICTURES, data_of, layout_of
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.sweep import variants
from brainhive_cli.models.course import Course
from brainhive_cli.training.alignment import loop
from brainhive_cli.training.alignment.batches import Batches, CellData
from brainhive_cli.training.alignment.initialisation import find_starts
from brainhive_cli.training.alignment.loop import train_cell
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.objective import Term
from brainhive_cli.training.alignment.optimisation import Learner, schedule_of
from brainhive_cli.training.alignment.recipe import Cell, Recipe, Stage, Train, scale_stages

Weights = dict[str, torch.Tensor]
TERMS = [Term(prediction="token", epochs=(0, 2), loss="mixco"), Term(prediction="token", epochs=(2, 5))]
STAGES = [
    {"epochs": 2, "lr": 5e-3, "schedule": "one_cycle", "warmup_epochs": 0.5},
    {"epochs": 2, "lr": 2e-3, "schedule": "constant", "freeze": ["backbone", "fuser.proj_maps"]},
    {"epochs": 1, "lr": 1e-3},
]


@pytest.fixture
def data() -> CellData:
    return data_of(np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32), 2)


def trained(data: CellData, folder: Path, stages: list[dict[str, Any]], **knobs: Any) -> Weights:
    """Train a cell in these stages."""
    folder.mkdir(exist_ok=True)
    settings = {"batch_size": 16, "precision": "fp32", "selection": "last", "stages": stages, **knobs}
    train = Train.model_validate(settings)
    terms = [term for term in TERMS if term.weight_at(0) or train.epochs > 2]
    train_cell("cell", 1, layout_of(data), data, terms, train, RunFolder(folder), HERE)
    return load_file(folder / "cells" / "cell" / "model" / "model.safetensors")


def rates(stage: Stage, steps: int) -> list[float]:
    """Learning rate of every step."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], stage.lr)
    schedule, found = schedule_of(optimizer, stage, steps), []
    for _ in range(stage.epochs * steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_one_cycle_equals_neurons_learning_rates(golden: Path, name: str):
    """Golden values: warm-up of two epochs, peak over 25 at first, over 25,000 at last.

    The file has the epochs of the second training; the first has 30.
    """
    path = golden / "neurons" / "schedules.safetensors"
    reference = load_file(path)
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    expected = reference[f"expected.lr_{name}"]
    at = reference[f"input.steps_{name}"].tolist()
    steps, epochs = at[-1] + 1, {"stage1": 30, "stage2": config["epochs"]}[name]
    stage = Stage(epochs=epochs, lr=expected.max().item(), schedule="one_cycle", warmup_epochs=2)

    found = rates(stage, steps // epochs)

    assert [found[step] for step in at] == pytest.approx(expected.tolist(), rel=1e-6)


def test_a_constant_schedule_stays_after_its_warm_up():
    found = rates(Stage(epochs=2, lr=1.0, schedule="constant", warmup_epochs=0.5), 8)

    assert found == pytest.approx([0.25, 0.5, 0.75, *[1.0] * 13])


def test_one_stage_is_the_training_without_stages(data, tmp_path):
    one = trained(data, tmp_path / "one", [{"epochs": 3, "lr": 5e-3}])
    plain = trained(data, tmp_path / "plain", [], epochs=3, lr=5e-3)

    assert all(torch.equal(one[name], plain[name]) for name in plain)


def test_frozen_parts_keep_their_weights_in_evaluation_mode(data, tmp_path, monkeypatch):
    modes: list[dict[str, bool]] = []
    step = Learner.step

    def watched(learner: Learner) -> None:
        modes.append({name: module.training for name, module in learner.model[1].named_modules()})
        step(learner)

    monkeypatch.setattr(Learner, "step", watched)
    first = trained(data, tmp_path / "first", STAGES[:1])
    modes.clear()
    both = trained(data, tmp_path / "both", STAGES[:2])

    is_changed = {name for name in first if not torch.equal(first[name], both[name])}
    assert is_changed and not [n for n in is_changed if n.startswith(("backbone.", "fuser.proj_maps."))]
    assert any(name.startswith("fuser.block.") for name in is_changed)
    frozen = {name for name in modes[-1] if name.startswith(("backbone", "fuser.proj_maps"))}
    assert all(mode == (name not in frozen) for name, mode in modes[-1].items() if name)
    assert all(modes[0].values())


def test_a_stage_starts_from_a_model_folder_and_inherits_what_it_learned_from(data, tmp_path):
    first = trained(data, tmp_path / "first", [{"epochs": 1, "lr": 5e-3}])
    model = tmp_path / "first" / "cells" / "cell" / "model"
    config = json.loads((model / "config.json").read_text())
    config["learned"]["selection"] = "test"
    (model / "config.json").write_text(json.dumps(config))
    starting = CellData(data.trials, data.targets, data.held_out, None, starts={1: {"": model}})
    still = {"epochs": 1, "lr": 1e-30}

    second = trained(starting, tmp_path / "second", [{"epochs": 1, "lr": 5e-2}, still], weight_decay=0)

    assert all(torch.equal(second[name], first[name]) for name in first)
    written = tmp_path / "second" / "cells" / "cell" / "model" / "config.json"
    assert json.loads(written.read_text())["learned"]["selection"] == "test"


@pytest.mark.parametrize(
    ("frozen", "message"),
    [(["neck"], "freezes 'neck'"), (["backbone", "fuser"], "freezes all that could learn")],
)
def test_freezing_what_is_not_there_or_everything_is_refused(data, tmp_path, frozen, message):
    with pytest.raises(RecipeError, match=message):
        trained(data, tmp_path / "run", [{"epochs": 1, "freeze": frozen}])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": [{"epochs": 3}], "epochs": 4}, "train.epochs is 4, but the stages have 3"),
        ({"stages": [{"epochs": 3}], "lr": 1e-3}, "lr has no effect where stages have their own"),
        ({"stages": [{"epochs": 3}, {"epochs": 1}], "patience": 2}, "patience has no effect"),
        ({"stages": [{"epochs": 3, "final_div": 5}]}, "final_div has no effect with schedule cosine"),
        ({"stages": [{"epochs": 3, "warmup_epochs": 4}]}, "warmup_epochs is above the 3 epochs"),
        (
            {"stages": [{"epochs": 3, "warmup_epochs": 3, "schedule": "one_cycle"}]},
            "one_cycle cannot fall where warmup_epochs are all 3 epochs",
        ),
    ],
)
def test_keys_of_stages_without_effect_are_refused(settings, message):
    with pytest.raises((RecipeError, ValueError), match=message):
        Train.model_validate(settings)


def test_a_training_starts_from_the_newest_run_of_a_recipe_and_says_where_it_starts_twice(tmp_path):
    root = tmp_path / "runs"
    for number in range(2):
        folder = root / "train-align" / f"clips-intra-mindeye2-{number:010d}"
        (folder / "cells/sub-01_seed-1/model").mkdir(parents=True)
        (folder / "recipe.yaml").write_text("recipe_name: papers/mindeye2")
        (folder / "metrics.json").write_text(json.dumps(Measurements().as_dict()))
    train = Train.model_validate({"start_from": {"backbone": "papers/mindeye2"}, "epochs": 1})

    start = find_starts(train.starts, Cell("sub-01_seed-1", (1,), (1,), 1), Paths(runs=str(root)), {})[0]

    assert start["backbone"].parents[2].name.endswith("-0000000001")
    with pytest.raises(ValidationError, match="leave one out"):
        Train.model_validate({"start_from": "a", "stages": [{"epochs": 1, "start_from": "b"}]})


def shipped(name: str | None, *overrides: str) -> Recipe:
    return Recipe.resolve("train-align", name, {}, overrides)


PUBLISHED = {
    "papers/neurons": [
        {"prediction": "motion", "temperature": [0, 49]},
        {"prediction": "mask", "wave": [0, 20]},
        {"prediction": "concepts", "wave": [10, 30]},
        {"prediction": "caption", "wave": [20, 40]},
        {"prediction": "latents", "wave": [30, 50]},
    ],
    "papers/mindeye2": [
        {"prediction": "image", "epochs": [0, 49]},
        {"prediction": "image", "epochs": [49, 150], "temperature": [49, 149]},
    ],
    "papers/havir": [
        {"prediction": "image_projected", "epochs": [0, 79]},
        {"prediction": "image_projected", "epochs": [79, 240], "temperature": [79, 239]},
    ],
}
"""Epochs of the courses that the papers' code has, in trainings of 50, 150 and 240."""
PUBLISHED |= {"neurons-24gb": PUBLISHED["papers/neurons"], "havir-24gb": PUBLISHED["papers/havir"]}


def published_term(prediction: str, **epochs: list[int]) -> Term:
    """A term with its epochs as numbers."""
    fields: dict[str, Any] = {"prediction": prediction, "loss": {"kind": "soft-clip"}}
    if "epochs" in epochs:
        fields["epochs"] = epochs["epochs"]
    if "temperature" in epochs:
        course = {"from": 0.004, "to": 0.0075, "epochs": epochs["temperature"], "course": "cosine"}
        fields["loss"]["temperature"] = course
    if "wave" in epochs:
        fields["weight"] = {"base": 1, "peak": 10, "epochs": epochs["wave"], "course": "sine"}
    return Term.model_validate(fields)


def temperature_of(term: Term) -> Any:
    """The temperature of a term's loss; None without one."""
    return getattr(term.loss, "temperature", None)


@pytest.mark.parametrize("name", PUBLISHED)
def test_shares_of_a_stage_are_exactly_the_epochs_of_the_published_length(name):
    recipe = shipped(name)
    moving = [
        term
        for term in recipe.loss_terms
        if term.epochs or not isinstance(term.weight, float) or isinstance(temperature_of(term), Course)
    ]

    for term, published in zip(moving, PUBLISHED[name], strict=True):
        expected = published_term(**published)
        assert term.prediction == expected.prediction
        for step in range(8 * recipe.train.epochs):
            assert term.weight_at(step / 8) == expected.weight_at(step / 8)
        if "temperature" in published:
            found, wanted = temperature_of(term), temperature_of(expected)
            epochs = range(recipe.train.epochs)
            assert [found.at(epoch) for epoch in epochs] == [wanted.at(epoch) for epoch in epochs]


@pytest.mark.parametrize(
    "name",
    ["papers/neurons-brain", "papers/neurons", "papers/mindeye2", "papers/mindeye1-lowlevel", "papers/havir"],
)
def test_a_warm_up_as_a_share_gives_exactly_the_published_learning_rates(name):
    (stage,) = shipped(name).train.stages
    epochs = stage.model_copy(update={"warmup_epochs": 2.0})

    assert isinstance(stage.warmup_epochs, Fraction)
    assert rates(stage, 3) == rates(epochs, 3)


@pytest.mark.parametrize(("key", "epochs"), [("train.epochs", 3), ("train.stages.0.epochs", 60)])
@pytest.mark.parametrize("name", ["papers/neurons", "papers/mindeye2"])
def test_one_key_gives_a_staged_training_another_length_with_all_its_courses(tmp_path, name, key, epochs):
    published, recipe = shipped(name), shipped(name, f"{key}={epochs}")

    assert recipe.train.epochs == epochs == sum(stage.epochs for stage in recipe.train.stages)
    assert recipe.train.stages[0].warmup == pytest.approx(2 / published.train.epochs * epochs)
    scale = published.train.epochs / epochs
    for short, long in zip(recipe.loss_terms, published.loss_terms, strict=True):
        if not isinstance(short.weight, Course):
            moments = [(number + 0.5) / 40 * epochs for number in range(40)]
            weights = [long.weight_at(moment * scale) for moment in moments]
            assert [short.weight_at(moment) for moment in moments] == pytest.approx(weights)
        if isinstance(course := temperature_of(short), Course):
            assert course.at(epochs - 1) == 0.0075
            active = short.epochs or (0, epochs)
            assert course.at(int(active[0])) == (0.004 if active[1] - int(active[0]) > 1 else 0.0075)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert shipped(str(tmp_path / "recipe.yaml")) == recipe


def test_a_sweep_over_the_length_of_a_staged_training_shortens_its_stages():
    sweep = shipped("papers/neurons", "sweep={train.stages.0.epochs: [3, 5]}")
    lengths = shipped("papers/neurons", "sweep={train.epochs: [4, 6]}")

    assert [each.train.epochs for each in variants(sweep).values()] == [3, 5]
    assert [each.train.stages[0].epochs for each in variants(lengths).values()] == [4, 6]


def test_stages_keep_their_proportions_and_none_is_empty():
    assert scale_stages([30, 50], 8) == [3, 5]
    assert scale_stages([1, 79], 8) == [1, 7]
    assert scale_stages([79, 1, 1], 3) == [1, 1, 1]
    assert scale_stages([30, 50], 160) == [60, 100]
    with pytest.raises(RecipeError, match="is 1, and the training has 2 stages") as caught:
        scale_stages([30, 50], 1)
    assert caught.value.hint == "train.epochs=2 or more"


def test_the_length_that_is_set_last_counts(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {epochs: 25}\n")
    staged = "train.stages=[{epochs: 6}, {epochs: 2}]"

    assert shipped(str(path), staged).train.epochs == 8
    assert [stage.epochs for stage in shipped(str(path), staged, "train.epochs=4").train.stages] == [3, 1]
    assert shipped(str(path), staged, "train.epochs=4", "train.stages.1.epochs=3").train.epochs == 6


def test_a_term_of_a_stage_moves_with_the_stage():
    fields = {
        "heads": {"image": "clip-h14"},
        "terms": [
            {"prediction": "image", "stage": 0},
            {
                "prediction": "image",
                "stage": 1,
                "epochs": ["1/2", "1/1"],
                "weight": {"from": 0.5, "to": 2, "epochs": ["1/2", "3/4"]},
            },
            {"prediction": "image", "loss": "mse", "stage": 1, "epochs": [0, 2]},
        ],
        "train": {"stages": [{"epochs": 3}, {"epochs": 4}]},
    }

    first, second, third = Recipe.model_validate(fields).loss_terms

    assert [first.weight_at(epoch) for epoch in range(7)] == [1, 1, 1, 0, 0, 0, 0]
    assert [second.weight_at(epoch) for epoch in range(7)] == [0, 0, 0, 0, 0, 0.5, 2]
    assert [third.weight_at(epoch) for epoch in range(7)] == [0, 0, 0, 1, 1, 0, 0]
    fields["terms"][1]["stage"] = 2
    with pytest.raises(RecipeError, match="a term is of stage 2"):
        Recipe.model_validate(fields)


def test_a_dotted_path_names_one_of_the_parts_that_a_stage_starts_from():
    brain, first = "train.start_from.backbone.brain=RUN", "train.stages.0.start_from.fuser.proj_maps=OTHER"

    changed = shipped("papers/neurons", brain).train.start_from
    alone = shipped(None, "train.stages=[{epochs: 2}]", first).train

    assert isinstance(changed, dict) and changed["backbone.brain"] == "RUN"
    published = shipped("papers/neurons").train.start_from
    assert isinstance(published, dict) and {**published, "backbone.brain": "RUN"} == changed
    assert alone.starts == [{"fuser.proj_maps": "OTHER"}]
    with pytest.raises(RecipeError, match="start_from is WHOLE, for all parts, and names a part too"):
        shipped(None, "train.start_from=WHOLE", brain)


def test_a_share_that_ends_within_an_epoch_changes_the_training_at_its_step(data, tmp_path, monkeypatch):
    is_mixed: list[bool] = []
    draw = Batches.draw

    def watched(batches: Batches, *args: Any) -> Any:
        parts, targets, context = draw(batches, *args)
        is_mixed.append(context.mixing is not None)
        return parts, targets, context

    monkeypatch.setattr(Batches, "draw", watched)
    fields: list[dict[str, Any]] = [
        {"prediction": "token", "loss": "mixco", "epochs": [0, "1/3"]},
        {"prediction": "token", "epochs": ["1/3", "1/1"]},
    ]
    terms = [Term.model_validate(each).in_stage(0, 1) for each in fields]
    settings = {"batch_size": 16, "precision": "fp32", "selection": "last", "epochs": 1}
    train = Train.model_validate(settings)

    train_cell("cell", 1, layout_of(data), data, terms, train, RunFolder(tmp_path), HERE)

    steps = len(is_mixed)
    assert steps > 3 and is_mixed == [step / steps < 1 / 3 for step in range(steps)]


def test_parts_learn_at_rates_of_their_own_in_every_schedule_and_stage(data: CellData) -> None:
    factors = {"fuser": 0.5, "fuser.block": 0.1}
    model = Aligner(layout_of(data))
    for schedule in ("constant", "cosine", "one_cycle"):
        stages = [Stage(epochs=2, lr=4e-3, schedule=schedule)]
        train = Train(lr_of=factors, precision="fp32", decay="weights", stages=stages)
        learner = Learner(model, torch.nn.Module(), train, steps=3)
        learner.enter_stage()
        highest: dict[str, float] = {}
        for _ in range(6):
            for group in learner.optimizer.param_groups:
                for name, parameter in model.named_parameters():
                    if any(parameter is learned for learned in group["params"]):
                        highest[name] = max(highest.get(name, 0.0), group["lr"])
            learner.optimizer.step()
            learner.schedule.step()
        for name, rate in highest.items():
            factor = 0.1 if name.startswith("fuser.block.") else 0.5 if name.startswith("fuser.") else 1.0
            assert rate == pytest.approx(4e-3 * factor, rel=0.1), (schedule, name)
        assert highest.keys() == dict(model.named_parameters()).keys()


def test_a_rate_of_no_part_is_refused(data: CellData, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.lr_of names 'fusor'"):
        trained(data, tmp_path / "run", STAGES, lr_of={"fusor": 0.5})


def begun(data: CellData, start: Aligner, after_step: Any = lambda learner: None, **knobs: Any) -> Weights:
    """Train from the weights of a model at a constant rate."""
    step = Learner.step

    def watched(learner: Learner) -> None:
        step(learner)
        after_step(learner)

    stages = [{"epochs": 2, "lr": 5e-3, "schedule": "constant"}]
    settings = {"batch_size": 16, "precision": "fp32", "selection": "last", "stages": stages, **knobs}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", watched)
        model = loop.fit(layout_of(data), data, TERMS[:1], Train.model_validate(settings), start, seed=1)
    return model.state_dict()


@pytest.fixture
def start(data: CellData) -> Aligner:
    torch.manual_seed(7)
    return Aligner(layout_of(data))


def test_a_full_pull_returns_the_weights_but_not_the_scale_of_the_loss_to_the_start(data, start):
    weights, scales = start.state_dict(), []

    def check(learner: Learner) -> None:
        pulled = dict(learner.model[1].named_parameters())
        assert all(torch.equal(pulled[name], weights[name]) for name in pulled)
        scales.append([p.item() for p in learner.model[0].parameters()])

    begun(data, start, check, start_pull=1)

    assert len(scales) > 3 and scales[0] != scales[-1]


def test_a_pull_moves_each_step_by_its_share_at_the_rate_of_the_step(data, start):
    """The first step of a warm-up over two of six steps has half of the peak rate."""
    stages = [{"epochs": 1, "lr": 5e-3, "schedule": "constant", "warmup_epochs": 1 / 3, "freeze": ["fuser"]}]
    first: dict[float, Weights] = {}
    for pull in (0.0, 0.4):

        def keep(learner: Learner, pull: float = pull) -> None:
            state = {key: value.clone() for key, value in learner.model[1].state_dict().items()}
            first.setdefault(pull, state)

        begun(data, start, keep, stages=stages, start_pull=pull)

    for name, value in start.state_dict().items():
        expected = first[0.0][name] + 0.5 * 0.4 * (value - first[0.0][name])
        torch.testing.assert_close(first[0.4][name], expected)
    assert any(not torch.equal(first[0.4][name], first[0.0][name]) for name in first[0.0])


def test_the_stronger_the_pull_the_nearer_the_weights_stay_to_the_start(data, start):
    def distance(**knobs: float) -> float:
        weights = begun(data, start, **knobs)
        return sum(
            float((weights[name] - value).square().sum()) for name, value in start.state_dict().items()
        )

    free, zero, weak, strong = distance(), *(distance(start_pull=pull) for pull in (0.0, 0.03, 0.3))

    assert free == zero > 1.1 * weak > 1.1 * 1.1 * strong > 0


@pytest.mark.parametrize(("first", "after"), [(0, 13), (1, 3), (1, 29)])
def test_a_training_killed_in_any_stage_ends_with_the_same_weights(data, tmp_path, monkeypatch, first, after):
    """Starts from a part, so that a later stage pulls to weights that the training itself has learned."""
    trained(data, tmp_path / "first", STAGES[:1])
    start = {"backbone": tmp_path / "first" / "cells" / "cell" / "model"}
    data = CellData(data.trials, data.targets, data.held_out, None, starts={first: start})
    stages = [STAGES[0], {**STAGES[1], "freeze": ["fuser.proj_maps"]}, STAGES[2]]
    knobs = {"start_pull": 0.2}
    whole = trained(data, tmp_path / "whole", stages, **knobs)
    free = trained(data, tmp_path / "free", stages)
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    step, steps = Learner.step, []

    def pressed(learner: Learner) -> None:
        if len(steps) == after:
            raise KeyboardInterrupt
        steps.append(step(learner))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Learner, "step", pressed)
        trained(data, tmp_path / "resumed", stages, **knobs)
    torch.manual_seed(99)  # whatever is drawn meanwhile must not matter

    resumed = trained(data, tmp_path / "resumed", stages, **knobs)

    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert any(not torch.equal(free[name], whole[name]) for name in whole)


def test_a_pull_without_a_start_is_refused_and_none_is_no_other_recipe(data, tmp_path):
    with pytest.raises(RecipeError, match=r"start_pull is 0\.1, and no stage starts from other weights"):
        trained(data, tmp_path / "run", STAGES, start_pull=0.1)
    with pytest.raises(RecipeError, match="start_pull has no effect without a start"):
        shipped(None, "train.start_pull=0.1")

    assert shipped(None, "train.start_pull=0.1", "mode=finetune").train.start_pull == 0.1
    assert shipped(None, "train.start_pull=0.1", "train.start_from=run").train.start_pull == 0.1
    assert "start_pull" not in shipped(None).train.model_dump()
