"""Arms of calibration in closed form, compared with the golden cohort."""

import json
import runpy

import numpy as np
import pytest
import torch

from brainhive_cli.data.signals.normalisations import Euclidean
from brainhive_cli.data.stores.training_history import TrainingHistory
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.measurement.ranks import rank_targets
from brainhive_cli.models.heads import Head
from brainhive_cli.training.alignment import Layout, Train
from brainhive_cli.training.alignment.trained.few_shot import (
    PERMUTED_SCRATCH,
    SCRATCH,
    TRANSFER,
    SourceModel,
)
from brainhive_cli.training.alignment.training import CellData, fit
from tests.worlds.array_trials import make_trials
from tests.worlds.model_layouts import make_signal_spec

ALIGNMENT = Euclidean(shrinkage=0.05)
TRAINED_ARMS = {
    "scratch": SCRATCH,
    "transfer": TRANSFER,
    "permuted": PERMUTED_SCRATCH,
}
"""Our names of the arms that are trained on labels."""
PEOPLE, TOLERANCE = 2, 0.005
"""New people, of eight, whose whole curves are compared; and the README's tolerance: a
picture of 200 in one draw of ten.
"""


def responses_of(signal, subject, first_number=0):
    names = tuple(f"E{index}" for index in range(signal.shape[1]))
    return make_trials(
        subject,
        signal.astype(np.float32),
        first_number + np.arange(len(signal)),
        names,
        100.0,
    )


def base_of(cohort, features, people, is_aligned):
    """Fit the shared ridge to the people of the sources; aligned signals are smaller by
    the root of T.
    """
    samples, names = people[0].signal.shape[2], people[0].channels
    penalty = cohort["PENALTY"] / (samples if is_aligned else 1)
    section = {"normalise": ALIGNMENT.model_dump()} if is_aligned else {}
    spec = make_signal_spec(names, samples, tuple(person.subject for person in people))
    layout = Layout(
        type(spec)(
            spec.names, samples, spec.subjects, spec.widths, 100.0, signal=section
        ),
        {"features": Head((features.shape[1],), "e")},
        {"kind": "shared-ridge", "alpha": penalty, "intercept": False},
        encoders={"e": "e"},
    )
    normalisers = {}
    if is_aligned:
        normalisers = {
            person.subject: ALIGNMENT.build(ALIGNMENT.measure([person.averages]))
            for person in people
        }
        people = [person.normalise(normalisers[person.subject]) for person in people]
    targets = Targets(
        {"e": StoreTargets(torch.from_numpy(features.astype(np.float32)))}
    )
    held_out = np.zeros(len(features), np.bool_)
    data = CellData(
        people,
        targets,
        held_out,
        None,
        history=TrainingHistory(normalisers=normalisers),
    )
    return SourceModel(
        fit(layout, data, (), Train(validation=0.0)), targets, (), Train(), people
    )


class Cohort:
    """The golden cohort, its table, and models of the people of the sources."""

    def __init__(self, folder):
        self.expected = json.loads((folder / "cohort.json").read_text())
        self.settings = runpy.run_path(str(folder / "cohort.py"))
        self.seed = self.expected["seed"]
        self.table = self.expected["top1_by_subject_and_size"]
        self.data = self.settings["cohort"](self.seed, self.expected["test"])
        pictures = self.data["pictures"]
        # pictures of the sources are numbered before those of new people
        first_count = len(pictures["train"])
        features = np.concatenate([pictures["train"], pictures["pool"]])
        sources = [
            responses_of(signal, 1 + number)
            for number, signal in enumerate(self.data["sources"])
        ]
        self.pools = [
            responses_of(signal, 100 + person_number, first_count)
            for person_number, signal in enumerate(self.data["pool"])
        ]
        self.raw, self.aligned = (
            base_of(self.settings, features, sources, is_aligned)
            for is_aligned in (False, True)
        )
        self.gallery = torch.from_numpy(pictures["test"]).float()

    def top1(self, decoder, number):
        """Score the test trials of a new person."""
        tokens = decoder.encode(self.data["test"][number].astype(np.float32))
        target = torch.arange(len(self.gallery))
        return float((rank_targets(tokens, self.gallery, target) == 1).double().mean())

    def score(self, arm, number, size, draw):
        """Calibrate an arm on some trials of a new person, and score it."""
        pool, random = self.pools[number], np.random.default_rng([self.seed, draw])
        partial_pool = pool.take(random.permutation(len(pool.stimulus))[:size])
        if arm == "aligned":
            return self.top1(
                self.aligned.align_signals(ALIGNMENT, partial_pool), number
            )
        return self.top1(
            self.aligned.train_arm(TRAINED_ARMS[arm], partial_pool, draw), number
        )


@pytest.fixture(scope="module")
def cohort(golden):
    return Cohort(golden / "calibrate")


@pytest.mark.nightly
@pytest.mark.golden
def test_closed_form_arms_reproduce_the_table_of_the_cohort(cohort):
    for index in range(PEOPLE):
        for column, size in enumerate(cohort.expected["sizes"]):
            if not size:
                continue
            for arm in ("aligned",) + tuple(TRAINED_ARMS):
                draws = range(cohort.settings["DRAWS"])
                values = [cohort.score(arm, index, size, draw) for draw in draws]
                # which pictures are exchanged is drawn in another way here, so chance
                # is chance
                tolerance = TOLERANCE if arm != "permuted" else 0.01
                assert np.mean(values) == pytest.approx(
                    cohort.table[arm][index][column], abs=tolerance
                ), (arm, index, size)


@pytest.mark.golden
def test_all_people_reach_the_golden_accuracy_without_labels(
    cohort,
):
    expected = cohort.table["zero"]

    top1s = [cohort.top1(cohort.raw.zero_shot, index) for index in range(len(expected))]

    assert len(top1s) == cohort.settings["NEW"]
    assert top1s == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.golden
@pytest.mark.parametrize("arm", ["aligned", "scratch", "transfer"])
def test_all_people_reach_the_golden_accuracy_with_labels(cohort, arm):
    """All draws are the same trials here, in another order."""
    size, rows = max(cohort.expected["sizes"]), cohort.table[arm]
    assert size == cohort.settings["POOL"]

    accuracies = [cohort.score(arm, index, size, draw=0) for index in range(len(rows))]

    assert len(accuracies) == cohort.settings["NEW"]
    assert accuracies == pytest.approx([row[-1] for row in rows], abs=TOLERANCE)
