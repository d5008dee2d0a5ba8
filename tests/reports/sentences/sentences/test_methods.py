"""Methods paragraph: it describes the parts of a run and cites their papers."""

import json
import re

import pytest
import yaml

from brainhive_cli.core.results import Facts, Measurements, merge_set_ups
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.signals.holdout import SEPARATE_TEST
from brainhive_cli.reports.sentences.sentences import (
    REFERENCES,
    describe_methods,
    list_citations,
    name_papers,
)
from brainhive_cli.reports.tables.runs_shown import RunGroup, ShownRun
from brainhive_cli.training.alignment.set_ups import describe_recipe
from tests.worlds.command_fixtures import (
    ALIGN_OVERRIDES,
    COLOURS,
    DEMO,
    use_home,
)
from tests.worlds.swept_recipes import list_run_recipes

SHORT_TRAINING = tuple(ALIGN_OVERRIDES) + ("train.epochs=2", "subjects=1")
CITATIONS = re.compile(r" \((?:[^()]+ \d{4}(?:; )?)+\)")
NUMBER = re.compile(r"(?<![\w.-])\d+(?:[.,]\d+)*(?:e-?\d+)?(?![\w])")
"""A number that stands alone, unlike those in names such as top-1, PO7 or clip-b32."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with use_home(tmp_path_factory.mktemp("methods")) as home:
        yield home


@pytest.fixture(scope="module")
def runs(home, run_command):
    """Train and test an LDA on recorded fMRI, and a network on simulated EEG."""
    run_command("demo", "real=true")
    runs_of_methods = {
        "lda": [
            next(home.glob(f"runs/{command}/*"))
            for command in ("train-align", "eval-retrieval")
        ]
    }
    run_command("embed", DEMO, f"encoders=[{COLOURS!r}]")
    trained = run_command("train-align", *SHORT_TRAINING).folder
    runs_of_methods["brain-mlp"] = [
        trained,
        run_command("eval-retrieval", f"run={trained}", "sheet_rows=0").folder,
    ]
    return runs_of_methods


def make_groups(folder):
    return [RunGroup([ShownRun("run", RunFolder(folder))])]


def list_numbers(value):
    """List all numbers in nested values, also in texts, and the lengths of lists."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from list_numbers(key)
            yield from list_numbers(inner)
    elif isinstance(value, list):
        yield str(len(value))
        for inner in value:
            yield from list_numbers(inner)
    elif isinstance(value, str):
        yield from NUMBER.findall(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from (f"{value:g}", f"{value:.3g}", f"{value:,}")


@pytest.mark.nightly
def test_the_recipe_or_metrics_hold_every_number_of_the_methods(runs):
    for trained, evaluation_run in runs.values():
        recipe_numbers = set(
            list_numbers(yaml.safe_load((trained / "recipe.yaml").read_text()))
        )
        for path in (
            trained / "metrics.json",
            evaluation_run / "metrics.json",
            evaluation_run / "environment.json",
        ):
            recipe_numbers |= set(list_numbers(json.loads(path.read_text())))

        for folder in (trained, evaluation_run):
            paragraph = CITATIONS.sub("", describe_methods(make_groups(folder)))
            paragraph = re.sub(r"Brainhive \S+ and PyTorch \S+|95 %", "", paragraph)
            assert set(NUMBER.findall(paragraph)) <= recipe_numbers, paragraph


@pytest.mark.nightly
def test_a_trained_model_is_said_with_its_steps_loss_and_epoch(runs):
    for folder in runs["brain-mlp"]:
        paragraph = describe_methods(make_groups(folder))
        assert "BrainHiVE's brain MLP (Zheng et al. 2026" in paragraph
        assert "α" not in paragraph
        assert (
            "2 epochs in batches of 64 by AdamW on CLIP's contrastive loss with a "
            "learning rate of 0.002"
        ) in paragraph
        assert "The epoch with the best validation top-1 was kept" in paragraph


def test_methods_cite_only_the_data_software_and_methods_used(runs):
    for folder in runs["lda"]:
        paragraph, cited = (
            describe_methods(make_groups(folder)),
            list_citations(make_groups(folder)),
        )
        keys = re.findall(r"^@\w+\{(.+),$", cited, re.M)
        assert keys == [
            "haxby2001",
            "hanke2009",
            "mumford2012",
            "ledoit2004",
            "blankertz2011",
            "pedregosa2011",
            "brainhive",
        ]
        assert (
            "subject 1 of haxby2001 (Haxby et al. 2001; Hanke et al. 2009)" in paragraph
        )
        assert "Brainhive maintainers 2026" in paragraph
        assert "Zheng" not in paragraph + cited


def test_the_paragraph_of_a_recipe_says_what_its_model_reads(tmp_path):
    for recipe, phrase in (
        (
            "papers/brain-diffuser",
            "with penalties α of 50000 for latent, 60000 for image, 100000 for text",
        ),
        (
            "papers/samga",
            "on the sum of 3 losses with a learning rate of 0.0001, then 5e-05",
        ),
        ("demo-protocols", "last or best or test"),
    ):
        runs = list_run_recipes("train-align", recipe).values()
        set_up = merge_set_ups([describe_recipe(run, SEPARATE_TEST) for run in runs])
        folder = RunFolder(tmp_path / "runs/train-align" / recipe.replace("/", "-"))
        folder.finish(
            Measurements(
                facts=Facts(set_up={"dataset": "lab", "subjects": [1], **set_up})
            )
        )
        assert phrase in describe_methods(make_groups(folder.path))


def test_papers_are_named_by_authors_and_year():
    for keys, name in (
        ([], ""),
        (["he2020", "brainhive"], " (He and Wu 2020; Brainhive maintainers 2026)"),
        (["oquab2024", "bridge2026", "unknown"], " (Oquab et al. 2024; BRIDGE 2026)"),
    ):
        assert name_papers(keys) == name
    assert [
        key
        for key in REFERENCES
        if not re.search(r"\(\w.* \d{4}\)$", name_papers([key]))
    ] == []
