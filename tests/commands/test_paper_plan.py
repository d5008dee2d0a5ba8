"""The plan of a paper, offline: sizes, terms, time, memory, score and lines, in a few rows."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import workflow
from brainhive_cli.commands.paper_plan import describe_time, plan_paper, published_weights
from brainhive_cli.core.recipe import shipped_recipes
from brainhive_cli.core.results import Plan, Work

PAPERS = sorted(path.name for path in (shipped_recipes() / "papers").iterdir())


@pytest.fixture(autouse=True)
def nothing(home: Path, image_networks_absent: Path) -> Path:
    return home


def rows_of(paper: str) -> list[tuple[str, str]]:
    recipe = workflow.Recipe.resolve("workflow", f"papers/{paper}", {}, ())
    return [(str(item), str(value)) for item, value in plan_paper(f"papers/{paper}", recipe).rows]


def test_a_plan_of_any_recipe_of_a_paper_begins_with_what_the_paper_takes(nothing: Path) -> None:
    shown = CliRunner().invoke(app, ["train-align", "--recipe", "papers/nice", "--check", "--json"])

    plan: dict[str, Any] = json.loads(shown.stdout)
    rows = [(row["item"], row["value"]) for row in plan["tables"][0]["rows"]]
    items = dict(rows)
    assert items["published"].startswith("top-1 0.161, top-5 0.436 (intra, 10 subjects, 200 candidates")
    assert items["data"].startswith("things-eeg: about 25.9 GB")  # float16 of ten subjects, as published
    assert "osf.io/3jk45" in items["terms"] and "(1.7 GB, MIT)" in items["weights"]
    assert items["disk"].startswith("about 27.6 GB to get, 51.4 MB of targets")  # 16,740 × 1536 × 2
    lines = [value for item, value in rows if item in ("lines", "")]
    assert lines == [
        "brainhive fetch things-eeg",
        "brainhive embed dataset=things-eeg 'encoders=[clip-l14]'",
        "brainhive train-align --recipe papers/nice",
        "brainhive eval-retrieval",
    ]


def test_a_recipe_of_ones_own_in_a_folder_of_that_name_is_no_paper(nothing: Path) -> None:
    (nothing / "papers").mkdir()
    (nothing / "papers/mine.yaml").write_text("dataset: things-eeg\nencoders: [clip-l14]\n")
    line = ["train-align", "--recipe", str(nothing / "papers/mine.yaml"), "--check", "--json"]

    shown = CliRunner().invoke(app, line)

    assert shown.exit_code == 3, shown.stderr
    assert not any("To repeat" in table["title"] for table in json.loads(shown.stdout).get("tables", ()))


def test_lines_name_earlier_trainings_by_their_recipe_and_repeat_nothing_that_a_recipe_says() -> None:
    lines = [value for item, value in rows_of("mindeye2") if item in ("lines", "")]

    assert lines[-3:] == [
        "brainhive train-align --recipe papers/mindeye2-1h",
        "brainhive eval-retrieval --recipe papers/mindeye2 align_run=papers/mindeye2-1h",
        "brainhive reconstruct --recipe papers/mindeye2 align_run=papers/mindeye2-1h",
    ]


def test_published_and_measured_times_are_told_apart(nothing: Path) -> None:
    assert dict(rows_of("brainhive-intra"))["time there"].startswith("93 s a subject on an RTX 5090")
    assert dict(rows_of("brainhive-intra"))["time here"] == "known after the first run of each step"
    assert dict(rows_of("brainhive-prior"))["time there"].startswith("about 15 h on two large GPUs")
    assert "8 h a subject on one A100" in dict(rows_of("mindeye1-lowlevel"))["time there"]
    assert dict(rows_of("nice"))["time there"] == "not known"

    # by the pace of each device
    work = Work("things-eeg, nice", 200, "epochs of a subject")
    (nothing / "runs").mkdir()
    for device, seconds in (("CPU", 40.0), ("GPU", 10.0)):
        work.remember(nothing / "runs", work.key("train-align", device, 1), seconds, 0)
    steps = {"train": (workflow.Job("brainhive train-align", None, None), Plan({}, work=work))}
    assert describe_time(steps, nothing / "runs") == "train: 40 s on CPU; train: 10 s on GPU"


def test_what_a_plan_does_not_list_is_not_said_to_be_nothing() -> None:
    rows = rows_of("brainhive-prior")
    assert dict(rows)["disk"].startswith("an unknown amount to get")
    assert ("lines", "brainhive fetch imagenet") in rows


def test_weights_that_are_named_by_folder_and_by_file_count_once() -> None:
    assert dict(rows_of("havir"))["weights"].startswith("about 12.3 GB")  # 3.4 + 6.8 + 1.2 + .49 + .33


def test_every_paper_has_steps_from_its_data_to_its_number_and_weights_of_known_size() -> None:
    needed = set()
    for paper in PAPERS:
        folder = shipped_recipes() / "papers" / paper
        plan = workflow.plan(workflow.Recipe.resolve("workflow", f"papers/{paper}", {}, ()))
        needed |= {need.name for need in plan.needs}

        # what is missing is got by nobody but the reader
        lacking = [need.name for need in plan.needs if need.is_missing]
        assert plan.missing and not any(name.startswith(("embeddings/", "run ")) for name in lacking), lacking
        lines = [line for line in plan.missing if re.search("brainhive (embed|prepare|train-align)", line)]
        assert not lines, lines

        # the last step is what the recipe's folder is for
        ends = {"reconstruct": "reconstruct", "train-prior": "train-prior", "train-align": "eval-retrieval"}
        last = next((ends[file] for file in ends if (folder / f"{file}.yaml").is_file()), "prepare")
        assert shlex.split([*plan.items.values()][-1])[1] == last
    assert published_weights().keys() <= needed


@pytest.mark.parametrize(
    "paper", ["brainhive-meg", "alignvis-nsd", "mindeye2-sessions", "neurons", "things-eeg1"]
)
def test_a_plan_says_data_disk_and_the_line_for_all_of_it(paper: str) -> None:
    rows = rows_of(paper)

    items = dict(rows)
    assert (
        items["data"] and items["disk"] and items["or all"] == f"brainhive workflow --recipe papers/{paper}"
    )
    assert not any("<" in value for item, value in rows if item in ("lines", ""))
