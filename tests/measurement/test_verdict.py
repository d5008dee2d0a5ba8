"""The verdict on ranks: what is permuted, what is said of whom, and how often it is
wrong.
"""

import tracemalloc
from itertools import permutations

import numpy as np
import pytest

from brainhive_cli.measurement.units import Items, StimulusGrouping
from brainhive_cli.measurement.verdict import judge


def rank_all(signals, pictures):
    """Rank all pictures by each signal, [N, P]."""
    order = (-(signals @ pictures.T)).argsort(1)
    ranked = np.empty_like(order)
    np.put_along_axis(ranked, order, np.arange(1, len(pictures) + 1)[None], 1)
    return ranked


def independent(count, subjects=1):
    return Items.independent([list(range(count))] * subjects, "pictures")


def concepts(sizes):
    """Give pictures, and the concept of each, by these numbers of pictures."""
    concept = dict(
        enumerate(np.repeat(np.arange(len(sizes)), sizes).astype(str).tolist())
    )
    return StimulusGrouping("concept", concept).make_items([list(concept)]), concept


def test_few_pictures_have_all_permutations_counted():
    ranked = np.random.default_rng(0).integers(1, 6, (5, 5))
    sums = np.array(
        [
            sum(ranked[row, order[row]] for row in range(5))
            for order in permutations(range(5))
        ]
    )

    (found,) = judge([ranked], independent(5), range(5))

    assert found.better == pytest.approx((sums <= ranked.trace()).mean())
    assert found.worse == pytest.approx((sums >= ranked.trace()).mean())
    assert "all 120 permutations" in found.test and (found.n, found.pool) == (5, 5)


def test_shared_wrong_labels_are_rarely_above_chance():
    """Bound .05 and two Monte Carlo errors of 100; ranks counted subject by subject
    reject .3 to .5.
    """
    random, called, subjects, pictures = np.random.default_rng(0), 0, 8, 60
    for _ in range(100):
        features, wrong = (
            random.normal(size=(pictures, 16)),
            random.permutation(pictures),
        )
        seen = [
            features + 0.5 * random.normal(size=features.shape) for _ in range(subjects)
        ]
        ranked = [rank_all(signals, features)[:, wrong] for signals in seen]
        called += (
            judge(ranked, independent(pictures, subjects), range(pictures))[0].side
            != "at chance"
        )

    assert called / 100 <= 0.094


def test_a_weak_effect_that_ten_subjects_share_is_found():
    """Found in .00 of runs where ranks averaged over subjects are compared with the
    spread of one guess.
    """
    random, found = np.random.default_rng(0), 0
    for _ in range(20):
        features = random.normal(size=(200, 20))
        ranked = [
            rank_all(0.02 * features + random.normal(size=(200, 20)), features)
            for _ in range(10)
        ]
        found += (
            judge(ranked, independent(200, 10), range(200))[0].side == "above chance"
        )

    assert found / 20 >= 0.85


def test_claims_about_two_concepts_name_only_these_two():
    items, concept = concepts([10, 10])
    random = np.random.default_rng(0)
    features = random.normal(size=(20, 16))
    ranked = rank_all(features + random.normal(size=features.shape), features)

    which, of_concept = judge(
        [ranked], items, range(20), dict.fromkeys(range(20), 1), concept
    )

    assert (
        which.words == "above chance for these 2 concepts"
        and which.question == "which picture"
    )
    assert (
        "within concepts" in which.test
        and which.wider == "concepts in general: not possible with 2 concepts"
    )
    assert of_concept.question == "which concept" and of_concept.side == "at chance"


@pytest.mark.parametrize(
    "sessions", [dict(enumerate(np.repeat([1, 2], 10).tolist())), None]
)
def test_concepts_in_separate_sessions_are_not_told_from_drift(
    sessions,
):
    items, concept = concepts([10, 10])
    ranked = np.random.default_rng(0).permuted(
        np.tile(np.arange(1, 21), (20, 1)), axis=1
    )

    _, of_concept = judge([ranked], items, range(20), sessions, concept)

    assert (of_concept.side, of_concept.p) == ("not testable", None)
    assert "session" in of_concept.test
    assert of_concept.sentence.startswith("the concept could not be tested")
    assert of_concept.sentence.endswith(f"because {of_concept.test}")


@pytest.mark.parametrize("concepts_a_session", [1, 2])
def test_signals_that_reveal_only_their_session_are_at_chance(concepts_a_session):
    """Issue 60, row 2: the headline was "over concepts", above chance in all of 40
    studies whose concepts had sessions of their own.

    Without any effect, four or more of 20 studies are above chance in .0003.
    """
    random, called, count = np.random.default_rng(0), 0, 20
    items, concept = concepts([6] * count)
    number = np.repeat(np.arange(count), 6)
    session = number // concepts_a_session
    # concepts of sessions of their own cannot be compared within these
    is_alone = concepts_a_session == 1
    sessions = None if is_alone else dict(enumerate(session.tolist()))
    problem = "concepts were shown in blocks" if is_alone else ""
    for _ in range(20):
        meaning = random.normal(size=(count, 16))[number]
        features = meaning + random.normal(size=meaning.shape)
        of_session = [meaning[session == row].mean(0) for row in session]
        signals = np.array(of_session) + random.normal(size=meaning.shape)
        headline, *_ = judge(
            [rank_all(signals, features)],
            items,
            range(len(number)),
            sessions,
            concept,
            concept_problem=problem,
        )
        called += headline.side == "above chance"

    assert headline.question == ("which picture" if is_alone else "over concepts")
    assert called <= 3


def test_signals_that_drift_with_sessions_are_rarely_significant():
    """Most pictures of a concept were shown in a session of its own, whose signals
    share an offset.
    """
    random, called, count = np.random.default_rng(0), np.zeros(2), 5
    items, concept = concepts([12] * count)
    number = np.repeat(np.arange(count), 12)
    session = np.where(np.arange(12 * count) % 4 > 0, number, (number + 1) % count)
    sessions = dict(enumerate(session.tolist()))
    for _ in range(75):
        features = random.normal(size=(count, 16))[number] + random.normal(
            size=(12 * count, 16)
        )
        signals = 2 * random.normal(size=(count, 16))[session] + random.normal(
            size=features.shape
        )
        answers = judge(
            [rank_all(signals, features)], items, range(12 * count), sessions, concept
        )
        called += [answer.side == "above chance" for answer in answers]

    assert (called / 75 <= 0.06).all()


@pytest.mark.parametrize("sizes", [[10, 10], [10] * 8])
def test_pictures_and_concepts_that_are_decoded_are_found(sizes):
    """Top-1 of about .6 of 20; .9 at least are found."""
    random, found = np.random.default_rng(0), np.zeros(2)
    items, concept = concepts(sizes)
    number, count = np.repeat(np.arange(len(sizes)), sizes), sum(sizes)
    for _ in range(15):
        features = random.normal(size=(len(sizes), 20))[number] + random.normal(
            size=(count, 20)
        )
        signals = 0.8 * features + random.normal(size=features.shape)
        answers = judge(
            [rank_all(signals, features)],
            items,
            range(count),
            dict.fromkeys(range(count), 1),
            concept,
        )
        found += [answer.side == "above chance" for answer in answers]

    assert (found / 15 >= 0.9).all()


def test_pictures_are_exchanged_within_their_concepts():
    """Of signals that carry their concept alone, the concept is found and the picture
    is not.
    """
    random, found = np.random.default_rng(0), np.zeros(3)
    items, concept = concepts([6] * 12)
    number = np.repeat(np.arange(12), 6)
    for _ in range(30):
        features = random.normal(size=(12, 16))[number]
        ranked = rank_all(
            features + random.normal(size=(72, 16)),
            features + 0.5 * random.normal(size=(72, 16)),
        )
        answers = judge(
            [ranked], items, range(72), dict.fromkeys(range(72), 1), concept
        )
        found += [answer.side == "above chance" for answer in answers]

    assert found[0] == found[2] == 30 and found[1] / 30 <= 0.1


def test_clips_are_shifted_by_every_shift_once():
    """Of twelve clips the smallest two-sided p is 2/12, so nothing could be found, and
    it says so.
    """
    film = StimulusGrouping("neighbours", dict.fromkeys(range(12), "film"), "clip")
    found = judge(
        [rank_all(np.eye(12), np.eye(12))],
        film.make_items([list(range(12))]),
        range(12),
    )[0]

    assert found.least_p == pytest.approx(2 / 12) and found.side == "not testable"
    assert "all 12 circular shifts" in found.test and "smallest p 0.17" in found.test


def test_neighbouring_clips_are_seldom_called_right():
    """Shifts drawn with replacement, without the identity, gave p ≤ .05 in up to
    .18.
    """
    random, small, clips = np.random.default_rng(0), 0, 45
    film = StimulusGrouping(
        "neighbours", dict.fromkeys(range(clips), "film"), "clip"
    ).make_items([list(range(clips))])
    for _ in range(150):
        drawn = random.normal(size=(2, clips, 8))
        for clip in range(1, clips):
            drawn[:, clip] = 0.9 * drawn[:, clip - 1] + 0.44 * drawn[:, clip]
        small += judge([rank_all(*drawn)], film, range(clips))[0].better <= 0.05

    assert small / 150 <= 0.086


def test_permuted_trials_have_the_ranks_of_their_candidates():
    """The same p as by a table of trials with trials, of 12 trials in blocks of two."""
    random = np.random.default_rng(0)
    items = Items.independent([range(12)], "trials")
    label_of = dict(enumerate(np.repeat([1, 0, 2, 1, 0, 2], 2).tolist()))
    ranked = random.permuted(np.tile(np.arange(1, 5), (12, 1)), axis=1)
    by_block = ranked.reshape(6, 2, 4).sum(1)[
        :, [label_of[2 * row] for row in range(6)]
    ]
    orders = [*permutations(range(6))]
    sums = np.array([by_block[range(6), order].sum() for order in orders])

    blocks = {trial: trial // 2 for trial in range(12)}
    (found,) = judge([ranked], items, range(4), label_of=label_of, blocks=blocks)

    assert found.better == pytest.approx((sums <= by_block.trace()).mean())
    assert found.worse == pytest.approx((sums >= by_block.trace()).mean())


def test_a_verdict_holds_no_table_of_trials_with_trials():
    count = 2000
    items = Items.independent([range(count)], "trials")
    label_of = {trial: trial % 4 for trial in range(count)}
    ranked = np.random.default_rng(0).integers(1, 5, (count, 4))

    tracemalloc.start()
    judge([ranked], items, range(4), label_of=label_of, max_permutations=9)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 8 * count**2 / 4


def test_a_concept_has_the_mean_rank_of_its_other_pictures():
    """Three pictures of a concept and one of another, some of which are not
    compared.
    """
    items, concept = concepts([3, 1])
    ranked = np.array([[1, 4, 0, 2], [3, 1, 2, 4], [2, 0, 0, 1], [4, 3, 2, 1]])
    means = np.zeros((4, 4))
    for row, column in np.ndindex(4, 4):
        others = [
            ranked[row, other]
            for other in range(4)
            if other != column and concept[other] == concept[column]
        ]
        compared = [rank for rank in others if rank] or ranked[row][ranked[row] > 0]
        means[row, column] = np.mean(compared)
    sums = np.array([means[range(4), order].sum() for order in permutations(range(4))])

    _, found = judge([ranked], items, range(4), dict.fromkeys(range(4), 1), concept)

    assert found.better == pytest.approx((sums <= means.trace() + 1e-9).mean())
    assert found.worse == pytest.approx((sums >= means.trace() - 1e-9).mean())


def test_series_of_a_concept_keep_a_common_label():
    """Exchanged alone, three equal signals of a series would count as three."""
    names = list(range(60))
    concept_of = {name: str(name // 3 % 10) for name in names}
    parts = {name: name // 30 for name in names}
    # the signals of a series are equal, and rank the candidates of their block
    random = np.random.default_rng(0)
    ranks = np.zeros((60, 60))
    for series in range(20):
        columns = slice(30 * (series // 10), 30 * (series // 10) + 30)
        ranks[3 * series : 3 * series + 3, columns] = 1 + random.permutation(30)
    items = StimulusGrouping(concept_of=concept_of).make_items([names])
    answers = {}
    for has_series in (True, False):
        answers[has_series] = judge(
            [ranks], items, names, parts, concept_of, has_series=has_series, pool=30
        )[-1]
    assert "20 series" in answers[True].test
    # single pictures pretend to more evidence in whichever direction
    together, alone = answers[True].p, answers[False].p
    assert together is not None and alone is not None
    assert together > alone
