"""The recipe of train-align: heads and terms that contradict each other are refused in one line."""

import pytest

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.sweep import variants
from brainhive_cli.training.alignment.recipe import Recipe, cells_of

TWO = "heads={meaning: clip-h14, latent: vae}"


def resolve(*overrides: str) -> Recipe:
    return Recipe.resolve("train-align", None, {}, overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([TWO, "encoders=clip-b32"], "encoders has no effect where no head is `fused`"),
        ([TWO, "dim=64"], "dim .*where no head is `fused`"),
        ([TWO, "fuser.kind=concatenation"], "fuser has no effect where no head is `fused`"),
        (["heads={a: fused}", "fuser.kind=heads"], "the fuser `heads` fuses nothing"),
        (["heads={a: fused, b: fused}"], "a and b both predict `fused`"),
        (["heads={a.b: vae}"], "no head can be called 'a.b'"),
        (["heads={values: vae}"], "no head can be called 'values'"),
        ([TWO, "encoders=null"], "encoders: Input should be a valid list, got None"),
        ([TWO, "head=token"], "head is 'token'"),
        ([TWO, "terms=[{prediction: latent, loss: mse}]"], "no term trains the head meaning"),
        ([TWO, "terms=[{prediction: colour, loss: mse}]"], "terms name colour"),
        (["targets={text: clip-h14-text}"], "targets.text has no effect"),
        (
            ["targets={token: vae}", "terms=[{prediction: token, target: token}]"],
            "targets name token, as heads",
        ),
        (
            ["targets={vae: clip-b32}", "terms=[{prediction: token, target: vae}]"],
            "targets name vae, as heads",
        ),
        (
            ["targets={text: vae}", "terms=[{prediction: text, target: text}, {prediction: token}]"],
            "terms name text",
        ),
        (["terms=[{prediction: token, loss: mse}]", "loss.kind=mixco"], "loss has no effect where terms"),
    ],
)
def test_heads_and_terms_that_contradict_each_other_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        resolve(*overrides)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone.kind=havir", "signal.region_split={spatail: V1, semantc: V2}"], "spatail has no effect"),
        (["backbone.kind=havir", "signal.region_split={spatial: V1, semantic: V2, x: V3}"], "split.x has no"),
        (
            ["backbone={kind: with_prior, backbone: havir}", "signal.region_split={spatail: V1}"],
            "spatail has no effect",
        ),
        (
            ["signal.region_split={a: V1, b: V2}", "signal.region_control=swapped"],
            "region_control has no effect on brain-mlp",
        ),
    ],
)
def test_sets_of_voxels_that_no_stream_reads_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve(*overrides)


def test_a_set_that_another_uses_needs_no_stream() -> None:
    split = "signal.region_split={early: V1 | V2, spatial: early, semantic: higher - early}"

    assert len(resolve("backbone.kind=havir", split).signal.region_split) == 3


def test_the_short_form_is_one_head_with_one_term() -> None:
    recipe = resolve()
    assert recipe.head_targets == {"token": "fused"} and len(recipe.loss_terms) == 1
    assert [config.name for config in recipe.fused_encoders] == [config.name for config in recipe.encoders]


def test_heads_open_the_encoders_that_they_predict() -> None:
    recipe = resolve(TWO)
    assert [term.prediction for term in recipe.loss_terms] == ["meaning", "latent"]
    assert len(recipe.encoders) == 2 and recipe.fused_encoders == []


def test_a_closed_form_backbone_predicts_each_encoder_by_a_head_where_no_heads_are_named() -> None:
    fitted = resolve("backbone.kind=ridge", "encoders=clip-b32,vae")
    variants_of = variants(resolve("encoders=clip-b32,vae", "sweep.backbone.kind=[ridge, linear]"))

    assert list(fitted.head_targets) == ["clip-b32", "vae"] and fitted.fuser.kind == "heads"
    assert resolve("backbone.kind=ridge", TWO).fuser == resolve().fuser
    assert {label: recipe.is_fused for label, recipe in variants_of.items()} == {
        "ridge": False,
        "linear": True,
    }
    with pytest.raises(RecipeError, match="no fuser is trained on ridge") as caught:
        resolve("backbone.kind=ridge", "fuser.kind=mean")
    assert "fuser.kind=heads" in caught.value.hint


def test_more_trainings_than_can_be_listed_are_refused() -> None:
    recipe = resolve("dataset=demo", "seeds=1-10000", f"sweep.dim={list(range(1, 20))}")
    with pytest.raises(RecipeError, match="more than 100,000 trainings"):
        cells_of(variants(recipe), recipe.dataset.build(recipe.paths))
    with pytest.raises(RecipeError, match="ablations: Dictionary should have at most 1000 items"):
        resolve("ablations={" + ", ".join(f"a{number}: {{dim: {number}}}" for number in range(1, 1002)) + "}")
