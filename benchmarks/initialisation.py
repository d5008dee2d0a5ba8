"""Which initial weights train-align should start from: torch's, or the reference's
(`train.init`).

Simulated signals in the shape of THINGS-EEG, of pictures whose embeddings are random
functions of a concept and of the picture itself; `brain_mlp` is trained as
`papers/brainhive-intra` says. Prints mean ± spread over seeds of the training loss, of
top-1 among the held-out concepts' pictures, and of 200-way top-1 of new concepts, whose
signals are averaged over 80 trials.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
import torch
from numpy.typing import NDArray

from brainhive_cli import aligner
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.published.things_eeg import POSTERIOR
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.demo import simulation
from brainhive_cli.measurement.ranks import rank_targets
from brainhive_cli.training.alignment.stages import Train
from brainhive_cli.training.alignment.training.batches import CellData
from brainhive_cli.training.alignment.training.cell_folder import train_cell

CONCEPTS, EACH, NEW = 1654, 10, 200
"""Training concepts of THINGS-EEG, pictures of each, and concepts of its test."""
SPREADS = {"synclr-b16": 0.06, "clip-b32": 0.45, "vae": 0.9}
"""Typical size of a feature of three encoders."""
MEANING, LOOK = 64, 140
"""Independent things that a picture means, and shows: as many as `recordings.low_level`
measures.
"""
SIGNAL_SD, CHUNK = 0.6, 256
"""Of whitened signals, averaged over four trials; pictures that are simulated at
once.
"""
Floats = NDArray[np.float32]


def simulate(
    concepts: int,
    each: int,
    repetitions: int,
    seed: int,
    noise: float,
    scale: float | None,
) -> tuple[CellData, float]:
    """Draw what pictures show and mean, the latter mostly by their concept, their
    embeddings and signals.
    """
    random, count = np.random.default_rng(seed), concepts * each
    concept = random.standard_normal((concepts, 1, MEANING))
    meaning = (
        0.8 * concept + 0.6 * random.standard_normal((concepts, each, MEANING))
    ).reshape(count, -1)
    meaning = (meaning / MEANING**0.5).astype(np.float32)
    decay = np.arange(1, LOOK + 1) ** -0.5  # natural pictures are mostly coarse
    look = (
        random.standard_normal((count, LOOK)) * decay / np.linalg.norm(decay)
    ).astype(np.float32)
    rows = [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]
    trials = (
        simulation.simulate(
            look[some],
            meaning[some],
            1,
            repetitions,
            seed,
            noise,
            np.arange(count)[some],
        ).mean(1)
        for some in rows
    )
    signal = np.concatenate(list(trials))
    scale = scale or SIGNAL_SD / float(signal.std())
    held_out = np.arange(count) >= round(0.9 * concepts) * each
    trials = synthetic.make_trials(1, scale * signal, POSTERIOR, synthetic.RATE_HZ)
    return CellData([trials], embed(look, meaning), held_out, None), scale


def embed(look: Floats, meaning: Floats) -> Targets:
    """Embed pictures: two encoders see mostly what they mean, the third how they
    look.
    """
    targets = {}
    for number, (name, width) in enumerate(synthetic.DIMS.items()):
        random = np.random.default_rng((7, number))  # the same network for all pictures
        seen = np.concatenate(
            [look, 0.1 * meaning] if name == "vae" else [0.3 * look, meaning], 1
        )
        hidden = np.tanh(
            3 * seen @ random.standard_normal((seen.shape[1], 512)) / seen.std() / 12
        )
        values = hidden @ random.standard_normal((512, width))
        values = (SPREADS[name] * values / values.std()).astype(np.float32)
        targets[name] = StoreTargets(torch.from_numpy(values))
    return Targets(targets)


def train(
    data: CellData, new: CellData, epochs: int, init: str, seed: int
) -> list[float]:
    """Train once; return the last training loss, and top-1 of held-out and of new
    concepts.
    """
    model, events = synthetic.eeg_model(), []  # type: ignore[var-annotated]
    words: dict[str, Any] = {
        "epochs": epochs,
        "warmup_steps": min(10, epochs - 1),
        "init": init,
    }
    with tempfile.TemporaryDirectory() as home:
        folder = RunFolder(Path(home))
        fixed = (
            model.layout,
            data,
            model.terms,
            Train.model_validate(words | {"selection": "last"}),
            folder,
            Launch(0, 1, CPU),
        )
        train_cell("cell", seed, *fixed, events.append)
        trained = aligner.load(folder.path / "cells/cell/model").eval()
    with torch.inference_mode():
        signal = trained.encode_signal(torch.from_numpy(new.trials[0].averages))
        image = trained.encode_image(new.targets.gather(np.arange(len(signal))))
        hits = rank_targets(signal, image, torch.arange(len(signal))) == 1
    return [
        events[-1]["loss"],
        events[-1]["validation_top1"],
        float(hits.double().mean()),
    ]


def main() -> None:
    """Train each initialisation with each seed, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument(
        "--noise", type=float, default=7, help="1 is that of the demo's simulated EEG"
    )
    parser.add_argument("--concepts", type=int, default=CONCEPTS)
    on = parser.parse_args()
    data, scale = simulate(on.concepts, EACH, 4, 1, on.noise, None)
    new, _ = simulate(NEW, 1, 80, 2, on.noise, scale)
    print(
        f"{on.concepts} concepts, noise {on.noise:g}, {on.epochs} epochs, {on.seeds} "
        "seeds from 2025"
    )
    print(
        "| `train.init` | training loss | held-out top-1 | 200-way top-1 of new "
        "concepts |\n"
        "|---|---|---|---|"
    )
    for init in ("torch", "reference"):
        rows = [
            train(data, new, on.epochs, init, 2025 + number)
            for number in range(on.seeds)
        ]
        columns = zip(*rows, strict=True)
        cells = [
            f"{statistics.mean(v):.3f} ± {statistics.pstdev(v):.3f}" for v in columns
        ]
        print(f"| `{init}` | {' | '.join(cells)} |", flush=True)


CPU = torch.device("cpu")

if __name__ == "__main__":
    main()
