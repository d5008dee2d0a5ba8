"""Processor time of the trainings of `brainhive calibrate`, next to a bare loop.

A cell is the training for a new person at the size of the demo: brain-mlp, 17 channels
of 250 samples, a frozen fuser of two embeddings, 25 epochs in batches of 256. Seconds
of all threads are added.
"""

from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np
import synthetic
import torch
from harness import Bench, main
from torch import nn

from brainhive_cli.core.recipes import parts
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

SAMPLES = 250
DIM = 256
"""Width of a token."""
DIMS = {"demo-clip": 128, "demo-vae": 1024}
"""Widths of the embeddings."""
MAX_PICTURES = 960
"""Number of training pictures of the demo."""
CELLS = 2000
"""Number of cells of a full curve."""
MAX_MINUTES = 20.0
"""Most minutes that a full curve should take."""
DRAWS = 10
"""Number of draws of each amount except the full one."""
TERMS = [Term(prediction=TOKEN_HEAD)]


def open_base(count: int, epochs: int, batch: int) -> tuple[SourceModel, Trials]:
    """Make a random model of other people, and random recordings of a new person."""
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
    model = Aligner(layout).eval()
    train = Train(epochs=epochs, batch_size=batch, precision="fp32", validation=0)
    source_trials = [replace(person, subject=subject) for subject in (1, 2)]
    stores = {name: StoreTargets(values) for name, values in targets.items()}
    source = SourceModel(
        model, Targets(stores), TERMS, train, source_trials, model.fuser
    )
    return source, person


def train_bare(base: SourceModel, trials: Trials) -> None:
    """Train the same model on the same recordings with a plain PyTorch loop."""
    model = Aligner(base.model.layout).train()
    objective = Objective(TERMS)
    train = base.train
    assert model.fuser is not None
    model.fuser.eval().requires_grad_(False)
    all_parameters = list(objective.parameters()) + list(model.parameters())
    parameters = [tensor for tensor in all_parameters if tensor.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, train.lr, betas=train.betas, weight_decay=0.05, fused=True
    )
    signal = torch.from_numpy(trials.averages)
    stimulus = torch.from_numpy(trials.stimulus)
    subject = torch.zeros(len(signal), dtype=torch.long)
    steps = -(-len(signal) // train.batch_size)
    lr_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, train.epochs * steps
    )
    context = LossContext(steps=steps)
    for _ in range(train.epochs):
        for rows in torch.randperm(len(signal)).tensor_split(steps):
            targets = model.compute_targets(base.targets.gather(stimulus[rows]))
            outputs = model.learn(signal[rows], subject[rows], targets, context)
            loss = objective(*outputs, context)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad(set_to_none=True)


def cells(bench: Bench) -> None:
    """Compare trainings after the usual amounts with a bare loop, in turns."""
    full_size = (MAX_PICTURES, 25, 256)
    count, epochs, batch = bench.pick((20, 2, 8), full_size, full_size)
    base, person = open_base(count, epochs, batch)
    alignment = parts.resolve("normalisations", {"kind": "euclidean", "shrinkage": 0.1})
    cpu_clock = replace(bench, is_busy=True)
    amounts = [int(amount) for amount in PICTURES if amount < count] + [count]
    for arm in (TRANSFER, SCRATCH):
        our_medians = []
        bare_medians = []
        for amount in amounts:
            responses = person.take(np.arange(amount))
            ours = partial(base.train_arm, arm, responses, 0, 0.1, alignment)
            bare = partial(train_bare, base, responses)
            our_seconds = []
            bare_seconds = []
            for _ in range(1 + bench.rounds):
                our_seconds.append(cpu_clock.measure_seconds(ours))
                bare_seconds.append(cpu_clock.measure_seconds(bare))
            # the first round warms up
            our_medians.append(median(our_seconds[1:]))
            bare_medians.append(median(bare_seconds[1:]))
            bench.show(
                f"{arm}, {amount} pictures: seconds of a cell, of a bare loop",
                our_medians[-1],
                bare_medians[-1],
                unit="s",
            )

        # a curve has ten draws of each amount, and a single draw of the full amount
        weights = [DRAWS] * (len(amounts) - 1) + [1]
        minutes = CELLS * np.average(our_medians, weights=weights) / 60
        bare_minutes = CELLS * np.average(bare_medians, weights=weights) / 60
        bench.show(
            f"{arm}: {CELLS:,} cells over these amounts",
            float(minutes),
            unit="min",
            target=MAX_MINUTES,
            at_most=True,
            note=f"a bare loop: {bare_minutes:.1f} min",
        )


if __name__ == "__main__":
    main(__doc__, [cells], {})
