"""What a reconstruction resolves: the run that its prior is for, cells, counts and memory."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
import yaml
from reconstructions import align, cut, pictures_of
from typer.testing import CliRunner
from worlds import COLOURS

from brainhive_cli.app import app
from brainhive_cli.commands import reconstruct
from brainhive_cli.core.documents import SHA256SUMS
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.facts import Seen
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.data.datasets import StimulusSet
from brainhive_cli.data.media.decoding import describe_pixels
from brainhive_cli.demo.pictures import draw, scenes
from brainhive_cli.models import priors
from brainhive_cli.training.alignment.learned import Learned, LearnedPictures


def test_the_newest_run_is_taken_and_named(go, aligned, drawing, small, runs, prior, capsys):
    newest = align(go, small, runs, f"prior={prior}", "seeds=2")

    result = go("reconstruct", *drawing)

    assert result.folder.name.startswith(newest.name)
    assert f"align run {newest.name}, finished" in capsys.readouterr().err


def test_one_variant_of_a_sweep_is_reconstructed_from_and_a_whole_sweep_is_refused(
    go, world, drawing, small, runs, prior
):
    sweep = align(go, small, runs, f"prior={prior}", "train.epochs=1", "sweep.train.lr=1e-3,2e-3")

    for asked in ((), (f"align_run={sweep.name}",)):
        with pytest.raises(RecipeError, match="is a sweep: name one of its variants") as caught:
            go("reconstruct", *drawing, *asked)
        assert caught.value.hint == f"{sweep.name}:lr=1e-3 or {sweep.name}:lr=2e-3"
    result = go("reconstruct", *drawing, f"align_run={sweep.name}:lr=2e-3")

    assert {path.split("/")[1] for path in pictures_of(result.folder)} == {"lr=2e-3"}
    assert "lr=2e-3" in result.folder.name


def test_where_the_newest_run_does_not_fit_the_prior_the_line_that_makes_one_is_given(
    go, world, drawing, small, runs, prior
):
    align(go, small, runs)  # with a fusion encoder of its own

    message = "was trained against another fusion encoder than that of"
    with pytest.raises(MissingData, match=message) as caught:
        go("reconstruct", *drawing)

    dataset = "'dataset={kind: demo, subjects: 2, noise: 0.3, concepts: 40}'"  # of the run that is there
    assert caught.value.hint == (
        f"brainhive train-align {dataset} --prior {prior} && brainhive reconstruct --prior {prior}"
    )


@pytest.mark.parametrize("is_shipped", [True, False])
def test_that_line_names_the_data_that_the_prior_is_for(home, prior, is_shipped):
    """A shipped recipe's, or those of the training that the prior comes from."""
    own = home / "run" / "model"
    shutil.copytree(prior, own)
    (own.parent / "environment.json").write_text("{}")
    (own.parent / "recipe.yaml").write_text(
        f"dataset: {{kind: demo, noise: 0.3, concepts: 40}}\nencoders: ['{COLOURS}']"
    )

    asked = ["--recipe", "demo"] if is_shipped else ["--prior", str(own)]
    refused = CliRunner().invoke(app, ["reconstruct", *asked])
    line = re.findall("brainhive (train-align .*?)(?: && |$)", refused.stderr, re.MULTILINE)[0]
    what = json.loads(CliRunner().invoke(app, [*shlex.split(line), "--check", "--json"]).stdout)["recipe"]

    assert refused.exit_code == MissingData.exit_code
    assert what["prior"] == ("demo:prior" if is_shipped else str(own))
    assert (what["dataset"]["kind"], what["dataset"]["noise"]) == ("demo", 1.0 if is_shipped else 0.3)


def test_what_lists_the_inputs_opens_prior_and_run_once(aligned, drawing, capsys, monkeypatch):
    recipe = reconstruct.Recipe.resolve("reconstruct", None, {}, drawing)
    opened: list[str] = []
    load, open_run = priors.load, reconstruct.open_model
    monkeypatch.setattr(priors, "load", lambda *a, **more: opened.append("prior") or load(*a, **more))
    monkeypatch.setattr(
        reconstruct, "open_model", lambda *a, **more: opened.append("run") or open_run(*a, **more)
    )

    assert not describe_missing(reconstruct.inputs(recipe))

    assert sorted(opened) == ["prior", "run"]
    assert capsys.readouterr().err.count(f"align run {aligned.name}, finished") == 1


def test_tokens_of_another_size_are_refused_with_both_sizes(go, world, drawing, small, runs, prior):
    run = align(go, small, runs, "dim=32")

    with pytest.raises(BrainhiveError, match=r"have 32 dimensions, those of .* 64") as caught:
        go("reconstruct", *drawing, f"align_run={run.name}")
    dataset = "'dataset={kind: demo, subjects: 2, noise: 0.3, concepts: 40}'"  # of the run that is there
    assert caught.value.hint == (
        f"brainhive train-align {dataset} --prior {prior} && brainhive reconstruct --prior {prior}"
    )


def test_tokens_of_another_fusion_encoder_are_warned_of(go, world, drawing, small, runs, capsys):
    run = align(go, small, runs)

    go("reconstruct", *drawing, f"align_run={run.name}")

    assert "trained against another fusion encoder" in capsys.readouterr().err


def test_a_run_of_other_encoders_than_the_priors_is_refused_with_both(go, drawing, aligned):
    file = aligned / "recipe.yaml"
    (aligned / SHA256SUMS).unlink(missing_ok=True)
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"encoders": ["demo_clip"]}))

    with pytest.raises(BrainhiveError, match=r"takes the encoders .*python-example, not demo-clip"):
        go("reconstruct", *drawing, f"align_run={aligned.name}")


def test_pictures_that_the_prior_was_trained_on_are_left_out_and_many_are_refused(
    go, aligned, drawing, prior, tmp_path
):
    shutil.copytree(prior, tmp_path / "seen")
    ids, asked = [scene.image_id for scene in scenes("test")], (f"prior={tmp_path / 'seen'}",)
    pixels = np.stack([describe_pixels(draw(scene)) for scene in scenes("test")[:21]])
    Learned(pictures=LearnedPictures.of("drawn", ids[:2], pixels[:2])).write(tmp_path / "seen")

    result = go("reconstruct", *drawing, f"align_run={aligned}", *asked)

    files = sorted((result.folder / "samples").rglob("*.png"))
    assert len(files) == 6 and all(any(each in str(file) for each in ids[2:5]) for file in files)
    assert result.metrics.facts.seen_in_training == Seen(count=2, of=100, names=ids[:2])

    Learned(pictures=LearnedPictures.of("drawn", ids[:21], pixels)).write(tmp_path / "seen")
    with pytest.raises(BrainhiveError, match=r"the prior .*seen was trained on 21 of the 100 test pictures"):
        go("reconstruct", *drawing, f"align_run={aligned}", *asked, again=True)


def test_pictures_are_counted_and_inputs_listed_without_loading_weights(
    aligned, drawing, generator, tmp_path
):
    own = shutil.copytree(generator, tmp_path / "own")
    cut(own / "unet/diffusion_pytorch_model.safetensors")
    more = (f"generator.source={own}", "sources=brain,images", "best_of=2")

    recipe = reconstruct.Recipe.resolve("reconstruct", None, {}, [*drawing, *more])
    work = reconstruct.work(recipe)

    assert describe_missing(reconstruct.inputs(recipe)) == []
    assert work is not None and (work.count, work.cells) == (24, 2)  # 3 items, 2 repeats, the best of 2
    shutil.rmtree(own / "unet")
    assert "has no unet/" in describe_missing(reconstruct.inputs(recipe))[0]


def test_the_best_of_several_clips_is_refused_before_anything_is_generated(go, aligned, drawing, monkeypatch):
    monkeypatch.setattr(StimulusSet, "__post_init__", lambda stimuli: vars(stimuli).update(medium="clip"))

    with pytest.raises(RecipeError, match="best_of compares pictures, and the stimuli are clips"):
        go("reconstruct", *drawing, "sources=brain", "best_of=2")


def test_an_unknown_seed_is_named_with_the_known_ones(go, aligned, drawing):
    with pytest.raises(MissingData, match=r"no cell of seeds \[7\]") as caught:
        go("reconstruct", *drawing, "seeds=1,7")
    assert "[1]" in caught.value.hint
