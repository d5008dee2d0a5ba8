"""Comparison of the initial weights of train-align (`train.init`), torch or reference.

Signals in the shape of THINGS-EEG are simulated. Embeddings of pictures are random
functions of the concept and the picture. `brain_mlp` is trained as in
`papers/brainhive-intra`. Prints mean ± spread over seeds of the training loss, of top-1
among pictures of held-out concepts, and of 200-way top-1 of new concepts, whose signals
average 80 trials.
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
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.published.things_eeg import POSTERIOR
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.demo import simulation
from brainhive_cli.measurement.ranks import rank_targets
from brainhive_cli.training.alignment.stages import Train
from brainhive_cli.training.alignment.training.batches import CellData
from brainhive_cli.training.alignment.training.cell_folder import train_cell

N_CONCEPTS = 1654
"""Number of training concepts of THINGS-EEG."""
PICTURES_PER_CONCEPT = 10
N_TEST_CONCEPTS = 200
SPREADS = {"synclr-b16": 0.06, "clip-b32": 0.45, "vae": 0.9}
"""Typical size of a feature of three encoders."""
MEANING_DIM = 64
"""Number of semantic features of a picture."""
LOOK_DIM = 140
"""Number of visual features of a picture, as in `recordings.low_level`."""
SIGNAL_SD = 0.6
"""Standard deviation of whitened signals, averaged over four trials."""
PICTURES_PER_CHUNK = 256
CPU = torch.device("cpu")
Floats = NDArray[np.float32]


def simulate(
    concepts: int,
    pictures: int,
    repetitions: int,
    seed: int,
    noise: float,
    scale: float | None,
) -> tuple[CellData, float]:
    """Simulate averaged trials and embeddings, with a tenth of the concepts held out.

    Returns:
        The data, and the scale of the signals, by default the scale for `SIGNAL_SD`.
    """
    random = np.random.default_rng(seed)
    count = concepts * pictures
    concept = random.standard_normal((concepts, 1, MEANING_DIM))
    deviation = random.standard_normal((concepts, pictures, MEANING_DIM))
    meaning = (0.8 * concept + 0.6 * deviation).reshape(count, -1)
    meaning = (meaning / MEANING_DIM**0.5).astype(np.float32)
    decay = np.arange(1, LOOK_DIM + 1) ** -0.5  # natural pictures are mostly coarse
    look = random.standard_normal((count, LOOK_DIM)) * decay / np.linalg.norm(decay)
    look = look.astype(np.float32)

    # simulate in chunks, which bounds the memory
    averages = []
    for start in range(0, count, PICTURES_PER_CHUNK):
        rows = np.arange(start, min(start + PICTURES_PER_CHUNK, count))
        chunk = simulation.simulate(
            look[rows], meaning[rows], 1, repetitions, seed, noise, rows
        )
        averages.append(chunk.mean(1))
    signal = np.concatenate(averages)
    scale = scale or SIGNAL_SD / float(signal.std())
    is_held_out = np.arange(count) >= round(0.9 * concepts) * pictures
    trials = synthetic.make_trials(1, scale * signal, POSTERIOR, synthetic.RATE_HZ)
    return CellData([trials], embed(look, meaning), is_held_out, None), scale


def embed(look: Floats, meaning: Floats) -> Targets:
    """Embed pictures by their visual (`vae`) or their semantic features (others)."""
    targets = {}
    for number, (name, width) in enumerate(synthetic.DIMS.items()):
        random = np.random.default_rng((7, number))  # the same network for all pictures
        if name == "vae":
            features = np.concatenate([look, 0.1 * meaning], 1)
        else:
            features = np.concatenate([0.3 * look, meaning], 1)
        weights = random.standard_normal((features.shape[1], 512))
        hidden = np.tanh(3 * features @ weights / features.std() / 12)
        values = hidden @ random.standard_normal((512, width))
        values = (SPREADS[name] * values / values.std()).astype(np.float32)
        targets[name] = StoreTargets(torch.from_numpy(values))
    return Targets(targets)


def train(
    train_data: CellData, test_data: CellData, epochs: int, init: str, seed: int
) -> list[float]:
    """Train a model.

    Returns:
        The last training loss, and top-1 of held-out and of new concepts.
    """
    model = synthetic.eeg_model()
    events: list[Any] = []
    settings = Train.model_validate(
        {
            "epochs": epochs,
            "warmup_steps": min(10, epochs - 1),
            "init": init,
            "selection": "last",
        }
    )
    with tempfile.TemporaryDirectory() as home:
        folder = RunFolder(Path(home))
        train_cell(
            "cell",
            seed,
            model.layout,
            train_data,
            model.terms,
            settings,
            folder,
            Launch(0, 1, CPU),
            events.append,
        )
        trained_aligner = aligner.load(folder.path / "cells/cell/model").eval()
    with torch.inference_mode():
        signal = torch.from_numpy(test_data.trials[0].averages)
        rows = np.arange(len(signal))
        signal_tokens = trained_aligner.encode_signal(signal)
        image_tokens = trained_aligner.encode_image(test_data.targets.gather(rows))
        ranks = rank_targets(signal_tokens, image_tokens, torch.arange(len(signal)))
    test_top1 = float((ranks == 1).double().mean())
    return [events[-1]["loss"], events[-1]["validation_top1"], test_top1]


def main() -> None:
    """Train with each initialisation and seed, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument(
        "--noise", type=float, default=7, help="1 is the noise of the demo's EEG"
    )
    parser.add_argument("--concepts", type=int, default=N_CONCEPTS)
    args = parser.parse_args()
    train_data, scale = simulate(
        args.concepts, PICTURES_PER_CONCEPT, 4, 1, args.noise, None
    )
    test_data, _ = simulate(N_TEST_CONCEPTS, 1, 80, 2, args.noise, scale)
    print(
        f"{args.concepts} concepts, noise {args.noise:g}, {args.epochs} epochs, "
        f"{args.seeds} seeds from 2025"
    )
    print(
        "| `train.init` | training loss | held-out top-1 | 200-way top-1 of new "
        "concepts |\n"
        "|---|---|---|---|"
    )
    for init in ("torch", "reference"):
        rows = []
        for number in range(args.seeds):
            rows.append(train(train_data, test_data, args.epochs, init, 2025 + number))
        cells = []
        for values in zip(*rows, strict=True):
            mean = statistics.mean(values)
            cells.append(f"{mean:.3f} ± {statistics.pstdev(values):.3f}")
        print(f"| `{init}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
