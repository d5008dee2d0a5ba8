"""How long the trainings of `brainhive calibrate` take next to a bare loop: seconds of
processor time.

A cell is one training for a new person, at the size of the demo: brain-mlp, 17 channels
of 250 samples, a frozen fuser of two embeddings, 25 epochs in batches of 256. Seconds
of all threads are added.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np
import synthetic
import torch
from harness import Bench, main
from torch import nn

from brainhive_cli.core import parts
from brainhive_cli.data.published.things_eeg import POSTERIOR
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.evaluation.calibration.recipe import PICTURES
from brainhive_cli.models.heads import FUSED_TARGET, TOKEN_HEAD, Head
from brainhive_cli.models.losses import LossContext
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.stages import Train
from brainhive_cli.training.alignment.terms import Term
from brainhive_cli.training.alignment.trained.few_shot import (
    SCRATCH,
    TRANSFER,
    SourceModel,
)
from brainhive_cli.training.alignment.training.objective import Objective

SAMPLES, DIM, DIMS, COUNT = 250, 256, {"demo-clip": 128, "demo-vae": 1024}, 960
"""The demo's: samples, width of a token and of its embeddings, training pictures."""
CELLS, MOST_MINUTES, DRAWS = 2000, 20.0, 10
"""Cells of a full curve, the most minutes that they should take, and draws of each
amount but everything.
"""
TERMS = [Term(prediction=TOKEN_HEAD)]


def open_base(count: int, epochs: int, batch: int) -> tuple[SourceModel, Trials]:
    """Make a model of other people with random weights, and a new person's recordings
    of random numbers.
    """
    random = np.random.default_rng(0)
    signal = random.standard_normal((count, len(POSTERIOR), SAMPLES), np.float32)
    person = synthetic.make_trials(9, signal, POSTERIOR, float(SAMPLES))
    targets = {name: torch.randn(count, width) for name, width in DIMS.items()}
    layout = Layout(
        SignalSpec(POSTERIOR, SAMPLES, (1, 2), (len(POSTERIOR),) * 2, float(SAMPLES)),
        {TOKEN_HEAD: Head((DIM,), FUSED_TARGET)},
        backbone=parts.resolve("backbones", "brain_mlp").model_dump(),
        fuser=parts.resolve(
            "fusers", {"kind": "fusion_encoder", "intermediate_size": DIM}
        ).model_dump(),
        dims=DIMS,
        encoders={name: name for name in DIMS},
    )
    model, train = (
        Aligner(layout).eval(),
        Train(epochs=epochs, batch_size=batch, precision="fp32", validation=0),
    )
    trained = [replace(person, subject=subject) for subject in (1, 2)]
    stored = Targets({name: StoreTargets(values) for name, values in targets.items()})
    return SourceModel(model, stored, TERMS, train, trained, model.fuser), person


def train_bare(base: SourceModel, trials: Trials) -> None:
    """Train the same model on the same recordings as one writes it by hand."""
    model, objective, train = (
        Aligner(base.model.layout).train(),
        Objective(TERMS),
        base.train,
    )
    assert model.fuser is not None
    model.fuser.eval().requires_grad_(False)
    parameters = [
        each
        for each in [*objective.parameters(), *model.parameters()]
        if each.requires_grad
    ]
    optimizer = torch.optim.AdamW(
        parameters, train.lr, betas=train.betas, weight_decay=0.05, fused=True
    )
    signal, stimulus = (
        torch.from_numpy(trials.averages),
        torch.from_numpy(trials.stimulus),
    )
    subject, steps = (
        torch.zeros(len(signal), dtype=torch.long),
        -(-len(signal) // train.batch_size),
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, train.epochs * steps
    )
    for _ in range(train.epochs):
        for rows in torch.randperm(len(signal)).tensor_split(steps):
            targets = model.compute_targets(base.targets.gather(stimulus[rows]))
            compared = model.learn(
                signal[rows], subject[rows], targets, LossContext(steps=steps)
            )
            loss = objective(*compared, LossContext(steps=steps))
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)


def cells(on: Bench) -> None:
    """Compare trainings after the usual amounts with a bare loop, in turns."""
    count, epochs, batch = on.pick((20, 2, 8), (COUNT, 25, 256), (COUNT, 25, 256))
    base, person = open_base(count, epochs, batch)
    alignment = parts.resolve("normalisations", {"kind": "euclidean", "shrinkage": 0.1})
    busy, amounts = (
        replace(on, is_busy=True),
        [*(int(each) for each in PICTURES if each < count), count],
    )
    for arm in (TRANSFER, SCRATCH):
        times: list[Sequence[float]] = []
        for amount in amounts:
            responses = person.take(np.arange(amount))
            ours = partial(base.train_arm, arm, responses, 0, 0.1, alignment)
            sides = (ours, partial(train_bare, base, responses))
            turns = [
                [busy.seconds(side) for side in sides] for _ in range(1 + on.rounds)
            ][1:]
            times.append([median(side) for side in zip(*turns, strict=True)])
            on.show(
                f"{arm}, {amount} pictures: seconds of a cell, of a bare loop",
                *times[-1],
                unit="s",
            )

        # a curve's cells: ten draws of each amount, and everything once
        shares = [*[DRAWS] * (len(amounts) - 1), 1]
        minutes, bare = (
            CELLS * np.average(side, weights=shares) / 60
            for side in zip(*times, strict=True)
        )
        what = f"{arm}: {CELLS:,} cells over these amounts"
        note = f"a bare loop: {bare:.1f} min"
        on.show(
            what,
            float(minutes),
            unit="min",
            target=MOST_MINUTES,
            at_most=True,
            note=note,
        )


if __name__ == "__main__":
    main(__doc__, [cells], {})
