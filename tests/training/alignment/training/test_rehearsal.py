"""Rehearsal of a training step, which raises the errors of the training."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from brainhive_cli import api
from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.training import TrainingRun, loop, rehearsal
from tests.worlds.command_fixtures import COLOURS, paint_pictures

NAME = "brainhive_cli-models-encoders-python-example"
CHANNELS = ("Cz", "Pz", "Oz", "O1")
PLAIN = (
    "seeds=1",
    "train.precision=fp32",
    "train.validation=0.25",
    "train.epochs=2",
    "train.batch_size=8",
)
ONE = tuple(PLAIN) + (f"encoders=[{COLOURS!r}]",)
TWO = tuple(PLAIN) + (f"encoders=[{COLOURS!r}, gabor]",)
HEADS = tuple(PLAIN) + (f"heads={{a: {COLOURS!r}, b: gabor}}",)
INTER = ("mode=inter", "subjects=1", "train.selection=test", "signal.name=other")


def store(
    dataset,
    subject,
    name="default",
    channels=CHANNELS,
    seed=None,
    split="",
):
    """Store two trials of each picture, in two sessions."""
    images = dataset_of(dataset)
    splits = [split] if split else ["train", "test"]
    image_ids = [str(i) for name in splits for i in images.images(name).image_ids] * 2
    random = np.random.default_rng(subject if seed is None else seed)
    signal = random.normal(size=(len(image_ids), len(channels), 160))
    axes = {"channels": channels, "times_s": np.arange(160) / 250}
    session = np.arange(len(image_ids)) * 2 // len(image_ids)
    axes |= {"unit": "uV", "session": session}
    api.store_trials(signal, image_ids, dict(dataset), subject, name=name, **axes)


def dataset_of(dataset):
    return parts.resolve("datasets", dataset).build(Paths())


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Store twelve pictures with two embeddings, and the trials of people."""
    home = tmp_path_factory.mktemp("rehearsed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(home))
        root = paint_pictures(home / "pics", concepts=6, pictures_per_concept=2)
        dataset = {"kind": "image-folder", "root": str(root), "name": "pics"}
        dataset["test_share"] = 0.34
        api.run("embed", dataset=dataset, encoders=[COLOURS, "gabor"])
        for subject in (1, 2):
            store(dataset, subject)
            store(dataset, subject, "copied", seed=5)
        for subject, channels in {1: ("Cz", "Pz", "Fz"), 2: CHANNELS}.items():
            store(dataset, subject, "other", channels)
        store(dataset, 1, "untrained", split="test")
        yield dataset


def job_of(dataset, *overrides):
    recipe = Recipe.resolve("train-align", None, {"dataset": dataset}, overrides)
    return TrainingRun.resolve(recipe)


def list_files():
    return sorted(Path(os.environ["BRAINHIVE_HOME"]).rglob("*"))


@pytest.mark.parametrize(
    ("overrides", "error", "facts"),
    [
        # people
        (tuple(ONE) + tuple(INTER), BrainhiveError, ["subject 1 test", "O1"]),
        (
            tuple(ONE) + ("signal.name=copied",),
            BrainhiveError,
            ["subject 1", "subject 2"],
        ),
        (tuple(ONE) + ("signal.name=untrained", "subjects=1"), MissingData, ["train"]),
        # amounts
        (tuple(ONE) + ("train.validation=0.99",), RecipeError, ["no trial", "0.99"]),
        (
            tuple(ONE) + ("train.last_batch=drop", "train.batch_size=4096"),
            RecipeError,
            ["last_batch=drop"],
        ),
        (
            tuple(ONE) + ("mode=joint", "train.epoch_trials=2"),
            RecipeError,
            ["train.epoch_trials=2", "2 subjects"],
        ),
        (tuple(ONE) + ("train.warmup_steps=1000",), RecipeError, ["warmup_steps"]),
        (
            tuple(ONE)
            + ("train.selection=recordings", "train.validation_recordings.1=[7]"),
            RecipeError,
            ["[7]", "subject 1"],
        ),
        # parts of the model
        (
            tuple(ONE) + ("train.stages=[{epochs: 2, freeze: [nothing]}]",),
            RecipeError,
            ["stages[0]", "'nothing'"],
        ),
        (
            tuple(ONE) + ("train.stages=[{epochs: 2, freeze: [backbone, fuser]}]",),
            RecipeError,
            ["stages[0]"],
        ),
        (
            tuple(ONE) + ("train.lr_of={nothing: 0.1}",),
            RecipeError,
            ["lr_of", "'nothing'"],
        ),
        (tuple(ONE) + ("fuser=heads", "dim=64"), RecipeError, ["dim is 64", "no head"]),
        (tuple(ONE) + ("fuser=concatenation", "dim=65"), RecipeError, ["65", "12"]),
        (tuple(TWO) + ("fuser=mean",), RecipeError, [NAME]),
        (HEADS, RecipeError, ["heads (a, b)"]),
        (tuple(ONE) + ("backbone=havir",), BrainhiveError, ["havir"]),
        (
            tuple(ONE) + ("backbone={kind: segments, segments: 1000}",),
            RecipeError,
            ["1000"],
        ),
        (
            (f"encoders=[{COLOURS!r}]", "backbone=lda", "train.validation=0"),
            RecipeError,
            ["lda", NAME],
        ),
        # losses, whose words have the size of the batch
        (tuple(ONE) + ("loss=sobel",), BrainhiveError, ["[6, "]),
        (
            tuple(ONE)
            + (
                "targets={more: gabor}",
                "terms=[{prediction: token, target: more, loss: mse}]",
            ),
            BrainhiveError,
            ["[6, "],
        ),
        (
            tuple(ONE) + ("train.alternatives=uncertainty",),
            RecipeError,
            ["uncertainty"],
        ),
        (
            tuple(ONE) + ("signal.repetitions=single", "train.augment.repetitions=1"),
            RecipeError,
            ["single"],
        ),
    ],
)
def test_what_a_training_refuses_is_refused_before_it(people, overrides, error, facts):
    job, initial_files = job_of(people, *overrides), list_files()
    with pytest.raises(error) as caught:
        job.check()
    for fact in facts:
        assert fact in caught.value.in_one_line, caught.value.in_one_line
    assert list_files() == initial_files


BACKBONES = "atm brain_mlp brain_projection deep_net eeg_net nice segments spatial_mlp"
FUSERS = "branches concatenation fusion_encoder heads levels linear mean router"
LOSSES = "bce clip l1 mixco mmd mse soft_clip soft_cont"


@pytest.mark.parametrize(
    "overrides",
    [(tuple(ONE) + (f"backbone={kind}",)) for kind in BACKBONES.split()]
    + [(tuple(ONE) + (f"fuser={kind}",)) for kind in FUSERS.split()]
    + [(tuple(ONE) + (f"loss={kind}",)) for kind in LOSSES.split()]
    + [
        tuple(HEADS) + ("train.validation=0",),
        tuple(ONE) + ("mode=joint", "signal.name=copied", "subjects=1"),
        tuple(ONE) + ("mode=inter", "subjects=1", "signal.name=other"),
        tuple(ONE)
        + ("signal.normalise=whiten", "signal.normalise_by=training_subjects"),
        (f"encoders=[{COLOURS!r}]", "backbone=ridge", "seeds=1", "train.validation=0"),
    ],
)
def test_what_can_be_trained_is_not_refused(people, overrides):
    job, initial_files = job_of(people, *overrides), list_files()
    job.check()
    assert list_files() == initial_files


def test_a_rehearsal_reads_no_signal(people, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("signals were read")

    monkeypatch.setattr(Trials, "read", refused)
    job_of(
        people, *ONE, "signal.normalise=whiten", "mode=joint", "train.selection=test"
    ).check()


def test_cells_of_equal_shapes_are_rehearsed_once(people, monkeypatch):
    steps = []
    compute_loss = rehearsal.compute_loss

    def count(*arguments):
        steps.append(arguments)
        compute_loss(*arguments)

    monkeypatch.setattr(rehearsal, "compute_loss", count)
    job = job_of(people, *ONE, "seeds=[1, 2, 3]")
    job.check()
    assert (len(job.cells), len(steps)) == (6, 1)


def test_a_training_starts_from_weights_of_its_sizes(people):
    fields = {"encoders": [COLOURS], "dim": 16, "seeds": 1, "train": {"epochs": 1}}
    folder = api.run("train-align", dataset=people, **fields).folder
    (model, *_) = sorted(folder.glob("cells/*/model"))
    start = f"train.start_from={model}"
    job_of(people, *ONE, "dim=16", start).check()
    with pytest.raises(BrainhiveError, match="does not match") as caught:
        job_of(people, *ONE, "dim=32", start).check()
    assert str(model) in caught.value.message


def test_a_network_that_asks_for_values_is_not_refused(people, monkeypatch):
    def ask(*_):
        torch.empty(1, device="meta").item()

    monkeypatch.setattr(rehearsal, "Aligner", ask)
    job_of(people, *ONE).check()


def test_a_part_that_needs_more_trials_gets_the_batch(people, monkeypatch):
    sizes = []
    compute_loss = rehearsal.compute_loss

    def refuse_few(*arguments):
        sizes.append(len(arguments[3]))
        if sizes[-1] == 2:
            raise ValueError("a median of two")
        compute_loss(*arguments)

    monkeypatch.setattr(rehearsal, "compute_loss", refuse_few)
    job_of(people, *ONE, "subjects=1").check()
    assert sizes == [2, 6]


@pytest.mark.parametrize("error", [RuntimeError, ValueError, NotImplementedError])
def test_an_error_in_a_part_is_not_swallowed(people, monkeypatch, error):
    def fail(*_):
        raise error("the sizes of tensors must match")

    monkeypatch.setattr(loop, "forward", fail)
    with pytest.raises(error, match="sizes"):
        job_of(people, *ONE).check()
