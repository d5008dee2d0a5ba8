"""Cells of a recipe of train-align, and contradictions in it."""

import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.training.alignment import (
    Cell,
    Recipe,
    describe_division,
    list_cells as cells_among,
)


def resolve(*overrides, recipe=None):
    demo = ("dataset={kind: demo, subjects: 3}", "seeds=7")
    return Recipe.resolve(
        "train-align",
        None if recipe is None else str(recipe),
        {},
        list(demo) + list(overrides),
    )


def list_cells(recipe):
    return cells_among(recipe, recipe.dataset.build(recipe.paths))


def test_a_mode_decides_who_is_trained_on_and_tested_on():
    cells_alone = {f"sub-0{n}_seed-7": ((n,), (n,)) for n in (1, 2, 3)}
    left_out = {f"sub-0{n}_seed-7": (tuple({1, 2, 3} - {n}), (n,)) for n in (1, 2, 3)}
    for overrides, expected in (
        (["mode=intra"], cells_alone),
        (["mode=inter"], left_out),
        (["mode=joint"], {"all_seed-7": ((1, 2, 3), (1, 2, 3))}),
        (["mode=finetune"], cells_alone),
        (
            ["mode=inter", "subjects=2", "trained_on=1-2"],
            {"sub-02_seed-7": ((1,), (2,))},
        ),
    ):
        cells = list_cells(resolve(*overrides))

        assert {
            cell.name: (cell.trained_on, cell.tested_on) for cell in cells
        } == expected
        assert {cell.seed for cell in cells} == {7}
    with pytest.raises(BrainhiveError, match="none for sub-02"):
        list_cells(resolve("mode=inter", "subjects=2", "trained_on=2"))
    with pytest.raises(RecipeError, match=r"trained_on .*intra"):
        resolve("trained_on=2")


@pytest.mark.parametrize(
    ("overrides", "division"),
    [
        ((), "one per person"),
        (("subjects=1",), ""),
        (("seeds=7,8",), "one per person and seed"),
        (("mode=inter", "seeds=7,8"), "one per left-out person and seed"),
        (("mode=joint",), "for all people together"),
        (("mode=joint", "seeds=7,8"), "one per seed, for all people together"),
    ],
)
def test_models_differ_by_person_fold_and_seed(overrides, division):
    recipe = resolve(*overrides)

    assert describe_division(list_cells(recipe), recipe.mode) == division


def test_models_of_folds_are_told_apart_by_fold():
    cells = [
        Cell(f"sub-01_fold-0{fold}_seed-{seed}", (1,), (1,), seed, fold=fold)
        for fold, seed in ((1, 7), (1, 8), (2, 7), (2, 8))
    ]

    assert describe_division(cells[::2], "intra") == "one per fold"
    assert describe_division(cells, "intra") == "one per fold and seed"


@pytest.fixture
def preparations(home, pictures):
    """A data set with two preparations, one of which has a third subject."""
    for name, subject in (
        ("default", 1),
        ("default", 2),
        ("slow", 1),
        ("slow", 2),
        ("slow", 3),
    ):
        store = home / f"signals/pictures/{name}/sub-{subject:02d}.h5"
        store.parent.mkdir(parents=True, exist_ok=True)
        store.touch()
    return f"dataset={{kind: image-folder, root: {pictures}}}"


def test_subjects_are_those_with_signals_of_the_preparation(
    preparations,
):
    def list_names(*overrides):
        return [
            cell.name
            for cell in list_cells(resolve(preparations, "seeds=1-2", *overrides))
        ]

    assert list_names() == [
        f"sub-0{subject}_seed-{seed}" for subject in (1, 2) for seed in (1, 2)
    ]
    assert len(list_names("signal.name=slow")) == 6
    with pytest.raises(MissingData, match=r"pictures .*subject 3 .*default") as caught:
        list_names("subjects=3")
    assert caught.value.hint == "it has: 1, 2; signal.name takes other stores: slow"


def test_the_fingerprint_has_no_published_numbers():
    published = resolve("published={source: somewhere, values: {top1: 0.5}}")
    assert resolve().fingerprint() == published.fingerprint()


TWO = "heads={meaning: clip-h14, latent: vae}"


def test_contradictory_heads_terms_and_voxel_sets_are_refused():
    split = "signal.region_split"
    for overrides, message in (
        ([TWO, "encoders=clip-b32"], "encoders has no effect"),
        (["heads={a: fused, b: fused}"], "`fused`: a, b"),
        (
            [TWO, "terms=[{prediction: latent, loss: mse}]"],
            "meaning",
        ),
        (
            ["prior=demo:prior", "similarity=centred_cosine"],
            "centred_cosine.* demo:prior",
        ),
        (
            ["backbone.kind=havir", f"{split}={{spatail: V1, semantic: V2}}"],
            "signal.region_split.spatail",
        ),
        (
            [f"{split}={{a: V1, b: V2}}", "signal.region_control=swapped"],
            "region_control has no effect",
        ),
    ):
        with pytest.raises(RecipeError, match=message) as caught:
            resolve(*overrides)
        assert caught.value.hint
    voxel_sets = "{early: V1 | V2, spatial: early, semantic: higher - early}"
    assert (
        len(resolve("backbone.kind=havir", f"{split}={voxel_sets}").signal.region_split)
        == 3
    )


def test_heads_add_their_encoders_and_the_default_is_one_head():
    recipe, heads = resolve(), resolve(TWO)
    assert recipe.head_targets == {"token": "fused"}
    assert len(recipe.loss_terms) == 1
    assert [config.name for config in recipe.fused_encoders] == [
        config.name for config in recipe.encoders
    ]
    assert [term.prediction for term in heads.loss_terms] == ["meaning", "latent"]
    assert len(heads.encoders) == 2
    assert heads.fused_encoders == []
