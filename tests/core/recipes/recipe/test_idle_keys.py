"""No key is ignored in silence: what has no effect is refused, or said."""

import pytest

from brainhive_cli.commands import demo, embed, reconstruct, train_align, train_prior
from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.files.inputs import describe_missing
from brainhive_cli.core.recipes.recipe import read_recipe
from brainhive_cli.core.runs.jobs import list_inputs

COMMANDS = {
    "demo": demo,
    "embed": embed,
    "reconstruct": reconstruct,
    "train-align": train_align,
    "train-prior": train_prior,
}


def test_a_key_without_effect_is_refused_by_its_name():
    for command, overrides, key in (
        ("train-align", ["signal.random_k=3"], "random_k"),
        ("train-prior", ["sample_items=0", "sample_every=7"], "sample_every"),
        ("reconstruct", ["guidance=0.5"], "guidance"),
        ("reconstruct", ["score=made", "truth=seen", "steps=9"], "steps"),
        ("embed", ["run.trackers=wandb"], "trackers"),
        ("demo", ["overrides.train_align=[seeds=1]"], "overrides.train_align"),
    ):
        with pytest.raises(RecipeError, match=rf"^{key}\b"):
            COMMANDS[command].Recipe.resolve(command, None, {}, overrides)


def test_a_key_that_stands_twice_is_refused_with_both_lines(home):
    (home / "my.yaml").write_text(
        "mode: intra\ntrain:\n  lr: 1.0e-3\n  epochs: 2\n  lr: 1.0e-4\n"
    )
    with pytest.raises(RecipeError, match=r"my\.yaml.*'lr'.*3.*5"):
        read_recipe(home / "my.yaml")
    with pytest.raises(RecipeError, match="'lr'"):
        train_align.Recipe.resolve(
            "train-align", None, {}, ["train={lr: 1.0, lr: 2.0}"]
        )


def test_sizes_that_differ_from_those_of_the_prior_are_refused(
    run_command, align_overrides, world, prior
):
    with pytest.raises(RecipeError, match=r"dim.*32") as caught:
        run_command("train-align", *align_overrides, f"prior={prior}", "dim=32")
    assert caught.value.hint == "leave dim out"


def test_a_key_that_does_nothing_with_these_recordings_is_said(
    run_command, align_overrides, world, tmp_path, capsys
):
    run_command(
        "train-align",
        *align_overrides,
        f"paths.runs={tmp_path}",
        "subjects=1",
        "train.epochs=1",
        "signal.normalise=channel",
    )
    assert (
        "signal.scale=0.2 has no effect with signal.normalise=channel"
        in capsys.readouterr().err
    )


def test_a_check_says_which_part_of_the_recordings_is_not_there(align_overrides, world):
    recipe = train_align.Recipe.resolve(
        "train-align", None, {}, list(align_overrides) + ["signal.window_ms=[0, 5000]"]
    )
    (message,) = describe_missing(list_inputs(train_align, recipe))
    assert message.startswith("the window [0.0, 5000.0] ms reaches beyond")
