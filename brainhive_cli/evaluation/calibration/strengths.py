"""Strength of transfer by amount, chosen by the people whom the model learned from, each left out in turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from brainhive_cli.core import console
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.evaluation.calibration.amounts import Pool, choose_trials
from brainhive_cli.evaluation.calibration.job import TEST, Job, Person, Tested, read_raw
from brainhive_cli.evaluation.calibration.measure import Pulls, fit_decoder, rank_tested
from brainhive_cli.training.alignment.few_shot import (
    FEWEST_PICTURES,
    PERMUTED_TRANSFER,
    TRANSFER,
    Base,
    fixed_pull,
)
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.recipe import Recipe as Training
from brainhive_cli.training.alignment.trained import AlignRun
from brainhive_cli.training.alignment.trained_cell import TrainedCell
from brainhive_cli.training.alignment.validation import held_out_of

LEAST_VALIDATION = 0.1
"""Share of training concepts that validate the strength, at least."""


@dataclass(frozen=True)
class Choice:
    """Strength of transfer of one model, and how it was chosen.

    Attributes:
        pulls: By amount.
        scores: Mean reciprocal rank by amount and strength; empty where nobody could choose.
        words: How, for people.
    """

    pulls: Pulls
    scores: Mapping[float, Mapping[str, float]]
    words: str


def needs_choice(job: Job, cell: Cell) -> bool:
    """Whether other people choose the strength: of two or more, in a model that is trained step by step."""
    is_wanted = {TRANSFER, PERMUTED_TRANSFER} & {*job.spec.arms}
    is_open = len(job.spec.transfer.pulls) > 1 and not job.training.backbone.is_closed_form
    return bool(is_wanted) and is_open and len(cell.trained_on) > 1


def train_without(job: Job, cell: Cell, subject: int, paths: Paths) -> Training:
    """Write the recipe of the model without one more person, which validates on held-out concepts.

    Two new persons who leave each other out share it.

    Args:
        job: The calibration.
        cell: The model of other people.
        subject: Who is left out of them.
        paths: Where the run goes, apart from those that other commands find.
    """
    training = job.training
    share = max(LEAST_VALIDATION, training.train.validation)
    update: dict[str, Any] = {
        "mode": "joint",
        "subjects": [one for one in cell.trained_on if one != subject],
        "trained_on": None,
        "seeds": [cell.seed],
        "published": None,
        "paths": paths,
        "run": job.recipe.run,
        "train": training.train.model_copy(update={"validation": share}),
    }
    return training.model_copy(update=update)


def choose_pulls(job: Job, cell: Cell, runs: Mapping[int, AlignRun], launch: Launch) -> Choice:
    """Choose the strength for each amount by those whom the model learned from, each left out in turn.

    Each one's training pictures calibrate the model without that person, and the pictures of held-out
    concepts, which no model learned from, score it. Test pictures have no part in it.

    Args:
        job: The calibration.
        cell: The model of other people.
        runs: The model without each of them.
        launch: This process, and its device.
    """
    # strengths that nobody chooses
    spec, amounts = job.spec, job.amounts
    if job.training.backbone.is_closed_form:
        return Choice(
            dict.fromkeys(amounts, 0.0), {}, "the penalty of the run, which is fitted in closed form"
        )
    if len(spec.transfer.pulls) == 1:
        (only,) = spec.transfer.pulls
        return Choice(dict.fromkeys(amounts, only), {}, f"set to {only:g}")
    if not runs:
        pictures = _count_pictures(job)
        fixed = {amount: fixed_pull(count) for amount, count in zip(amounts, pictures, strict=True)}
        return Choice(fixed, {}, "fixed by the number of pictures, as the model learned from one person")

    # ranks of each person who is left out, at every amount and strength
    scores: dict[float, dict[float | None, list[float]]] = {amount: {} for amount in amounts}
    with console.progress("choosing the strength of transfer", len(runs) * spec.transfer.draws) as bar:
        for subject, run in runs.items():
            base, person = _open_left_out(job, run, cell, subject, launch)
            is_decodable = base.decodes_strangers(person.tested[TEST].signal)
            strengths = [*([None] if is_decodable else []), *sorted(spec.transfer.pulls, reverse=True)]
            for draw in range(spec.transfer.draws):
                random = np.random.default_rng((spec.seed, subject, draw))
                chosen_trials = choose_trials(person.pool, spec.unit, amounts, spec.order, random)
                for amount, is_chosen in zip(amounts, chosen_trials, strict=True):
                    if draw > 0 and np.array_equal(is_chosen, person.pool.is_there):  # the same in all draws
                        continue
                    size = person.pool.describe(is_chosen)
                    responses = person.pool.responses.of_trials(is_chosen)
                    for strength in strengths:
                        is_enough = size.pictures >= FEWEST_PICTURES or not is_decodable
                        pull = strength if is_enough else None
                        seed = derive_seed(spec.seed, subject, draw)
                        decoder = fit_decoder(base, TRANSFER, spec, responses, seed, pull)
                        ranks = rank_tested(decoder, person)[TEST]
                        scores[amount].setdefault(strength, []).append(float((1 / ranks).mean()))
                bar.advance()

    # strengths, the nearest to zero-shot first; of those that do not differ from the best, the nearest one
    best = {amount: choose_strength(by_strength) for amount, by_strength in scores.items()}
    means = {
        amount: {strength: float(np.mean(values)) for strength, values in by_strength.items()}
        for amount, by_strength in scores.items()
    }
    named = {
        amount: {"zero-shot" if key is None else f"{key:g}": value for key, value in by_strength.items()}
        for amount, by_strength in means.items()
    }
    words = f"chosen by {len(runs)} people whom the model learned from, each left out in turn"
    return Choice(best, named, words)


def choose_strength(scores: Mapping[float | None, Sequence[float]]) -> float | None:
    """Choose the strength nearest to zero-shot that is not worse than the best by more than a standard error.

    Args:
        scores: Scores of people and draws by strength, the nearest to zero-shot first, in the same order.

    Source: the rule of one standard error, Breiman et al. 1984, Classification and Regression Trees.
    """
    best = max(scores, key=lambda strength: float(np.mean(scores[strength])))
    for strength, values in scores.items():
        loss = np.asarray(scores[best]) - np.asarray(values)
        error = float(loss.std(ddof=1)) / np.sqrt(len(loss)) if len(loss) > 1 else 0.0
        if float(loss.mean()) <= error:
            return strength
    return best


def _count_pictures(job: Job) -> list[int]:
    """Count the pictures of each amount of the first person."""
    person = next(iter(job.people.values()))
    random = np.random.default_rng(job.spec.seed)
    chosen = choose_trials(person.pool, job.spec.unit, job.amounts, job.spec.order, random)
    return [person.pool.describe(is_chosen).pictures for is_chosen in chosen]


def _open_left_out(job: Job, run: AlignRun, cell: Cell, subject: int, launch: Launch) -> tuple[Base, Person]:
    """Open the model without a person, and that person's training pictures: learned from, and held out."""
    # a model, and the signals of the person as it reads them
    (without,) = run.cells
    base = job.load_base(replace(cell, trained_on=without.trained_on), launch, run.model_path(without))
    member = TrainedCell(run, replace(without, tested_on=(subject,)), base.model)
    needs_trials = job.spec.unit != "pictures" or job.spec.order == "recording"
    responses, counts = read_raw(member, subject, "train", with_single=needs_trials)

    # pictures of held-out concepts are tested, all others are learned from
    store = member.pictures("train")
    share = max(LEAST_VALIDATION, job.training.train.validation)
    held_out = held_out_of(store.concepts, share, store.pixels)
    is_tested = held_out[responses.stimulus]
    tested = responses.take(np.flatnonzero(is_tested))
    rows = np.unique(tested.stimulus)
    target = torch.from_numpy(np.searchsorted(rows, tested.stimulus))
    gallery = base.targets.gather(torch.from_numpy(rows))
    pool = Pool(responses, counts).without(is_tested)
    image_ids = [store.image_ids[row] for row in rows]
    signals = {TEST: Tested(np.asarray(tested.signal), target, tested.stimulus)}
    return base, Person(subject, pool, signals, gallery, image_ids)
