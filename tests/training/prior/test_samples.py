"""What is drawn while a prior learns, and how it is measured."""

import dataclasses
import json
import weakref
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from two import in_two

from brainhive_cli.commands import train_prior
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.measurement.metrics import perceptual
from brainhive_cli.models.generators import Sampling
from brainhive_cli.models.priors.fusion_prior import CLASSES, WEIGHTS
from brainhive_cli.training.prior import samples
from brainhive_cli.training.prior.loop import Learner
from brainhive_cli.training.prior.samples import measure_distribution, show

EXAMPLE = "similarity_brainhive_cli-models-encoders-python-example"


def test_every_few_steps_the_same_pictures_are_drawn_beside_the_true_ones(settings, go):
    result = go("train-prior", *settings, "sample_every=2", "train.lr=1e-2")

    samples = result.folder / "samples"
    assert sorted(path.name for path in samples.iterdir()) == [
        "last.png",
        "step-000000.png",
        "step-000002.png",
        "step-000004.png",
    ]
    early, late = (np.asarray(Image.open(samples / name)) for name in ("step-000002.png", "last.png"))
    middle = early.shape[1] // 2
    assert np.array_equal(early[:, :middle], late[:, :middle])  # what was seen, and its labels
    assert not np.array_equal(early[:, middle:], late[:, middle:])
    logged = [json.loads(line) for line in (result.folder / "log.jsonl").read_text().splitlines()]
    assert [(event["step"], list(event["samples"])) for event in logged if "samples" in event] == [
        (2, [EXAMPLE]),
        (4, [EXAMPLE]),
    ]
    similarity = result.metrics.overall[EXAMPLE]
    assert similarity.n == 2 and -1 <= similarity.value <= 1


def test_drawing_does_not_change_what_is_learned(settings, go):
    runs = [go("train-prior", *settings, f"sample_every={steps}", "train.steps=3").folder for steps in (1, 0)]

    for part in CLASSES:
        drawn, not_drawn = (load_file(run / "model" / part / WEIGHTS) for run in runs)
        assert all(torch.equal(drawn[name], not_drawn[name]) for name in not_drawn)


def test_drawings_that_are_the_pictures_have_similarity_one(settings, begun, tmp_path, monkeypatch):
    training = begun(*settings)
    true = samples._true(training, training.pictures.held)
    monkeypatch.setattr(samples, "_generate", lambda *_: true)

    found = show(training, RunFolder(tmp_path), "sheet")

    assert np.allclose(found[EXAMPLE], 1)
    other = samples._similarity(training.recipe.similarity[0], true, true.flip(0), training.launch)
    assert (other < 0.999).all()


def test_a_few_step_model_draws_in_the_place_of_the_one_that_is_trained_on(
    settings, begun, generator, tmp_path
):
    import shutil

    few = shutil.copytree(generator, tmp_path / "turbo")
    training = begun(*settings, f"sampler={{kind: sdxl, source: {few}}}", "sample_steps=3")
    run = RunFolder(tmp_path / "run")

    with samples._sampler(training, run) as drawing:
        embeddings = training.embeddings(training.pictures.batch(training.pictures.held))
        given = training.prior.condition_on_embeddings(embeddings)
        first = drawing.generate(given, [1, 2], 32, Sampling(steps=1))
    (few / "empty_prompt.safetensors").unlink()  # was kept in the run
    found = show(training, run, "sheet")

    assert drawing is not training.generator and drawing.unet is not training.generator.unet
    assert torch.isfinite(first).all() and (run.path / "samples/sheet.png").is_file()
    assert EXAMPLE in found


def test_the_few_step_model_is_gone_when_drawings_are_measured(
    settings, begun, generator, tmp_path, monkeypatch
):
    training = begun(*settings, f"sampler={{kind: sdxl, source: {generator}}}")
    load, lent, held = samples.load_generator, [], []

    def loaded(*given: object) -> object:
        made = load(*given)
        lent.append(weakref.ref(made.unet))
        return made

    def measured(*_: object) -> np.ndarray:
        held.append(lent[0]())
        return np.zeros(2)

    monkeypatch.setattr(samples, "load_generator", loaded)
    monkeypatch.setattr(samples, "_similarity", measured)

    show(training, RunFolder(tmp_path), "sheet")

    assert held == [None]


def test_what_cannot_be_measured_is_told_with_the_way_to_it_and_costs_nothing(
    settings, go, many, monkeypatch, capsys
):
    def offline(*_: object) -> None:
        raise MissingData("no weights of AlexNet", "run once with a network")

    monkeypatch.setattr(perceptual, "_reading_weights", offline)
    more = (f"dataset={{kind: image-folder, root: {many}}}", "embed_missing=true", "train.steps=1")

    result = go("train-prior", *settings, *more, "similarity=[clip-l14]", "lpips=true", "fid_items=20")

    missing = result.metrics.missing
    assert missing["lpips"] == "no weights of AlexNet (run once with a network)"
    assert "openai/clip-vit-large-patch14" in missing["similarity_clip-l14"]
    assert missing["fid"] == missing["kid"] == missing["lpips"]
    assert result.metrics.overall["validation_loss"].n == 2
    told = capsys.readouterr().err
    assert "warning: no lpips: no weights of AlexNet" in told


def test_what_will_not_be_measured_is_told_before_the_first_step(
    settings, go, monkeypatch, capsys, image_networks_absent
):
    def pressed(_: Learner) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "update", pressed)

    with pytest.raises(KeyboardInterrupt):
        go("train-prior", *settings, "similarity=[clip-l14]", "lpips=true", "fid_items=2")
    told = capsys.readouterr().err
    assert "there will be no lpips: the weights of AlexNet are not on this machine" in told
    assert "there will be no similarity_clip-l14: openai/clip-vit-large-patch14" in told
    assert "there will be no fid: FID and KID of 2 pictures mean nothing" in told


def test_what_will_not_be_measured_is_listed_and_stops_nothing(settings, image_networks_absent):
    settings = (*settings, "lpips=true", "similarity=[clip-l14,demo-clip]", "fid_items=20")
    what = train_prior.Recipe.resolve("train-prior", None, {}, (*settings, "fid_features=dinov2-b14"))

    listed = train_prior.inputs(what)

    assert not describe_missing(listed)
    without = {one.name: one.error for one in listed if one.state == "missing; done without"}
    assert without.keys() == {"openai/clip-vit-large-patch14", "weights of AlexNet", "facebook/dinov2-base"}
    assert "is not in the hub's cache" in without["openai/clip-vit-large-patch14"].message
    assert "curl -L --create-dirs" in without["weights of AlexNet"].hint
    nothing = what.model_copy(update={"similarity": [], "lpips": False, "fid_items": 0})
    assert not without.keys() & {one.name for one in train_prior.inputs(nothing)}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("fid_features=incepton", "fid_features: no encoder called 'incepton'"),
        ("similarity=[clip-l41]", "no encoder called 'clip-l41'"),
        ("similarity=['python:brainhive_cli.models.encoders.python:exampel']", "no attribute 'exampel'"),
        (
            "fid_items=20 fid_features=python:brainhive_cli.models.encoders.python:exampel",
            "no attribute 'exampel'",
        ),
    ],
)
def test_a_wrong_name_of_what_measures_is_refused_before_the_first_step(
    settings, go, home, many, override, told
):
    more = (f"dataset={{kind: image-folder, root: {many}}}", "embed_missing=true", *override.split(" "))

    with pytest.raises(RecipeError, match=told):
        go("train-prior", *settings, *more)
    assert not list(home.rglob("log.jsonl"))


def test_a_wrong_name_of_what_measures_is_missing(settings, monkeypatch):
    monkeypatch.setenv("BRAINHIVE_ALLOW_CODE", "1")
    wrong = ("fid_items=20", "fid_features=python:brainhive_cli.models.encoders.python:exampel")

    listed = train_prior.inputs(train_prior.Recipe.resolve("train-prior", None, {}, (*settings, *wrong)))

    assert "no attribute 'exampel'" in describe_missing(listed)[0]


@pytest.fixture
def many(tmp_path):
    """A hundred pictures, of which twenty may be kept."""
    from worlds import paint

    return paint(tmp_path / "many", concepts=10, each=10)


def test_fid_and_kid_are_of_as_many_pictures_as_asked_for(settings, go, many):
    colours = "python:brainhive_cli.models.encoders.python:example"
    more = (f"dataset={{kind: image-folder, root: {many}}}", "embed_missing=true", "train.steps=1")

    metrics = go("train-prior", *settings, *more, "fid_items=20", f"fid_features={colours}").metrics

    fid, kid = (metrics.overall[name] for name in ("fid", "kid"))
    assert fid.n == kid.n == 20
    assert fid.value > 0 and fid.low < fid.value < fid.high
    assert colours in fid.protocol and "1 steps" in fid.protocol


def _train(launch: Launch, overrides: tuple[str, ...]) -> None:
    what = train_prior.Recipe.resolve("train-prior", None, {}, (*overrides, "paths.runs=two"))
    train_prior.run(what, launch)


def test_two_processes_draw_and_measure_as_one(settings, go, many, home, generator):
    colours = "python:brainhive_cli.models.encoders.python:example"
    more = (
        f"dataset={{kind: image-folder, root: {many}}}",
        f"sampler={{kind: sdxl, source: {generator}}}",
        f"fid_features={colours}",
        "fid_items=20",
        "embed_missing=true",
        "cache_latents=true",
        "sample_every=1",
        "train.steps=2",
    )

    in_two(_train, (*settings, *more, "train.batch_size=2"))
    one = go("train-prior", *settings, *more, "train.batch_size=4").metrics.overall

    (two,) = (RunFolder(path.parent).measurements().overall for path in (home / "two").rglob("metrics.json"))
    assert two.keys() == one.keys()
    for name, metric in one.items():
        assert two[name].value == pytest.approx(metric.value, rel=0.02), name
        assert two[name].n == metric.n


class _InTurn(Launch):
    """Processes that come one after another, the main one last."""

    given: ClassVar[list[Any]] = []

    def gather(self, mine):
        self.given.append(mine)
        return self.given


def test_more_processes_than_pictures_measure_as_one(settings, begun, many):
    colours = "python:brainhive_cli.models.encoders.python:example"
    more = (f"dataset={{kind: image-folder, root: {many}}}", "embed_missing=true", "fid_items=20")
    training = begun(*settings, *more, f"fid_features={colours}")
    alone = measure_distribution(training, RunFolder(many))

    launches = [_InTurn(rank, 21, torch.device("cpu")) for rank in range(21)]
    shared = [
        measure_distribution(dataclasses.replace(training, launch=each), RunFolder(many))
        for each in reversed(launches)
    ]

    assert [metric.value for metric in shared[-1]] == pytest.approx([m.value for m in alone], rel=1e-3)
    assert not any(shared[:-1])


def test_too_few_pictures_for_fid_are_told(settings, go):
    features = "fid_features=python:brainhive_cli.models.encoders.python:example"

    missing = go("train-prior", *settings, "fid_items=2", features).metrics.missing

    assert "FID and KID of 2 pictures mean nothing (fid_items=20 at least" in missing["fid"]


def test_too_few_pictures_for_fid_are_told_by_a_process_that_has_none_of_them(settings, begun, tmp_path):
    knobs = ("fid_items=2", "fid_features=python:brainhive_cli.models.encoders.python:example")
    training = begun(*settings, *knobs, launch=Launch(0, 3, torch.device("cpu")))

    with pytest.raises(BrainhiveError, match="of 2 pictures mean nothing"):
        measure_distribution(training, RunFolder(tmp_path / "run"))
