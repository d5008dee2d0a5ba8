"""The recipes of papers: each resolves, plans its cells and names the published number beside it."""

import re

import pytest

from brainhive_cli.pipelines import train_align
from brainhive_cli.pipelines._alignment.cells import variants
from brainhive_cli.recipe import shipped

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
UNPUBLISHED = {"brainhive-intra-synclr", "brainhive-inter-synclr", "brainhive-meg-synclr", "alignvis-inter"}
ON_VALIDATION = {"alignvis-intra", "alignvis-inter", "nice"}
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
        assert not published.is_of({"joint"}, dataset)


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

    subjects, seeds = len(plan.items["subjects"]), len(what.seeds)
    assert plan.items["cells"].startswith(f"{subjects * seeds * len(variants(what))}: ")
    assert subjects == (4 if "meg" in paper else 10)
    assert len(plan.missing) == 2
    assert re.match(r"no train embeddings of .* \(brainhive embed ", plan.missing[0])
    assert re.match(r"things-[em]eg: no recording .* \(hf download ", plan.missing[1])
