"""Ranks of a new person's test pictures by every arm, after every amount of calibration."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.trials import BY_TRIAL, Trials
from brainhive_cli.evaluation.calibration.amounts import ALL, choose_trials, measure_amounts
from brainhive_cli.evaluation.calibration.job import Person
from brainhive_cli.evaluation.calibration.recipe import SHELVES, Calibration
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
from brainhive_cli.training.alignment.recipe import Cell

ABSENT = 0
"""In place of ranks that were not measured."""


@dataclass(frozen=True)
class Part:
    """Ranks of one model and person in one draw.

    Attributes:
        ranks: By what is tested, [arms, amounts, N]; `ABSENT` where an arm was not measured.
        seconds: [arms, amounts] that fitting took.
        sizes: [amounts, 3] pictures, trials and minutes (NaN where they are not known).
        missing: Reasons why arms could not be measured.
        together: Arms whose tokens of a test trial depend on the other ones.
    """

    ranks: Mapping[str, Int64]
    seconds: Float64
    sizes: Float64
    missing: Mapping[str, str]
    together: Sequence[str] = ()


def part_file(cell: Cell, draw: int) -> str:
    """Name the file that keeps the ranks of a model and a person in a draw."""
    return f"parts/{cell.name}/sub-{cell.tested_on[0]:02d}_draw-{draw:03d}.safetensors"


def list_arms(spec: Calibration) -> list[str]:
    """List all arms: zero-shot, alignments by their names, then those that are trained."""
    alignments = [config.kind for config in spec.alignments]
    zero_shot = [arm for arm in spec.arms if arm == ZERO_SHOT]
    return [*zero_shot, *alignments, *(arm for arm in spec.arms if arm != ZERO_SHOT)]


def fit_decoder(
    base: SourceModel, arm: str, spec: Calibration, trials: Trials, seed: int, pull: float | None
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


def rank_tested(decoder: PersonModel, person: Person) -> dict[str, Int64]:
    """Rank the seen picture of each test signal among the tested pictures: [N], by what is tested."""
    with torch.inference_mode():
        gallery = decoder.model.encode_image(
            {key: values.to(decoder.model.device) for key, values in person.gallery.items()}
        ).float()
    return {
        name: ranks(
            decoder.encode(tested.averages),
            gallery,
            torch.from_numpy(np.searchsorted(person.rows, tested.stimulus)),
        ).numpy()
        for name, tested in person.tested.items()
    }


def measure_draw(
    base: SourceModel,
    person: Person,
    spec: Calibration,
    amounts: Sequence[float],
    arms: Sequence[tuple[str, Sequence[float | None]]],
    draw: int,
    keep: Callable[[str, PersonModel], object] = lambda arm, decoder: None,
) -> Part:
    """Measure every arm after every amount, in one draw.

    Everything that a person has is learned from in the first draw alone, since all draws have it.

    Args:
        base: The model of other people.
        person: The new person.
        spec: What is measured.
        amounts: Ascending; `ALL` is everything.
        arms: Arms, each with its strength of transfer for each amount; None is zero-shot.
        draw: Number of the draw, which decides the order of the recordings.
        keep: Called with the name of each arm, and what has learned from everything.
    """
    ranked = {
        name: np.full((len(arms), len(amounts), len(tested.stimulus)), ABSENT)
        for name, tested in person.tested.items()
    }
    seconds = np.zeros((len(arms), len(amounts)))
    missing, together = dict[str, str](), set[str]()
    first = next(iter(person.tested.values()))
    label_free = {each.kind for each in spec.alignments if not getattr(each, "is_paired", False)}
    random = np.random.default_rng((spec.seed, person.subject, draw))
    chosen = choose_trials(person.trials, spec.unit, amounts, spec.order, random)
    sizes = np.ascontiguousarray(measure_amounts(person.trials, np.array(chosen)).T)  # [amounts, 3]
    for column, (amount, is_chosen) in enumerate(zip(amounts, chosen, strict=True)):
        # the recordings of this amount
        if not is_chosen.any() or (draw > 0 and np.array_equal(is_chosen, person.trials.is_there)):
            continue
        trials = person.trials.choose(is_chosen)

        # every arm on the same recordings
        for row, (arm, pulls) in enumerate(arms):
            if arm in missing:
                continue
            started_s, seed = time.process_time(), derive_seed(spec.seed, person.subject, draw)
            recordings = trials
            if arm in label_free and spec.align_on == "test":  # a control
                unknown: dict[str, Any] = dict.fromkeys((*BY_TRIAL, "repetitions", "index", "recorded"))
                signal = first.averages[:, None]
                recordings = replace(trials, signal=signal, image_ids=(), stimulus=first.stimulus, **unknown)
                together.add(arm)
            try:
                decoder = fit_decoder(base, arm, spec, recordings, seed, pulls[column])
                measured = rank_tested(decoder, person)
                if draw == 0 and column == 0:  # a test trial is decoded without the others
                    is_together = depends_on_other_trials(decoder.encode, torch.from_numpy(first.averages))
                    together |= {arm} if is_together else set()
            except BrainhiveError as error:
                missing[arm] = error.in_one_line
                continue
            seconds[row, column] = time.process_time() - started_s
            for name, values in measured.items():
                ranked[name][row, column] = values
            if amount == ALL:
                keep(arm, decoder)
    return Part(ranked, seconds, sizes, missing, sorted(together))
