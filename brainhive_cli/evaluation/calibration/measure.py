"""Ranks of a new person's test pictures by every arm, after every amount of calibration."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.calibration.amounts import EVERYTHING, choose_trials, measure_amounts
from brainhive_cli.evaluation.calibration.job import Person
from brainhive_cli.evaluation.calibration.recipe import SHELVES, Recipe
from brainhive_cli.measurement.ranks import ranks
from brainhive_cli.measurement.trialwise import depends_on_other_trials
from brainhive_cli.training.alignment.few_shot import (
    FEWEST_PICTURES,
    PERMUTED_TRANSFER,
    TRANSFER,
    ZERO_SHOT,
    PersonModel,
    SourceModel,
)


@dataclass(frozen=True)
class Part:
    """Ranks of one model and person in one draw.

    Attributes:
        ranks: [N] by what is tested, arm and amount; only those that were measured.
        sizes: [3] pictures, trials and minutes (NaN where they are not known) by amount.
        seconds: Processor time of fitting with everything, by arm.
        missing: Reasons why arms could not be measured.
        together: Arms whose tokens of a test trial depend on the other ones.
    """

    ranks: Mapping[tuple[str, str, str], Int64]
    sizes: Mapping[str, Float64]
    seconds: Mapping[str, float]
    missing: Mapping[str, str]
    together: Sequence[str] = ()


def list_arms(spec: Recipe) -> list[str]:
    """List all arms: zero-shot, alignments by their names, then those that are trained."""
    # zero-shot needs nothing of the person, and alignments less than a training
    alignments = [config.kind for config in spec.alignments]
    zero_shot = [arm for arm in spec.arms if arm == ZERO_SHOT]
    return [*zero_shot, *alignments, *(arm for arm in spec.arms if arm != ZERO_SHOT)]


def fit_decoder(
    base: SourceModel, arm: str, spec: Recipe, trials: Trials, seed: int, pull: float | None
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
    is_transfer, is_small = arm in (TRANSFER, PERMUTED_TRANSFER), len(trials.stimulus) < FEWEST_PICTURES
    is_zero_shot = is_transfer and (pull is None or (is_small and base.decodes_strangers(trials)))
    if arm == ZERO_SHOT or is_zero_shot:
        return base.zero_shot

    # an alignment, or a training
    config = next((each for each in spec.alignments if each.kind == arm), None)
    if config is None:
        align = spec.transfer.align if trials.channels else None
        return base.train_arm(arm, trials, seed, pull or 0.0, align)
    is_of_signals = parts.is_kind(SHELVES[0], arm)
    return base.align_signals(config, trials) if is_of_signals else base.align_tokens(config, trials)


def measure_draw(
    base: SourceModel,
    person: Person,
    spec: Recipe,
    amounts: Mapping[str, float],
    arms: Sequence[str],
    pulls: Mapping[str, float | None],
    draw: int,
    keep: Callable[[str, PersonModel], object] = lambda arm, decoder: None,
) -> Part:
    """Measure every arm after every amount, in one draw.

    Everything that a person has is learned from in the first draw alone, since all draws have it.

    Args:
        base: The model of other people.
        person: The new person.
        spec: What is measured.
        amounts: By name, ascending.
        arms: Names of the arms.
        pulls: Strength of transfer for each amount; None is zero-shot.
        draw: Number of the draw, which decides the order of the recordings.
        keep: Called with the name of each arm, and what has learned from everything.
    """
    # draw and person decide all that is random, so that arms see the same recordings
    ranked, sizes = dict[tuple[str, str, str], Int64](), dict[str, Float64]()
    seconds, missing, together = dict.fromkeys(arms, 0.0), dict[str, str](), list[str]()
    signals = torch.from_numpy(next(iter(person.tested.values())).averages)
    random = np.random.default_rng((spec.seed, person.subject, draw))
    seed = derive_seed(spec.seed, person.subject, draw)
    chosen = choose_trials(person.trials, spec.unit, [*amounts.values()], spec.order, random)
    for name, is_chosen in zip(amounts, chosen, strict=True):
        # the recordings of this amount
        sizes[name] = measure_amounts(person.trials, is_chosen)
        # all draws have everything in common
        if draw > 0 and np.array_equal(is_chosen, person.trials.is_there):
            continue
        trials = person.trials.choose(is_chosen)

        # every arm on the same recordings
        for arm in arms:
            # an arm that failed once is not reported, so it is not fitted again
            if arm in missing:
                continue
            started_s = time.process_time()
            try:
                decoder = fit_decoder(base, arm, spec, trials, seed, pulls[name])
                with torch.inference_mode():
                    model = decoder.model
                    # pictures as the arm's model encodes them
                    gallery = {key: values.to(model.device) for key, values in person.gallery.items()}
                    pictures = model.encode_image(gallery).float()
                for test, tested in person.tested.items():
                    shown = torch.from_numpy(np.searchsorted(person.rows, tested.stimulus))
                    tokens = decoder.encode(tested.averages)
                    ranked[test, arm, name] = ranks(tokens, pictures, shown).numpy()

                # tested once: it is a property of the arm
                is_first = draw == 0 and name == next(iter(amounts))
                if is_first and depends_on_other_trials(decoder.encode, signals):
                    together.append(arm)
            except BrainhiveError as error:
                missing[arm] = error.in_one_line
                continue

            # the time and model that a user of all recordings would have
            if name == EVERYTHING:
                seconds[arm] = time.process_time() - started_s
                keep(arm, decoder)
    return Part(ranked, sizes, seconds, missing, together)
