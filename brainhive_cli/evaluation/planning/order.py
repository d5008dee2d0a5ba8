"""Random orders in which a study shows its pictures.

Training and test pictures share the runs. The repetitions of a test picture are then
spread over the whole recording, so that no drift is common to them, both kinds are
recorded in the same state of the person, and a session that is cut short costs a share
of both. NSD does this too. THINGS-EEG2 shows its 200 test pictures in runs of their own
at the start of each session, where they return so often that people learn them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Literal

import numpy as np

from brainhive_cli.core.base import (
    BrainhiveError,
    Float32,
    Float64,
    console,
    derive_seed,
)
from brainhive_cli.data.signals import describe_concepts
from brainhive_cli.evaluation.planning.designs import MARGIN_S
from brainhive_cli.measurement import (
    Timeline,
    describe_pictures,
    number_names,
    separate_repetitions,
)

MAX_DRAWS = 20
"""Number of random orders that are tried. Checks refuse about 1 in 30 by chance."""
MAX_CHECKED_TRIALS = 20_000
"""Largest number of trials of a split whose repetitions are checked, in about 10 s."""
CATCH = ""
"""Picture of a catch trial, in which the person presses a key.

A catch trial shows a target of its own instead of a picture, as in THINGS-EEG2,
THINGS-MEG and THINGS-fMRI. The person has to look at each picture, and no picture that
is analysed is the cause of a movement.
"""


@dataclass(frozen=True)
class StudyPlan:
    """Amount of recording, pictures and timing of a study.

    Attributes:
        people: Number of people.
        sessions: Number of sessions of each person.
        runs: Number of runs of a session.
        onset_interval_s: Time from the onset of a picture to the next.
        stimulus_s: Duration of a picture.
        train_pictures: Paths of the training pictures below the folder of pictures.
        test_pictures: Paths of the test pictures.
        concept_of: Concept of each picture.
        train_repetitions: Repetitions of each training picture over all sessions.
        test_repetitions: Repetitions of each test picture over all sessions.
        catch_share: Share of all trials that are catch trials, below 0.5.
        break_s: Shortest duration of a break between runs.
        bits: Bits of a trigger code.
        seed: Seed of all orders.
    """

    people: int
    sessions: int
    runs: int
    onset_interval_s: float
    stimulus_s: float
    train_pictures: list[str]
    test_pictures: list[str]
    concept_of: Mapping[str, str]
    train_repetitions: int
    test_repetitions: int
    catch_share: float
    break_s: float
    bits: Literal[8, 16]
    seed: int


@dataclass(frozen=True)
class PlannedTrial:
    """Trial of a study.

    Attributes:
        person: Number of the person, from 1.
        session: Number of the session, from 1.
        run: Number of the run in its session, from 1.
        number: Number of the trial in its run, from 1.
        picture: Path of the picture, or `CATCH`.
        onset_s: Planned time from the start of the run.
    """

    person: int
    session: int
    run: int
    number: int
    picture: str
    onset_s: float


def choose_split(
    concept_of: Mapping[str, str], n_train: int, n_test: int, seed: int
) -> tuple[list[str], list[str]]:
    """Choose training pictures, and test pictures of other concepts.

    Test pictures are of as many concepts as possible. Concepts of a split have about
    equal numbers of pictures.

    Args:
        concept_of: Concept of each available picture.
        n_train: Number of training pictures.
        n_test: Number of test pictures.
        seed: Seed of the choice.

    Returns:
        Sorted paths of the training pictures and of the test pictures.

    Raises:
        BrainhiveError: if there are too few pictures or concepts.
    """
    # the first picture of each concept, then the second of each, …
    rng = np.random.RandomState(derive_seed(seed) % 2**32)
    n_pictures = Counter[str]()
    rank = {}
    for picture in rng.permutation(sorted(concept_of)).tolist():
        concept = concept_of[picture]
        rank[picture] = n_pictures[concept]
        n_pictures[concept] += 1
    pictures = sorted(rank, key=rank.__getitem__)

    for _ in range(MAX_DRAWS):
        concepts = rng.permutation(sorted(n_pictures)).tolist()
        for n_held_out in range(min(n_test, len(concepts) - 1), 0, -1):
            held_out = set(concepts[:n_held_out])
            train = [name for name in pictures if concept_of[name] not in held_out]
            test = [name for name in pictures if concept_of[name] in held_out]
            if len(train) >= n_train and len(test) >= n_test:
                return sorted(train[:n_train]), sorted(test[:n_test])
    raise BrainhiveError(
        f"{len(pictures)} pictures of {len(n_pictures)} concepts cannot be divided "
        f"into {n_train} training pictures and {n_test} test pictures of other "
        "concepts",
        "add pictures of other concepts, or plan fewer training or test pictures",
    )


def draw_order(
    plan: StudyPlan, embeddings: Mapping[str, Float32] | None = None
) -> list[PlannedTrial]:
    """Draw an order for each person, session and run.

    - No picture follows itself.
    - Repetitions of a picture are spread evenly over sessions, runs and each run.
    - The checks of `eval-retrieval` do not object to the order.

    Args:
        plan: The study.
        embeddings: Embedding [D] of each picture, or None. With embeddings, pictures
            that are alike are interleaved too.

    Returns:
        Trials in the order of people and time.

    Raises:
        BrainhiveError: if there are fewer trials than runs, or if no order that passes
            the checks is drawn.
    """
    people = range(1, plan.people + 1)
    problem = ""
    with console.progress("drawing orders"):
        for attempt in range(MAX_DRAWS):
            order = []
            for person in people:
                seed = derive_seed(plan.seed, person, attempt) % 2**32
                order += _draw_trials(plan, person, np.random.RandomState(seed))
            problem = find_order_problem(plan, order, embeddings)
            if not problem:
                return order
    raise BrainhiveError(
        f"{MAX_DRAWS} random orders fail the check of order: {problem}",
        "plan more pictures or concepts, or fewer repetitions in a run",
    )


def measure_minutes(plan: StudyPlan, order: Sequence[PlannedTrial]) -> Float64:
    """Return the minutes [sessions, runs] of the person with most trials."""
    minutes = np.zeros((plan.sessions, plan.runs))
    for trial in order:
        run = (trial.session - 1, trial.run - 1)
        end_s = trial.onset_s + plan.onset_interval_s + MARGIN_S
        minutes[run] = max(minutes[run], end_s / 60)
    return minutes


def find_order_problem(
    plan: StudyPlan,
    trials: Sequence[PlannedTrial],
    embeddings: Mapping[str, Float32] | None = None,
) -> str:
    """Return why an evaluation would object to the order of trials, or "".

    Args:
        plan: The study.
        trials: All trials of the people.
        embeddings: Embedding [D] of each picture, or None.
    """
    # all trials in the order of time, with test pictures as units
    pictures = [*plan.test_pictures, *plan.train_pictures]
    row_of = {picture: row for row, picture in enumerate(pictures)}
    shown = [trial for trial in trials if trial.picture in row_of]
    shown.sort(key=lambda t: (t.person, t.session, t.run, t.onset_s))
    rows = np.array([row_of[trial.picture] for trial in shown])
    people = np.array([trial.person for trial in shown])
    sessions = people * (1 + plan.sessions) + [trial.session for trial in shown]
    runs = np.array([trial.run for trial in shown])
    onset_s = np.array([trial.onset_s for trial in shown])
    features = None
    if embeddings is not None:
        features = np.stack([embeddings[name] for name in pictures])
    n_tested = len(plan.test_pictures)
    timeline = Timeline(
        stimulus=rows,
        unit=np.where(rows < n_tested, rows, -1),
        person=people,
        session=sessions,
        run=sessions * (1 + plan.runs) + runs,
        is_ordered=True,
        features=features,
        concept=number_names([[plan.concept_of[name] for name in pictures]])[0],
    )
    same_fold = np.zeros(n_tested, np.int64)
    designs = [describe_pictures(timeline, same_fold)]
    concepts = describe_concepts(timeline, same_fold)
    if concepts is not None:
        designs.append(concepts[0])
    for design in designs:
        if design.tells:
            return f"{design.telling[0]} tells the picture or its concept"

    # distance of the repetitions of training pictures and of test pictures
    for person, is_tested in product(np.unique(people), (False, True)):
        is_selected = (people == person) & ((rows < n_tested) == is_tested)
        by_picture = np.argsort(rows[is_selected], kind="stable")
        if not 0 < is_selected.sum() <= MAX_CHECKED_TRIALS:
            continue
        sorted_rows = rows[is_selected][by_picture]
        try:
            separate_repetitions(
                np.unique(sorted_rows, return_inverse=True)[1],
                sessions[is_selected][by_picture],
                runs[is_selected][by_picture],
                onset_s[is_selected][by_picture],
            )
        except BrainhiveError as error:
            return error.message
    return ""


def _draw_trials(
    plan: StudyPlan, person: int, rng: np.random.RandomState
) -> list[PlannedTrial]:
    """Draw the trials of a person, without a check."""
    counts = dict.fromkeys(plan.train_pictures, plan.train_repetitions)
    counts |= dict.fromkeys(plan.test_pictures, plan.test_repetitions)
    trials = []
    for session, session_counts in enumerate(_spread(counts, plan.sessions, rng), 1):
        for run, run_counts in enumerate(_spread(session_counts, plan.runs, rng), 1):
            pictures = _order_run(run_counts, plan.catch_share, rng)
            for number, picture in enumerate(pictures):
                onset_s = round(MARGIN_S + number * plan.onset_interval_s, 6)
                trials.append(
                    PlannedTrial(person, session, run, number + 1, picture, onset_s)
                )
    return trials


def _spread(
    counts: Mapping[str, int], n_parts: int, rng: np.random.RandomState
) -> list[dict[str, int]]:
    """Spread the repetitions of pictures over parts of about equal length.

    The parts of a picture are evenly spaced. Pictures with equal counts begin in
    successive parts.

    Args:
        counts: Number of repetitions of each picture.
        n_parts: Number of sessions, or of runs in a session.
        rng: Random generator.

    Returns:
        Number of repetitions of each picture, for each part.
    """
    parts: list[dict[str, int]] = [{} for _ in range(n_parts)]
    shuffled = rng.permutation(sorted(counts)).tolist()
    shuffled.sort(key=counts.__getitem__)
    for first_part, picture in enumerate(shuffled):
        for repetition in range(counts[picture]):
            step = repetition * n_parts // counts[picture]
            part = parts[(first_part + step) % n_parts]
            part[picture] = part.get(picture, 0) + 1
    return parts


def _order_run(
    counts: Mapping[str, int], catch_share: float, rng: np.random.RandomState
) -> list[str]:
    """Order the pictures of a run, and insert catch trials.

    Args:
        counts: Number of repetitions of each picture in the run.
        catch_share: Share of catch trials.
        rng: Random generator.

    Raises:
        BrainhiveError: if the run has no pictures, or a picture must follow itself.
    """
    if not counts:
        raise BrainhiveError(
            "there are fewer trials than runs",
            "plan fewer runs or sessions, or more pictures or repetitions",
        )

    # repetitions are in equal stretches of the run, at random times
    times = {}
    for picture, count in counts.items():
        for repetition, delay in enumerate(rng.random_sample(count).tolist()):
            times[picture, repetition] = (repetition + delay) / count
    pictures = [picture for picture, _ in sorted(times, key=times.__getitem__)]
    _separate_equal(pictures, rng)

    # catch trials are in equal stretches too, each between two pictures
    n_gaps = len(pictures) - 1
    n_catch = min(round(catch_share / (1 - catch_share) * len(pictures)), n_gaps)
    edges = np.linspace(0, n_gaps, n_catch + 1).astype(int).tolist()
    gaps = [rng.randint(start, stop) for start, stop in pairwise(edges)]
    for gap in reversed(gaps):
        pictures.insert(gap + 1, CATCH)
    return pictures


def _separate_equal(pictures: list[str], rng: np.random.RandomState) -> None:
    """Exchange trials of a run until no picture follows itself.

    Raises:
        BrainhiveError: if this does not end, such as in a run of a single picture.
    """
    # Number of exchanges of trials after which a picture has to follow itself.
    for _ in range(1_000):
        is_repeat = [first == second for first, second in pairwise(pictures)]
        if not any(is_repeat):
            return
        index = is_repeat.index(True)
        other = rng.randint(len(pictures))
        pictures[index], pictures[other] = pictures[other], pictures[index]
    raise BrainhiveError(
        f"a run of {len(pictures)} trials has only {len(set(pictures))} pictures, so "
        "that pictures follow themselves",
        "plan more pictures, or more runs",
    )
