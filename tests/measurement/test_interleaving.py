"""Labels that may be exchanged, by the order of trials in time."""

import numpy as np
import pytest

from brainhive_cli.core.measurements import NOT_INTERLEAVED, ORDER_UNKNOWN
from brainhive_cli.measurement.interleaving import Interleaving, list_caveats
from brainhive_cli.measurement.trial_order import TrialOrder, p_of_transitions

RUNS, LABELS, EACH = 6, 4, 10


def sequence(random: np.random.Generator, design: str) -> np.ndarray:
    """One run of four labels, ten trials each."""
    labels = random.permutation(LABELS)
    if design == "two at a time":
        return np.concatenate(
            [random.permutation(np.repeat(part, EACH)) for part in np.split(labels, 2)]
        )
    return {
        "random": random.permutation(np.repeat(labels, EACH)),
        "blocks": np.repeat(labels, EACH),
        "blocks in one order": np.repeat(np.arange(LABELS), EACH),
        "a label a run": np.full(LABELS * EACH, labels[0]),
    }[design]


def order_of(design: str) -> tuple[TrialOrder, np.ndarray]:
    """Six runs, and the run of each trial."""
    random = np.random.default_rng(0)
    if design == "one random order":
        labels = np.tile(sequence(random, "random"), RUNS)
    else:
        labels = np.concatenate([sequence(random, design) for _ in range(RUNS)])
    run = np.repeat(np.arange(RUNS), LABELS * EACH)
    onset = np.tile(np.arange(LABELS * EACH) * 2.0, RUNS)
    return TrialOrder.from_trials(
        np.arange(len(labels)), labels.tolist(), None, run, onset
    ), run


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("design", "parts"),
    [
        ("random", RUNS),
        ("two at a time", 2 * RUNS),  # the halves of runs
        ("blocks", None),
        ("a label a run", None),
        ("one random order", None),
    ],
)
def test_interleaved_single_trials_exchange_labels(design, parts):
    """Issue 60, row 1: labels in blocks were exchanged freely, so that noise that
    drifts was above chance in all of 5 studies.
    """
    order, run = order_of(design)

    found = Interleaving.from_trials(order, np.zeros_like(run), "trials")

    assert bool(found.problem) == (parts is None)
    # halves, or quarters by chance
    assert parts is None or len(set(found.parts)) in (parts, 2 * parts)
    assert found.follows_time == (design != "random")


def test_held_out_runs_exchange_blocks_in_different_orders():
    """Issue 60, row 1: noise in blocks of one order in all runs was above chance."""
    for design, blocks, problem in (
        ("random", RUNS * LABELS * EACH, ""),
        ("blocks", RUNS * LABELS, ""),
        ("blocks in one order", None, "the same order in all runs"),
        # what comes at one time of all runs is a block
        ("one random order", LABELS * EACH, ""),
    ):
        order, run = order_of(design)
        found = Interleaving.from_trials(order, run, "runs")
        assert problem in found.problem and bool(found.problem) == bool(problem)
        assert blocks is None or len(set(found.blocks)) == blocks


@pytest.mark.parametrize(
    ("sessions_of", "parts"), [("concept", None), ("two concepts", 10), ("drawn", 10)]
)
def test_concepts_in_separate_sessions_cannot_be_tested(sessions_of, parts):
    """Issue 60, row 2: such concepts were exchanged freely. Twenty concepts of six
    pictures; of a concept, pictures are exchanged.
    """
    concept = np.repeat(np.arange(20), 6)
    drawn = np.random.default_rng(0).permutation(np.arange(120) % 10)
    session = {"concept": concept, "two concepts": concept // 2, "drawn": drawn}[
        sessions_of
    ]
    order = TrialOrder.from_trials(
        np.arange(120), concept.tolist(), session, None, None
    )

    found = Interleaving.from_pictures(order, np.zeros(120, np.int64))

    assert (found.concept_parts is None) == (parts is None)
    assert bool(found.concept_problem) == (parts is None)
    assert parts is None or len(set(found.concept_parts)) == parts
    assert found.follows_time == (sessions_of != "drawn")


KINDS, PICTURES = 6, 60


def kinds_in_order(design: str, runs: int) -> tuple[TrialOrder, np.ndarray]:
    """Sixty pictures of six kinds, shown once in each run; and the kind of each."""
    random = np.random.default_rng(0)
    kind = np.arange(PICTURES) % KINDS
    features = 2 * random.normal(size=(KINDS, 8))[kind]
    features += random.normal(size=features.shape)
    position = []
    for _ in range(runs):
        key = {
            "sorted": kind,
            "blocks of kinds": random.permutation(KINDS)[kind],
            "two groups": kind // 3,
        }.get(design, np.zeros(PICTURES))
        position.append(np.argsort(np.lexsort((random.random(PICTURES), key))))
    order = TrialOrder.from_trials(
        np.tile(np.arange(PICTURES), runs),
        [*range(PICTURES)],
        None,
        np.repeat(np.arange(runs), PICTURES),
        np.concatenate(position),
        features.astype(np.float32),
    )
    return order, kind


@pytest.mark.parametrize("runs", [1, 5])
@pytest.mark.parametrize(
    ("design", "together"),
    [("random", 6), ("two groups", 3), ("sorted", 1), ("blocks of kinds", 1)],
)
def test_pictures_exchange_labels_with_simultaneous_kinds(design, together, runs):
    """Issue 84, row 1: pictures sorted by kind were exchanged freely, so that noise
    with a trend was better than chance.
    """
    order, kind = kinds_in_order(design, runs)

    found = Interleaving.from_pictures(order, np.zeros(PICTURES, np.int64))

    assert found.follows_time == (design != "random")
    if not found.problem:
        groups: dict[object, set[int]] = {}
        for part, number in zip(found.parts, kind.tolist(), strict=True):
            groups.setdefault(part, set()).add(number)
        assert max(map(len, groups.values())) == together
    assert not found.problem or together == 1


@pytest.mark.nightly
def test_single_trials_are_not_exchanged_across_blocks_of_kinds():
    """Issue 84, row 1: each label came once a run, so that no label was in a block."""
    order, kind = kinds_in_order("blocks of kinds", 5)
    trials = order._replace(
        item=np.arange(len(order.item)),
        label=order.item,
        features=order.features[order.item],
    )

    found = Interleaving.from_trials(trials, order.run, "runs")

    kinds = kind[order.item].tolist()
    pairs = {*zip(found.parts, kinds, strict=True)}
    assert found.follows_time
    assert found.problem or len(pairs) <= 1.2 * len({*found.parts})


@pytest.mark.parametrize("design", ["one order", "in a row"])
def test_pictures_in_one_order_or_in_a_row_follow_time(design):
    """Issue 84, row 2: such orders passed without a word."""
    random, runs = np.random.default_rng(0), 6
    shown = np.tile(random.permutation(PICTURES), runs)
    run = np.repeat(np.arange(runs), PICTURES)
    if design == "in a row":
        shown, run = np.sort(shown), 0 * run
    order = TrialOrder.from_trials(
        shown, [*range(PICTURES)], None, run, np.arange(len(shown))
    )

    found = Interleaving.from_pictures(order, np.zeros(PICTURES, np.int64))

    assert found.follows_time and not found.problem


def test_labels_that_predict_the_next_label_are_found():
    """Issue 84, row 5: random orders have such pairs by chance alone."""
    random = np.random.default_rng(0)
    cycles = np.tile(np.arange(LABELS), EACH)
    turned = np.concatenate([np.roll(cycles, row) for row in (0, 1, 3, 2, 1)])
    run = np.repeat(np.arange(5), len(cycles))

    def p_of(labels: np.ndarray) -> float:
        items = np.arange(len(labels))
        onset_s = np.arange(len(labels))
        return p_of_transitions(
            TrialOrder.from_trials(items, labels.tolist(), None, run, onset_s)
        )

    shuffled = [random.permuted(turned.reshape(5, -1), axis=1) for _ in range(40)]
    small = [p_of(labels.ravel()) <= 0.1 for labels in shuffled]
    assert p_of(turned) <= 0.005 and sum(small) <= 10


def test_pictures_are_exchanged_within_their_fold_and_concept():
    picture = np.arange(80)
    fold, concept = picture // 2 % 2, picture % 2
    shown = np.random.default_rng(0).permutation(picture)
    order = TrialOrder.from_trials(shown, concept.tolist(), None, None, picture)

    found = Interleaving.from_pictures(order, fold)

    pairs = [*zip(fold.tolist(), concept.tolist(), strict=True)]
    assert len(set(found.parts)) == len({*zip(found.parts, pairs, strict=True)}) == 4
    # concepts are exchanged within folds, and so are pictures of concepts of their own
    by_fold = {*zip(found.concept_parts, fold.tolist(), strict=True)}
    assert len(set(found.concept_parts)) == len(by_fold) == 2
    alone = order._replace(label=picture)
    found = Interleaving.from_pictures(alone, fold)
    assert len({*zip(found.parts, fold.tolist(), strict=True)}) == 2
    assert len(set(found.parts)) == 2 and found.concept_parts is None


def test_caveats_name_orders_that_tell_labels_and_unknown_ones():
    known = Interleaving([0], [0])
    drifting = Interleaving([0], [0], follows_time=True)
    unknown = Interleaving([0], [0], is_known=False)
    for orders, has_seen, caveats in (
        ([known], True, []),
        ([known, drifting], False, [NOT_INTERLEAVED]),
        ([unknown, known], True, [ORDER_UNKNOWN]),
        ([unknown], False, []),
    ):
        assert list_caveats(orders, has_seen) == caveats


def show_series(
    order_of_concepts: str, blocks: int = 7, concepts: int = 10
) -> tuple[TrialOrder, np.ndarray]:
    """Show each concept once a block, in three pictures. Return the blocks, too."""
    random = np.random.default_rng(1)
    orders = [random.permutation(concepts) for _ in range(blocks)]
    if order_of_concepts == "equal":
        orders = orders[:1] * blocks
    concept = np.repeat(np.concatenate(orders), 3)
    block = np.repeat(np.arange(blocks), 3 * concepts)
    count = len(concept)
    features = 2 * random.normal(size=(concepts, 8))[concept]
    features += random.normal(size=features.shape)
    order = TrialOrder.from_trials(
        np.arange(count),
        concept.tolist(),
        None,
        block,
        np.arange(count),
        features.astype(np.float32),
    )
    return order, block


def test_concepts_in_series_are_exchanged_within_held_out_runs():
    """Noise that drifts is alike in a series, so a series keeps a common label."""
    order, block = show_series("different")
    found = Interleaving.from_pictures(order, block + 1)
    assert found.has_series
    assert found.concept_parts == block.tolist()
    assert not found.concept_problem
    assert not found.follows_time


def test_interleaved_concepts_are_exchanged_within_held_out_runs():
    """A run shows each concept once, so by design concepts may change places in it."""
    random = np.random.default_rng(0)
    concept = np.concatenate([random.permutation(8) for _ in range(6)])
    run = np.repeat(np.arange(6), 8)
    pictures = np.arange(len(run))
    order = TrialOrder.from_trials(pictures, concept.tolist(), None, run, pictures)
    found = Interleaving.from_pictures(order, run + 1)
    assert found.concept_parts == run.tolist()
    assert not found.concept_problem
    assert not found.has_series


@pytest.mark.parametrize(
    ("order_of_concepts", "folds"), [("equal", "blocks"), ("different", "pictures")]
)
def test_series_are_not_exchanged_if_time_reveals_them(order_of_concepts, folds):
    # the same order in all runs, or trials of the tested run in training
    order, block = show_series(order_of_concepts)
    fold = block if folds == "blocks" else np.arange(len(block)) % 3
    found = Interleaving.from_pictures(order, fold + 1)
    assert not found.has_series
    assert found.concept_parts is None
    assert "concepts" in found.concept_problem
    assert ("same order" in found.concept_problem) == (order_of_concepts == "equal")
    assert found.follows_time


@pytest.mark.parametrize("sizes", [(4, 5), (3, 8), (40, 5)])
@pytest.mark.parametrize("is_a_run", [True, False])
def test_features_without_concepts_do_not_hide_blocks(sizes, is_a_run) -> None:
    """Borders between stretches of time also lie where the concept changes."""
    n_concepts, n_pictures = sizes
    label = np.repeat(np.arange(n_concepts), n_pictures)
    count = len(label)
    features = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    run = label if is_a_run else None
    order = TrialOrder.from_trials(
        np.arange(count), label.tolist(), None, run, np.arange(count), features
    )
    interleaving = Interleaving.from_pictures(order, np.zeros(count, np.int64))
    assert interleaving.concept_parts is None and interleaving.concept_problem
    assert not interleaving.problem
