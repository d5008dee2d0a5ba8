"""Training of a cell on random signals that contain the embedding of their picture."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.core.results import UNKNOWN_HISTORY, CellFacts, Measurements
from brainhive_cli.core.runs import Checkpoint, RunFolder
from brainhive_cli.data.stores.training_history import TrainingHistory
from brainhive_cli.models import (
    FUSED_TARGET,
    TOKEN_HEAD,
    FusionEncoder,
    Head,
    SignalSpec,
)
from brainhive_cli.training.alignment import (
    Aligner,
    Layout,
    Recipe,
    Stage,
    Term,
    Train,
    TrainingFacts,
    model as aligners,
)
from brainhive_cli.training.alignment.training import CellData, cell_folder, loop
from brainhive_cli.training.alignment.training.cell_folder import train_cell
from brainhive_cli.training.alignment.training.initialisation import (
    REFERENCE_SD,
    _draw_reference_weights,
)
from brainhive_cli.training.alignment.training.optimisation import (
    Learner,
    make_lr_scheduler,
)
from tests.tools.joined_processes import run_in_processes
from tests.worlds.alignment_cells import (
    CPU_LAUNCH,
    PICTURES,
    REPETITIONS,
    make_batches,
    make_cell_data,
    make_layout,
    make_targets,
)

Weights = dict[str, torch.Tensor]


@pytest.fixture
def embedding():
    return np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)


@pytest.fixture
def train(
    tmp_path,
):
    """Train a cell in its own folder. Return weights, metrics and events."""

    def run_cell(data, folder="run", loss="clip", **knobs):
        run_folder, events = RunFolder(tmp_path / folder), list[dict[str, Any]]()
        run_folder.path.mkdir(exist_ok=True)
        config = Train(
            **{"epochs": 4, "batch_size": 16, "lr": 5e-3, "precision": "fp32", **knobs}
        )
        terms = [Term(prediction=TOKEN_HEAD, loss=loss)]
        train_cell(
            "cell",
            1,
            make_layout(data),
            data,
            terms,
            config,
            run_folder,
            CPU_LAUNCH,
            events.append,
        )
        return tuple(read_results(run_folder.path)) + (events,)

    return run_cell


def read_results(run_folder):
    cell = run_folder / "cells" / "cell"
    state = load_file(cell / "model" / "model.safetensors")
    measurements = Measurements.from_document(
        json.loads((cell / "metrics.json").read_text()), cell
    )
    cell_facts = measurements.facts.cells["cell"]
    took = cell_facts.took
    assert took["seconds"] > 0
    assert took["peak_memory_bytes"] > 10**6
    assert took["parameters"] <= sum(value.numel() for value in state.values())
    # which differs from run to run
    timeless = cell_facts.model_copy(update={"took": {}})
    return state, measurements.with_facts(cells={"cell": timeless})


def is_same(single_weights, other_weights):
    return single_weights.keys() == other_weights.keys() and all(
        torch.equal(single_weights[key], other_weights[key]) for key in single_weights
    )


def interrupt(monkeypatch, final_number):
    """Raise KeyboardInterrupt after some steps."""
    step, steps = Learner.step, []

    def pressed(learner):
        if len(steps) == final_number:
            raise KeyboardInterrupt
        steps.append(step(learner))

    monkeypatch.setattr(Learner, "step", pressed)


VARIED = {"parts": ["smooth"]}


@pytest.mark.parametrize(
    ("n_steps", "stop", "loss", "knobs"),
    [
        (
            4,
            "random",
            {"kind": "mixco"},
            {"ema": 0.9, "augment": {**VARIED, "repetitions": 1.0}},
        ),
        (4, None, "clip", {"alternatives": "uncertainty", "epochs": 3}),
        (
            4,
            None,
            "clip",
            {
                "last_batch": "keep",
                "decay": "weights",
                "prior_dropout": 0.1,
                "batch_size": 40,
            },
        ),
    ],
)
def test_a_cell_killed_in_an_epoch_ends_with_the_same_weights(
    train, embedding, monkeypatch, n_steps, stop, loss, knobs
):
    fuser = FusionEncoder({"e": 8}, 16, 16) if "prior_dropout" in knobs else None
    data = make_cell_data(embedding, 2, stop, [-embedding, 2 * embedding])
    data = replace(data, fuser=fuser)  # which drops units as the layout says
    uninterrupted, metrics, events = train(data, "whole", loss, **knobs)
    monkeypatch.setattr(cell_folder, "CHECKPOINT_INTERVAL_S", 0.0)
    with monkeypatch.context() as pressed, pytest.raises(KeyboardInterrupt):
        interrupt(pressed, n_steps)
        train(data, "resumed", loss, **knobs)
    torch.manual_seed(99)  # whatever is drawn meanwhile must not matter

    resumed, resumed_metrics, resumed_events = train(data, "resumed", loss, **knobs)

    assert is_same(resumed, uninterrupted)
    assert resumed_metrics == metrics
    expected = {event["epoch"]: event["loss"] for event in events}
    assert [event["loss"] for event in resumed_events] == [
        expected[event["epoch"]] for event in resumed_events
    ]


def test_each_epoch_is_reported(train, embedding):
    _, metrics, events = train(make_cell_data(embedding))

    assert [event["epoch"] for event in events] == [0, 1, 2, 3]
    names = {"cell", "epoch", "epochs", "loss", "validation_top1", "samples_per_s"}
    assert all(event.keys() == names and event["samples_per_s"] > 0 for event in events)
    assert events[-1]["loss"] < events[0]["loss"]
    kept_event = events[metrics.facts.cells["cell"].epoch - 1]
    assert kept_event["validation_top1"] == metrics.scopes["cell"]["top1"].value
    assert kept_event["validation_top1"] == max(
        event["validation_top1"] for event in events
    )


def test_without_validation_the_last_epoch_is_kept_and_says_so(train, embedding):
    data = make_cell_data(embedding)

    _, metrics, _ = train(
        replace(data, held_out=np.zeros(PICTURES, bool)), validation=0
    )
    selections = [
        replace(trial, stimulus=np.where(trial.stimulus < 15, -1, trial.stimulus))
        for trial in data.trials
    ]
    # no subject saw what is held out
    _, unseen, _ = train(replace(data, trials=selections), "unseen")

    caveats = [UNKNOWN_HISTORY]
    cell = CellFacts(epoch=4, selected_on="last epoch", caveats=caveats)
    assert metrics == Measurements(
        facts=TrainingFacts(caveats=caveats, cells={"cell": cell})
    )
    assert unseen.facts.cells["cell"].selected_on == "last epoch"
    assert not unseen.scopes


def test_the_test_selects_only_where_that_is_asked_for(train, embedding):
    data = make_cell_data(embedding)
    sound = replace(data, test_trials=data.trials, test_targets=data.targets)
    spoilt = replace(data.trials[0], signal=np.full_like(data.trials[0].signal, np.nan))
    data = replace(data, test_trials=[spoilt], test_targets=data.targets)

    for selection, selected_on in (("best", "validation"), ("last", "last epoch")):
        metrics = train(data, selection, selection=selection)[1]
        assert metrics.facts.cells["cell"].selected_on == selected_on
    assert (
        train(sound, "test", selection="test")[1].facts.cells["cell"].selected_on
        == "test"
    )
    with pytest.raises(BrainhiveError, match="not finite"):
        train(data, "other", selection="test")

    # recordings of the training are no test
    recordings = {"selection": "recordings", "validation_recordings": {1: [1]}}
    metrics = train(sound, "recordings", **recordings)[1]
    assert metrics.facts.cells["cell"].selected_on == "validation"


def test_training_without_progress_stops_and_keeps_the_best(
    train, embedding, monkeypatch
):
    noise = np.random.default_rng(5).normal(size=embedding.shape).astype(np.float32)
    data = replace(
        make_cell_data(embedding), targets=make_targets({"e": torch.from_numpy(noise)})
    )  # nothing to be learned
    validated = []
    rank = loop.rank_queries

    def watched(aligner, *arguments):
        validated.append(
            {key: value.clone() for key, value in aligner.state_dict().items()}
        )
        return rank(aligner, *arguments)

    monkeypatch.setattr(loop, "rank_queries", watched)
    weights, metrics, events = train(data, epochs=60, patience=3)

    tops = [event["validation_top1"] for event in events]
    last_best = max(epoch for epoch, top in enumerate(tops, 1) if top == max(tops))
    assert len(events) == last_best + 3 < 60
    assert metrics.facts.cells["cell"].epoch == last_best
    by_epoch = validated[::2]  # held out, then tested
    assert all(
        torch.equal(weights[key], value)
        for key, value in by_epoch[last_best - 1].items()
    )
    assert not all(
        torch.equal(weights[key], value) for key, value in by_epoch[-1].items()
    )


def test_nothing_random_touches_validation(train, embedding):
    varied = {"parts": [{"kind": "smooth", "p": 1}], "repetitions": 0.1}
    # so that both end with the weights they began with
    frozen_training = {"lr": 1e-30, "weight_decay": 0, "epochs": 1}

    plain_weights, metrics, (plain_event,) = train(
        make_cell_data(embedding), "plain", **frozen_training
    )
    same_weights, same_metrics, (noisy,) = train(
        make_cell_data(embedding, repetitions="random", alternatives=[-embedding]),
        "noisy",
        augment=varied,
        **frozen_training,
    )

    assert all(
        torch.allclose(plain_weights[key], same_weights[key], atol=1e-20)
        for key in plain_weights
    )
    assert same_metrics == metrics
    assert noisy["loss"] != plain_event["loss"]  # but it does touch training


def test_each_trial_is_a_sample_of_its_own(embedding):
    data = make_cell_data(embedding, subjects=2, repetitions="single")
    batches = make_batches(data)

    samples = np.concatenate(batches.split_epoch(1, 0))
    # the last has a single trial
    assert len(samples) == len(set(samples)) == 2 * (44 * REPETITIONS + 1)
    parts, targets, _ = batches.draw(samples, 0)
    stimulu = batches.samples.stimulus[np.sort(samples)]
    for signal, subject, picture in zip(*parts[0], stimulu, strict=True):
        own_as_repetition = data.trials[subject].as_repetitions()[picture]
        assert (torch.from_numpy(own_as_repetition) == signal).all((1, 2)).any()
    assert torch.equal(targets["e"], data.targets.gather(stimulu)["e"])


def _resume_in_two(launch, folder):
    """Train a cell in two processes, without and with an interruption."""
    data = make_cell_data(
        np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32), 2
    )
    config = Train(
        epochs=2, batch_size=16, precision="fp32", augment=VARIED, last_batch="keep"
    )
    terms = [Term(prediction=TOKEN_HEAD, loss="mixco")]
    cell_folder.CHECKPOINT_INTERVAL_S = 0.0

    def run_cell(name):
        train_cell(
            "cell",
            1,
            make_layout(data),
            data,
            terms,
            config,
            RunFolder(folder / name),
            launch,
        )
        launch.barrier()

    run_cell("whole")
    with pytest.MonkeyPatch.context() as pressed, pytest.raises(KeyboardInterrupt):
        interrupt(pressed, 2)
        run_cell("resumed")
    launch.barrier()
    run_cell("resumed")


@pytest.mark.nightly
def test_two_processes_go_on_in_an_epoch_with_the_same_weights(tmp_path):
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()

    run_in_processes(_resume_in_two, tmp_path)

    (uninterrupted, metrics), (resumed, resumed_metrics) = (
        read_results(tmp_path / "whole"),
        read_results(tmp_path / "resumed"),
    )
    assert is_same(uninterrupted, resumed)
    assert metrics == resumed_metrics
    steps = (tmp_path / "resumed" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in steps] == [0, 1]


TERMS = [
    Term(prediction="token", epochs=(0, 2), loss="mixco"),
    Term(prediction="token", epochs=(2, 5)),
]
STAGES = [
    {"epochs": 2, "lr": 5e-3, "schedule": "one_cycle", "warmup_epochs": 0.5},
    {
        "epochs": 2,
        "lr": 2e-3,
        "schedule": "constant",
        "freeze": ["backbone", "fuser.proj_maps"],
    },
    {"epochs": 1, "lr": 1e-3},
]


@pytest.fixture
def data():
    return make_cell_data(
        np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32), 2
    )


def train_stages(data, folder, stages, **knobs):
    """Train a cell in these stages."""
    folder.mkdir(exist_ok=True)
    settings = {
        "batch_size": 16,
        "precision": "fp32",
        "selection": "last",
        "stages": stages,
        **knobs,
    }
    train = Train.model_validate(settings)
    terms = [term for term in TERMS if term.weight_at(0) or train.epochs > 2]
    train_cell(
        "cell", 1, make_layout(data), data, terms, train, RunFolder(folder), CPU_LAUNCH
    )
    return load_file(folder / "cells" / "cell" / "model" / "model.safetensors")


def list_learning_rates(stage, steps):
    """List the learning rate of each step."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], stage.lr)
    schedule, rates = make_lr_scheduler(optimizer, stage, steps), []
    for _ in range(stage.epochs * steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.nightly
def test_one_cycle_equals_neurons_learning_rates(golden):
    """The golden file has the epochs of the second training. The first has 30, with a
    warm-up of two, a first rate of peak / 25, and a last of peak / 25,000.
    """
    path = golden / "neurons" / "schedules.safetensors"
    reference = load_file(path)
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    for name, epochs in (("stage1", 30), ("stage2", config["epochs"])):
        expected = reference[f"expected.lr_{name}"]
        step_numbers = reference[f"input.steps_{name}"].tolist()
        stage = Stage(
            epochs=epochs,
            lr=expected.max().item(),
            schedule="one_cycle",
            warmup_epochs=2,
        )

        learning_rates = list_learning_rates(stage, (step_numbers[-1] + 1) // epochs)

        assert [learning_rates[step] for step in step_numbers] == pytest.approx(
            expected.tolist(), rel=1e-6
        )


def test_frozen_parts_keep_their_weights_in_evaluation_mode(
    data, tmp_path, monkeypatch
):
    modes = []
    step = Learner.step

    def watched(learner):
        modes.append(
            {name: module.training for name, module in learner.model[1].named_modules()}
        )
        step(learner)

    monkeypatch.setattr(Learner, "step", watched)
    first_stages = train_stages(data, tmp_path / "first", STAGES[:1])
    modes.clear()
    both_stages = train_stages(data, tmp_path / "both", STAGES[:2])

    is_changed = {
        name
        for name in first_stages
        if not torch.equal(first_stages[name], both_stages[name])
    }
    assert is_changed
    assert not [
        n for n in is_changed if n.startswith(("backbone.", "fuser.proj_maps."))
    ]
    assert any(name.startswith("fuser.block.") for name in is_changed)
    frozen = {
        name for name in modes[-1] if name.startswith(("backbone", "fuser.proj_maps"))
    }
    assert all(mode == (name not in frozen) for name, mode in modes[-1].items() if name)
    assert all(modes[0].values())


def test_a_stage_starts_from_a_model_folder_with_its_history(data, tmp_path):
    first_stages = train_stages(data, tmp_path / "first", [{"epochs": 1, "lr": 5e-3}])
    model = tmp_path / "first" / "cells" / "cell" / "model"
    started = aligners.load(model)
    started.learned = replace(started.learned, selection="test")
    started.save(model)
    starting = CellData(
        data.trials, data.targets, data.held_out, None, start_files={1: {"": model}}
    )
    frozen_training = {"epochs": 1, "lr": 1e-30}

    second = train_stages(
        starting,
        tmp_path / "second",
        [{"epochs": 1, "lr": 5e-2}, frozen_training],
        weight_decay=0,
    )

    assert all(torch.equal(second[name], first_stages[name]) for name in first_stages)
    written_model = tmp_path / "second" / "cells" / "cell" / "model"
    assert TrainingHistory.read(written_model).selection == "test"


def shipped(name, *overrides):
    return Recipe.resolve("train-align", name, {}, overrides)


def test_one_key_scales_all_stages_and_courses_of_a_training():
    published, moments = shipped("papers/neurons"), [0.5, 1.5, 2.5, 3.5, 4.5]
    scale = published.train.epochs / 5
    for key in ("train.epochs", "train.stages.0.epochs"):
        recipe = shipped("papers/neurons", f"{key}=5")

        assert (
            recipe.train.epochs
            == 5
            == sum(stage.epochs for stage in recipe.train.stages)
        )
        assert recipe.train.stages[0].warmup == pytest.approx(2 / scale)
        for loss_term, long in zip(
            recipe.loss_terms, published.loss_terms, strict=True
        ):
            expected = [long.weight_at(moment * scale) for moment in moments]
            assert [loss_term.weight_at(moment) for moment in moments] == pytest.approx(
                expected
            )


def test_stages_replace_the_learning_rate_of_their_recipe(tmp_path):
    stages = "[{epochs: 20, lr: 3e-4, schedule: constant}]"
    extending = tmp_path / "train-align.yaml"
    extending.write_text(f"extends: papers/nice\ntrain: {{stages: {stages}}}\n")
    train = shipped("papers/brainhive-intra").train
    assert shipped("papers/brainhive-intra", "train.stages=[]").train == train
    for recipe in (
        shipped("papers/brainhive-intra", f"train.stages={stages}"),
        shipped(str(extending)),
    ):
        (stage,) = recipe.train.list_stages(1)
        assert (stage.epochs, stage.lr, stage.schedule) == (20, 3e-4, "constant")
        assert recipe.train.epochs == 20

    # a rate that is set beside stages is still refused
    with pytest.raises(RecipeError, match="lr has no effect"):
        shipped("papers/brainhive-intra", f"train.stages={stages}", "train.lr=1e-3")


def test_one_cycle_moves_the_first_beta_as_torch_does():
    """Source: OneCycleLR, with which MindEye1, MindEye2 and NEURONS train."""
    stage = {"epochs": 10, "lr": 1e-3, "schedule": "one_cycle", "warmup_epochs": 3}
    learner = make_learner(torch.nn.Linear(1, 1), stages=[Stage(**stage)])
    betas = []
    for _ in range(10):
        betas.append(learner.optimizer.param_groups[0]["betas"])
        learner.optimizer.step()
        learner.lr_scheduler.step()

    first_betas = [beta for beta, _ in betas]
    assert (first_betas[0], min(first_betas), first_betas[-1]) == pytest.approx(
        (0.95, 0.85, 0.95)
    )
    assert first_betas.index(min(first_betas)) == 2
    assert {beta for _, beta in betas} == {0.995}


def test_keys_of_stages_that_act_on_nothing_are_refused(data, tmp_path):
    for settings, message in (
        (
            {"stages": [{"epochs": 3}], "lr": 1e-3},
            "lr has no effect",
        ),
        (
            {"stages": [{"epochs": 3, "warmup_epochs": 4}]},
            "warmup_epochs is 4, .* 3 epochs",
        ),
    ):
        with pytest.raises((RecipeError, ValueError), match=message):
            Train.model_validate(settings)
    for stages, knobs, message in (
        (
            [{"epochs": 1, "freeze": ["backbone", "fuser"]}],
            {},
            r"stages\[0\] freezes all",
        ),
        (
            STAGES,
            {"start_pull": 0.1},
            r"start_pull is 0\.1",
        ),
    ):
        with pytest.raises(RecipeError, match=message):
            train_stages(data, tmp_path / "run", stages, **knobs)


def test_a_pull_moves_weights_by_its_share_of_the_learning_rate(data):
    """The first step of a warm-up over two steps has half of the peak rate."""
    torch.manual_seed(7)
    start = Aligner(make_layout(data))
    stages = [
        {
            "epochs": 1,
            "lr": 5e-3,
            "schedule": "constant",
            "warmup_epochs": 1 / 3,
            "freeze": ["fuser"],
        }
    ]
    step, first_weights = Learner.step, dict[float, Weights]()
    for pull in (0.0, 0.4):

        def keep(learner, pull=pull):
            step(learner)
            state = {
                key: value.clone()
                for key, value in learner.model[1].state_dict().items()
            }
            first_weights.setdefault(pull, state)

        settings = {
            "batch_size": 16,
            "precision": "fp32",
            "selection": "last",
            "stages": stages,
        }
        train = Train.model_validate({**settings, "start_pull": pull})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Learner, "step", keep)
            loop.fit(make_layout(data), data, TERMS[:1], train, start, seed=1)

    for name, value in start.state_dict().items():
        expected = first_weights[0.0][name] + 0.5 * 0.4 * (
            value - first_weights[0.0][name]
        )
        torch.testing.assert_close(first_weights[0.4][name], expected)
    assert any(
        not torch.equal(first_weights[0.4][name], first_weights[0.0][name])
        for name in first_weights[0.0]
    )


def test_a_training_killed_in_a_later_stage_resumes_exactly(
    data, tmp_path, monkeypatch
):
    """It starts from a module, and a later stage pulls to learned weights."""
    train_stages(data, tmp_path / "first", STAGES[:1])
    start = {"backbone": tmp_path / "first" / "cells" / "cell" / "model"}
    data = CellData(
        data.trials, data.targets, data.held_out, None, start_files={1: start}
    )
    stages = [STAGES[0], {**STAGES[1], "freeze": ["fuser.proj_maps"]}, STAGES[2]]
    whole_stages = train_stages(data, tmp_path / "whole", stages, start_pull=0.2)
    free = train_stages(data, tmp_path / "free", stages)
    monkeypatch.setattr(cell_folder, "CHECKPOINT_INTERVAL_S", 0.0)
    with monkeypatch.context() as pressed, pytest.raises(KeyboardInterrupt):
        interrupt(pressed, 29)
        train_stages(data, tmp_path / "resumed", stages, start_pull=0.2)
    torch.manual_seed(99)  # whatever is drawn meanwhile must not matter

    resumed = train_stages(data, tmp_path / "resumed", stages, start_pull=0.2)

    assert is_same(resumed, whole_stages)
    assert not is_same(free, whole_stages)


EMBEDDING = np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)
LEARNED = PICTURES - 15
"""Pictures of `data_of` that are not held out."""
REFERENCE_KINDS = ["brain_mlp", "brain_projection", "ts_conv", "nice", "atm", "eeg_net"]


def long(kind):
    """Make a layout whose signals are long enough for convolutions."""
    layout = make_layout(make_cell_data(EMBEDDING), kind)
    return replace(
        layout,
        spec=replace(layout.spec, samples=250),
        heads={TOKEN_HEAD: Head((32,), FUSED_TARGET)},
    )


def test_trials_that_fill_no_batch_are_spread_kept_or_left_out():
    for last_batch, sizes in (
        ("even", [15, 15, 15]),
        ("keep", [16, 16, 13]),
        ("drop", [16, 16]),
    ):
        batches = make_batches(make_cell_data(EMBEDDING), last_batch=last_batch)

        epochs = [batches.split_epoch(1, epoch) for epoch in range(8)]

        assert [len(rows) for rows in epochs[0]] == sizes
        assert batches.steps == len(sizes)
        # each once
        assert all(len(set(np.concatenate(epoch))) == sum(sizes) for epoch in epochs)
        joined_array = set(np.concatenate([rows for epoch in epochs for rows in epoch]))
        assert len(joined_array) == LEARNED  # what an epoch leaves out, another takes


def test_reference_weights_and_decay_are_as_in_transformers():
    from transformers import PretrainedConfig, PreTrainedModel, Trainer

    class Model(PreTrainedModel):
        config_class = PretrainedConfig

        def __init__(self, backbone, fuser):
            super().__init__(PretrainedConfig())
            self.backbone, self.fuser = backbone, fuser
            torch.manual_seed(5)
            self.post_init()

    for kind in REFERENCE_KINDS:
        theirs, ours = Aligner(long(kind)), Aligner(long(kind))
        Model(theirs.backbone, theirs.fuser)
        torch.manual_seed(5)
        ours.apply(_draw_reference_weights)

        expected = theirs.state_dict()
        ns = [
            n
            for n, module in ours.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
        ]
        assert len(ns) >= 5
        for name in ns:
            weight = ours.state_dict()[f"{name}.weight"]
            assert torch.equal(weight, expected[f"{name}.weight"])
            assert weight.std().item() == pytest.approx(REFERENCE_SD, rel=0.25)
            assert not (expected.get(f"{name}.bias", torch.zeros(1))).any()

        names = {parameter: name for name, parameter in ours.named_parameters()}
        decayed, exempt = make_learner(ours, decay="weights").optimizer.param_groups
        (group,) = make_learner(ours).optimizer.param_groups
        trainer = set(Trainer.get_decay_parameter_names(None, ours))
        assert {names[p] for p in decayed["params"]} == trainer
        assert len(exempt["params"]) > 3
        assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.05, 0.0)
        assert len(group["params"]) == len(names)
        assert group["weight_decay"] == 0.05


def make_learner(model, **knobs):
    """Make a learner in its first stage, with a single step in an epoch."""
    learner = Learner(model, torch.nn.ModuleList(), Train(**knobs), 1)
    learner.enter_stage()
    return learner


def test_not_biases_is_what_mindeyes_trainings_leave_out():
    """Source: `no_decay` of Train.py of MindEye1 and MindEye2. None of their parameters
    is named LayerNorm, and all ridges of MindEye2 decay.
    """
    brain = {"kind": "mindeye2", "hidden": 4}
    prior = {
        "kind": "mindeye1",
        "depth": 1,
        "heads": 1,
        "dim_head": 4,
        "timesteps": 3,
        "head": "image",
    }
    spec, heads = SignalSpec((), 1, (1,), (5,)), {"image": Head((2, 4), "e")}
    model = Aligner(
        Layout(spec, heads, {"kind": "with_prior", "backbone": brain, "prior": prior})
    )

    decayed, exempt = make_learner(
        model, decay="not_biases", weight_decay=0.01
    ).optimizer.param_groups

    names = {parameter: name for name, parameter in model.named_parameters()}
    assert {names[param] for param in exempt["params"]} == {
        name for name in names.values() if "bias" in name and "ridge" not in name
    }
    assert "backbone.brain.ridge.linears.1.bias" in {
        names[param] for param in decayed["params"]
    }
    assert "backbone.brain.backbone.clip_proj.0.weight" in {
        names[param] for param in decayed["params"]
    }
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.01, 0.0)


def test_gradients_are_clipped_unless_their_norm_may_be_any():
    for grad_norm, expected in ((None, 1e3), (1.0, 1.0)):
        model = torch.nn.Linear(1, 1, bias=False)
        learner = make_learner(
            model, grad_norm=grad_norm, stages=[Stage(epochs=1, schedule="constant")]
        )
        model.weight.grad = torch.full((1, 1), 1e3)

        learner.step()

        exp_avg = learner.optimizer.state[model.weight]["exp_avg"]
        mean = exp_avg / (1 - learner.optimizer.param_groups[0]["betas"][0])
        assert mean.item() == pytest.approx(expected, rel=1e-4)


def test_the_moving_average_of_the_weights_is_kept(train, embedding, monkeypatch):
    averages = []
    step = Learner.step

    def watched(learner):
        step(learner)
        losses, aligner = (module.state_dict() for module in learner.model)
        weights = aligner | {f"losses.{key}": value for key, value in losses.items()}
        averages.append({key: value.clone() for key, value in weights.items()})

    monkeypatch.setattr(Learner, "step", watched)
    kept_weights, _, _ = train(make_cell_data(embedding), ema=0.6, selection="last")

    average = averages[0]
    for count, weights in enumerate(averages[1:], 2):
        decay = min(0.6, (1 + count) / (10 + count))
        average = {
            key: decay * average[key] + (1 - decay) * weights[key] for key in weights
        }
    assert all(
        torch.allclose(kept_weights[key], average[key], atol=1e-6)
        for key in kept_weights
    )
    assert not is_same(kept_weights, averages[-1])


def test_a_batch_has_the_order_of_its_micro_batches(embedding):
    data = make_cell_data(embedding, 2)
    batches = make_batches(data)
    model = Aligner(make_layout(data)).eval()
    parts = [
        (torch.randn(count, 2, 12), torch.full((count,), subject))
        for subject, count in enumerate((3, 2))
    ]
    targets = {
        "e": torch.from_numpy(embedding[:5]),
        "further": torch.arange(5.0),
    }
    context = batches.draw(batches.split_epoch(0, 0)[0], 0)[2]
    with torch.no_grad():
        predicted, expected = loop.forward(model, parts, targets, context)
        predictions = [
            model.predict(*partial_part)[TOKEN_HEAD] for partial_part in parts
        ]
        token = model.encode_image({"e": targets["e"]})
    torch.testing.assert_close(predicted[TOKEN_HEAD], torch.cat(predictions))
    assert torch.equal(expected["further"], targets["further"])
    torch.testing.assert_close(expected[TOKEN_HEAD], token)

    # a backbone that learns with its targets gets those of its own rows
    rows = list[Any]()

    def learn(signal, subject, given_any, _):
        rows.append((len(signal), given_any["further"].tolist()))
        return {TOKEN_HEAD: signal[:, 0, :1]}, {"further": given_any["further"] + 1}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model.backbone), "learn", True, raising=False)
        patch.setattr(model, "learn", learn)
        predicted, expected = loop.forward(model, parts, targets, context)
    assert rows == [(3, [0, 1, 2]), (2, [3, 4])]
    assert expected["further"].tolist() == [1, 2, 3, 4, 5]
    joined = torch.cat([signal[:, 0, :1] for signal, _ in parts])
    assert torch.equal(predicted[TOKEN_HEAD], joined)


class Calls:
    """Callbacks that write down their calls, and keep the checkpoint of a step.

    Args:
        checkpoint: File of the checkpoint.
        kept_step: Number of the step after which it is written.
    """

    def __init__(self, checkpoint, kept_step):
        self.checkpoint, self.kept_step = checkpoint, kept_step
        self.calls = list[Any]()
        self.steps_done = 0

    def at_start(self, steps):
        self.calls.append(("start", steps))

    def after_step(self, content):
        self.calls.append("step")
        self.steps_done += 1
        if self.steps_done == self.kept_step:
            self.checkpoint.save(content())

    def after_epoch(self, event):
        assert event.keys() == {
            "epoch",
            "epochs",
            "loss",
            "validation_top1",
            "samples_per_s",
        }
        self.calls.append(("epoch", event["epoch"], event["epochs"]))

    def at_end(self, aligner, epoch, metrics):
        names = [metric.name for metric in metrics]
        self.calls.append(("end", aligner.training, epoch, "top1" in names))


def test_any_object_can_be_the_callbacks_of_a_training(embedding, tmp_path):
    data = make_cell_data(embedding)
    layout, terms = make_layout(data), [Term(prediction=TOKEN_HEAD, loss="clip")]
    train = Train(epochs=2, batch_size=16, precision="fp32", selection="last")
    checkpoint = Checkpoint(tmp_path / "mine.pt")
    steps = make_batches(data).steps
    whole_calls, resumed = Calls(checkpoint, steps + 1), Calls(checkpoint, 0)

    first_result = loop.fit(layout, data, terms, train, callbacks=whole_calls)
    resumed_result = loop.fit(
        layout, data, terms, train, checkpoint=checkpoint, callbacks=resumed
    )

    end = ("end", False, 2, True)
    epochs = [("epoch", 0, 2), ("epoch", 1, 2)]
    assert whole_calls.calls == [("start", 2 * steps)] + list(
        list(["step"] * steps) + [epochs[0]]
    ) + list(list(["step"] * steps) + [epochs[1]]) + [end]
    remaining = steps - 1
    assert resumed.calls == [("start", remaining)] + list(["step"] * remaining) + [
        epochs[1],
        end,
    ]
    assert is_same(first_result.state_dict(), resumed_result.state_dict())
    # nothing else is written
    assert [path.name for path in tmp_path.iterdir()] == ["mine.pt"]


def test_a_closed_form_begins_with_no_weights(embedding):
    data = make_cell_data(embedding)
    layout = make_layout(data, "ridge")
    other_aligner = Aligner(make_layout(data))
    with pytest.raises(BrainhiveError):
        loop.fit(layout, data, [], Train(), other_aligner)
    assert loop.is_closed_form(layout)
    assert not loop.is_closed_form(make_layout(data))
