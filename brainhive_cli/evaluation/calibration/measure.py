"""Ranks of a new person's test pictures, by arm and amount."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from brainhive_cli.core.base import BrainhiveError, Float64, Int64, console, derive_seed
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.signals import Trials
from brainhive_cli.data.targets import Targets
from brainhive_cli.evaluation.calibration.amounts import (
    measure_amounts,
    select_trials,
)
from brainhive_cli.evaluation.calibration.facts import Strength
from brainhive_cli.evaluation.calibration.job import Job, Person, read_training
from brainhive_cli.evaluation.calibration.recipe import SIGNAL_SHELF, Recipe
from brainhive_cli.measurement import depends_on_other_trials, rank_targets
from brainhive_cli.training.alignment import Cell, Recipe as Training
from brainhive_cli.training.alignment.trained import (
    FINE_TUNING,
    MIN_TRANSFER_PICTURES,
    PERMUTED_TRANSFER,
    SUBJECT_LAYER,
    TRAINED_ARMS,
    TRANSFER,
    ZERO_SHOT,
    PersonModel,
    SourceModel,
    TestSet,
    TrainedModels,
    choose_pull,
    open_test_set,
)
from brainhive_cli.training.alignment.training import choose_held_out

MIN_VALIDATION_SHARE = 0.1
"""Smallest share of the training concepts that validate the strength of transfer."""


@dataclass(frozen=True)
class Part:
    """Ranks of the test pictures of a new person, by a model and in a draw.

    Attributes:
        ranks: Ranks [N] by arm and amount, without those that were not measured.
        sizes: Number of pictures, trials and minutes [3] by amount. Minutes are NaN if
            onsets are unknown.
        missing: Reason why an arm could not be measured, by arm.
        together: Arms whose token of a test trial depends on the other test trials.
    """

    ranks: Mapping[tuple[str, str], Int64]
    sizes: Mapping[str, Float64]
    missing: Mapping[str, str]
    together: Sequence[str] = ()


def measure_draw(
    job: Job,
    base: SourceModel,
    person: Person,
    arms: Sequence[str],
    pulls: Mapping[str, float | None],
    draw: int,
) -> Part:
    """Rank the test pictures of a new person by every arm, with every amount.

    All draws share the amount of everything, so only the first draw measures it.

    Args:
        job: The calibration.
        base: Model of other people.
        person: The new person.
        arms: Names of the arms.
        pulls: Strength of transfer for each amount. None is zero-shot.
        draw: Number of the draw, from 0.
    """
    recipe = job.recipe
    ranks: dict[tuple[str, str], Int64] = {}
    sizes: dict[str, Float64] = {}
    missing: dict[str, str] = {}
    dependent_arms: list[str] = []
    signals = person.tested.averages
    targets = torch.from_numpy(np.searchsorted(person.rows, person.tested.stimulus))

    # the seed depends on the draw and the person, so that all arms train on the same
    rng = np.random.default_rng((recipe.seed, person.subject, draw))
    seed = derive_seed(recipe.seed, person.subject, draw)
    amounts = list(job.amounts.values())
    selections = select_trials(person.trials, job.unit, amounts, recipe.order, rng)
    first_name = next(iter(job.amounts))
    count = len(amounts) * len(arms)
    with console.progress("fitting models", count, is_of_item=True) as bar:
        for name, is_selected in zip(job.amounts, selections, strict=True):
            sizes[name] = measure_amounts(person.trials, is_selected)
            if draw > 0 and is_selected.all():
                bar.advance(len(arms))
                continue
            trials = person.trials.choose(is_selected)
            for arm in arms:
                # an arm that failed once is not reported
                if arm in missing:
                    continue
                try:
                    decoder = fit_decoder(base, arm, recipe, trials, seed, pulls[name])
                    images = _encode_gallery(decoder, person)
                    tokens = decoder.encode(signals)
                    ranks[arm, name] = rank_targets(tokens, images, targets).numpy()

                    # a dependence on other trials is a property of the arm
                    is_first = draw == 0 and name == first_name
                    if is_first and depends_on_other_trials(
                        decoder.encode, torch.from_numpy(signals)
                    ):
                        dependent_arms.append(arm)
                except BrainhiveError as error:
                    missing[arm] = error.in_one_line
                bar.advance()
    return Part(ranks, sizes, missing, dependent_arms)


@torch.inference_mode()
def _encode_gallery(decoder: PersonModel, person: Person) -> torch.Tensor:
    """Encode the test pictures of a person as tokens [M, D], by the decoder's model."""
    model = decoder.model
    embeddings = {
        key: values.to(model.device) for key, values in person.gallery.items()
    }
    return model.encode_image(embeddings).float()


def fit_decoder(
    base: SourceModel,
    arm: str,
    recipe: Recipe,
    trials: Trials,
    seed: int,
    pull: float | None,
) -> PersonModel:
    """Fit the model of an arm to the recordings of a new person.

    Transfer to too few pictures is zero-shot, if the model can decode new people.

    Args:
        base: Model of other people.
        arm: Method of calibration, such as `transfer`.
        recipe: Recipe with the alignments.
        trials: Recordings of the person, not normalised.
        seed: Seed of the training.
        pull: Strength with which transfer keeps near `base`. None is zero-shot.

    Raises:
        BrainhiveError: if the model does not allow the arm.
    """
    if arm == ZERO_SHOT:
        return base.zero_shot
    if arm in (TRANSFER, PERMUTED_TRANSFER):
        has_few_pictures = len(trials.stimulus) < MIN_TRANSFER_PICTURES
        if pull is None or (has_few_pictures and base.can_decode_new_people(trials)):
            return base.zero_shot

    for config in recipe.alignments:
        if config.kind == arm:
            if parts.is_kind(SIGNAL_SHELF, arm):
                return base.align_signals(config, trials)
            return base.align_tokens(config, trials)
    align = recipe.transfer.align if trials.channels else None
    return base.train_arm(arm, trials, seed, pull or 0.0, align)


def list_arms(recipe: Recipe) -> list[str]:
    """List all arms: zero-shot, the alignments by name, then the trained arms."""
    arms = [arm for arm in recipe.arms if arm == ZERO_SHOT]
    arms += [config.kind for config in recipe.alignments]
    arms += [arm for arm in recipe.arms if arm != ZERO_SHOT]
    return arms


def select_arms(recipe: Recipe, missing: Mapping[str, str]) -> list[str]:
    """List the arms that can be measured.

    Args:
        recipe: Recipe with the arms.
        missing: Reason why an arm cannot be measured, by arm.

    Raises:
        BrainhiveError: if no arm can be measured.
    """
    arms = [arm for arm in list_arms(recipe) if arm not in missing]
    if not arms:
        raise BrainhiveError(
            f"no arm can be used: {next(iter(missing.values()))}",
            "choose other arms (methods of calibration): --arms",
        )
    return arms


def require_arms(job: Job) -> None:
    """Check, without training, that an arm (method of calibration) can be measured.

    Raises:
        BrainhiveError: if no arm can be measured.
    """
    recipe = job.recipe
    for arm in recipe.arms:
        # every model can be trained again
        if arm in TRAINED_ARMS and arm not in (SUBJECT_LAYER, FINE_TUNING):
            return
    alignments = {config.kind: config for config in recipe.alignments}
    missing: dict[str, str] = {}
    for cell in job.cells:
        trials = job.people[cell.tested_on[0]].trials
        model = job.align.open(cell).module
        base = SourceModel(model, Targets({}), (), job.training.train, ())
        for arm in list_arms(recipe):
            try:
                if arm == ZERO_SHOT:
                    base.zero_shot.encode(trials.read(slice(1)))
                elif arm not in alignments:
                    base.require_arm(arm, trials)
                elif parts.is_kind(SIGNAL_SHELF, arm):
                    base.require_alignment(alignments[arm], trials)
                else:
                    PersonModel(model).encode(trials.read(slice(1)))
            except BrainhiveError as error:
                missing[arm] = error.in_one_line
    select_arms(recipe, missing)


def find_fixed_pulls(job: Job, cell: Cell) -> Strength | None:
    """Find the strength of transfer for each amount, if it needs no training to choose.

    The strength pulls the model of a new person towards the model of other people.

    Returns:
        The strengths, or None if `choose_pulls` must choose them by accuracy.
    """
    recipe = job.recipe
    pulls = recipe.transfer.pulls
    if job.count_choosers(cell):
        return None
    if job.training.backbone.is_closed_form:
        return Strength(pulls=dict.fromkeys(job.amounts, 0.0), chosen_by="closed form")
    if len(pulls) == 1:
        return Strength(pulls=dict.fromkeys(job.amounts, pulls[0]), chosen_by="recipe")

    # the number of pictures decides
    rng = np.random.default_rng(recipe.seed)
    trials = next(iter(job.people.values())).trials
    amounts = list(job.amounts.values())
    selections = select_trials(trials, job.unit, amounts, recipe.order, rng)
    fixed_pulls: dict[str, float | None] = {}
    for name, is_selected in zip(job.amounts, selections, strict=True):
        n_pictures = len(np.unique(trials.picture_of_trial[is_selected]))
        fixed_pulls[name] = choose_pull(n_pictures)
    if not pulls:
        return Strength(pulls=fixed_pulls, chosen_by="number of pictures")
    chosen_by = "another model" if job.has_start() else "one person"
    return Strength(pulls=fixed_pulls, chosen_by=chosen_by)


def make_reduced_recipe(
    job: Job, people: Sequence[int], seed: int, paths: Paths
) -> Training:
    """Make the recipe of a joint model without a person, who counts as new to it.

    Held-out concepts validate it. Test pictures do not select the epoch, even if they
    did so for the full model.

    Args:
        job: The calibration.
        people: People that the model is trained on.
        seed: Seed of the training.
        paths: Folders, with a folder of runs that other commands do not search.
    """
    training = job.training
    selection = training.train.selection
    train_changes = {
        "validation": max(MIN_VALIDATION_SHARE, training.train.validation),
        "selection": "best" if selection == "test" else selection,
    }
    changes = {
        "mode": "joint",
        "subjects": list(people),
        "trained_on": None,
        "seeds": [seed],
        "published": None,
        "paths": paths,
        "run": job.recipe.run,
        "train": training.train.model_copy(update=train_changes),
    }
    return training.model_copy(update=changes)


def choose_pulls(
    job: Job, cell: Cell, runs: Mapping[int, TrainedModels], launch: Launch
) -> Strength:
    """Choose the strength of transfer for each amount by accuracy in a model's people.

    The strength pulls the model of a new person towards the model of other people.
    Each person is treated as new to a model without this person. It is trained on the
    person's training pictures, and is scored on held-out concepts, from which no model
    learned. Test pictures have no part in the choice.

    Args:
        job: The calibration.
        cell: Cell of the model.
        runs: Run of the model without each person.
        launch: Process and device.
    """
    recipe = job.recipe
    # scores of each person by amount and strength
    scores = defaultdict[str, dict[float | None, list[float]]](dict)
    with console.progress("choosing the strength of transfer", len(runs)) as bar:
        for subject, run in runs.items():
            tests = open_test_set(run, "train")
            base = job.load_base(cell, launch, tests)
            person = _open_left_out_person(job, base, tests, subject)

            # strengths in order, the nearest to zero-shot first
            strengths: list[float | None] = []
            if base.can_decode_new_people(person.tested):
                strengths.append(None)
            strengths += sorted(recipe.transfer.pulls, reverse=True)
            for strength in strengths:
                pulls = dict.fromkeys(job.amounts, strength)
                draws = []
                for draw in range(recipe.transfer.draws):
                    draw_part = measure_draw(job, base, person, [TRANSFER], pulls, draw)
                    draws.append(draw_part.ranks)
                for name in job.amounts:
                    key = TRANSFER, name
                    # a person has one score, the mean over draws
                    reciprocal_ranks = [
                        (1 / ranks[key]).mean() for ranks in draws if key in ranks
                    ]
                    score = float(np.mean(reciprocal_ranks))
                    scores[name].setdefault(strength, []).append(score)
            bar.advance()

    chosen_pulls = {}
    means: dict[str, dict[str, float]] = {}
    for name, scores_of_strength in scores.items():
        chosen_pulls[name] = choose_strength(scores_of_strength)
        means[name] = {}
        for strength, values in scores_of_strength.items():
            label = ZERO_SHOT if strength is None else f"{strength:g}"
            means[name][label] = float(np.mean(values))
    return Strength(pulls=chosen_pulls, chosen_by="people", people=len(runs), mrr=means)


def _open_left_out_person(
    job: Job, base: SourceModel, tests: TestSet, subject: int
) -> Person:
    """Open the training recordings of a person who is left out of a model.

    The pictures of held-out concepts are tested.
    """
    person = tests.open_person(tests.run.open_first(), subject)
    trials = read_training(person, job.needs_trials)
    store = tests.open_pictures("train")
    is_held_out = choose_held_out(
        store.concepts,
        share=max(MIN_VALIDATION_SHARE, job.training.train.validation),
        pictures=(
            tests.dataset.pictured_as,
            store.image_ids,
            store.pixels,
            tests.make_comparison("train"),
        ),
    )
    is_tested = is_held_out[trials.stimulus]
    test_trials = trials.take(is_tested)
    rows = np.unique(test_trials.stimulus)
    return Person(
        subject,
        trials=trials.take(~is_tested),
        dropped=int(is_tested.sum()),
        tested=test_trials,
        gallery=base.targets.gather(torch.from_numpy(rows)),
        rows=rows,
    )


def choose_strength(scores: Mapping[float | None, Sequence[float]]) -> float | None:
    """Choose the strength nearest to zero-shot that is about as good as the best.

    It may be worse than the best by a standard error of the difference over people.

    Args:
        scores: Score of each person by strength, the nearest to zero-shot first. The
            key None is zero-shot.

    Source: the rule of one standard error, Breiman et al. 1984, Classification and
    Regression Trees.
    """
    best = max(scores, key=lambda strength: float(np.mean(scores[strength])))
    for strength, values in scores.items():
        loss = np.asarray(scores[best]) - np.asarray(values)
        error = float(loss.std(ddof=1)) / np.sqrt(len(loss)) if len(loss) > 1 else 0.0
        if float(loss.mean()) <= error:
            return strength
    return best
