"""The recipes of papers: each resolves, plans its cells and names the published number beside it."""

import re

import pytest

from brainhive_cli.alignment.published import compared_with_published
from brainhive_cli.core.recipe_files import shipped
from brainhive_cli.core.sweep import variants
from brainhive_cli.pipelines import train_align

PAPERS = sorted(path.parent.name for path in shipped().glob("papers/*/train-align.yaml"))
PUBLISHED = {  # 200-way on THINGS, top-1 and top-5, as their papers or later comparisons report them
    "brainhive-intra": (0.757, 0.946),
    "brainhive-inter": (0.200, 0.441),
    "brainhive-meg": (0.337, 0.605),
    "alignvis-intra": (0.584, None),
    "nice": (0.161, 0.436),
    "atm-s": (0.285, 0.604),
    "ubp": (0.509, 0.797),
}
UNPUBLISHED = {
    "brainhive-intra-synclr",
    "brainhive-inter-synclr",
    "brainhive-meg-synclr",
    "alignvis-inter",
    "alignvis-meg",
    "alignvis-nsd",
}
ON_VALIDATION = {"alignvis-intra", "alignvis-inter", "alignvis-meg", "alignvis-nsd", "nice"}
"""They choose the epoch on held-out training data, as their authors did."""


def resolve(paper: str, *overrides: str) -> train_align.Recipe:
    return train_align.Recipe.resolve("train-align", f"papers/{paper}", {}, overrides)


def test_every_paper_has_its_number_or_is_known_to_have_none() -> None:
    assert set(PAPERS) == PUBLISHED.keys() | UNPUBLISHED


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_names_its_number_and_where_it_stands(paper: str) -> None:
    what = resolve(paper)
    published, dataset = what.published, what.dataset.build(what.paths).name
    if paper in UNPUBLISHED:
        assert published is None
    else:
        assert published is not None and published.source
        assert (published.top1, published.top5) == PUBLISHED[paper]
        assert (published.mode, published.dataset, published.pool) == (what.mode, dataset, 200)


@pytest.mark.parametrize(
    ("paper", "differs"),
    [
        ("brainhive-intra", []),
        ("brainhive-inter", ["selection last, not test"]),
        ("brainhive-meg", []),
        ("nice", [f"{key} not stated" for key in ("encoders", "epochs", "selection", "backbone")]),
        ("atm-s", ["selection last, not test", "without its text loss"]),
        ("ubp", ["without its blur prior"]),
    ],
)
def test_a_paper_says_in_what_its_recipe_differs_from_what_was_published(paper: str, differs: list) -> None:
    assert beside(resolve(paper)) == differs


@pytest.mark.parametrize(
    ("overrides", "differs"),
    [
        (["train.epochs=5", "subjects=1"], ["epochs 5, not 25", "subject 1 of 10"]),
        (["mode=joint"], ["mode joint, not intra"]),
        (["dataset.signals=mine"], ["dataset things-eeg--mine, not things-eeg"]),
        (["encoders=[vae]"], ["encoders vae, not clip-b32+clip-rn50+vae"]),
        (["backbone.kind=nice"], ["backbone nice, not brain_mlp"]),
        (["backbone.dropout=0.5"], ["backbone.dropout 0.5, not 0.1"]),
        (["train.selection=best"], []),  # without validation the last epoch is kept
        (["train.selection=best", "train.validation=0.1"], ["selection best, not last"]),
    ],
)
def test_a_changed_recipe_says_that_the_published_number_is_of_another_set_up(
    overrides: list, differs: list
) -> None:
    assert beside(resolve("brainhive-intra", *overrides)) == differs


def test_each_variant_of_a_sweep_is_compared_by_itself() -> None:
    what = resolve("alignvis-intra")
    plain, aligned = (beside(each) for each in variants(what).values())
    assert (plain, aligned) == (["encoders synclr-b16, not synclr-b16+dreamsim"], [])


def beside(what: train_align.Recipe) -> list:
    built = what.dataset.build(what.paths)
    return compared_with_published(what, built.recorded_as, what.subjects or built.subjects, 200)["differs"]


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_never_looks_at_test_and_takes_the_last_epoch_unless_it_says_otherwise(paper: str) -> None:
    train = resolve(paper).train
    expected = ("best", True) if paper in ON_VALIDATION else ("last", False)
    assert (train.selection, train.validation > 0) == expected


@pytest.mark.parametrize("paper", [name for name in PAPERS if name.startswith("brainhive")])
def test_brainhives_papers_train_as_its_repository_and_say_what_differs(paper: str) -> None:
    train = resolve(paper).train
    assert (train.init, train.decay, train.last_batch) == ("reference", "weights", "keep")
    against = resolve(paper, "prior=demo:prior", "encoders=demo-clip,demo-vae", "train.prior_dropout=0.1")
    assert against.train.prior_dropout == 0.1
    recipe = (shipped() / "papers" / paper / "train-align.yaml").read_text()
    assert "# What still differs from its repository: " in recipe


@pytest.mark.parametrize("paper", PAPERS)
def test_a_papers_plan_lacks_nothing_but_data(paper: str, home: object) -> None:
    what = resolve(paper)
    plan = train_align.plan(what)

    if "nsd" in paper:  # whose subjects are those that were prepared
        assert plan.missing[0].split(" (")[0] == "nsd has no subject"
        assert re.match(r"no train embeddings of .* \(brainhive embed ", plan.missing[1])
        return
    subjects, seeds = len(plan.items["subjects"]), len(what.seeds)
    assert plan.items["cells"].startswith(f"{subjects * seeds * len(variants(what))}: ")
    assert subjects == (4 if "meg" in paper else 10)
    assert len(plan.missing) == 2
    assert re.match(r"no train embeddings of .* \(brainhive embed ", plan.missing[0])
    assert re.match(r"things-[em]eg: no recording .* \(hf download ", plan.missing[1])
