"""The closed-form ridge of an evaluation: of studies with an effect, with a wrong order, and with none."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.facts import Answer, Baseline
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.retrieval import baseline
from brainhive_cli.evaluation.retrieval.baseline import (
    ORDERS,
    Ridge,
    conclude,
    judge_ranks,
    read_targets,
    try_orders,
)
from brainhive_cli.measurement.units import Alike
from brainhive_cli.reports.sentences import explain_chance
from brainhive_cli.training.alignment.trained import TrainedModel, open_model
from tests.worlds import COLOURS, Go, at_home

CHANNELS, SAMPLES = ("Fz", "Cz", "Pz", "P7", "P8", "PO7", "PO8", "O1", "Oz", "O2", "P3", "P4"), 100
BASE = ("dataset=image-folder", f"encoders=[{COLOURS!r}]")
SMALL = ("seeds=1", "dim=64", "fuser.intermediate_size=64", "train.precision=fp32", "train.batch_size=32")
QUICK = ("sheet_rows=0", "ceiling_splits=0")
SEED = 23
"""Of a study in which both models are at chance by a wide margin, and ridge is not."""
WEAK = 0.16
"""Size of the effect by which, of 24 studies, brain-mlp finds 5, linear 4, and ridge 19."""


def record(embedding: np.ndarray, repetitions: int, split: str) -> np.ndarray:
    """Pictures' embeddings in 80 ms of the signals, in noise of 1/f: trials [N, R, C, T]."""
    random = np.random.default_rng((SEED, split == "test", 7))
    patterns = np.random.default_rng((SEED, 99)).standard_normal((embedding.shape[1], len(CHANNELS)))
    course = np.exp(-0.5 * ((np.arange(SAMPLES) / SAMPLES - 0.22) / 0.04) ** 2)
    evoked = np.einsum("nd,dc,t->nct", embedding, patterns / embedding.shape[1] ** 0.5, course)
    hz = np.fft.rfftfreq(SAMPLES)
    spectrum = np.where(hz > 0, np.maximum(hz, 1 / SAMPLES) ** -0.8, 0)
    shape = (len(embedding), repetitions, len(CHANNELS), SAMPLES)
    noise = np.fft.irfft(np.fft.rfft(random.standard_normal(shape)) * spectrum, SAMPLES)
    return (10 * (WEAK * evoked[:, None] + noise / noise.std())).astype(np.float32)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, go: Go) -> Iterator[Path]:
    """A home with a small study: 150 training pictures in four trials, 33 test pictures in eight."""
    with at_home(tmp_path_factory.mktemp("study")) as home:
        for seed, (split, count) in enumerate((("train", 150), ("test", 33))):
            random = np.random.default_rng(seed)
            for number in range(count):
                path = home / f"data/image-folder/{split}/c{number:03d}/0.png"
                path.parent.mkdir(parents=True)
                pixels = random.integers(0, 255, (2, 2, 3)).astype(np.uint8)
                Image.fromarray(pixels).resize((16, 16), Image.Resampling.NEAREST).save(path)
        go("embed", *BASE)
        stores = {
            split: TargetStore.open(next((home / f"embeddings/image-folder/{split}").glob("*.h5")))
            for split in ("train", "test")
        }
        learned = np.array(stores["train"].embedding)
        recordings = {}
        for split, repetitions in (("train", 4), ("test", 8)):
            embedding = (np.array(stores[split].embedding) - learned.mean(0)) / learned.std(0)
            signal, times_s = record(embedding, repetitions, split), np.arange(SAMPLES) / SAMPLES
            ids = list(stores[split].image_ids)
            recordings[split] = Trials(signal, ids, Sensors(CHANNELS), times_s, float(SAMPLES), "uV")
        for name, test in (
            ("default", recordings["test"].signal),
            ("turned", recordings["test"].signal[::-1]),
        ):
            path = home / f"signals/image-folder/{name}/sub-01.h5"
            path.parent.mkdir(parents=True)
            altered = Trials(test, recordings["test"].image_ids, Sensors(CHANNELS), times_s, 100.0, "uV")
            SignalStore.write(path, {"train": recordings["train"], "test": altered})
        yield home


def train(go: Go, kind: str, *more: str) -> Path:
    return go("train-align", *BASE, *SMALL, f"backbone.kind={kind}", "train.epochs=10", *more).folder


@pytest.mark.parametrize("kind", ["brain-mlp", "linear"])
def test_a_ridge_finds_what_a_model_at_chance_does_not(study, go, capsys, kind):
    metrics = go("eval-retrieval", f"run={train(go, kind)}", *QUICK).metrics

    explained, metric = metrics.facts.baseline, metrics.scopes["baseline · ridge"]["top1"]
    assert metrics.facts.verdict == "at chance" and metrics.facts.answers[0].p > 0.2
    assert explained.answer.side == "above chance" and explained.answer.p < 0.01 and not explained.order
    assert (metric.n, metric.pool, metric.chance) == (33, 33, pytest.approx(1 / 33))
    assert "150 training signals" in metric.protocol
    warned = " ".join(capsys.readouterr().err.split())
    assert explain_chance(metrics) in warned and "ridge on the same signals is above chance" in warned
    assert "belong together" not in warned


def test_table_and_page_show_the_ridge_beside_the_run(study, go):
    result = go("eval-retrieval", f"run={train(go, 'linear')}", *QUICK)

    (table,) = [table for table in result.tables if "ridge" in table.title]
    assert [row[0] for row in table.rows[:2]] == ["this run", "ridge"] and "n 33, pool 33" in table.note
    go("report", f"runs=[{result.folder}]")
    pages = "".join(path.read_text() for path in (study / "reports").rglob("*.html"))
    assert "closed-form ridge on the same signals" in pages


def test_without_a_ridge_the_question_remains_with_the_reason(study, go, capsys):
    run = train(go, "linear", "train.shuffled_labels=true")

    unfitted, none = (
        go("eval-retrieval", f"run={run}", *QUICK, *more).metrics for more in ((), ("baseline=none",))
    )

    assert unfitted.facts.baseline == Baseline(reason="the cells were trained on shuffled labels")
    assert none.facts.baseline is None and "baseline · ridge" not in none.scopes
    question = "signals and pictures belong together as they are filed"
    assert " ".join(capsys.readouterr().err.split()).count(question) == 2


def test_test_pictures_that_were_filed_in_reversed_order_are_named(study, go):
    metrics = go("eval-retrieval", f"run={train(go, 'linear', 'signal.name=turned')}", *QUICK).metrics

    found = metrics.facts.baseline
    assert metrics.facts.verdict == "at chance" and found.order_p < 0.05
    assert found.order == "training pictures of subject 1 as filed and test pictures reversed"


def explain(
    seed: int, effect: float, subjects: int = 1, learned: str = "as filed", tested: str = "as filed"
) -> tuple[Baseline, list[tuple[float, str]]]:
    """Fit ridges, and give what they say, and the orders that were tried.

    Signals [n, 40] are of the targets of 100 training and 24 test pictures, in noise.

    Signals of the last subject lie in other orders than the pictures, which `ORDERS` bring into these.
    """
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.standard_normal(shape)).float()

    known, candidates, rows, alike = draw(100, 12), draw(24, 12), np.arange(24), Alike()
    ranks, shown, tried = [], [], []
    for subject in range(1, subjects + 1):
        mixing = effect * draw(12, 40) / 12**0.5
        train, test = (targets @ mixing + draw(len(targets), 40) for targets in (known, candidates))
        if subject == subjects:
            train, test = train[ORDERS[learned](np.arange(100)).copy()], test[ORDERS[tested](rows).copy()]
        orders = {name: refile(np.arange(100)).copy() for name, refile in ORDERS.items()}
        ridge = Ridge(subject, train, known, orders, test, rows)
        ranks.append(ridge.rank(candidates))
        shown.append(rows)
        tried += try_orders(ridge, ranks[-1], candidates, rows, alike)
    verdict = judge_ranks(ranks, shown, rows, alike)
    return conclude(verdict, tried), sorted(tried)


@pytest.mark.parametrize(
    ("effect", "learned", "tested"), [(0.6, "as filed", "reversed"), (0.8, "reversed", "as filed")]
)
def test_the_reversed_order_of_one_split_is_found(effect, learned, tested):
    found, tried = explain(0, effect, learned=learned, tested=tested)

    assert found.orders == len(tried) == 15
    assert (
        found.order == tried[0][1] == f"training pictures of subject 1 {learned} and test pictures {tested}"
    )


@pytest.mark.parametrize("neighbour", ["after", "before"])
def test_triggers_that_are_off_by_one_in_both_splits_are_found(neighbour):
    """The ridge learns from wrong labels, so it is fitted anew with each order of the training pictures."""
    order = f"shifted by one (each signal shows the picture {neighbour})"

    found, _ = explain(1, 0.8, learned=order, tested=order)

    assert found.order == f"training pictures of subject 1 {order} and test pictures {order}"


def test_a_misfiled_subject_is_named_among_others_who_are_not():
    found, _ = explain(2, 0.6, subjects=3, tested="reversed")

    assert found.order == "training pictures of subject 3 as filed and test pictures reversed"


def test_noise_is_called_misfiled_in_one_of_twenty_studies_at_most():
    """Of 60 studies 3 are expected at most; 7 or more have a probability of .03 where it is one of twenty.

    Of 300 it was 12, with three subjects 12.
    """
    found = [explain(seed, 0.0)[0] for seed in range(60)]

    assert sum(each.order != "" for each in found) <= 6
    assert sum(each.answer.side != "above chance" for each in found) >= 48


@pytest.mark.parametrize(
    ("tried", "order"),
    [
        ([], ""),
        ([(0.03, "reversed"), (0.5, "shifted")], ""),
        ([(0.02, "reversed"), (0.5, "shifted")], "reversed"),
    ],
)
def test_an_order_is_named_where_it_is_above_chance_for_all_that_were_tried(tried, order):
    ridge = Answer("which picture", 0.25, 0.75, 0.0002, 33, 33, "test")

    found = conclude(ridge, tried)

    assert (found.order, found.orders, found.answer) == (order, len(tried), ridge)
    assert found.order_p == (0.04 if order else None)


def test_targets_of_any_width_are_projected_so_that_their_products_stay(study, go, monkeypatch):
    """A count sketch of 12 numbers to 6 keeps products in the mean: those of one picture stay largest."""
    run = open_model(str(train(go, "linear")), Paths())
    member, rows = TrainedModel(run, run.cells[0], torch.device("cpu")), np.arange(33)

    full = read_targets(member, "test", rows, torch.device("cpu"))
    monkeypatch.setattr(baseline, "TARGET_WIDTH", 6)
    sketch = read_targets(member, "test", rows, torch.device("cpu"))

    assert full.shape == (33, 12) and sketch.shape == (33, 6)
    products = [(part @ part.T)[np.triu_indices(33, 1)] for part in (full, sketch)]
    assert np.corrcoef(*products)[0, 1] > 0.3
