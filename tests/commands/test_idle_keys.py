"""No key is ignored in silence: what has no effect is refused, or said."""

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import demo, embed, eval_retrieval, reconstruct, train_align, train_prior
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.core.recipe import read_recipe

COMMANDS = {
    "demo": demo,
    "embed": embed,
    "eval-retrieval": eval_retrieval,
    "reconstruct": reconstruct,
    "train-align": train_align,
    "train-prior": train_prior,
}


@pytest.mark.parametrize(
    ("command", "overrides", "key"),
    [
        ("train-align", ["signal.random_k=3"], "random_k"),
        ("train-align", ["finetune.share=0.5"], "finetune"),
        ("train-prior", ["continue_from=a", "prior.hidden_size=32"], "prior"),
        ("train-prior", ["sample_items=0", "sample_every=7"], "sample_every"),
        ("train-prior", ["fid_features=clip-l14"], "fid_features"),
        ("reconstruct", ["truth=seen"], "truth"),
        ("reconstruct", ["guidance=0.5"], "guidance"),
        ("reconstruct", ["score=made", "truth=seen", "steps=9"], "steps"),
        ("embed", ["run.trackers=wandb"], "trackers"),
        ("demo", ["overrides.train_align=[seeds=1]"], "overrides.train_align"),
    ],
)
def test_a_key_without_effect_is_refused_by_its_name(command, overrides, key):
    with pytest.raises(RecipeError, match=rf"^{key}\b"):
        COMMANDS[command].Recipe.resolve(command, None, {}, overrides)


@pytest.mark.parametrize("flag", ["--from=images", "--prior=demo:prior", "--run=some", "--repeats=2"])
def test_flags_that_draw_are_refused_beside_pictures_to_score(home, flag):
    ended = CliRunner().invoke(app, ["reconstruct", "--score", "made", "--truth", "seen", flag])
    assert ended.exit_code == 2 and "has no effect on pictures that others made" in ended.stderr


def test_a_recipe_that_draws_lends_its_metrics_to_pictures_to_score(home):
    flags = {"score": "made", "truth": "seen"}
    what = reconstruct.Recipe.resolve("reconstruct", "demo", flags, ["sheet_rows=1"])
    assert what.metrics == ["pixcorr", "ssim"]


def test_a_recipe_file_that_names_pictures_to_score_says_nothing_of_drawing(home):
    (home / "my.yaml").write_text("score: made\ntruth: seen\nsteps: 9\n")
    with pytest.raises(RecipeError, match="steps has no effect"):
        reconstruct.Recipe.resolve("reconstruct", "my.yaml", {}, [])


def test_a_key_that_stands_twice_is_refused_with_both_lines(home):
    (home / "my.yaml").write_text("mode: intra\ntrain:\n  lr: 1.0e-3\n  epochs: 2\n  lr: 1.0e-4\n")
    with pytest.raises(RecipeError, match=r"my\.yaml .*: key 'lr' appears twice, in lines 3 and 5"):
        read_recipe(home / "my.yaml")
    with pytest.raises(RecipeError, match="key 'lr' appears twice"):
        train_align.Recipe.resolve("train-align", None, {}, ["train={lr: 1.0, lr: 2.0}"])


@pytest.mark.parametrize(
    ("overrides", "what", "hint"),
    [
        (["dim=32"], "dim is 32, but the prior", "leave dim out"),
        (["fuser.dropout=0.3"], r"fuser\.dropout is 0\.3, but the prior", "train.prior_dropout=0.3"),
        (
            ["fuser.dropout=0", "train.prior_dropout=0.2"],
            r"fuser\.dropout is 0\.0, but the prior .* has 0\.2",
            "train.prior_dropout=0",
        ),
    ],
)
def test_sizes_beside_a_prior_are_refused_unless_they_are_the_priors(
    go, small, world, prior, overrides, what, hint
):
    with pytest.raises(RecipeError, match=what) as caught:
        go("train-align", *small, f"prior={prior}", *overrides)
    assert caught.value.hint == hint


def test_a_width_that_the_fuser_does_not_make_is_refused(go, small, world, tmp_path):
    with pytest.raises(RecipeError, match="dim is 64, but this fuser's tokens have 12"):
        go("train-align", *small, f"paths.runs={tmp_path}", "fuser={kind: concatenation}", "train.epochs=1")


def test_fine_tuning_says_which_keys_are_the_runs_own(go, small, world, tmp_path, capsys):
    runs = f"paths.runs={tmp_path}"
    go("train-align", *small, runs, "mode=joint", "subjects=1", "train.epochs=1")
    go("train-align", *small, runs, "mode=finetune", "train.epochs=1", "backbone.kind=nice")
    said = capsys.readouterr().err
    assert "'kind': 'nice'" in said and "has no effect: a fine-tuned model keeps that of demo" in said


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("signal.normalise=channel",), "signal.scale=0.2 has no effect with signal.normalise=channel"),
        (
            ("signal.repetitions=random", "signal.random_k=99"),
            "signal.repetitions=random has no effect: demo-noise-0.3-40-concepts has",
        ),
    ],
)
def test_a_key_that_does_nothing_with_these_recordings_is_said(
    go, small, world, tmp_path, capsys, overrides, said
):
    go("train-align", *small, f"paths.runs={tmp_path}", "subjects=1", "train.epochs=1", *overrides)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("signal.window_ms=[0,5000]", "the window [0.0, 5000.0] ms reaches beyond the recording"),
        ("sweep={signal.window_ms: [[0, 500], [0, 5000]]}", "the window [0.0, 5000.0] ms reaches beyond"),
        ("signal.channels=Oz,Xz", "no channel 'Xz' in the data"),
    ],
)
def test_a_check_says_which_part_of_the_recordings_is_not_there(small, world, override, said):
    what = train_align.Recipe.resolve("train-align", None, {}, [*small, override])
    (told,) = describe_missing(train_align.inputs(what))
    assert told.startswith(said)
