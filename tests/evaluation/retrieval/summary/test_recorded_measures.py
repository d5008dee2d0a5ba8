"""Tests of small random models and ranks against recorded numbers."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.results.measurements import ALL, BACKWARD, Measurements
from brainhive_cli.data.signals import Sensors, StudyDesign, Trials, Voxels
from brainhive_cli.evaluation.retrieval import baseline, summary
from brainhive_cli.evaluation.retrieval.baseline import (
    find_order,
    open_first_models,
    rank_by_classifiers,
)
from brainhive_cli.evaluation.retrieval.facts import RetrievalFacts
from brainhive_cli.evaluation.retrieval.folds import (
    measure_categories,
    measure_guess,
)
from brainhive_cli.evaluation.retrieval.measure import (
    measure_cell,
    open_gallery,
)
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.summary import (
    CellScores,
    compare_with_baselines,
    compare_with_guess,
    compare_with_single_runs,
    count_confusions,
    describe_control,
    describe_duplicates,
    judge_cells,
    measure_cells,
    measure_scopes,
)
from brainhive_cli.evaluation.retrieval.verification import compare_metrics
from brainhive_cli.measurement import Gallery, LabelDesign, Scores, StimulusGrouping
from brainhive_cli.training.alignment.cells import Cell
from tests.tools.recorded_numbers import metric_rows
from tests.worlds.memory_test_set import (
    DATASET,
    MemoryTestSet,
    PictureModel,
    make_runs,
    make_store,
)

COUNTS = {"train": 34, "test": 15}
WIDTH = 6


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


PICTURES = {split: draw(count, WIDTH, seed=count) for split, count in COUNTS.items()}
MIXING = draw(WIDTH, 5 * 8, seed=3)


CPU = torch.device("cpu")


class Model(PictureModel):
    """Linear model of two people."""

    def __init__(self, number=0, fold=1):
        super().__init__("looks", WIDTH, number, fold)
        self.weights = torch.linalg.pinv(MIXING) + 0.1 * draw(40, WIDTH, seed=number)

    def encode(self, trials, signals=None):
        values = torch.from_numpy(trials.averages) if signals is None else signals
        return values.flatten(1).float() @ self.weights

    def encode_pictures(self, targets, rows):
        return super().encode_pictures(targets, rows) * (1 + self.number)

    def predict(self, subject, signal):
        tokens = signal.flatten(1) @ self.weights + subject
        return {"token": tokens, "latent": (tokens[:, :4] ** 2).unflatten(1, (2, 2))}


def draw_trials(subject, split, has_voxels=False):
    """Draw noisy trials of pictures. The second person was shown fewer pictures."""
    random = np.random.default_rng([subject, split == "train"])
    # nobody was shown picture 1
    pictures = np.delete(np.arange(COUNTS[split]), 1)
    shown = np.sort(random.permutation(pictures)[subject:])
    clean = (PICTURES[split][torch.from_numpy(shown)] @ MIXING).numpy()
    signal = clean.reshape(-1, 1, 5, 8) + 4 * random.normal(size=(len(shown), 4, 5, 8))
    counts = np.resize([4, 2, 3, 4, 1], len(shown))
    is_there = np.arange(4) < counts[:, None]
    sessions = np.where(is_there, np.arange(4) % 2, -1).astype(np.int8)
    space = Sensors(list("abcde"))
    if has_voxels:
        signal = signal.reshape(len(shown), 4, 40, 1)
        masks = {"V1": np.arange(40) < 9, "V4": np.arange(40) % 3 == 0}
        space = Voxels(masks, {}, None)
    samples = signal.shape[-1]
    return Trials.from_repetitions(
        signal.astype(np.float32),
        [f"{row}" for row in shown],
        space,
        np.arange(samples) / 100,
        None if has_voxels else 100.0,
        "uV",
        {},
        counts,
        sessions=sessions,
        subject=subject,
        stimulus=shown,
        index=np.arange(len(shown)),
    )


TRIALS = {
    subject: {split: draw_trials(subject, split) for split in COUNTS}
    for subject in (1, 2)
}


def open_tests(
    *models,
    trials=TRIALS,
    dataset=DATASET,
    tests_class=MemoryTestSet,
):
    """Open a test set, which lacks the embedding of a picture for each model.

    The even and odd pictures of the study are in separate strata.
    """
    stores = {}
    for split, embeddings in PICTURES.items():
        rows = np.arange(COUNTS[split])
        is_embedded = ~np.isin(rows, [3 + model.number for model in models])
        image_ids = [f"{split} {row:02d}" for row in rows]
        concepts = [f"c{row * row % 7}" for row in rows]
        wide = embeddings @ draw(WIDTH, 50, seed=9)
        stores[split] = {
            "looks": make_store(embeddings, image_ids, concepts, is_embedded),
            "wide": make_store(wide, image_ids, concepts, is_embedded),
        }
    pictures = np.arange(COUNTS["test"])
    units = {}
    for subject, recorded_trials in trials.items():
        units[subject] = recorded_trials["test"].stimulus
    return tests_class(
        make_runs(models, dataset),
        "test",
        stores=stores,
        recorded=trials,
        study=StudyDesign(LabelDesign.free(pictures, pictures % 2), units),
    )


def recipe(*arguments):
    return Recipe.resolve("eval-retrieval", None, {}, arguments)


def describe(scores):
    """Return the numbers of scores and of their further tables."""
    described = {
        name: value
        for name, value in vars(scores).items()
        if name not in ("scopes", "ceiling", "nearest_concepts")
        and not (hasattr(value, "__len__") and len(value) == 0)
    }
    described["named"] = " ".join(scores.nearest_concepts)
    described["below"] = {
        name: describe(single_scope) for name, single_scope in scores.scopes.items()
    }
    described["ceiling"] = scores.ceiling and describe(scores.ceiling)
    return described


def test_more_repetitions_than_there_are_are_refused():
    models = [Model()]
    with pytest.raises(RecipeError, match="5"):
        measure_cell(models, open_tests(*models), recipe("repetitions=1,5"))


def test_a_gallery_is_of_all_pictures_unless_asked_otherwise():
    models = [Model(), Model(1)]
    tests = open_tests(*models)
    gallery = open_gallery(models, tests, ["train", "test"])
    shown_gallery = open_gallery(models, tests, ["train", "test"], only_shown=True)

    # 3 and 4 have no embedding; nobody was shown 1
    assert gallery.test_rows.tolist() == [0, 1, 2] + list(range(5, 15))
    assert gallery.rows["train"].tolist() == [0, 1, 2] + list(range(5, 34))
    seen = set(TRIALS[1]["test"].stimulus) | set(TRIALS[2]["test"].stimulus)
    assert len(shown_gallery.test_rows) < len(gallery.test_rows)
    assert shown_gallery.test_rows.tolist() == sorted(
        set(gallery.test_rows.tolist()) & seen
    )
    assert shown_gallery.rows["train"].tolist() == gallery.rows["train"].tolist()


NAMES = [f"p{row:02d}" for row in range(14)]


def scores(seed, count=14, fold=0, **changes):
    """Make random scores of pictures, some of which share a concept."""
    random = np.random.default_rng([seed, fold])
    names = [NAMES[row] for row in random.permutation(14)[:count]]
    table = random.permuted(np.tile(np.arange(1, 15), (count, 1)), axis=1)
    own_indexs = [NAMES.index(name) for name in names]
    ranks = table[np.arange(count), own_indexs]
    concepts = [f"c{NAMES.index(name) % 5}" for name in names]
    backward = Scores(names, ranks=random.permutation(ranks), pool=count)
    subsets = Scores(
        values={"top1_expected": random.random(count)},
        pool=4,
        description="4-way",
        scopes={
            BACKWARD: Scores(values={"top1_expected": random.random(count)}, pool=4)
        },
    )
    curve = Scores(ranks=random.integers(1, 15, (4 + fold, count)), pool=14)
    below = {
        BACKWARD: backward,
        "subsets": subsets,
        "corrections · csls": Scores(ranks=random.permutation(ranks), pool=14),
        "repetitions · 2": curve,
        "alone · a run": Scores(ranks=random.permutation(ranks), pool=14),
        "regions · V1": Scores(values={"token": random.random(count)}),
    }
    control = {
        name: random.random(31) * scale
        for name, scale in {"top1": 1, "top5": 1, "mean_rank": 9, "mrr": 1}.items()
    }
    half_ranks = random.integers(1, count + 1, (3, count))
    half_scores = Scores(
        names,
        pool=count,
        values={
            "top1": (half_ranks == 1).mean(0),
            "top5": (half_ranks <= 5).mean(0),
            "reliability": random.random(count) - 0.2,
        },
        repetitions=4 + seed,
    )
    scores = Scores(
        names,
        names,
        concepts,
        [f"run {row % 3}" for row in range(count)],
        np.array(own_indexs),
        ranks=ranks,
        pool=14,
        values={"map": 1 / ranks},
        relevant=1 + np.arange(count) % 3,
        nearest_concepts=[f"c{number}" for number in random.integers(0, 6, count)],
        train_similarities=random.random(count),
        verdict_ids=NAMES,
        verdict_ranks=table.astype(np.uint16),
        control=control,
        scopes=below,
        ceiling=half_scores,
    )
    return replace(scores, **changes)


PICTURES_OF_STUDY = np.arange(14)
STUDY = StudyDesign(
    LabelDesign.free(PICTURES_OF_STUDY, PICTURES_OF_STUDY % 2),
    {},
    concepts=(
        LabelDesign.free(PICTURES_OF_STUDY % 5, 0 * PICTURES_OF_STUDY),
        PICTURES_OF_STUDY,
    ),
)
"""Study whose even and odd pictures are in separate strata."""


def tables():
    """Make scores of two seeds in two people. The second saw fewer pictures."""
    gallery = Gallery({"test": np.arange(14)}, NAMES, [f"c{n % 5}" for n in range(14)])
    measured = {}
    for seed in (1, 2):
        cell = Cell(f"all/seed-{seed}", (1, 2), (1, 2), seed)
        people = {1: scores(1), 2: scores(2, 11)}
        if seed == 2:
            # the second training ranks other pictures first
            random = np.random.default_rng(7)
            people = {
                subject: replace(
                    one,
                    ranks=random.permutation(one.ranks),
                    verdict_ranks=random.permuted(one.verdict_ranks, axis=1),
                )
                for subject, one in people.items()
            }
        measured[cell] = gallery, people
    groups = list(summary.group_by_subject(measured).values())
    concepts = dict(zip(gallery.image_ids, gallery.concepts, strict=True))
    return CellScores(
        groups, StimulusGrouping("concept", concepts), "a test", "test", (1, 2)
    ), measured


def test_many_concepts_have_no_table_of_confusions():
    names = [f"{row}" for row in range(51)]
    assert count_confusions([Scores(concepts=names, nearest_concepts=names)]) is None
    few_confusions = count_confusions(
        [Scores(concepts=names[:50], nearest_concepts=names[:50])]
    )
    assert few_confusions is not None
    assert np.trace(few_confusions.counts) == 50


def test_pictures_with_a_twin_are_told_from_others():
    twins = np.isin(np.arange(14), [2, 5])
    compared = SimpleNamespace(image_ids=np.array(NAMES), has_equal_embedding=twins)
    job = SimpleNamespace(tests=SimpleNamespace(list_seen=lambda: [compared]))
    shown = ["p02", "p05", "p05", "p00", "p01", "p03"]
    cell = Scores(shown, shown, ranks=np.array([1, 1, 2, 1, 2, 2]))

    (line,) = describe_duplicates(job, [cell])

    assert "0.667" in line
    assert "0.333" in line
    assert (
        describe_duplicates(
            job, [replace(cell, labels=shown[:3], ranks=cell.ranks[:3])]
        )
        == []
    )
    alone = replace(cell, labels=shown[3:], ranks=cell.ranks[3:])
    assert describe_duplicates(job, [alone]) == []


@pytest.mark.parametrize("kinds", [2, 3])
def test_categories_of_trials(recorded, kinds):
    random = np.random.default_rng(kinds)
    groups = []
    for subject, count in ((1, 24), (2, 17)):
        choice = random.choice(
            kinds, count, p=[0.5, 0.5] if kinds == 2 else [0.6, 0.3, 0.1]
        )
        labels = [f"k{number}" for number in choice]
        ids = [f"{subject}/{row}" for row in range(count)]
        group = []
        for _ in range(2):
            ranks = random.integers(1, kinds + 1, count)
            cell = Scores(ids, labels, labels, ranks=ranks, pool=kinds)
            wins = random.random(count) if kinds == 2 else np.empty(0)
            group.append(replace(cell, values={"map": 1 / ranks}, auc_parts=wins))
        groups.append(group)
    cell_scores = CellScores(
        groups, StimulusGrouping(group_of={}, group_kind="runs"), "a", "test", (1, 2)
    )
    classes = measure_categories(groups, cell_scores.context)
    scopes = compare_with_guess(measure_scopes(ALL, cell_scores), cell_scores)
    of_categories = replace(cell_scores, are_categories=True)
    # labels of a single concept, which average precision counts
    shared = [[replace(one, concepts=["x"] * len(one.labels)) for one in groups[0]]]
    even = [[Scores(labels=["a", "b"], concepts=["a", "b"])]]

    recorded(
        digits=5,
        classes=metric_rows(classes),
        scopes=metric_rows(scopes[ALL]),
        categories=metric_rows(
            compare_with_guess(measure_scopes(ALL, of_categories), of_categories)[ALL]
        ),
        guess=measure_guess(groups, kinds),
        of_one_concept=measure_guess(shared, kinds),
    )
    assert measure_guess(even, 2) == {}
    balanced = [[replace(groups[0][0], labels=["a", "b"] * 12, auc_parts=np.empty(0))]]
    assert (
        measure_categories(balanced, replace(cell_scores, groups=balanced).context)
        == {}
    )


def job(*models, **options):
    """Make a job with a group for each model, which requests a ridge."""
    by_cell = {model.cell: model for model in models}
    tests = open_tests(models[0], **options)
    return SimpleNamespace(
        runs=tests.runs,
        tests=tests,
        groups=[(model.cell,) for model in models],
        recipe=recipe("baseline=ridge"),
        open_models=lambda group, device: [by_cell[group[0]]],
    )


class CategoryTests(MemoryTestSet):
    """Test set of held-out trials of two people, with a category that nobody saw."""

    def find_rows(self, split, fold=1):
        categories = self.open_person(self.models[0][0], 1).trials.stimulus
        return np.arange(categories.max() + 2)


def category_job(*models, n_categories):
    """Make a job of which the last trials of the training are held out."""
    trials = {}
    for subject, recorded_trials in TRIALS.items():
        train = recorded_trials["train"]
        rows = np.arange(len(train.stimulus))
        seen = replace(train, stimulus=rows % n_categories)
        trials[subject] = {"train": seen.take(rows[:20]), "test": seen.take(rows[20:])}
    category_job = job(*models, trials=trials, tests_class=CategoryTests)
    category_job.tests.study = None
    return category_job


def test_ranks_of_classifiers(monkeypatch, recorded):
    models = [Model(0), Model(0, fold=2), Model(1)]
    found = {}
    for n_categories in (2, 4):
        all_folds = category_job(*models, n_categories=n_categories)
        found[f"{n_categories}"] = rank_by_classifiers(all_folds, CPU)
        tests = [(each[0].number, s) for each, s in open_first_models(all_folds, CPU)]
        assert tests == [(0, 1), (0, 2), (0, 1), (0, 2)]
    one_fold = category_job(Model(0), n_categories=4)
    monkeypatch.setattr(baseline, "MAX_FEATURES", 9)
    found["of components"] = rank_by_classifiers(one_fold, CPU)
    recorded(**found)
    # none of too many
    monkeypatch.setattr(baseline, "MAX_CLASSES", 5)
    assert rank_by_classifiers(one_fold, CPU).keys() == {"lda", "logistic"}
    monkeypatch.setattr(baseline, "MAX_CLASSES", 4)
    assert rank_by_classifiers(one_fold, CPU) == {}


def test_an_order_is_found_by_a_quick_ridge(monkeypatch):
    monkeypatch.setattr(baseline, "MAX_MISFILED_P", 0.05)
    misfiled = {}
    for subject, trials in TRIALS.items():
        train = trials["train"]
        reversed_train = replace(train, stimulus=train.stimulus[::-1].copy())
        misfiled[subject] = {"train": reversed_train, "test": trials["test"]}
    order = find_order(job(Model(0), trials=misfiled), CPU)
    correct_order = find_order(job(Model(0)), CPU)
    assert order.orders == 15
    assert "training pictures" in order.order
    assert "reversed and test pictures as filed" in order.order
    assert correct_order.orders == 0
    assert correct_order.order == ""


def measured_run():
    tested, measured = tables()
    tested = replace(tested, grouping=StimulusGrouping())
    units = {f"sub-0{number}": [f"{row}" for row in range(14)] for number in (1, 2)}
    units["sub-02"] = units["sub-02"][:11]
    scopes, cells, values = measure_cells(tested, measured, units)
    ranks = [group[0].ranks for group in tested.groups]
    plain, differences = compare_with_baselines(tested, {"ridge": ranks, "lda": ranks})
    averages = summary.average_by_unit(values.values())
    slope = summary.fit_slope(*averages, protocol="a", split="test", seeds=(1,))
    scopes[summary.NEAREST] = summary.index_by_name([slope])
    facts = RetrievalFacts(
        protocol="a test",
        answers=judge_cells(tested, STUDY),
        against=compare_with_single_runs(tested, ["a run"]),
        cells=cells,
        control=describe_control("permuted", tested),
        plain=differences,
        repetitions=4,
        confusion_matrix=count_confusions(tested.tables),
    )
    return Measurements(scopes | plain, {"ceiling · sub-03": "few"}, facts, values)


def test_a_report_differs_where_a_number_does():
    measurements = measured_run()
    assert list(compare_metrics(measurements, measurements)) == []
    name = next(iter(measurements.scopes))
    metric = measurements.scopes[name]["top1"]
    for key in ("value", "n", "pool", "chance", "low", "high"):
        value = getattr(metric, key)
        changed = replace(metric, **{key: value + 1})
        scopes = {
            **measurements.scopes,
            name: {**measurements.scopes[name], "top1": changed},
        }
        (line,) = compare_metrics(replace(measurements, scopes=scopes), measurements)
        assert name in line
    rounded = replace(metric, value=metric.value * (1 + 1e-8))
    scopes = {
        **measurements.scopes,
        name: {**measurements.scopes[name], "top1": rounded},
    }
    assert (
        list(compare_metrics(replace(measurements, scopes=scopes), measurements)) == []
    )

    cell = next(iter(measurements.items))
    items = {
        cell: {
            **measurements.items[cell],
            "ranks": measurements.items[cell]["ranks"][::-1],
        }
    }
    (line,) = compare_metrics(replace(measurements, items=items), measurements)
    assert cell in line
    answers = [
        replace(single_answer, better=0.2)
        for single_answer in measurements.facts.answers
    ]
    facts = measurements.facts.model_copy(update={"answers": answers})
    assert len(
        list(compare_metrics(replace(measurements, facts=facts), measurements))
    ) == len(answers)
