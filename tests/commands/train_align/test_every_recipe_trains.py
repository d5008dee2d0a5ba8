"""Every shipped recipe of train-align can be made short and small, as
`tools.follow_recipes` trains them.
"""

from collections.abc import Mapping, Sequence

from brainhive_cli.commands import train_align
from brainhive_cli.core.recipe import shipped_recipes
from brainhive_cli.core.sweep import make_variants

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
SMALLER: Mapping[str, Sequence[str]] = {
    "havir": [*HAVIR, "projector=8"],
    "mindeye2-blurry": ["backbone.hidden=8", *(f"prior.{key}" for key in SMALL_PRIOR)],
}
"""Keys of the backbone, by the recipe's name without its folder or card."""


def resolve(name: str, *overrides: str) -> train_align.Recipe:
    return train_align.Recipe.resolve("train-align", name, {}, overrides)


def shortened(name: str, recipe: train_align.Recipe) -> list[str]:
    """Write the overrides of a recipe that make it short and small; the brain model and
    data stay its own.
    """
    short = [
        f"backbone.{key}"
        for key in SMALLER.get(name.rpartition("/")[2].removesuffix("-24gb"), ())
    ]
    chosen = {"inter": ["subjects=1", "trained_on=2,3"], "joint": ["subjects=2,3"]}
    short += ["seeds=1", *chosen.get(recipe.mode, ["subjects=1"])]
    short += ["sweep={}"] if len(make_variants(recipe)) > 3 else []
    if recipe.backbone.is_closed_form:
        return short
    train = recipe.train
    stages = [f"stages.{stage}.epochs=1" for stage in range(len(train.stages))] or [
        "epochs=1"
    ]
    smaller = {
        "epoch_trials": 8,
        "warmup_steps": 0,
        "validation": 0.2,
        "start_from": {},
    }
    stages += [
        f"{key}={value}" for key, value in smaller.items() if getattr(train, key)
    ]
    return [
        *short,
        *(f"train.{key}" for key in ("batch_size=4", "precision=fp32", *stages)),
    ]


def test_every_recipe_can_be_made_short_and_small() -> None:
    for name in RECIPES:
        whole = resolve(name)
        short = resolve(name, *shortened(name, whole))
        assert short.seeds == [1] and short.backbone.kind == whole.backbone.kind
        assert short.mode == whole.mode and short.dataset == whole.dataset
