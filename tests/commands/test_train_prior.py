"""train-prior: what learns, what stays, and what an interruption costs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.commands import train_prior
from brainhive_cli.commands.train_prior import Recipe
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.targets.targets import open_targets
from brainhive_cli.data.targets.views import crop_centre
from brainhive_cli.models.generators import sdxl, versatile_diffusion
from brainhive_cli.models.generators.sdxl import SDXL
from brainhive_cli.models.priors.fusion_prior import CLASSES, WEIGHTS, FusionPrior
from brainhive_cli.training.alignment.learned import Learned, LearnedPictures
from brainhive_cli.training.prior.examples import Pictures, batches
from brainhive_cli.training.prior.loop import Learner, train

COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
ALONE = Launch(0, 1, torch.device("cpu"))


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {part: load_file(folder / part / WEIGHTS) for part in CLASSES}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    assert before.keys() == after.keys()
    return any(not torch.equal(before[key], after[key]) for key in before)


def test_the_validation_loss_falls(go, settings):
    result = go("train-prior", *settings, "train.steps=60", "train.lr=1e-2")

    start, end = (result.metrics.overall[name] for name in ("validation_loss_at_start", "validation_loss"))
    assert end.value < start.value
    assert (end.n, end.split, end.seeds) == (2, "validation", (0,))


def test_every_part_learns_and_the_saved_prior_loads(go, settings, prior):
    result = go("train-prior", *settings, "prior=fusion_prior", f"continue_from={prior}")

    before, after = weights(prior), weights(result.folder / "model")
    assert all(moved(before[part], after[part]) for part in CLASSES)
    loaded = FusionPrior.load(result.folder / "model")
    embeddings = {"brainhive_cli-models-encoders-python-example": torch.rand(2, 12)}
    assert loaded(embeddings).shape == (2, 4, 16)
    assert result.files["samples"].is_file()
    colours = "python:brainhive_cli.models.encoders.python:example"
    assert result.hint == f"brainhive train-align --encoders {colours} --prior {result.folder / 'model'}"


def test_a_prior_keeps_which_pictures_it_and_the_one_it_goes_on_from_learned(go, settings, prior, tmp_path):
    shutil.copytree(prior, tmp_path / "before")
    Learned("last epoch", "drawn", pictures=LearnedPictures.of("drawn", ["a"])).write(tmp_path / "before")

    plain = "prior=fusion_prior"  # which has sizes of its own
    model = go("train-prior", *settings, plain, f"continue_from={tmp_path / 'before'}").folder / "model"

    learned = Learned.read(model)
    assert (
        learned.pictures.contain("drawn", ["a"]).all() and len(learned.pictures) == 1 + 12
    )  # validation's too
    assert learned.pictures.contain("pictures", ["concept_0/0"]).all()
    assert len(learned.pictures.pixels) == 12
    assert not len(Learned.read(prior).pictures)  # one that does not say


def test_after_a_prior_of_stimuli_the_next_line_names_their_data_set(go, settings):
    go("embed", "dataset=demo", COLOURS)

    result = go("train-prior", *settings, "dataset=demo", "train.steps=1", "sample_items=0")

    assert result.hint.startswith("brainhive train-align --dataset demo --encoders python:")


@pytest.mark.parametrize("frozen", [["fusion_encoder"], ["proj", "attn_adapter"]])
def test_frozen_parts_stay_bit_for_bit(go, settings, prior, frozen):
    start = ("prior=fusion_prior", f"continue_from={prior}")
    run = go("train-prior", *settings, *start, f"freeze=[{', '.join(frozen)}]").folder

    before, after = weights(prior), weights(run / "model")
    assert {part for part in CLASSES if not moved(before[part], after[part])} == set(frozen)


def test_the_diffusion_model_stays_as_it_is(settings, begun, generator, tmp_path):
    training = begun(*settings)

    train(
        training, RunFolder(tmp_path), Learner(training.prior, [], training.recipe.train), lambda step: None
    )

    for name in ("unet", "vae"):
        on_disk = load_file(generator / name / "diffusion_pytorch_model.safetensors")
        assert not moved(on_disk, getattr(training.generator, name).state_dict())


def test_an_interrupted_training_ends_as_an_uninterrupted_one(go, settings, monkeypatch):
    settings = (*settings, "train.checkpoint_steps=2", "validation_items=3", "posterior=sample")
    settings = (*settings, "resize=bilinear", "crop_ids=original")
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


@pytest.mark.parametrize(
    ("name", "pictures", "steps"),
    [
        (None, 16, 100_000),
        ("papers/brainhive-prior", 16, 100_000),
        ("prior-24gb", 16, 100_000),
        ("prior-multi-gpu", 16, 25_000),
    ],
)
def test_the_shipped_recipes_take_as_many_steps_and_lack_what_they_say(
    home, hub_cache, name, pictures, steps
):
    what = Recipe.resolve("train-prior", name, {}, [])

    missing = describe_missing(train_prior.inputs(what))

    assert (what.train.steps, what.train.batch_size * what.train.accumulate) == (steps, pictures)
    assert any("stable-diffusion-xl-base-1.0" in line for line in missing)  # nothing is here
    assert name is None or any("sdxl-turbo" in line for line in missing)
    assert any("image" in line for line in missing)


def test_a_check_counts_steps_and_loads_no_network(settings, monkeypatch, generator):
    monkeypatch.setattr(sdxl.Config, "load", None)
    what = Recipe.resolve("train-prior", None, {}, settings)

    listed, work = train_prior.inputs(what), train_prior.work(what)

    assert (work.count, work.unit) == (what.train.steps, "steps") and not describe_missing(listed)
    weights = [one.state for one in listed if one.name.startswith(str(generator))]
    assert weights and {*weights} == {"here"}
    absent = what.model_copy(update={"generator": sdxl.Config(source="no/such/folder")})
    assert any("no folder 'no/such/folder'" in line for line in describe_missing(train_prior.inputs(absent)))


def test_a_sampler_that_is_not_there_is_told_before_the_first_step(settings, go, home):
    with pytest.raises(MissingData, match="no folder 'no/such'"):
        go("train-prior", *settings, "sampler={kind: sdxl, source: no/such}")
    assert not list(home.rglob("log.jsonl"))


@pytest.mark.parametrize("spoil", ["loss", "gradient"])
def test_a_training_that_diverges_stops_and_keeps_the_checkpoint_from_before(
    go, settings, home, monkeypatch, spoil
):
    loss = SDXL.loss

    def spoilt(generator: SDXL, *given: object, **knobs: object) -> torch.Tensor:
        found = loss(generator, *given, **knobs)
        if torch.is_grad_enabled():
            seen.append(found)
            if len(seen) == 4:
                return (
                    found + torch.nan if spoil == "loss" else found.square().sub(found.detach() ** 2).sqrt()
                )
        return found

    seen: list[torch.Tensor] = []
    monkeypatch.setattr(SDXL, "loss", spoilt)

    with pytest.raises(BrainhiveError, match="the training has diverged by step 4") as caught:
        go("train-prior", *settings, "train.checkpoint_steps=2")

    assert "train.lr" in caught.value.hint
    (kept,) = home.rglob("last.pt")
    saved = torch.load(kept, weights_only=True)
    assert saved["step"] == 2 and all(weight.isfinite().all() for weight in saved["prior"].values())
    assert not list(home.rglob("runs/**/metrics.json"))


@pytest.mark.parametrize(
    "override",
    [
        "train.lr=.inf",
        "train.betas=[1, 1]",
        "token_dropout=1.5",
        "seed=-1",
        "sample_steps=2000",
        "prior.hidden_size=0",
        "prior.sequence_length=0",
        "prior.scale=.nan",
    ],
)
def test_a_number_out_of_range_is_refused_with_its_key(override):
    with pytest.raises(RecipeError, match=rf"{override.partition('=')[0]}\b.*: Input should"):
        Recipe.resolve("train-prior", None, {}, [override])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("resolution_px=33", "resolution_px is 33 (give a multiple of 8)"),
        ("train.accumulate=11", "10 pictures to learn are fewer than 11 passes on 1 processes"),
        ("freeze=[fusion_encoder, proj, attn_adapter]", "leaves nothing known to train"),
        ("prior.start_from=nosuch.safetensors", "no file nosuch.safetensors"),
        ("continue_from=demo:prior", "takes the encoders demo-clip, demo-vae, not python:brainhive_cli"),
        ("sampler=no/such", "no folder 'no/such'"),
        ("prior=identity", "a prior of kind identity cannot be trained"),
        ("continue_from=identity", "a prior of kind identity cannot be trained"),
        (
            f"generator={json.dumps(versatile_diffusion.TINY.model_dump(mode='json'))}",
            "no prior can be trained on this generator",
        ),
        (
            "generator={kind: chain, stages: [{generator: {source: demo:generator}}]}",
            "no prior can be trained on this generator",
        ),
        ("sampler=demo:generator", "the Fusion Prior does not fit this U-Net"),
    ],
)
def test_what_the_training_would_refuse_is_missing_in_a_check(settings, go, home, override, told):
    overrides = (*settings, "prior=fusion_prior", override)
    listed = train_prior.inputs(Recipe.resolve("train-prior", None, {}, overrides))

    assert told in " ".join(describe_missing(listed))
    with pytest.raises(BrainhiveError) as caught:
        go("train-prior", *overrides)
    assert told in caught.value.in_one_line and not list(home.rglob("log.jsonl"))


def test_fewer_pictures_kept_than_asked_for_are_told(settings, capsys):
    opened((*settings, "validation_items=30"))

    assert "2 of 12 pictures are kept from training, not 30" in capsys.readouterr().err


def test_an_unknown_part_to_freeze_is_refused_with_the_known_ones(go, settings):
    with pytest.raises(BrainhiveError, match="freeze: unet") as caught:
        go("train-prior", *settings, "freeze=[unet]")
    assert "fusion_encoder, proj, attn_adapter" in caught.value.hint


def opened(settings: tuple[str, ...]) -> Pictures:
    return Pictures.open(Recipe.resolve("train-prior", None, {}, settings), ALONE)


def test_an_epoch_shows_every_training_picture_once_and_no_validation_picture(settings):
    pictures = opened(settings)

    rows = [batch.rows for batch in batches(pictures, range(6), 5, 1, 0, 0, ALONE)]

    assert len(pictures.train) == 10 and len(pictures.held) == 2
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert sorted([*first, *second]) == pictures.train.tolist()
    assert not np.array_equal(rows[0], rows[2])


def test_steps_from_the_middle_are_those_of_the_whole(settings):
    pictures = opened(settings)

    whole = list(batches(pictures, range(7), 4, 1, 0, 0, ALONE))
    later = list(batches(pictures, range(4, 7), 4, 1, 0, 0, ALONE))

    assert [batch.step for batch in later] == [4, 5, 6]
    assert all(torch.equal(a.image, b.image) for a, b in zip(whole[4:], later, strict=True))


def test_two_processes_and_two_passes_share_the_pictures_and_the_noise_of_one(settings, begun):
    launches = [Launch(rank, 2, torch.device("cpu")) for rank in (0, 1)]

    def drawn(launch: Launch, passes: int = 1) -> list[torch.Tensor]:
        training = begun(*settings, launch=launch)
        parts = batches(training.pictures, range(3, 4), 8, passes, 0, 0, launch)
        each = []
        for part in parts:
            kept, random = training.draw(part)
            noise = torch.stack([torch.randn(4, generator=one) for one in random])
            each.append((torch.from_numpy(part.rows), kept, noise))
        return [torch.cat(some) for some in zip(*each, strict=True)]

    for whole, *shares in zip(drawn(ALONE), *[drawn(each, 2) for each in launches], strict=True):
        assert [len(share) for share in shares] == [4, 4]
        assert torch.equal(torch.cat(shares), whole)


def test_a_view_is_the_centre_with_the_ids_of_its_crop():
    from PIL import Image

    picture = Image.new("RGB", (40, 20), (255, 0, 0))
    picture.paste((0, 0, 255), (10, 0, 30, 20))  # the central square

    pixels, sizes = crop_centre(picture, 10, "lanczos")

    assert pixels.shape == (3, 10, 10)
    assert (pixels[0, :, 2:8] < 13).all() and (pixels[2, :, 2:8] > 242).all()
    assert sizes.tolist() == [20, 40, 0, 5, 10, 10]  # height, width; top, left; target


def test_pictures_are_listed_once_which_takes_a_while_of_imagenet(settings, pictures):
    what = Recipe.resolve("train-prior", None, {}, settings)
    dataset = what.dataset.build(what.paths)
    images = dataset.images("train")
    shutil.copy(next(pictures.rglob("*.png")), pictures / "concept_0/one_more.png")

    given = (dataset, what.dataset, "train", what.encoders, what.paths, ALONE)
    assert len(open_targets(*given, images=images).done) == len(images)
