"""The training of one cell, by itself, on random signals that hold their picture's embedding."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cell_data import HERE, PICTURES, REPETITIONS, batches_of, data_of, layout_of, targets_of
from safetensors.torch import load_file
from two import in_two

from brainhive_cli import aligner
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import Cell, TrainingFacts
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import UNKNOWN_HISTORY, Measurements
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.models.blocks import FusionEncoder
from brainhive_cli.models.heads import FUSED, TOKEN, Head
from brainhive_cli.models.losses import ClipConfig, LossContext
from brainhive_cli.training.alignment import loop
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.initialisation import initial_aligner, take_over
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.loop import fit, train_cell
from brainhive_cli.training.alignment.objective import Term
from brainhive_cli.training.alignment.optimisation import Learner
from brainhive_cli.training.alignment.recipe import Train

Weights = dict[str, torch.Tensor]


@pytest.fixture
def embedding() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., tuple[Weights, Measurements, list[dict[str, Any]]]]:
    """Train a cell in a folder of its own: weights, metrics and events."""

    def go(
        data: CellData,
        folder: str = "run",
        loss: Any = "clip",
        seed: int = 1,
        layout: Layout | None = None,
        terms: list[Term] | None = None,
        **knobs: Any,
    ) -> Any:
        run = RunFolder(tmp_path / folder)
        run.path.mkdir(exist_ok=True)
        config = Train(**{"epochs": 4, "batch_size": 16, "lr": 5e-3, "precision": "fp32", **knobs})
        events: list[dict[str, Any]] = []
        layout = layout or layout_of(data)
        terms = terms or [Term(prediction=name, loss=loss) for name in layout.heads]
        train_cell("cell", seed, layout, data, terms, config, run, HERE, events.append)
        return *written(run.path), events

    return go


def written(run: Path) -> tuple[Weights, Measurements]:
    cell = run / "cells" / "cell"
    state = load_file(cell / "model" / "model.safetensors")
    found = Measurements.read(json.loads((cell / "metrics.json").read_text()), cell)
    cell_facts = found.facts.cells["cell"]
    took = cell_facts.took
    assert took["seconds"] > 0 and took["peak_memory_bytes"] > 10**6
    assert took["parameters"] <= sum(value.numel() for value in state.values())
    timeless = cell_facts.model_copy(update={"took": {}})  # which differs from one run to the next
    return state, found.stating(cells={"cell": timeless})


def is_same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Press Ctrl-C after so many steps."""
    step, steps = Learner.step, []

    def pressed(learner: Learner) -> None:
        if len(steps) == after:
            raise KeyboardInterrupt
        steps.append(step(learner))

    monkeypatch.setattr(Learner, "step", pressed)


VARIED = {"parts": ["smooth"]}


def test_each_head_is_compared_with_its_own_encoder(train, embedding):
    encoders = {"e": torch.from_numpy(embedding), "f": torch.from_numpy(embedding[:, :3] ** 2)}
    data = replace(data_of(embedding), targets=targets_of(encoders))
    heads = {"e": Head((8,), "e"), "f": Head((3,), "f")}
    layout = replace(layout_of(data, "linear"), heads=heads, fuser={}, dims={}, retrieval_heads=("e", "f"))
    loss_of, trials = ClipConfig().build(), data.trials[0]
    model, learned = initial_aligner(1, layout, data, "torch"), ~data.held_out

    terms = [Term(prediction=name, weight=0.5) for name in heads]
    _, _, events = train(data, layout=layout, terms=terms, epochs=1, batch_size=PICTURES)

    signal = model.encode_signal(torch.from_numpy(trials.averages[learned]))
    image = model.encode_image({key: each[learned] for key, each in encoders.items()})
    apart = [loss_of(signal[:, part], image[:, part], LossContext()) for part in (slice(8), slice(8, None))]
    assert events[0]["loss"] == pytest.approx(torch.stack(apart).mean().item(), rel=1e-4)
    assert events[0]["loss"] != pytest.approx(loss_of(signal, image, LossContext()).item(), rel=1e-2)


class Listener:
    """Callbacks that know no folder."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.after_epoch = self.events.append

    def find_checkpoint(self) -> None:
        """Return nothing to continue from."""

    def before_steps(self, *_: Any) -> None:
        """Handle what is not heard."""

    after_step = at_end = before_steps


def test_a_model_is_fitted_without_a_folder_and_from_another(train, embedding, tmp_path, monkeypatch):
    data = data_of(embedding)
    weights, _, events = train(data)
    monkeypatch.chdir(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    callbacks, layout = Listener(), layout_of(data)
    terms = [Term(prediction=name) for name in layout.heads]
    settings = Train(epochs=4, batch_size=16, lr=5e-3, precision="fp32")

    fitted = fit(layout, data, terms, settings, seed=1, callbacks=callbacks)

    assert is_same(fitted.state_dict() | {f"losses.{k}": v for k, v in fitted.losses.items()}, weights)
    assert [event["loss"] for event in callbacks.events] == [event["loss"] for event in events]
    one = settings.model_copy(update={"epochs": 1, "selection": "last"})
    begun, anew = (fit(layout, data, terms, one, start, seed=2) for start in (fitted, None))
    shares = [
        sum(
            float((model.state_dict()[name] - value).pow(2).sum())
            for name, value in fitted.state_dict().items()
        )
        for model in (begun, anew)
    ]
    assert shares[0] < 0.5 * shares[1] and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("after", "how", "loss", "knobs"),
    [
        (1, None, "clip", {"augment": VARIED}),
        (4, "random", {"kind": "mixco"}, {"ema": 0.9, "augment": {**VARIED, "repetitions": 1.0}}),
        (6, "single", {"kind": "soft_clip"}, {"selection": "last"}),
        (4, None, "clip", {"last_batch": "keep", "decay": "weights", "init": "reference", "batch_size": 40}),
        (6, None, "clip", {"last_batch": "drop", "prior_dropout": 0.1}),
    ],
)
def test_a_cell_killed_in_an_epoch_ends_with_the_same_weights(
    train, embedding, monkeypatch, after, how, loss, knobs
):
    fuser = FusionEncoder({"e": 8}, 16, 16) if "prior_dropout" in knobs else None
    data = replace(
        data_of(embedding, 2, how, [-embedding]), fuser=fuser
    )  # which drops units as the layout says
    whole, metrics, events = train(data, "whole", loss, **knobs)
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    with monkeypatch.context() as pressed, pytest.raises(KeyboardInterrupt):
        interrupt(pressed, after)
        train(data, "resumed", loss, **knobs)
    torch.manual_seed(99)  # whatever is drawn meanwhile must not matter

    resumed, again, later = train(data, "resumed", loss, **knobs)

    assert is_same(resumed, whole) and again == metrics
    expected = {event["epoch"]: event["loss"] for event in events}
    assert [event["loss"] for event in later] == [expected[event["epoch"]] for event in later]


def test_each_epoch_is_reported(train, embedding):
    _, metrics, events = train(data_of(embedding))

    assert [event["epoch"] for event in events] == [0, 1, 2, 3]
    names = {"cell", "epoch", "epochs", "loss", "validation_top1", "samples_per_s"}
    assert all(event.keys() == names and event["samples_per_s"] > 0 for event in events)
    assert events[-1]["loss"] < events[0]["loss"]
    kept = events[metrics.facts.cells["cell"].epoch - 1]
    assert kept["validation_top1"] == metrics.scopes["cell"]["top1"].value
    assert kept["validation_top1"] == max(event["validation_top1"] for event in events)


@pytest.mark.parametrize(
    ("knobs", "selected_on"),
    [({}, "validation"), ({"selection": "last"}, "last epoch"), ({"selection": "test"}, "test")],
)
def test_metrics_say_what_selected_the_epoch(train, embedding, knobs, selected_on):
    data = data_of(embedding)
    data = replace(data, tested=data.trials, tested_targets=data.targets)

    assert train(data, **knobs)[1].facts.cells["cell"].selected_on == selected_on


def test_without_validation_the_last_epoch_is_kept_and_says_so(train, embedding):
    data = replace(data_of(embedding), held_out=np.zeros(PICTURES, bool))

    _, metrics, _ = train(data, validation=0)

    caveats = [UNKNOWN_HISTORY]
    cell = Cell(epoch=4, selected_on="last epoch", caveats=caveats)
    assert metrics == Measurements(facts=TrainingFacts(caveats=caveats, cells={"cell": cell}))


def test_held_out_concepts_that_no_subject_saw_validate_nothing(train, embedding):
    data = data_of(embedding)
    seen = [replace(each, stimulus=np.where(each.stimulus < 15, -1, each.stimulus)) for each in data.trials]

    _, found, _ = train(replace(data, trials=seen))

    assert found.facts.cells["cell"].selected_on == "last epoch" and not found.scopes


def test_the_test_selects_only_where_that_is_asked_for(train, embedding):
    data = data_of(embedding)
    spoilt = replace(data.trials[0], signal=np.full_like(data.trials[0].signal, np.nan))
    data = replace(data, tested=[spoilt], tested_targets=data.targets)

    train(data)
    with pytest.raises(BrainhiveError, match="not finite"):
        train(data, "other", selection="test")
    with pytest.raises(BrainhiveError, match="no test signals"):
        train(data_of(embedding), "third", selection="test")


def test_training_stops_when_validation_no_longer_rises(train, embedding):
    noise = np.random.default_rng(5).normal(size=embedding.shape).astype(np.float32)
    data = replace(
        data_of(embedding), targets=targets_of({"e": torch.from_numpy(noise)})
    )  # nothing to be learned

    _, metrics, events = train(data, epochs=60, patience=3)

    tops = [event["validation_top1"] for event in events]
    last_best = max(epoch for epoch, top in enumerate(tops, 1) if top == max(tops))
    assert len(events) == last_best + 3 < 60 and metrics.facts.cells["cell"].epoch == last_best


def test_the_weights_of_the_best_epoch_are_kept(train, embedding, monkeypatch):
    noise = np.random.default_rng(5).normal(size=embedding.shape).astype(np.float32)
    data = replace(data_of(embedding), targets=targets_of({"e": torch.from_numpy(noise)}))
    validated: list[Weights] = []
    rank = loop.rank_queries

    def watched(aligner, *rest):
        validated.append({key: value.clone() for key, value in aligner.state_dict().items()})
        return rank(aligner, *rest)

    monkeypatch.setattr(loop, "rank_queries", watched)
    weights, metrics, _ = train(data, epochs=60, patience=3)

    by_epoch = validated[::2]  # held out, then tested
    best = by_epoch[metrics.facts.cells["cell"].epoch - 1]
    assert all(torch.equal(weights[key], value) for key, value in best.items())
    assert not all(torch.equal(weights[key], value) for key, value in by_epoch[-1].items())


def test_patience_needs_validation():
    with pytest.raises(ValueError, match="patience needs validation"):
        Train(patience=2, validation=0)


def test_the_moving_average_of_the_weights_is_kept(train, embedding, monkeypatch):
    seen: list[Weights] = []
    step = Learner.step

    def watched(learner: Learner) -> None:
        step(learner)
        losses, aligner = (part.state_dict() for part in learner.model)
        weights = aligner | {f"losses.{key}": value for key, value in losses.items()}
        seen.append({key: value.clone() for key, value in weights.items()})

    monkeypatch.setattr(Learner, "step", watched)
    kept, _, _ = train(data_of(embedding), ema=0.6, selection="last")

    average = seen[0]
    for count, weights in enumerate(seen[1:], 2):
        decay = min(0.6, (1 + count) / (10 + count))
        average = {key: decay * average[key] + (1 - decay) * weights[key] for key in weights}
    assert all(torch.allclose(kept[key], average[key], atol=1e-6) for key in kept)
    assert not is_same(kept, seen[-1])


def test_nothing_random_touches_validation(train, embedding):
    varied = {"parts": [{"kind": "smooth", "p": 1}], "repetitions": 0.1}
    still = {"lr": 1e-30, "weight_decay": 0, "epochs": 1}  # so that both end with the weights they began with

    plain, metrics, (told,) = train(data_of(embedding), "plain", **still)
    same, again, (noisy,) = train(
        data_of(embedding, how="random", others=[-embedding]), "noisy", augment=varied, **still
    )

    assert all(torch.allclose(plain[key], same[key], atol=1e-20) for key in plain) and again == metrics
    assert noisy["loss"] != told["loss"]  # but it does touch training


def test_each_trial_is_a_sample_of_its_own(embedding):
    data = data_of(embedding, subjects=2, how="single")
    batches = batches_of(data)

    samples = np.concatenate(batches.epoch(1, 0))
    assert len(samples) == len(set(samples)) == 2 * (44 * REPETITIONS + 1)  # the last has one trial
    parts, targets, _ = batches.draw(samples, 0)
    shown = batches.samples.stimulus[np.sort(samples)]
    for signal, subject, picture in zip(*parts[0], shown, strict=True):
        own = data.trials[subject].singles[picture]
        assert (torch.from_numpy(own) == signal).all((1, 2)).any()
    assert torch.equal(targets["e"], data.targets.gather(shown)["e"])


def test_random_averages_differ_from_draw_to_draw_and_hold_so_many_trials(embedding):
    data = data_of(embedding, how="random")
    batches = batches_of(data)
    rows = np.arange(PICTURES)

    one, other, same = (batches.draw(rows, seed)[0][0][0] for seed in (1, 2, 1))

    assert torch.equal(same, one) and not torch.equal(one[:-1], other[:-1])
    trials = torch.from_numpy(data.trials[0].singles)
    pairs = torch.stack([trials[:, pair].mean(1) for pair in ([0, 1], [0, 2], [1, 2])], 1)
    is_pair = torch.isclose(pairs[:-1], one[:-1, None], atol=1e-6).all(3).all(2)
    assert (is_pair.sum(1) == 1).all()
    assert torch.allclose(one[-1], trials[-1, 0])  # there is one only


def test_alternatives_are_drawn_among_all_stores_of_the_encoder(embedding):
    data = data_of(embedding, others=[embedding + 100, embedding + 200])
    _, targets, _ = batches_of(data).draw(np.arange(PICTURES), 3)

    which = ((targets["e"] - torch.from_numpy(embedding)) / 100).round()
    assert (which == which[:, :1]).all() and set(which[:, 0].tolist()) == {0, 1, 2}


def test_processes_know_each_others_mixtures_and_mix_among_their_own(embedding):
    data, rows = data_of(embedding), np.arange(20, 51)
    drawn = [
        batches_of(data, replace(HERE, rank=rank, processes=2)).draw(rows, 4, (0.5, 1.0)) for rank in (0, 1)
    ]

    one, other = (context.mixing for _, _, context in drawn)
    assert torch.equal(one.partner, other.partner) and torch.equal(one.share, other.share)
    signal = torch.from_numpy(data.trials[0].averages[rows])
    assert torch.allclose(torch.cat([parts[0][0] for parts, _, _ in drawn]), one.mix(signal), atol=1e-6)
    assert set(one.partner[:15].tolist()) == set(range(15)) and set(one.partner[15:].tolist()) == set(
        range(15, 31)
    )
    assert not torch.allclose(one.mix(signal), signal, atol=0.1)


@pytest.mark.parametrize("how", [None, "single", "random"])
def test_mapped_signals_train_to_the_same_weights(train, embedding, tmp_path, how):
    data, mapped = data_of(embedding, subjects=3, how=how), []
    for trials in data.trials:
        path = tmp_path / f"{trials.subject}.h5"
        named = replace(trials, image_ids=[*map(str, trials.stimulus)])
        SignalStore.write(path, {"train": named})
        stored = SignalStore.open(path)["train"]
        mapped.append(replace(stored, subject=trials.subject, stimulus=trials.stimulus))

    memory, _, _ = train(data, "memory")
    disk, _, _ = train(replace(data, trials=mapped, is_mapped=True), "disk")

    assert is_same(memory, disk)


def test_training_starts_from_a_model_folder(train, embedding, tmp_path):
    data = data_of(embedding, subjects=2)
    learned, _, _ = train(data, "joint")
    model = tmp_path / "joint" / "cells" / "cell" / "model"

    begun, _, _ = train(
        data_of(embedding, starts={0: {"": model}}), "begun", lr=1e-30, weight_decay=0, epochs=1
    )
    fresh, _, _ = train(data_of(embedding), "fresh", lr=1e-30, weight_decay=0, epochs=1)

    assert is_same(begun, learned) and not is_same(fresh, learned)


def test_a_new_subject_begins_from_the_mean_of_those_that_were_learned(embedding, tmp_path):
    layout = replace(layout_of(data_of(embedding, subjects=2)), subject_layer="linear")
    learned = aligner.Aligner(layout)
    torch.nn.init.normal_(learned.subject_layer.weight)
    learned.save(tmp_path / "joint")

    begun = aligner.Aligner(replace(layout, spec=replace(layout.spec, subjects=(7, 2))))
    take_over(begun, tmp_path / "joint")

    old, new = learned.subject_layer.weight, begun.subject_layer.weight
    assert torch.equal(new[1], old[1]) and torch.equal(new[0], old.mean(0))


def test_a_model_folder_of_another_make_is_refused(train, embedding, tmp_path):
    data = data_of(embedding)
    other = aligner.Aligner(replace(layout_of(data), heads={TOKEN: Head((32,), FUSED)}))
    other.save(tmp_path / "other")

    with pytest.raises(BrainhiveError, match="architecture does not match the checkpoint"):
        train(replace(data, starts={0: {"": tmp_path / "other"}}))


def _resume_in_two(launch: Launch, folder: Path) -> None:
    """In two processes: train a cell whole, and another that both of them leave in an epoch and take up."""
    data = data_of(np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32), 2)
    config = Train(epochs=2, batch_size=16, precision="fp32", augment=VARIED, last_batch="keep")
    terms = [Term(prediction=TOKEN, loss="mixco")]
    loop.CHECKPOINT_S = 0.0

    def go(name: str) -> None:
        train_cell("cell", 1, layout_of(data), data, terms, config, RunFolder(folder / name), launch)
        launch.barrier()

    go("whole")
    with pytest.MonkeyPatch.context() as pressed, pytest.raises(KeyboardInterrupt):
        interrupt(pressed, 2)
        go("resumed")
    launch.barrier()
    go("resumed")


def test_two_processes_go_on_in_an_epoch_with_the_same_weights(tmp_path):
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()

    in_two(_resume_in_two, tmp_path)

    (whole, metrics), (resumed, again) = written(tmp_path / "whole"), written(tmp_path / "resumed")
    assert is_same(whole, resumed) and metrics == again
    steps = (tmp_path / "resumed" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in steps] == [0, 1]


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("spoilt", [("cell.pt",), ("cell.pt", "cell.pt.previous")])
def test_a_cell_whose_checkpoint_is_damaged_ends_with_the_same_weights(
    train, embedding, tmp_path, monkeypatch, capsys, spoilt
):
    data = data_of(embedding)
    whole, metrics, _ = train(data, "whole")
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    with monkeypatch.context() as pressed, pytest.raises(KeyboardInterrupt):
        interrupt(pressed, 5)
        train(data, "resumed")
    for name in spoilt:
        spoil(next(tmp_path.rglob(name)))

    resumed, again, _ = train(data, "resumed")

    assert is_same(resumed, whole) and again == metrics
    assert capsys.readouterr().err.count("is kept as") == len(spoilt)
    assert {path.name for path in tmp_path.rglob("cell.pt*")} == {f"{name}.damaged" for name in spoilt}


@pytest.mark.parametrize("content", [{}, {"epoch": "one"}, {"learner": {}, "epoch": -1}, {"learner": {}}])
def test_a_checkpoint_of_something_else_is_one_line(train, embedding, tmp_path, content):
    (path := tmp_path / "resumed/checkpoints/cell.pt").parent.mkdir(parents=True)
    torch.save(content, path)
    with pytest.raises(BrainhiveError, match="checkpoint") as caught:
        train(data_of(embedding), "resumed")
    assert caught.value.hint.startswith("delete it")
