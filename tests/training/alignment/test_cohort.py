"""The closed-form arms of calibration on the simulated cohort of the golden folder,
next to its own table.
"""

import json
import os
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layouts import spec_of
from trials import make_trials

from brainhive_cli.data.signals.normalisations import Euclidean
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.data.trials import Trials
from brainhive_cli.measurement.ranks import ranks
from brainhive_cli.models.heads import Head
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.few_shot import (
    PERMUTED_SCRATCH,
    SCRATCH,
    TRANSFER,
    PersonModel,
    SourceModel,
)
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.learned import Learned
from brainhive_cli.training.alignment.loop import fit
from brainhive_cli.training.alignment.recipe import Train

GOLDEN = Path(os.environ.get("BRAINHIVE_GOLDEN", "../shared/golden")) / "calibrate"
ALIGNMENT = Euclidean(shrinkage=0.05)
PEOPLE, TOLERANCE = 2, 0.005
"""New people who are compared, of eight; and the README's tolerance: a picture of 200
in one draw of ten.
"""


def responses_of(signal: np.ndarray, subject: int, first: int = 0) -> Trials:
    names = tuple(f"E{index}" for index in range(signal.shape[1]))
    return make_trials(
        subject, signal.astype(np.float32), first + np.arange(len(signal)), names, 100.0
    )


def base_of(
    cohort: dict[str, Any], features: np.ndarray, people: list[Trials], is_aligned: bool
) -> SourceModel:
    """Fit the shared ridge to the people of the sources; aligned signals are smaller by
    the root of T.
    """
    samples, names = people[0].signal.shape[3], people[0].channels
    penalty = cohort["PENALTY"] / (samples if is_aligned else 1)
    section = {"normalise": ALIGNMENT.model_dump()} if is_aligned else {}
    spec = spec_of(names, samples, tuple(each.subject for each in people))
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
            each.subject: ALIGNMENT.build(ALIGNMENT.measure([each.averages]))
            for each in people
        }
        people = [each.normalise(normalisers[each.subject]) for each in people]
    targets = Targets(
        {"e": StoreTargets(torch.from_numpy(features.astype(np.float32)))}
    )
    held_out = np.zeros(len(features), np.bool_)
    data = CellData(
        people, targets, held_out, None, learned=Learned(normalisers=normalisers)
    )
    return SourceModel(
        fit(layout, data, (), Train(validation=0.0)), targets, (), Train(), people
    )


@pytest.mark.golden
@pytest.mark.skipif(not (GOLDEN / "cohort.json").is_file(), reason="no golden cohort")
def test_closed_form_arms_reproduce_the_table_of_the_cohort() -> None:
    # the cohort of the golden table, pictures of the sources before those of new people
    expected, cohort = (
        json.loads((GOLDEN / "cohort.json").read_text()),
        runpy.run_path(str(GOLDEN / "cohort.py")),
    )
    seed, table = expected["seed"], expected["top1_by_subject_and_size"]
    data = cohort["cohort"](seed, expected["test"])
    pictures, first = data["pictures"], len(data["pictures"]["train"])
    features = np.concatenate([pictures["train"], pictures["pool"]])
    sources = [
        responses_of(signal, 1 + number)
        for number, signal in enumerate(data["sources"])
    ]
    raw, aligned = (
        base_of(cohort, features, sources, is_aligned) for is_aligned in (False, True)
    )
    gallery, target = (
        torch.from_numpy(pictures["test"]).float(),
        torch.arange(expected["test"]),
    )

    def top1(decoder: PersonModel, signal: np.ndarray) -> float:
        return float(
            (ranks(decoder.encode(signal.astype(np.float32)), gallery, target) == 1)
            .double()
            .mean()
        )

    for who in range(PEOPLE):
        pool, unseen = (
            responses_of(data["pool"][who], 100 + who, first),
            data["test"][who],
        )
        assert top1(raw.zero_shot, unseen) == pytest.approx(
            table["zero"][who], abs=TOLERANCE
        )
        for column, size in enumerate(expected["sizes"]):
            if not size:
                continue
            found: dict[str, list[float]] = {arm: [] for arm in table if arm != "zero"}
            for draw in range(cohort["DRAWS"]):
                order = np.random.default_rng([seed, draw]).permutation(
                    len(pool.stimulus)
                )
                part = pool.take(order[:size])
                found["aligned"].append(
                    top1(aligned.align_signals(ALIGNMENT, part), unseen)
                )
                for arm, name in (
                    ("scratch", SCRATCH),
                    ("transfer", TRANSFER),
                    ("permuted", PERMUTED_SCRATCH),
                ):
                    found[arm].append(top1(aligned.train_arm(name, part, draw), unseen))
            for arm, values in found.items():
                # which pictures are exchanged is drawn in another way here, so chance
                # is chance
                tolerance = TOLERANCE if arm != "permuted" else 0.01
                assert np.mean(values) == pytest.approx(
                    table[arm][who][column], abs=tolerance
                ), (
                    arm,
                    who,
                    size,
                )
