"""Two concepts of several pictures: wherever a claim is made, it is about these two, and says so."""

import csv
import html
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner
from worlds import COLOURS, SMALL, Go, at_home

from brainhive_cli.app import app
from brainhive_cli.core.results import Result
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.stores.recordings import SignalStore, path_of
from brainhive_cli.data.trials import Trials
from brainhive_cli.models.encoders.python import example
from brainhive_cli.reports.sentences import state_finding

SCOPE, WIDER = "these 2 concepts", "concepts in general: not possible with 2 concepts"
SIDE = re.compile(r"\b(?:above|at|below) chance\b(?!:)(.{0,40})", re.DOTALL)
"""A verdict, and what follows it; `at chance: 0.06` is a value."""
COUNTS = {"train": (10, 6), "test": (2, 8)}
"""Concepts of each split, and pictures of each."""


class Runs(NamedTuple):
    """The training on two concepts and its evaluation, that of fewer epochs, and of wrongly filed signals."""

    trained: Path
    found: Result
    weaker: Result
    wrong: Result


def paint(path: Path, random: np.random.Generator) -> None:
    """Paint four colours: what the encoder sees."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(random.integers(0, 256, (2, 2, 3), np.uint8))
    coarse.resize((16, 16), Image.Resampling.NEAREST).save(path)


def record(home: Path, dataset: str, are_right: bool) -> None:
    """Record colours with noise in two sessions, whose pictures are the same; or those of other pictures."""
    mixing, random = np.random.default_rng(0).normal(size=(12, 5 * 20)), np.random.default_rng(1)
    module, preprocess = example()
    recordings = {}
    for split in COUNTS:
        files = sorted((home / dataset / split).rglob("*.png"))
        seen = torch.stack([preprocess(Image.open(file)) for file in files])
        evoked = ((module(seen).numpy() - 0.5) @ mixing).reshape(len(files), 1, 5, 20)
        if split == "test" and not are_right:
            evoked = random.permutation(evoked)
        signal = (evoked + 0.3 * random.normal(size=(len(files), 4, 5, 20))).astype(np.float32)
        ids = [file.relative_to(home / dataset).with_suffix("").as_posix() for file in files]
        sessions = np.tile(np.array([0, 0, 1, 1], np.int8), (len(files), 1))
        space, times = Sensors(("P7", "P8", "O1", "Oz", "O2")), np.arange(20) / 100
        recordings[split] = Trials(signal, ids, space, times, 100.0, "µV", sessions=sessions)
    path = path_of(home / "signals", dataset, "default", 1)
    path.parent.mkdir(parents=True)
    SignalStore.write(path, recordings)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, go: Go) -> Iterator[Runs]:
    with at_home(tmp_path_factory.mktemp("two")) as home:
        trained: dict[tuple[str, int], Path] = {}
        results: dict[tuple[str, int], Result] = {}
        for dataset in ("right", "wrong"):
            random = np.random.default_rng(0)
            for split, (concepts, each) in COUNTS.items():
                for number in range(concepts * each):
                    paint(home / f"{dataset}/{split}/{split}_{number // each}/{number}.png", random)
            record(home, dataset, are_right=dataset == "right")
            images = f"dataset={{kind: image-folder, root: {home / dataset}}}"
            go("embed", images, f"encoders=[{COLOURS!r}]")
            for epochs in (40, 1):
                asked = (
                    *SMALL[1:],
                    images,
                    f"train.epochs={epochs}",
                    "signal.scale=1",
                    "train.batch_size=16",
                )
                trained[dataset, epochs] = run = go("train-align", *asked).folder
                results[dataset, epochs] = go("eval-retrieval", f"run={run}", "sheet_rows=2")
        right = results["right", 40], results["right", 1]
        yield Runs(trained["right", 40], *right, results["wrong", 40])


def claims(text: str) -> list[str]:
    """List what follows each verdict of a text, which may be a page."""
    plain = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())
    return SIDE.findall(plain)


def invoke(*words: object) -> str:
    ended = CliRunner(env={"COLUMNS": "400"}).invoke(app, [*map(str, words)])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_the_finding_says_which_concepts_it_is_about_and_what_is_not_possible(made: Runs) -> None:
    finding = state_finding(made.found.metrics)

    assert f"That is better than chance (p = 0.0004) for {SCOPE}. Claims about {WIDER}." in finding
    assert f"Which concept was seen: at chance for {SCOPE} (p = " in finding
    assert "5,000 permutations" in made.found.metrics.facts.answers[0].test


def test_what_is_not_found_is_at_chance_for_these_concepts_and_never_for_concepts_in_general(
    made: Runs,
) -> None:
    facts, printed = made.wrong.metrics.facts, state_finding(made.wrong.metrics)
    invoke("report", made.wrong.folder, "--to", "wrong.html")
    page = Path("wrong.html").read_text()

    assert facts.verdict == f"at chance for {SCOPE}" and facts.answers[0].side == "at chance"
    assert WIDER in printed and "concepts in general" not in printed.replace(WIDER, "")
    for text in (printed, page):
        assert claims(text) and all(about.startswith(f" for {SCOPE}") for about in claims(text))


def test_json_has_scope_claims_and_answers_and_every_interval_says_it(made: Runs) -> None:
    metrics = json.loads(invoke("eval-retrieval", "--run", made.trained, "sheet_rows=2", "--json"))["metrics"]
    facts, of_all = metrics["facts"], metrics["scopes"]["all"]

    answers = facts["answers"]
    assert [answer["question"] for answer in answers] == ["which picture", "which concept"]
    assert [answer["scope"] for answer in answers] == [SCOPE, SCOPE] == [facts["scope"]] * 2
    assert answers[0]["wider"] == WIDER and answers[0]["words"] == f"above chance for {SCOPE}"
    assert facts["claims"] == f"2 concepts, 1 subject: statements about {SCOPE} and this subject"
    assert of_all["top1"]["interval"] == f"Wilson over 16 pictures within 2 concepts; for {SCOPE}"
    assert all(metric["interval"].endswith(f"; for {SCOPE}") for metric in of_all.values())


def test_rows_and_the_tidy_table_say_it_beside_each_interval(made: Runs) -> None:
    invoke("report", made.found.folder, "--format", "csv", "--to", "tidy.csv")

    for rows in (made.found.metrics.rows(), [*csv.DictReader(io.StringIO(Path("tidy.csv").read_text()))]):
        of_all = [row for row in rows if row["scope"] == "all"]
        assert "top1" in [row["metric"] for row in of_all]
        assert all(str(row["interval"]).endswith(f"; for {SCOPE}") for row in of_all)


def test_the_list_of_runs_and_a_run_that_is_shown_say_it(made: Runs) -> None:
    listed = [line for line in invoke("runs", "eval-retrieval").splitlines() if "finished" in line]
    shown = invoke("runs", "show", made.found.folder.name)

    assert len(listed) == 4 and all(f"), for {SCOPE}" in line for line in listed)
    assert re.search(rf"verdict +above chance for {SCOPE}\n", shown)


def test_the_page_of_a_run_says_it_in_its_first_sentence_and_with_every_verdict(made: Runs) -> None:
    invoke("report", made.found.folder, "--to", "page.html")
    page = Path("page.html").read_text()

    assert "ranked first of 16 in 100 %" in page and f"chance (p = 0.0004) for {SCOPE}." in page
    assert claims(page) and all(about.startswith(f" for {SCOPE}") for about in claims(page))
    assert f"mean rank; {WIDER}." in page  # among the methods
    assert f"95 % CI: Wilson over 16 pictures within 2 concepts; for {SCOPE}." in page


def test_a_comparison_says_it_in_its_sentence_its_test_and_its_captions(made: Runs) -> None:
    runs = made.found.folder, made.weaker.folder
    printed = invoke("compare", *runs, "--to", "both.html")
    invoke("compare", *runs, "--format", "md", "--to", "both.md")
    page, test = Path("both.html").read_text(), f"16 pictures within 2 concepts, for {SCOPE} and this subject"

    assert re.search(rf"epochs \d+ is better than epochs \d+ in top-1: .*, paired\), for {SCOPE}\.", page)
    for text in (page, Path("both.md").read_text(), " ".join(printed.split())):
        assert f"sign flips over {test}" in text
        assert all(about.startswith(f" for {SCOPE}") for about in claims(text))
    assert f"chance: 0.0625), for {SCOPE}." in Path("both.md").read_text()


def test_an_explanation_says_it_in_its_finding_and_its_intervals(made: Runs, go: Go) -> None:
    pytest.importorskip("matplotlib")
    quick = ("draws=40", "window={width_ms: 100, step_ms: 100}", "components=4")

    explained = go("explain", f"align_run={made.trained}", *quick)

    assert state_finding(explained.metrics).endswith(f", for {SCOPE}.")
    assert explained.metrics.facts.scope == SCOPE
    windows = [
        metrics["top1"]
        for name, metrics in explained.metrics.scopes.items()
        if re.fullmatch(r"windows · \d+ ms", name)
    ]
    assert windows and all(metric.interval.endswith(f"; for {SCOPE}") for metric in windows)
    assert f"for {SCOPE}" in invoke("runs", "explain")


def test_the_check_of_a_data_set_says_which_claims_its_test_split_allows(made: Runs) -> None:
    dataset = made.trained.parents[2] / "right"
    images, claims_of = (
        f"dataset={{kind: image-folder, root: {dataset}}}",
        "2 concepts, 1 subject: statements about ",
    )
    found = json.loads(invoke("check", images, "--json"))["details"]["datasets"]["right"]

    assert found["claims"] == f"{claims_of}{SCOPE} and this subject"
    assert f"; {claims_of}{SCOPE} and this subject" in " ".join(invoke("check", images).split())
