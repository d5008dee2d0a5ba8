"""Who is trained on, who is tested on, and which variants a sweep has."""

from pathlib import Path

import pytest

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.sweep import variants
from brainhive_cli.training.alignment.recipe import Cell, Recipe
from brainhive_cli.training.alignment.recipe import cells_of as cells_among


def resolve(*overrides: str, recipe: Path | None = None) -> Recipe:
    demo = ("dataset={kind: demo, subjects: 3}", "seeds=7")
    return Recipe.resolve("train-align", None if recipe is None else str(recipe), {}, [*demo, *overrides])


def cells_of(recipe: Recipe) -> list[Cell]:
    return cells_among(variants(recipe), recipe.dataset.build(recipe.paths))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (
            "intra",
            {"sub-01_seed-7": ((1,), (1,)), "sub-02_seed-7": ((2,), (2,)), "sub-03_seed-7": ((3,), (3,))},
        ),
        (
            "inter",
            {
                "sub-01_seed-7": ((2, 3), (1,)),
                "sub-02_seed-7": ((1, 3), (2,)),
                "sub-03_seed-7": ((1, 2), (3,)),
            },
        ),
        ("joint", {"all_seed-7": ((1, 2, 3), (1, 2, 3))}),
        (
            "finetune",
            {"sub-01_seed-7": ((1,), (1,)), "sub-02_seed-7": ((2,), (2,)), "sub-03_seed-7": ((3,), (3,))},
        ),
    ],
)
def test_a_mode_decides_who_is_trained_on_and_tested_on(mode, expected):
    cells = cells_of(resolve(f"mode={mode}"))

    assert {cell.name: (cell.trained_on, cell.tested_on) for cell in cells} == expected
    assert {(cell.seed, cell.variant) for cell in cells} == {(7, "")}


def test_subjects_of_inter_are_those_left_out():
    fold, pair = (
        cells_of(resolve("mode=inter", *more)) for more in (["subjects=2"], ["subjects=2", "trained_on=1-2"])
    )
    assert [(cell.name, cell.trained_on) for cell in fold] == [("sub-02_seed-7", (1, 3))]
    assert [(cell.name, cell.trained_on) for cell in pair] == [("sub-02_seed-7", (1,))]


@pytest.fixture
def five_preparations(home: Path, pictures: Path) -> str:
    """Own pictures with stores of two subjects in each of five preparations, and of a third in one."""
    prepared = [("default", 1), ("default", 2), ("slow", 3)]
    prepared += [(name, subject) for name in ("slow", "fast", "raw", "ica") for subject in (1, 2)]
    for name, subject in prepared:
        store = home / f"signals/pictures/{name}/sub-{subject:02d}.h5"
        store.parent.mkdir(parents=True, exist_ok=True)
        store.touch()
    return f"dataset={{kind: image-folder, root: {pictures}}}"


def test_subjects_are_those_of_the_named_signal_stores_and_each_is_listed_once(five_preparations):
    def planned(*overrides: str) -> list[tuple[str, tuple[int, ...]]]:
        cells = cells_of(resolve(five_preparations, "seeds=1-3", *overrides))
        return [(cell.name, cell.trained_on) for cell in cells]

    two = [(f"sub-0{subject}_seed-{seed}", (subject,)) for subject in (1, 2) for seed in (1, 2, 3)]
    assert planned() == planned("signal.name=ica") == two
    assert planned("mode=joint") == [(f"all_seed-{seed}", (1, 2)) for seed in (1, 2, 3)]
    assert len(planned("signal.name=slow")) == 9
    with pytest.raises(MissingData, match="pictures has no subject 3 in signals default") as caught:
        planned("subjects=3")
    assert caught.value.hint == "it has: 1, 2; signal.name takes other stores: fast, ica, raw, slow"


def test_leaving_one_out_of_one_is_refused():
    with pytest.raises(BrainhiveError, match="none for sub-02"):
        cells_of(resolve("mode=inter", "subjects=2", "trained_on=2"))
    with pytest.raises(RecipeError, match="trained_on has no effect in mode intra"):
        resolve("trained_on=2")


def test_without_a_sweep_there_is_one_variant():
    what = resolve()
    assert variants(what) == {"": what}


def test_a_sweep_is_the_cross_product_and_leaves_the_rest_as_it_is():
    what = resolve(
        "sweep={backbone.kind: [brain_mlp, nice], encoders: [[clip-h14], [clip-h14, vae]]}", "train.epochs=3"
    )

    found = variants(what)

    assert list(found) == [
        "brain_mlp,clip-h14",
        "brain_mlp,clip-h14+vae",
        "nice,clip-h14",
        "nice,clip-h14+vae",
    ]
    last = found["nice,clip-h14+vae"]
    assert (last.backbone.kind, [each.name for each in last.encoders]) == ("nice", ["clip-h14", "vae"])
    assert all(each.train.epochs == 3 and not each.sweep for each in found.values())
    names = [cell.name for cell in cells_of(what)]
    assert len(names) == len(set(names)) == 12 and "nice,clip-h14/sub-02_seed-7" in names


@pytest.mark.parametrize(
    ("sweep", "labels"),
    [
        ("sweep.train.lr=1e-3,0.01", ["lr=1e-3", "lr=0.01"]),
        ("sweep.train.lr=[0.001,0.01]", ["lr=0.001", "lr=0.01"]),
        ("sweep={backbone: [nice, {kind: nice, dropout: 0.5}]}", ["nice", "nice,dropout=0.5"]),
        ("sweep={signal.window_ms: [null, [0, 500]]}", ["window_ms=none", "window_ms=0+500"]),
        ("sweep={mode: [intra, joint]}", ["intra", "joint"]),
        (
            "sweep={encoders: [[{kind: timm, source: 'hub:a/b', architecture: x}]]}",
            ["timm,source=hub-a-b,architecture=x"],
        ),
    ],
)
def test_a_variant_is_named_by_its_values_as_a_folder_can_be(sweep, labels):
    assert list(variants(resolve(sweep))) == labels


@pytest.mark.parametrize(
    ("sweep", "what", "hint"),
    [
        ("sweep={backbone: [{kind: braindecode, model: EEGNeX, options: {/../x: 1}}]}", "leads out", ".."),
        ("sweep={train.lrr: [1, 2]}", "unknown recipe key 'train.lrr'", "did you mean train.lr?"),
        ("sweep={train.lr: [fast]}", "train.lr: Input should be a valid number", "as in train.lr="),
        ("sweep={backbone.kind: [nise]}", "no backbone called 'nise'", "did you mean nice?"),
        ("sweep={train.lr: []}", "sweep.train.lr: List should have at least 1 item", "fix"),
        ("sweep={dataset: [demo, things-eeg]}", "dataset is one for all cells", "a run of each"),
        ("sweep={run.device: [cpu]}", "run.device is one for all cells", "a run of each"),
        ("sweep={sweep.train.lr: [1]}", "sweep.train.lr is one for all cells", "a run of each"),
        ("sweep={train.lr: [0.1, 0.1]}", "lr=0.1 is there twice", "leave one out"),
        (f"sweep={{dim: {[*range(99)]}, train.lr: {[*range(99)]}}}", "9,801 combinations", "1,000"),
        ("sweep={mode: [intra, finetune]}", "finetune goes with no other mode", "a run of each"),
        ("finetune.share=0.5", "finetune is set, but mode is intra", "--mode finetune"),
        (
            "finetune.share=0",
            "finetune.share: Input should be greater than or equal to 0.01",
            "as in finetune.share=",
        ),
    ],
)
def test_a_sweep_that_does_not_hold_is_refused_before_anything_runs(sweep, what, hint):
    with pytest.raises(RecipeError) as caught:
        resolve(sweep)
    assert what in caught.value.message and hint in caught.value.hint


def test_ablations_differ_one_at_a_time_from_the_recipe_as_it_is():
    nested = "ablations.narrow.backbone.hidden=8"  # as overrides nest it
    found = variants(resolve("ablations={slow: {train.lr: 1e-4, train.epochs: 7}}", nested))
    chosen = {
        label: (each.train.lr, each.train.epochs, each.backbone.hidden) for label, each in found.items()
    }
    full = found["full"]
    rest = (full.train.lr, full.train.epochs, full.backbone.hidden)
    assert chosen == {"full": rest, "slow": (1e-4, 7, rest[2]), "narrow": (*rest[:2], 8)}
    assert len({each.fingerprint() for each in found.values()}) == 3
    assert full.fingerprint() == resolve().fingerprint()  # so that nothing is done twice


@pytest.mark.parametrize(
    ("ablations", "what"),
    [
        (["ablations={slow: {train.lrr: 1}}"], "unknown recipe key 'train.lrr'"),
        (["ablations={a/../../b: {train.lr: 1}}"], "leads out"),
        (["ablations={full: {train.lr: 1}}"], "full is there twice"),
        (["ablations={slow: {}}"], "should have at least 1 item"),
        (["ablations={slow: {train.lr: 1}}", "sweep={train.lr: [1]}"], "go not together"),
    ],
)
def test_ablations_that_do_not_hold_are_refused_before_anything_runs(ablations, what):
    with pytest.raises(RecipeError) as caught:
        variants(resolve(*ablations))
    assert what in caught.value.message


def test_a_sweep_is_part_of_the_fingerprint_and_what_was_published_is_not():
    plain, swept = resolve(), resolve("sweep={train.lr: [0.1]}")
    published = resolve("published={source: somewhere, values: {top1: 0.5}}")
    assert plain.fingerprint() == published.fingerprint() != swept.fingerprint()
    assert Recipe.model_validate(swept.model_dump(mode="json")) == swept
