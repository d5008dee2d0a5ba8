"""Which initial weights train-align should start from: torch's, or the reference's (`train.init`).

Simulated signals in the shape of THINGS-EEG, of pictures whose embeddings are random functions of a concept
and of the picture itself; `brain_mlp` is trained as `papers/brainhive-intra` says. Prints, for each
initialisation, mean and spread over seeds of the training loss, of the loss and top-1 of held-out concepts,
and of 200-way top-1 of new concepts, whose signals are averaged over 80 trials.
"""

import argparse
import itertools
import statistics
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from brainhive_cli.core import parts
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.datasets.things_eeg import POSTERIOR
from brainhive_cli.data.responses import Responses
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.demo import simulation
from brainhive_cli.measurement.ranks import ranks
from brainhive_cli.models.heads import FUSED, TOKEN, Head
from brainhive_cli.models.losses import LossContext
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.batches import Batches, CellData
from brainhive_cli.training.alignment.initialisation import initial_aligner
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.optimisation import Learner
from brainhive_cli.training.alignment.settings import Train

HERE = Launch(0, 1, torch.device("cpu"))
CONCEPTS, EACH, NEW = 1654, 10, 200
"""Training concepts of THINGS-EEG, pictures of each, and concepts of its test."""
WIDTHS = {"clip-rn50": 1024, "clip-b32": 512, "vae": 1024}
SPREADS = {"clip-rn50": 0.06, "clip-b32": 0.45, "vae": 0.9}
"""Typical size of a feature of these encoders."""
MEANING, LOOK = 64, 140
"""Independent things that a picture means, and shows: as many as `recordings.low_level` measures."""
SIGNAL_SD = 0.6
"""Of whitened signals, averaged over four trials."""
CHUNK = 256
Floats = NDArray[np.float32]


def pictures(concepts: int, each: int, seed: int) -> tuple[Floats, Floats]:
    """Draw what pictures show [N, LOOK] and mean [N, MEANING], the latter mostly by their concept."""
    random = np.random.default_rng(seed)
    concept = random.standard_normal((concepts, 1, MEANING))
    meaning = 0.8 * concept + 0.6 * random.standard_normal((concepts, each, MEANING))
    decay = np.arange(1, LOOK + 1) ** -0.5  # natural pictures are mostly coarse
    look = random.standard_normal((concepts * each, LOOK)) * decay / np.linalg.norm(decay)
    return look.astype(np.float32), (meaning.reshape(-1, MEANING) / MEANING**0.5).astype(np.float32)


def embedded(look: Floats, meaning: Floats) -> Targets:
    """Embed pictures: two encoders see mostly what they mean, the third how they look."""
    found = {}
    for number, (name, width) in enumerate(WIDTHS.items()):
        random = np.random.default_rng((7, number))  # the same network for all pictures
        seen = np.concatenate([look, 0.1 * meaning] if name == "vae" else [0.3 * look, meaning], 1)
        hidden = np.tanh(3 * seen @ random.standard_normal((seen.shape[1], 512)) / seen.std() / 12)
        values = hidden @ random.standard_normal((512, width))
        found[name] = torch.from_numpy((SPREADS[name] * values / values.std()).astype(np.float32))
    return Targets({name: StoreTargets(values) for name, values in found.items()})


def recorded(look: Floats, meaning: Floats, repetitions: int, seed: int, noise: float) -> Floats:
    """Simulate averaged signals [N, C, T], a chunk of pictures at a time."""
    items, means = np.arange(len(look)), []
    for start in range(0, len(look), CHUNK):
        some = slice(start, start + CHUNK)
        trials = simulation.simulate(look[some], meaning[some], 1, repetitions, seed, noise, items[some])
        means.append(trials.mean(1))
    return np.concatenate(means)


def made(noise: float, concepts: int) -> tuple[CellData, CellData]:
    """Make what is learned from, a tenth of its concepts held out, and pictures of new concepts."""
    learned, new = pictures(concepts, EACH, 1), pictures(NEW, 1, 2)
    signal, later = recorded(*learned, 4, 1, noise), recorded(*new, 80, 2, noise)
    scale = SIGNAL_SD / signal.std()
    held_out = np.arange(concepts).repeat(EACH) >= round(0.9 * concepts)
    data = [
        CellData(
            [Responses(1, scale * each, np.arange(len(each)), POSTERIOR, 250.0)], embedded(*shown), kept, None
        )
        for each, shown, kept in ((signal, learned, held_out), (later, new, np.ones(NEW, bool)))
    ]
    return data[0], data[1]


def layout() -> Layout:
    """Describe BrainHiVE's aligner."""
    return Layout(
        SignalSpec(POSTERIOR, simulation.SAMPLES, (1,), (len(POSTERIOR),)),
        {TOKEN: Head((1024,), FUSED)},
        backbone=parts.resolve("backbones", "brain_mlp").model_dump(),
        fuser=parts.resolve("fusers", "fusion_encoder").model_dump(),
        dims=WIDTHS,
        encoders={name: name for name in WIDTHS},
    )


@torch.inference_mode()
def tried(aligner: Aligner, loss_of: torch.nn.Module, data: CellData) -> tuple[float, float]:
    """Measure the loss, in batches of 200, and top-1 among all held-out pictures."""
    aligner.eval()
    rows = np.flatnonzero(data.held_out)
    signal = aligner.encode_signal(torch.from_numpy(data.responses[0].signal[rows]))
    image = aligner.encode_image(data.targets.gather(rows))
    order = np.random.default_rng(0).permutation(len(rows))
    losses = [
        float(loss_of(signal[some], image[some], LossContext()))
        for some in np.array_split(order, len(rows) // NEW)
    ]
    found = ranks(signal, image, torch.arange(len(rows)))
    return statistics.mean(losses), float((found == 1).double().mean())


def trained(
    data: CellData, new: CellData, train: Train, seed: int, at: tuple[int, ...]
) -> Iterator[list[float]]:
    """Train once, and yield what `_NAMES` names after the epochs `at`."""
    config = parts.resolve("losses", "clip")
    aligner, loss_of = initial_aligner(seed, layout(), data, train.init), config.build()
    batches = Batches(data, train, 0.0, HERE)
    learner = Learner(aligner, loss_of, train, train.all_stages(batches.steps)[0], batches.steps)
    for epoch in range(train.epochs):
        aligner.train()
        losses = []
        for step, rows in enumerate(batches.epoch(seed, epoch)):
            torch.manual_seed(derive_seed(seed, epoch, step))
            batch = batches.draw(rows, derive_seed(seed, epoch, step))
            with HERE.autocast(train.precision):
                (signals,) = batch.parts
                signal = aligner.encode_signal(*signals).float()
                image = aligner.encode_image(batch.targets).float()
                loss = loss_of(signal, image, LossContext())
            loss.backward()
            learner.step()
            losses.append(float(loss.detach()))
        if epoch + 1 in at:
            held_out, later = (tried(aligner, loss_of, each) for each in (data, new))
            yield [statistics.mean(losses), *held_out, later[1]]


def main() -> None:
    """Train each initialisation with each seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=2025)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--noise", type=float, default=7, help="1 is that of the demo's simulated EEG")
    parser.add_argument("--concepts", type=int, default=CONCEPTS)
    on = parser.parse_args()
    data, new = made(on.noise, on.concepts)
    at = tuple(sorted({min(10, on.epochs), on.epochs}))
    print(f"{on.concepts} concepts, noise {on.noise:g}; at the end mean ± sd over {on.seeds} seeds")
    print(f"{'init':10} {'seed':>5} {'epoch':>5}  " + "  ".join(f"{name:>15}" for name in _NAMES))
    found: dict[tuple[str, int], list[list[float]]] = {}
    seeds = range(on.first_seed, on.first_seed + on.seeds)
    for seed, init in itertools.product(seeds, ("torch", "reference")):
        train = Train.model_validate({"epochs": on.epochs, "warmup_steps": 10, "init": init})
        for epoch, values in zip(at, trained(data, new, train, seed, at), strict=True):
            show(init, str(seed), epoch, [f"{value:.3f}" for value in values])
            found.setdefault((init, epoch), []).append(values)
    for (init, epoch), rows in sorted(found.items(), reverse=True):
        columns = list(zip(*rows, strict=True))
        show(init, "all", epoch, [f"{statistics.mean(v):.3f} ± {statistics.pstdev(v):.3f}" for v in columns])


def show(init: str, seed: str, epoch: int, cells: list[str]) -> None:
    """Print a row of the table."""
    print(f"{init:10} {seed:>5} {epoch:5}  " + "  ".join(f"{cell:>15}" for cell in cells), flush=True)


_NAMES = ("training loss", "held-out loss", "held-out top-1", "200-way top-1")

if __name__ == "__main__":
    main()
