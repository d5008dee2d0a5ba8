"""Overrides that make every shipped recipe of train-align fast and small."""

from math import prod

from brainhive_cli.commands import train_align
from brainhive_cli.core.recipes.recipe import shipped_recipes

RECIPES = sorted(
    path.parent.relative_to(shipped_recipes()).as_posix()
    for path in shipped_recipes().rglob("*/train-align.yaml")
)
SMALL_PRIOR = ("depth=1", "heads=2", "dim_head=4", "timesteps=3")
HAVIR = (
    "hidden=8",
    "blocks=1",
    "features=8",
    "decoder_channels=[8,8,8]",
    "decoder_groups=4",
)
SMALLER = {
    "havir": list(HAVIR) + ["projector=8"],
    "mindeye2-blurry": ["backbone.hidden=8"] + [f"prior.{key}" for key in SMALL_PRIOR],
}
"""Keys of the backbone, by the name of the recipe without its folder and GPU."""


def resolve(name, *overrides):
    return train_align.Recipe.resolve("train-align", name, {}, overrides)


def shortened(name, recipe):
    """List overrides that make a recipe fast and small.

    The kind of the brain model and the data set stay the same.

    Args:
        name: Name of the recipe.
        recipe: Resolved recipe.
    """
    # size of the backbone, subjects and variants
    short_name = name.rpartition("/")[2].removesuffix("-24gb")
    overrides = [f"backbone.{key}" for key in SMALLER.get(short_name, ())]
    overrides.append("seeds=1")
    if recipe.mode == "inter":
        overrides += ["subjects=1", "trained_on=2,3"]
    elif recipe.mode == "joint":
        overrides.append("subjects=2,3")
    else:
        overrides.append("subjects=1")
    if prod(map(len, recipe.sweep.values())) > 3:
        overrides.append("sweep={}")
    if recipe.backbone.is_closed_form:
        return overrides

    # steps of the training
    train = recipe.train
    overrides += ["train.batch_size=4", "train.precision=fp32"]
    if train.stages:
        for stage in range(len(train.stages)):
            overrides.append(f"train.stages.{stage}.epochs=1")
    else:
        overrides.append("train.epochs=1")
    small_values = {
        "epoch_trials": 8,
        "warmup_steps": 0,
        "validation": 0.2,
        "start_from": {},
    }
    for key, value in small_values.items():
        if getattr(train, key):
            overrides.append(f"train.{key}={value}")
    return overrides


def test_every_recipe_can_be_made_short_and_small():
    for name in RECIPES:
        whole_recipe = resolve(name)
        recipe = resolve(name, *shortened(name, whole_recipe))
        assert recipe.seeds == [1]
        assert recipe.backbone.kind == whole_recipe.backbone.kind
        assert recipe.mode == whole_recipe.mode
        assert recipe.dataset == whole_recipe.dataset
