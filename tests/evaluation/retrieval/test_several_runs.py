"""Several runs: averaged, and compared item by item."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from brainhive_cli import aligner
from brainhive_cli.commands.eval_retrieval import Recipe, inputs, work
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.trials import Trials
from brainhive_cli.measurement.comparison import FOLDS, compare_ranks
from brainhive_cli.measurement.statistics import flip_signs
from brainhive_cli.measurement.units import Items

DATASET = "demo-noise-0.3-40-concepts"
ENCODER = "brainhive_cli-models-encoders-python-example"


@pytest.fixture
def weaker(world: Path, go, small, trained) -> Path:
    """A second run of the same cells, trained for one epoch."""
    return go("train-align", *small, "train.epochs=1").folder


def cosines(run: Path, home: Path, subject: int) -> tuple[torch.Tensor, np.ndarray]:
    """Without the pipeline's code: cosine of each test signal [N] with each test picture [M], and targets."""
    model = aligner.load(run / "cells" / f"sub-{subject:02d}_seed-1" / "model")
    recording = SignalStore.open(home / f"signals/{DATASET}/default/sub-{subject:02d}.h5")["test"]
    store = TargetStore.open(home / f"embeddings/{DATASET}/test/{ENCODER}.h5")
    with torch.inference_mode():
        signal = model.encode_signal(torch.from_numpy(0.2 * np.asarray(recording.signal).mean(1)), None)
        image = model.encode_image({ENCODER: torch.from_numpy(np.array(store.embedding))})
    target = np.array([store.image_ids.index(image_id) for image_id in recording.image_ids])
    return torch.cosine_similarity(signal[:, None], image[None], dim=2).double(), target


def ranked(similarity: torch.Tensor, target: np.ndarray) -> list[int]:
    return (similarity >= similarity[np.arange(len(target)), target][:, None]).sum(1).tolist()


def test_an_ensemble_averages_the_similarities_of_its_runs(go, world, trained, weaker):
    metrics = go("eval-retrieval", f"run=[{trained}, {weaker.name}]", "sheet_rows=2").metrics

    for subject in (1, 2):
        (one, target), (other, _) = (cosines(run, world, subject) for run in (trained, weaker))
        cell = metrics.items[f"sub-{subject:02d}_seed-1 · sub-{subject:02d}"]
        assert cell["ranks"] == ranked((one + other) / 2, target)
        assert cell["ranks"] != ranked(one, target)
        assert cell["backward_ranks"] == ranked(((one + other) / 2).T, np.argsort(target))
    assert metrics.facts.protocol.startswith(f"intra, {DATASET}, mean of 2 runs, ")
    assert metrics.facts.runs == [str(trained), str(world / "runs/train-align" / weaker.name)]


def test_runs_of_other_subjects_are_not_averaged(go, world, trained, small):
    alone = go("train-align", *small, "subjects=2", "train.epochs=1").folder

    with pytest.raises(BrainhiveError, match="not tested on the same subjects") as caught:
        go("eval-retrieval", f"run=[{trained}, {alone}]")
    assert str(trained) in caught.value.message and str(alone) in caught.value.message
    both = go("eval-retrieval", f"run=[{trained}, {alone}]", "subjects=2", "sheet_rows=0").metrics
    assert [cell.subject for cell in both.facts.cells.values()] == ["sub-02"]


def test_two_runs_are_compared_item_by_item(go, world, trained, weaker):
    result = go("eval-retrieval", f"run={trained}", f"against={weaker},{trained.name}", "sheet_rows=0")

    worse, same = result.metrics.facts.against
    hits = [[np.array(ranked(*cosines(run, world, s))) == 1 for s in (1, 2)] for run in (trained, weaker)]
    one, other = (np.concatenate(each) for each in hits)
    assert (worse.only_first, worse.only_second) == ((one & ~other).sum(), (other & ~one).sum())
    assert worse.difference == pytest.approx(one.mean() - other.mean()) and worse.difference > 0
    assert worse.n == 200 and worse.subjects == 2
    assert worse.second == str(weaker)
    assert same.difference == 0 and same.p_value == 1
    assert worse.test == "sign flips over 100 pictures, for these 2 subjects"
    flips = flip_signs([a * 1.0 - b for a, b in zip(*hits, strict=True)], Items.unnamed([100, 100]))
    assert worse.p_value == flips.p and 0 < worse.low <= flips.low and flips.high <= worse.high
    paired = "no narrower than that of paired shares"
    assert worse.interval == f"inversion of: {worse.test}, {paired}" and not worse.limits
    assert worse.least_p == flips.least_p and 0 < worse.p_value < 0.05 and worse.low > 0.03
    assert worse.p_adjusted == pytest.approx(min(1, 2 * worse.p_value))
    assert [(row.tests, row.tests_of) for row in (worse, same)] == [(2, "1 metric × 2 pairs")] * 2
    (table,) = (table for table in result.tables if table.title.startswith("Differences"))
    assert len(table.rows) == 2 and "over 2 tests: 1 metric × 2 pairs" in table.note
    assert worse.test in table.note
    assert "p_value" in result.as_dict()["metrics"]["facts"]["against"][0]


def test_a_comparison_says_that_folds_share_training_subjects(go, world, trained, weaker):
    result = go("eval-retrieval", f"run={trained}", f"against={weaker}", "sheet_rows=0")
    other = go("eval-retrieval", f"run={weaker}", "sheet_rows=0").metrics
    assert result.metrics.facts.mode == other.facts.mode == "intra"

    (found,), _ = compare_ranks({("one", "folds"): (result.metrics, other.stating(mode="inter"))})

    assert FOLDS in found.limits and FOLDS not in result.metrics.facts.against[0].limits
    (table,) = (table for table in result.tables if table.title.startswith("Differences"))
    assert "for these 2 subjects; p not adjusted" in table.note


def test_runs_on_other_subjects_or_galleries_are_not_compared(go, world, trained, small, tmp_path):
    alone = go("train-align", *small, "subjects=2", "train.epochs=1").folder
    noisier = ("dataset={kind: demo, noise: 0.6, subjects: 2}",)
    go("embed", *noisier, "encoders=['python:brainhive_cli.models.encoders.python:example']")
    elsewhere = go("train-align", *small, *noisier, "train.epochs=1").folder

    with pytest.raises(BrainhiveError, match=r"\(sub-01, sub-02\) and .* \(sub-02\) have different subjects"):
        go("eval-retrieval", f"run={trained}", f"against={alone}", "sheet_rows=0")
    with pytest.raises(BrainhiveError, match="were tested on different galleries") as caught:
        go("eval-retrieval", f"run={trained}", f"against={elsewhere}", "sheet_rows=0")
    for run in (trained, elsewhere):
        assert str(run) in caught.value.message


def test_the_inputs_name_all_runs_and_what_is_missing(world, trained, weaker):
    what = Recipe.resolve("eval-retrieval", None, {}, [f"run=[{trained}, {weaker}]", "repetitions=[1]"])
    nothing = Recipe.resolve("eval-retrieval", None, {}, ["run=nowhere"])

    listed = inputs(what)

    assert [one.name for one in listed if one.name.startswith("run ")] == [f"run {trained}", f"run {weaker}"]
    assert (work(what).count, work(what).cells) == (2, 2) and not describe_missing(listed)
    assert any("no train-align run 'nowhere'" in line for line in describe_missing(inputs(nothing)))


def test_without_a_data_set_or_subjects_a_model_folder_says_what_is_missing(go, world, trained):
    model = trained / "cells" / "sub-01_seed-1" / "model"

    with pytest.raises(MissingData, match="--dataset and --subjects missing") as caught:
        go("eval-retrieval", f"run={model}")
    assert f"--run {model} --dataset" in caught.value.hint
    with pytest.raises(MissingData, match="test it on: --subjects missing"):
        go("eval-retrieval", f"run={model}", "dataset=demo")


def test_runs_that_averaged_other_numbers_of_repetitions_are_compared_with_a_word_about_it(
    go, world, trained, small, tmp_path
):
    stores = tmp_path / "signals/demo-noise-0.3-40-concepts"
    for subject in (1, 2):
        source = SignalStore.open(world / f"signals/demo-noise-0.3-40-concepts/default/sub-{subject:02d}.h5")
        fewer = {"train": source["train"], "test": first_repetitions(source["test"], 2)}
        SignalStore.write(stores / f"default/sub-{subject:02d}.h5", fewer)
    signals, runs = f"paths.signals={tmp_path / 'signals'}", f"paths.runs={tmp_path / 'runs'}"
    of_two = go("eval-retrieval", f"run={trained}", signals, runs, "sheet_rows=0")
    of_all = go("eval-retrieval", f"run={trained}", "sheet_rows=0")

    assert "2 repetitions averaged" in of_two.tables[0].note
    (found,), _ = compare_ranks({("all", "two"): (of_all.metrics, of_two.metrics)})
    assert found.differs == ["repetitions 16, not 2"]
    assert found.limits[0] == "the two were tested on other signals: repetitions 16, not 2"
    runs = f"runs=[{of_all.folder}, {of_two.folder}]"
    page = go("compare", runs, "format=md", f"to={tmp_path / 'table.md'}")
    assert "repetitions 16, not 2" in page.tables[0].title


def first_repetitions(recording: Trials, count: int) -> Trials:
    fewer = np.full(len(recording.image_ids), count)
    return replace(recording, signal=np.asarray(recording.signal)[:, :count], repetitions=fewer)


def test_what_two_compared_runs_differ_in_is_a_table(go, world, trained, weaker):
    result = go("eval-retrieval", f"run={trained}", f"against={weaker}", "sheet_rows=0")

    (table,) = (each for each in result.tables if each.title.startswith("This run differs"))
    assert [line for _, line in table.rows] == result.metrics.facts.against[0].differs
    assert "epochs 20, not 1" in [line for _, line in table.rows]
