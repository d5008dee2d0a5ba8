"""The recipe of train-align: who is trained on and tested on, variants of a sweep, and
what is refused.
"""

from pathlib import Path

import pytest

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.sweep import make_variants
from brainhive_cli.training.alignment.cells import Cell, cells_of as cells_among
from brainhive_cli.training.alignment.recipe import Recipe


def resolve(*overrides: str, recipe: Path | None = None) -> Recipe:
    demo = ("dataset={kind: demo, subjects: 3}", "seeds=7")
    return Recipe.resolve(
        "train-align", None if recipe is None else str(recipe), {}, [*demo, *overrides]
    )


def cells_of(recipe: Recipe) -> list[Cell]:
    return cells_among(make_variants(recipe), recipe.dataset.build(recipe.paths))


def test_a_mode_decides_who_is_trained_on_and_tested_on():
    alone = {f"sub-0{n}_seed-7": ((n,), (n,)) for n in (1, 2, 3)}
    left_out = {f"sub-0{n}_seed-7": (tuple({1, 2, 3} - {n}), (n,)) for n in (1, 2, 3)}
    for overrides, expected in (
        (["mode=intra"], alone),
        (["mode=inter"], left_out),
        (["mode=joint"], {"all_seed-7": ((1, 2, 3), (1, 2, 3))}),
        (["mode=finetune"], alone),
        (
            ["mode=inter", "subjects=2", "trained_on=1-2"],
            {"sub-02_seed-7": ((1,), (2,))},
        ),
    ):
        cells = cells_of(resolve(*overrides))

        assert {
            cell.name: (cell.trained_on, cell.tested_on) for cell in cells
        } == expected
        assert {(cell.seed, cell.variant) for cell in cells} == {(7, "")}
    with pytest.raises(BrainhiveError, match="none for sub-02"):
        cells_of(resolve("mode=inter", "subjects=2", "trained_on=2"))
    with pytest.raises(RecipeError, match="trained_on has no effect in mode intra"):
        resolve("trained_on=2")


@pytest.fixture
def preparations(home: Path, pictures: Path) -> str:
    """Own pictures with stores of two subjects in each of two preparations, and of a
    third in one.
    """
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


def test_subjects_are_those_of_the_named_signal_stores_and_each_is_listed_once(
    preparations,
):
    def planned(*overrides: str) -> list[str]:
        return [
            cell.name
            for cell in cells_of(resolve(preparations, "seeds=1-2", *overrides))
        ]

    assert planned() == [
        f"sub-0{subject}_seed-{seed}" for subject in (1, 2) for seed in (1, 2)
    ]
    assert len(planned("signal.name=slow")) == 6
    with pytest.raises(
        MissingData, match="pictures has no subject 3 in signals default"
    ) as caught:
        planned("subjects=3")
    assert caught.value.hint == "it has: 1, 2; signal.name takes other stores: slow"


def test_a_sweep_is_the_cross_product_and_leaves_the_rest_as_it_is():
    what = resolve(
        (
            "sweep={backbone.kind: [brain_mlp, nice], encoders: [[clip-h14], "
            "[clip-h14, vae]]}"
        ),
        "train.epochs=3",
    )

    found = make_variants(what)

    assert list(found) == [
        "brain_mlp,clip-h14",
        "brain_mlp,clip-h14+vae",
        "nice,clip-h14",
        "nice,clip-h14+vae",
    ]
    last = found["nice,clip-h14+vae"]
    assert (last.backbone.kind, [each.name for each in last.encoders]) == (
        "nice",
        ["clip-h14", "vae"],
    )
    assert all(each.train.epochs == 3 and not each.sweep for each in found.values())
    names = [cell.name for cell in cells_of(what)]
    assert (
        len(names) == len(set(names)) == 12 and "nice,clip-h14/sub-02_seed-7" in names
    )


def test_a_sweep_that_does_not_hold_is_refused_before_anything_runs():
    for sweep, what, hint in (
        (
            "sweep={train.lrr: [1, 2]}",
            "'train.lrr'",
            " train.lr?",
        ),
        (
            "sweep={dataset: [demo, things-eeg]}",
            "sweep: dataset",
            "",
        ),
        (
            f"sweep={{dim: {[*range(99)]}, train.lr: {[*range(99)]}}}",
            "9,801 combinations",
            "sweep",
        ),
        ("ablations={a/../../b: {train.lr: 1}}", "leads out", ""),
    ):
        with pytest.raises(RecipeError) as caught:
            make_variants(resolve(sweep))
        assert what in caught.value.message and hint in caught.value.hint


def test_ablations_differ_one_at_a_time_from_the_recipe_as_it_is():
    nested = "ablations.narrow.backbone.hidden=8"  # as overrides nest it
    found = make_variants(
        resolve("ablations={slow: {train.lr: 1e-4, train.epochs: 7}}", nested)
    )
    chosen = {
        label: (each.train.lr, each.train.epochs, each.backbone.hidden)
        for label, each in found.items()
    }
    full = found["full"]
    rest = (full.train.lr, full.train.epochs, full.backbone.hidden)
    assert chosen == {
        "full": rest,
        "slow": (1e-4, 7, rest[2]),
        "narrow": (*rest[:2], 8),
    }
    assert len({each.fingerprint() for each in found.values()}) == 3
    # so that nothing is done twice
    assert full.fingerprint() == resolve().fingerprint()


def test_a_sweep_is_part_of_the_fingerprint_and_what_was_published_is_not():
    plain, swept = resolve(), resolve("sweep={train.lr: [0.1]}")
    published = resolve("published={source: somewhere, values: {top1: 0.5}}")
    assert plain.fingerprint() == published.fingerprint() != swept.fingerprint()
    assert Recipe.model_validate(swept.model_dump(mode="json")) == swept


TWO = "heads={meaning: clip-h14, latent: vae}"


def test_heads_terms_and_sets_of_voxels_that_contradict_each_other_are_refused() -> (
    None
):
    split = "signal.region_split"
    for overrides, message in (
        ([TWO, "encoders=clip-b32"], "encoders has no effect where no head is `fused`"),
        (["heads={a: fused, b: fused}"], "a and b both predict `fused`"),
        (
            [TWO, "terms=[{prediction: latent, loss: mse}]"],
            "no term trains the head meaning",
        ),
        (
            ["prior=demo:prior", "similarity=centred_cosine"],
            "prior demo:prior draws from tokens as they are",
        ),
        (
            ["backbone.kind=havir", f"{split}={{spatail: V1, semantic: V2}}"],
            "spatail has no effect",
        ),
        (
            [f"{split}={{a: V1, b: V2}}", "signal.region_control=swapped"],
            "region_control has no effect on",
        ),
    ):
        with pytest.raises(RecipeError, match=message) as caught:
            resolve(*overrides)
        assert caught.value.hint
    used = "{early: V1 | V2, spatial: early, semantic: higher - early}"
    assert (
        len(resolve("backbone.kind=havir", f"{split}={used}").signal.region_split) == 3
    )


def test_the_short_form_is_one_head_and_heads_open_their_encoders() -> None:
    recipe, heads = resolve(), resolve(TWO)
    assert recipe.head_targets == {"token": "fused"} and len(recipe.loss_terms) == 1
    assert [config.name for config in recipe.fused_encoders] == [
        config.name for config in recipe.encoders
    ]
    assert [term.prediction for term in heads.loss_terms] == ["meaning", "latent"]
    assert len(heads.encoders) == 2 and heads.fused_encoders == []
