"""Ranks of a new person's test pictures by every arm and amount, and the strength of
transfer for each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from brainhive_cli.core import console, parts
from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import Strength
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.evaluation.calibration.amounts import (
    EVERYTHING,
    choose_trials,
    measure_amounts,
)
from brainhive_cli.evaluation.calibration.job import Job, Person, read_raw
from brainhive_cli.evaluation.calibration.recipe import SHELVES, Recipe
from brainhive_cli.measurement.ranks import rank_targets
from brainhive_cli.measurement.retrieval import depends_on_other_trials
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.recipe import Recipe as Training
from brainhive_cli.training.alignment.trained.few_shot import (
    FEWEST_PICTURES,
    FINE_TUNING,
    PERMUTED_TRANSFER,
    SUBJECT_LAYER,
    TRAINED_ARMS,
    TRANSFER,
    ZERO_SHOT,
    PersonModel,
    SourceModel,
    fixed_pull,
)
from brainhive_cli.training.alignment.trained.model import TrainedModel
from brainhive_cli.training.alignment.trained.run import TrainedRun
from brainhive_cli.training.alignment.training.batches import choose_held_out

LEAST_VALIDATION = 0.1
"""Share of training concepts that validate the strength, at least."""


@dataclass(frozen=True)
class Part:
    """Ranks of one model and person in one draw.

    Attributes:
        ranks: [N] by arm and amount; only those that were measured.
        sizes: [3] pictures, trials and minutes (NaN where they are not known) by
            amount.
        missing: Reasons why arms could not be measured.
        together: Arms whose tokens of a test trial depend on the other ones.
    """

    ranks: Mapping[tuple[str, str], Int64]
    sizes: Mapping[str, Float64]
    missing: Mapping[str, str]
    together: Sequence[str] = ()


def list_arms(spec: Recipe) -> list[str]:
    """List all arms: zero-shot, alignments by their names, then those that are
    trained.
    """
    # zero-shot needs nothing of the person, and alignments less than a training
    alignments = [config.kind for config in spec.alignments]
    zero_shot = [arm for arm in spec.arms if arm == ZERO_SHOT]
    return [*zero_shot, *alignments, *(arm for arm in spec.arms if arm != ZERO_SHOT)]


def keep_arms(spec: Recipe, missing: Mapping[str, str]) -> list[str]:
    """List the arms that can be measured.

    Raises:
        BrainhiveError: if there are none, with the reason of the first.
    """
    arms = [arm for arm in list_arms(spec) if arm not in missing]
    if not arms:
        raise BrainhiveError(
            f"no arm can be measured: {next(iter(missing.values()))}", "other arms"
        )
    return arms


def refuse_arms(job: Job) -> None:
    """Refuse a calibration none of whose arms can be measured; nothing is trained."""
    # every model can learn anew, or go on
    spec = job.recipe
    if {*spec.arms} & {*TRAINED_ARMS} - {SUBJECT_LAYER, FINE_TUNING}:
        return
    configs = {config.kind: config for config in spec.alignments}
    missing = dict[str, str]()
    for cell in job.cells:
        trials = job.people[cell.tested_on[0]].trials
        model = TrainedModel(job.align, cell).module
        base = SourceModel(model, Targets({}), (), job.training.train, ())
        for arm in list_arms(spec):
            try:
                if arm == ZERO_SHOT:
                    base.zero_shot.encode(trials.read(slice(1)))
                elif arm not in configs:
                    base.require_arm(arm, trials)
                elif parts.is_kind(SHELVES[0], arm):
                    base.require_alignment(configs[arm], trials)
                else:
                    PersonModel(model).encode(trials.read(slice(1)))
            except BrainhiveError as error:
                missing[arm] = error.in_one_line
    keep_arms(spec, missing)


def fit_decoder(
    base: SourceModel,
    arm: str,
    spec: Recipe,
    trials: Trials,
    seed: int,
    pull: float | None,
) -> PersonModel:
    """Fit what an arm decodes with to a person's recordings.

    Args:
        base: The model of other people.
        arm: Name of the arm.
        spec: What is measured: alignments, and what aligns signals before transfer.
        trials: The recordings, not normalised.
        seed: Decides all that is random.
        pull: Strength of transfer; None is zero-shot.

    Raises:
        BrainhiveError: if the model has no such arm.
    """
    # of too few pictures transfer is zero-shot, where the model decodes strangers
    is_transfer = arm in (TRANSFER, PERMUTED_TRANSFER)
    is_small = len(trials.stimulus) < FEWEST_PICTURES
    is_zero_shot = is_transfer and (
        pull is None or (is_small and base.decodes_strangers(trials))
    )
    if arm == ZERO_SHOT or is_zero_shot:
        return base.zero_shot

    # an alignment, or a training
    config = next((each for each in spec.alignments if each.kind == arm), None)
    if config is None:
        align = spec.transfer.align if trials.channels else None
        return base.train_arm(arm, trials, seed, pull or 0.0, align)
    is_of_signals = parts.is_kind(SHELVES[0], arm)
    return (
        base.align_signals(config, trials)
        if is_of_signals
        else base.align_tokens(config, trials)
    )


def measure_draw(
    job: Job,
    base: SourceModel,
    person: Person,
    arms: Sequence[str],
    pulls: Mapping[str, float | None],
    draw: int,
) -> Part:
    """Measure every arm after every amount, in one draw.

    Everything that a person has is learned from in the first draw alone, since all
    draws have it.

    Args:
        job: The calibration.
        base: The model of other people.
        person: The new person.
        arms: Names of the arms.
        pulls: Strength of transfer for each amount; None is zero-shot.
        draw: Number of the draw, which decides the order of the recordings.
    """
    # draw and person decide all that is random, so that arms see the same recordings
    spec, amounts = job.recipe, job.amounts
    ranked = dict[tuple[str, str], Int64]()
    sizes = dict[str, Float64]()
    missing = dict[str, str]()
    together = list[str]()
    signals = person.tested.averages
    shown = torch.from_numpy(np.searchsorted(person.rows, person.tested.stimulus))
    random = np.random.default_rng((spec.seed, person.subject, draw))
    seed = derive_seed(spec.seed, person.subject, draw)
    chosen = choose_trials(
        person.trials, job.unit, [*amounts.values()], spec.order, random
    )
    count = len(amounts) * len(arms)
    with console.progress("fitting models", count, is_of_item=True) as bar:
        for name, is_chosen in zip(amounts, chosen, strict=True):
            # the recordings of this amount
            sizes[name] = measure_amounts(person.trials, is_chosen)
            # all draws have everything in common
            if draw > 0 and np.array_equal(is_chosen, person.trials.is_there):
                bar.advance(len(arms))
                continue
            trials = person.trials.choose(is_chosen)

            # every arm on the same recordings
            for arm in arms:
                # an arm that failed once is not reported, so it is not fitted again
                if arm in missing:
                    continue
                try:
                    decoder = fit_decoder(base, arm, spec, trials, seed, pulls[name])
                    with torch.inference_mode():
                        model = decoder.model
                        # pictures as the arm's model encodes them
                        gallery = {
                            key: values.to(model.device)
                            for key, values in person.gallery.items()
                        }
                        pictures = model.encode_image(gallery).float()
                    ranked[arm, name] = rank_targets(
                        decoder.encode(signals), pictures, shown
                    ).numpy()

                    # tested once: it is a property of the arm
                    is_first = draw == 0 and name == next(iter(amounts))
                    if is_first and depends_on_other_trials(
                        decoder.encode, torch.from_numpy(signals)
                    ):
                        together.append(arm)
                except BrainhiveError as error:
                    missing[arm] = error.in_one_line
                bar.advance()
    return Part(ranked, sizes, missing, together)


def fix_pulls(job: Job, cell: Cell) -> Strength | None:
    """Fix the strength for each amount where nobody chooses it; None where people of
    the model do.

    They do where they are two or more, of a model that is trained step by step and
    started from none.
    """
    # strengths of the recipe, or of the run
    spec = job.recipe
    pulls = job.recipe.transfer.pulls
    if job.count_choosers(cell):
        return None
    if job.training.backbone.is_closed_form:
        return Strength(pulls=dict.fromkeys(job.amounts, 0.0), chosen_by="closed form")

    # one value leaves nothing to choose
    if len(pulls) == 1:
        return Strength(pulls=dict.fromkeys(job.amounts, pulls[0]), chosen_by="recipe")

    # else the number of pictures alone decides
    random = np.random.default_rng(spec.seed)
    trials = next(iter(job.people.values())).trials
    chosen = choose_trials(
        trials, job.unit, [*job.amounts.values()], spec.order, random
    )
    fixed = [fixed_pull(int(is_chosen.any(1).sum())) for is_chosen in chosen]
    fixed_pulls = dict(zip(job.amounts, fixed, strict=True))
    if not pulls:
        return Strength(pulls=fixed_pulls, chosen_by="number of pictures")
    chosen_by = "another model" if job.have_start() else "one person"
    return Strength(pulls=fixed_pulls, chosen_by=chosen_by)


def train_on(job: Job, people: Sequence[int], seed: int, paths: Paths) -> Training:
    """Write the recipe of a model of fewer people, which validates on held-out
    concepts.

    Two new persons who leave each other out share it.

    Args:
        job: The calibration.
        people: Who is left of the people whom a model learned from.
        seed: Of that model.
        paths: Where the run goes, apart from those that other commands find.
    """
    # no test selects the epoch, whatever it did for the model
    training = job.training
    validation = max(LEAST_VALIDATION, training.train.validation)
    selection = (
        "best" if training.train.selection == "test" else training.train.selection
    )
    # one joint model of all who are left
    update = {
        "mode": "joint",
        "subjects": [*people],
        "trained_on": None,
        "seeds": [seed],
        "published": None,
        "paths": paths,
        "run": job.recipe.run,
        "train": training.train.model_copy(
            update={"validation": validation, "selection": selection}
        ),
    }
    return training.model_copy(update=update)


def choose_pulls(
    job: Job, cell: Cell, runs: Mapping[int, TrainedRun], launch: Launch
) -> Strength:
    """Choose the strength for each amount by those whom the model learned from, each
    left out in turn.

    Each one's training pictures calibrate the model without that person, and the
    pictures of held-out concepts, which no model learned from, score it. Test pictures
    have no part in it.

    Args:
        job: The calibration.
        cell: The model of other people.
        runs: The model without each of them.
        launch: This process, and its device.
    """
    # scores of each person who is left out, by amount and strength, the nearest to
    # zero-shot first
    spec = job.recipe
    scores: dict[str, dict[float | None, list[float]]] = {
        name: {} for name in job.amounts
    }
    with console.progress("choosing the strength of transfer", len(runs)) as bar:
        for subject, run in runs.items():
            # the model, and the signals of the person as it reads them
            base, (without,) = job.load_base(cell, launch, run), run.cells
            member = TrainedModel(
                run, replace(without, tested_on=(subject,)), launch.device
            )
            trials = read_raw(member, subject, "train", with_single=job.needs_trials)

            # pictures of held-out concepts are tested, all others are learned from
            store = member.open_pictures("train")
            share = max(LEAST_VALIDATION, job.training.train.validation)
            pictures = (
                run.dataset.pictured_as,
                store.image_ids,
                store.pixels,
                run.get_pixel_comparison("train"),
            )
            is_tested = choose_held_out(store.concepts, share, pictures)[
                trials.stimulus
            ]
            tested = trials.take(is_tested)
            rows = np.unique(tested.stimulus)
            gallery = base.targets.gather(torch.from_numpy(rows))
            trials = trials.take(~is_tested)
            person = Person(
                subject, trials, int(is_tested.sum()), tested, gallery, rows
            )

            # mean reciprocal ranks of the person, over draws, which are no people
            zero_shot = [None] if base.decodes_strangers(tested) else []
            for strength in [*zero_shot, *sorted(spec.transfer.pulls, reverse=True)]:
                pulls = dict.fromkeys(job.amounts, strength)
                drawn = [
                    measure_draw(job, base, person, [TRANSFER], pulls, draw).ranks
                    for draw in range(spec.transfer.draws)
                ]
                for name in job.amounts:
                    key = TRANSFER, name
                    values = [
                        (1 / ranked[key]).mean() for ranked in drawn if key in ranked
                    ]
                    scores[name].setdefault(strength, []).append(float(np.mean(values)))
            bar.advance()

    # of strengths that do not differ from the best, the nearest to zero-shot
    chosen = {
        name: choose_strength(scores_of_strength)
        for name, scores_of_strength in scores.items()
    }
    labels = {
        strength: ZERO_SHOT if strength is None else f"{strength:g}"
        for strength in scores[EVERYTHING]
    }
    means = {
        name: {
            labels[strength]: float(np.mean(values))
            for strength, values in scores_of_strength.items()
        }
        for name, scores_of_strength in scores.items()
    }
    return Strength(pulls=chosen, chosen_by="people", people=len(runs), mrr=means)


def choose_strength(scores: Mapping[float | None, Sequence[float]]) -> float | None:
    """Choose the strength nearest to zero-shot that is not worse than the best by more
    than a standard error.

    Args:
        scores: Score of each person by strength, the nearest to zero-shot first, people
            in the same order.

    Source: the rule of one standard error, Breiman et al. 1984, Classification and
    Regression Trees.
    """
    # strengths are tried from zero-shot on, so the first one that is good enough is
    # returned
    best = max(scores, key=lambda strength: float(np.mean(scores[strength])))
    for strength, values in scores.items():
        # paired over people
        loss = np.asarray(scores[best]) - np.asarray(values)
        error = float(loss.std(ddof=1)) / np.sqrt(len(loss)) if len(loss) > 1 else 0.0
        if float(loss.mean()) <= error:
            return strength
    return best
