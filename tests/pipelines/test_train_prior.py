"""train-prior: what learns, what stays, and what an interruption costs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.errors import BrainhiveError
from brainhive_cli.launch import Launch
from brainhive_cli.pipelines import train_prior
from brainhive_cli.pipelines._pictures import Pictures, batches, view_of
from brainhive_cli.pipelines.train_prior import Recipe
from brainhive_cli.priors.fusion_prior import CLASSES, WEIGHTS, FusionPrior
from brainhive_cli.runs import RunFolder

COLOURS = "encoders=['python:brainhive_cli.encoders.python:example']"
ALONE = Launch(0, 1, torch.device("cpu"))


@pytest.fixture
def settings(home: Path, pictures: Path, generator: Path, go) -> tuple[str, ...]:
    """Overrides of a training of six small steps, on pictures that are embedded."""
    dataset = f"dataset={{kind: image-folder, root: {pictures}}}"
    go("embed", dataset, COLOURS)
    return (
        dataset,
        COLOURS,
        f"generator={{kind: sdxl, source: {generator}}}",
        "prior={kind: fusion_prior, hidden_size: 32, intermediate_size: 64}",
        "resolution_px=32",
        "validation_items=2",
        "sample_items=2",
        "sample_steps=1",
        "train.steps=6",
        "train.batch_size=4",
        "train.precision=fp32",
        "train.lr=1e-3",
    )


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {part: load_file(folder / part / WEIGHTS) for part in CLASSES}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    assert before.keys() == after.keys()
    return any(not torch.equal(before[key], after[key]) for key in before)


def test_the_validation_loss_falls(go, settings):
    result = go("train-prior", *settings, "train.steps=60", "train.lr=1e-2")

    start, end = (result.metrics[name] for name in ("validation_loss_at_start", "validation_loss"))
    assert end["value"] < start["value"]
    assert (end["n"], end["split"], end["seeds"]) == (2, "validation", [0])


def test_every_part_learns_and_the_saved_prior_loads(go, settings, prior):
    result = go("train-prior", *settings, f"continue_from={prior}")

    before, after = weights(prior), weights(result.folder / "model")
    assert all(moved(before[part], after[part]) for part in CLASSES)
    loaded = FusionPrior.load(result.folder / "model")
    embeddings = {"brainhive_cli-encoders-python-example": torch.rand(2, 12)}
    assert loaded(embeddings).shape == (2, 4, 16)
    assert result.files["samples"].is_file()
    assert result.hint == f"brainhive train-align --prior {result.folder / 'model'}"


@pytest.mark.parametrize("frozen", [["fusion_encoder"], ["proj", "attn_adapter"]])
def test_frozen_parts_stay_bit_for_bit(go, settings, prior, frozen):
    run = go("train-prior", *settings, f"continue_from={prior}", f"freeze=[{', '.join(frozen)}]").folder

    before, after = weights(prior), weights(run / "model")
    assert {part for part in CLASSES if not moved(before[part], after[part])} == set(frozen)


def test_the_diffusion_model_stays_as_it_is(settings, generator, tmp_path):
    what = Recipe.resolve("train-prior", None, {}, settings)
    training = train_prior._Training.begin(what, train_prior._pictures(what), ALONE)

    train_prior._train(training, RunFolder(tmp_path / "run"))

    for name in ("unet", "vae"):
        on_disk = load_file(generator / name / "diffusion_pytorch_model.safetensors")
        assert not moved(on_disk, getattr(training.generator, name).state_dict())


def test_an_interrupted_training_ends_as_an_uninterrupted_one(go, settings, monkeypatch):
    settings = (*settings, "train.checkpoint_steps=2", "validation_items=3")
    straight = go("train-prior", *settings)
    log = RunFolder.log

    def pressed(folder: RunFolder, **event: object) -> None:
        log(folder, **event)
        if event["step"] == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "log", pressed)
        go("train-prior", *settings, again=True)
    resumed = go("train-prior", *settings)

    assert resumed.folder.name == f"{straight.folder.name}-2"
    steps = [json.loads(line)["step"] for line in (resumed.folder / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]
    before, after = weights(straight.folder / "model"), weights(resumed.folder / "model")
    assert not any(moved(before[part], after[part]) for part in CLASSES)
    assert resumed.metrics == straight.metrics


def test_an_unknown_part_to_freeze_is_refused_with_the_known_ones(go, settings):
    with pytest.raises(BrainhiveError, match="freeze: unet") as caught:
        go("train-prior", *settings, "freeze=[unet]")
    assert "fusion_encoder, proj, attn_adapter" in caught.value.hint


def opened(settings: tuple[str, ...]) -> Pictures:
    return train_prior._pictures(Recipe.resolve("train-prior", None, {}, settings))


def test_an_epoch_shows_every_training_picture_once_and_no_validation_picture(settings):
    pictures = opened(settings)

    rows = [batch.rows for batch in batches(pictures, range(6), 5, 16, 0, 0, ALONE)]

    assert len(pictures.train) == 10 and len(pictures.validation) == 2
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert sorted([*first, *second]) == pictures.train.tolist()
    assert not np.array_equal(rows[0], rows[2])


def test_steps_from_the_middle_are_those_of_the_whole(settings):
    pictures = opened(settings)

    whole = list(batches(pictures, range(7), 4, 16, 0, 0, ALONE))
    later = list(batches(pictures, range(4, 7), 4, 16, 0, 0, ALONE))

    assert [batch.step for batch in later] == [4, 5, 6]
    assert all(torch.equal(a.views, b.views) for a, b in zip(whole[4:], later, strict=True))


def test_two_processes_share_the_pictures_and_the_noise_of_one(settings):
    what = Recipe.resolve("train-prior", None, {}, settings)
    pictures, launches = train_prior._pictures(what), [Launch(r, 2, torch.device("cpu")) for r in (0, 1)]

    def drawn(launch: Launch) -> list[torch.Tensor]:
        batch = next(batches(pictures, range(3, 4), 6, 16, 0, 0, launch))
        training = train_prior._Training.begin(what, pictures, launch)
        return [torch.from_numpy(batch.rows), *training.draw(batch, torch.zeros(1, 4, 8, 8))]

    for whole, *shares in zip(drawn(ALONE), *map(drawn, launches), strict=True):
        assert [len(share) for share in shares] == [3, 3]
        assert torch.equal(torch.cat(shares), whole)


def test_a_view_is_the_centre_with_the_ids_of_its_crop():
    from PIL import Image

    picture = Image.new("RGB", (40, 20), (255, 0, 0))
    picture.paste((0, 0, 255), (10, 0, 30, 20))  # the central square

    pixels, sizes = view_of(picture, 10)

    assert pixels.shape == (3, 10, 10)
    assert (pixels[0, :, 2:8] < -0.9).all() and (pixels[2, :, 2:8] > 0.9).all()
    assert sizes.tolist() == [20, 40, 0, 5, 10, 10]  # height, width; top, left; target
