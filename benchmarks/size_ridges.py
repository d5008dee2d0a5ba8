"""Ridges of a brain model and of an evaluation, at published sizes."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from growth import Case, Task
from scipy.linalg import eigh
from synthetic import RATE_HZ

from brainhive_cli.data.published.things_eeg import POSTERIOR
from brainhive_cli.data.signals.spaces import Sensors, Voxels
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.signal_store import SignalStore
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.evaluation.retrieval import baseline
from brainhive_cli.evaluation.retrieval.baseline import ORDERS
from brainhive_cli.measurement.linear_maps import Products
from brainhive_cli.models.backbones.ridge import Config as Ridge
from brainhive_cli.models.heads import Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.stages import Train
from brainhive_cli.training.alignment.training.batches import CellData
from brainhive_cli.training.alignment.training.loop import fit

EMBEDDING_WIDTH = 1024
"""Number of outputs of a ridge."""
COMPONENTS = 1000
"""Number of principal components of a ridge."""
MAX_EXACT = 5000
"""Largest number of signals, or of their features, whose components are exact."""


def write_signals(folder: Path, shape: tuple[int, int, int, int]) -> Trials:
    """Write a store of random signals [N, R, C, T] in float16, and open it."""
    count, _, channels, samples = shape
    random = np.random.default_rng(0)
    signal = np.empty(shape, np.float16)
    for row in signal:
        row[:] = random.standard_normal(row.shape, np.float32)
    is_eeg = samples > 1
    space = Sensors(POSTERIOR[:channels]) if is_eeg else Voxels({})
    times_s = np.arange(samples) / RATE_HZ
    names = [f"{number:06d}" for number in range(count)]
    rate_hz = RATE_HZ if is_eeg else None
    path = folder / "sub-01.h5"
    recording = Trials.from_repetitions(
        signal, names, space, times_s, rate_hz, "random"
    )
    SignalStore.write(path, {"train": recording})
    stored = SignalStore.open(path)["train"]
    return replace(stored, subject=1, stimulus=np.arange(count))


def prepare_ridge(
    repetitions: int, channels: int, samples: int
) -> Callable[[int, Path], Task]:
    """Prepare a ridge of an evaluation: 1,000 components, 1,024 outputs."""

    def prepare(count: int, folder: Path) -> Task:
        trials = write_signals(folder, (count, repetitions, channels, samples))
        random = torch.Generator().manual_seed(0)
        embeddings = torch.randn(count, EMBEDDING_WIDTH, generator=random)
        targets = Targets({"embedding": StoreTargets(embeddings)})
        names = trials.space.names if isinstance(trials.space, Sensors) else ()
        layout = Layout(
            SignalSpec(names, samples, (1,), (channels,)),
            {"embedding": Head((EMBEDDING_WIDTH,), "embedding")},
            backbone=Ridge(
                alpha="auto", standardise=False, components=COMPONENTS
            ).model_dump(),
            encoders={"embedding": "embedding"},
            similarity="cosine_from_mean",
        )
        data = CellData([trials], targets, np.zeros(count, bool), None)

        def compute() -> None:
            signal = torch.from_numpy(trials.averages).flatten(1)
            solve_ridge(signal, embeddings)

        return Task(
            lambda: fit(layout, data, [], Train(validation=0)),
            compute,
            count * channels * samples * 4,
        )

    return prepare


def solve_ridge(signal: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Solve a ridge on principal components without anything around it."""
    centred = (signal - signal.mean(0)).double()
    if min(centred.shape) > MAX_EXACT:
        scores, _, _ = torch.svd_lowrank(centred.float(), COMPONENTS, niter=4)
    else:
        count = min(COMPONENTS, *centred.shape)
        is_wide = centred.shape[1] > len(centred)
        gram = centred @ centred.T if is_wide else centred.T @ centred
        largest = (len(gram) - count, len(gram) - 1)
        eigenvalues, eigenvectors = eigh(gram.numpy(), subset_by_index=largest)
        lengths = torch.from_numpy(eigenvalues).clamp(min=1e-9).sqrt()
        scores = torch.from_numpy(eigenvectors)
        if not is_wide:
            scores = centred @ scores / lengths
    return scores.float().T @ targets


def prepare_products(count: int, folder: Path) -> Task:
    """Make 240 signals of up to 17 channels and 250 samples, for a ridge."""
    random = np.random.default_rng(0)
    signals = torch.from_numpy(random.normal(size=(240, count)))
    centred = signals - signals.mean(0)
    targets = torch.from_numpy(random.normal(size=(240, 512)))

    return Task(
        lambda: Products.from_samples(centred, [targets]).predict(centred),
        lambda: torch.linalg.eigh(centred @ centred.T),
        8 * signals.numel(),
    )


def prepare_orders(count: int, folder: Path) -> Task:
    """Make the signals of a subject, whose pictures are tried in four orders."""
    random = torch.Generator().manual_seed(0)
    train = torch.randn(count, 1000, generator=random)
    test = torch.randn(200, 1000, generator=random)
    targets = make_embeddings(count)
    candidates = make_embeddings(200)
    orders = {name: refile(np.arange(count)).copy() for name, refile in ORDERS.items()}

    # stand-ins for an evaluation whose signals are the random numbers above
    model = SimpleNamespace(
        open_pictures=lambda split: SimpleNamespace(concepts=np.arange(200)),
    )
    cell = SimpleNamespace(tested_on=[1], fold=1)
    dataset = SimpleNamespace(alike_by="concept", stimulus="picture")
    job = SimpleNamespace(
        runs=[SimpleNamespace(origin=None, recipe=None, dataset=dataset)],
        groups=[[cell]],
        recipe=SimpleNamespace(split="test", only_shown=False, baseline="ridge"),
        open_models=lambda group, device: [model],
    )
    replacements = {
        "open_gallery": lambda *_, **__: SimpleNamespace(test_rows=np.arange(200)),
        "read_targets": lambda *_: candidates,
        "read_signals": lambda *_: (train, test, targets, orders, np.arange(200)),
    }
    for name, function in replacements.items():
        setattr(baseline, name, function)

    def compute() -> None:
        products = train.T @ train
        torch.linalg.eigh(products.double())
        for _ in orders:
            train.T @ targets

    data_bytes = 4 * (train.numel() + targets.numel())
    return Task(
        lambda: baseline.find_order(job, torch.device("cpu")), compute, data_bytes
    )


def make_embeddings(count: int) -> torch.Tensor:
    """Make random embeddings [count, 1024] of length 1."""
    random = torch.Generator().manual_seed(count)
    return torch.nn.functional.normalize(torch.randn(count, 1024, generator=random))


CASES: Mapping[str, Case] = {
    "ridge_eeg": Case(
        "ridge of THINGS-EEG2, 4 x 17 x 250", 16_540, prepare_ridge(4, 17, 250)
    ),
    "ridge_nsd": Case(
        "ridge of NSD, 3 x 15,000 voxels", 9_000, prepare_ridge(3, 15_000, 1)
    ),
    "products": Case("ridge of 240 signals", 4250, prepare_products),
    "find_order": Case("other orders of 16,540 pictures", 16_540, prepare_orders),
}
