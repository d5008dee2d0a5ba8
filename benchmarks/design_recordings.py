"""Scores of recordings, predicted from their first 20 %.

The first 20 % of a recording are a pilot, from which the plan predicts top-1 at 40, 60
and 100 %. The same ridge regression is then fitted to as much of the recording, for
many random choices of the test trials. A prediction is right if the top-1 of such a
study lies in its range.

Only `digits69` has new pictures in the test. The others repeat few labels, of which a
single trial each is tested: the candidates are the labels, and other trials of the
label are in training.
"""

import csv
from collections.abc import Callable
from typing import NamedTuple

import mne
import nibabel
import numpy as np
import scipy.io
import torch
from harness import SHARED
from scipy.stats import zscore

from brainhive_cli.core.base.arrays import Float32, Int64
from brainhive_cli.evaluation.planning.assumptions import PilotPerson
from brainhive_cli.evaluation.planning.designs import Design, Prediction, Question
from brainhive_cli.evaluation.planning.power import predict_designs
from brainhive_cli.measurement.linear_maps import Products
from brainhive_cli.measurement.ranks import rank_first_pictures

REAL = SHARED / "data/real"
PILOT_SHARE = 0.2
SHARES = (0.4, 0.6, 1.0)
"""Shares of a recording that are predicted."""
N_SPLITS = 200
"""Number of random choices of the test trials."""
N_TEST_DIGITS = 20
"""Number of test pictures of `digits69`."""
N_DIGIT_COMPONENTS = 20
"""Number of principal components of the pixels of digits, as their embeddings."""
HAXBY_DELAY_S = 5.0
"""Time from the onset of a block to the response that is averaged."""


class Recording(NamedTuple):
    """Trials of a person in the order of time.

    Attributes:
        setting: Description of the test for the printed lines.
        signals: Signals [n, F].
        label: Picture or category [n] of each trial, a row of `targets`.
        targets: Embeddings [N, D].
    """

    setting: str
    signals: Float32
    label: Int64
    targets: Float32

    @property
    def is_zero_shot(self) -> bool:
        """Return True if each trial shows another picture."""
        return len(self.targets) == len(self.label)


def read_digits() -> Recording:
    """Read fMRI of 100 handwritten digits, each shown as a trial of the GLM."""
    file = scipy.io.loadmat(REAL / "digits69/69dataset2.mat")
    pixels = file["X"].reshape(100, -1).astype(np.float64)
    centred = pixels - pixels.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    targets = centred @ axes[:N_DIGIT_COMPONENTS].T

    # the order in time is not published, and the file has sixes before nines
    order = np.random.default_rng(0).permutation(100)
    return Recording(
        f"new pictures, {N_TEST_DIGITS} candidates",
        zscore(file["Y"][order]).astype(np.float32),
        np.arange(100),
        targets[order].astype(np.float32),
    )


def read_haxby() -> Recording:
    """Read blocks of eight categories in fMRI, as means over volumes."""
    folder = REAL / "haxby2001/haxby2001/sub001/BOLD"
    signals = []
    names = []
    mask = None
    for run in sorted(folder.glob("task001_run*")):
        volumes = np.asarray(nibabel.load(run / "bold_1slice.nii.gz").dataobj)
        if mask is None:
            mean = volumes.mean(3)
            mask = mean > 0.2 * mean.max()
        voxels = zscore(volumes[mask].T.astype(np.float64))  # [T, V]
        times_s = 2.5 * np.arange(len(voxels))
        with (run / "bold_events.tsv").open() as file:
            for row in csv.DictReader(file, delimiter="\t"):
                start_s = float(row["onset"]) + HAXBY_DELAY_S
                is_in_block = (times_s >= start_s) & (
                    times_s < start_s + float(row["duration"])
                )
                signals.append(voxels[is_in_block].mean(0))
                names.append(row["trial_type"])
    categories, label = np.unique(names, return_inverse=True)
    return Recording(
        f"other blocks of {len(categories)} categories in training",
        np.nan_to_num(np.array(signals, np.float32)),
        label,
        np.eye(len(categories), dtype=np.float32),
    )


def read_gratings() -> Recording:
    """Read EEG of gratings of four spatial frequencies, from 0 to 0.5 s."""
    signals = []
    label = []
    for path in sorted((REAL / "gratings_muse").rglob("*.csv")):
        values = np.genfromtxt(path, delimiter=",", skip_header=1, filling_values=0)
        eeg = mne.filter.filter_data(
            values[:, 1:6].T, 256.0, 1.0, 40.0, verbose="ERROR"
        )
        for onset in np.flatnonzero(values[:, 6] > 0):
            epoch = eeg[:, onset : onset + 128]
            if epoch.shape[1] == 128:
                # means of 4 samples, at 64 Hz
                signals.append(epoch.reshape(5, 32, 4).mean(2).ravel())
                label.append(int(values[onset, 6]) - 1)
    return Recording(
        "other trials of 4 frequencies in training",
        zscore(np.array(signals)).astype(np.float32),
        np.array(label),
        np.eye(4, dtype=np.float32),
    )


def make_pilot(recording: Recording) -> PilotPerson:
    """Make a pilot of the first trials. Each trial counts as a picture."""
    count = round(PILOT_SHARE * len(recording.label))
    return PilotPerson(
        recording.signals[:count],
        np.arange(count),
        recording.targets[recording.label[:count]],
        np.arange(count),
    )


def make_design(recording: Recording, share: float) -> Design:
    """Make the design of a share of a recording."""
    count = round(share * len(recording.label))
    n_labels = len(recording.targets)
    repetitions = 1
    if recording.is_zero_shot:
        train, test = count - N_TEST_DIGITS, N_TEST_DIGITS
    else:
        train = test = n_labels
        repetitions = round(count / n_labels) - 1
    return Design(1, 1, 60.0, 1.0, train, repetitions, test, 1)


def measure_top1(recording: Recording, share: float, rng: np.random.Generator) -> float:
    """Hold out random trials of a share of a recording, and decode them by a ridge."""
    label = recording.label[: round(share * len(recording.label))]
    order = rng.permutation(len(label))
    if recording.is_zero_shot:
        tested = order[:N_TEST_DIGITS]
    else:
        # a trial of each label
        _, first = np.unique(label[order], return_index=True)
        tested = order[first]
    trained = np.setdiff1d(order, tested)

    # mean signal of each training label, as in the evaluation
    labels = np.unique(label[trained])
    means = []
    for number in labels:
        means.append(recording.signals[trained][label[trained] == number].mean(0))
    train = torch.from_numpy(np.stack(means)).double()
    targets = torch.from_numpy(recording.targets).double()
    mean = train.mean(0)
    products = Products.from_samples(train - mean, [targets[labels]])
    test = torch.from_numpy(recording.signals[tested]).double()
    predicted = products.predict(test - mean) - products.mean
    candidates = targets[label[tested]] - products.mean
    ranks = rank_first_pictures(predicted, candidates, len(candidates))
    return float((np.diagonal(ranks) == 1).mean())


class Comparison(NamedTuple):
    """Prediction beside measurements.

    Attributes:
        covered: Share of the studies whose top-1 lies in the predicted range.
        is_inside: True if their mean top-1 lies in the range.
        width: Width of the range.
    """

    covered: float
    is_inside: bool
    width: float


def compare(name: str, recording: Recording) -> list[Comparison]:
    """Print predictions of a recording beside measurements."""
    designs = [make_design(recording, share) for share in SHARES]
    embeddings = recording.targets
    predictions = predict_designs(
        designs, Question("top1", 0.5), [make_pilot(recording)], embeddings
    )
    comparisons = []
    for share, prediction in zip(SHARES, predictions, strict=True):
        rng = np.random.default_rng(0)
        studies = [measure_top1(recording, share, rng) for _ in range(N_SPLITS)]
        label = f"{name:<9}{share:>5.0%}"
        comparisons.append(print_line(label, recording.setting, prediction, studies))
    return comparisons


def print_line(
    label: str, setting: str, prediction: Prediction, studies: list[float]
) -> Comparison:
    """Print a prediction beside the top-1 of studies."""
    top1 = prediction.top1
    measured = float(np.mean(studies))
    covered = float(np.mean([top1.low <= study <= top1.high for study in studies]))
    is_inside = top1.low <= measured <= top1.high
    cells = [
        label,
        f"predicted {top1.value:.2f} ({top1.low:.2f} to {top1.high:.2f})",
        f"measured {measured:.2f} {'inside' if is_inside else 'outside'}",
        f"{covered:.0%} of {len(studies)} studies inside",
        f"chance {prediction.chance:.3f}",
        setting,
    ]
    print("  ".join(cells), flush=True)
    return Comparison(covered, is_inside, top1.high - top1.low)


def main() -> None:
    """Compare predictions and measurements of all recordings that are present."""
    readers: dict[str, tuple[str, Callable[[], Recording]]] = {
        "digits69": ("digits69", read_digits),
        "haxby": ("haxby2001", read_haxby),
        "gratings": ("gratings_muse", read_gratings),
    }
    comparisons: list[Comparison] = []
    for name, (folder, read) in readers.items():
        if (REAL / folder).is_dir():
            comparisons += compare(name, read())
        else:
            print(f"{name}: no recording in {REAL / folder}")
    if comparisons:
        covered = np.mean([item.covered for item in comparisons])
        n_inside = sum(item.is_inside for item in comparisons)
        width = np.mean([item.width for item in comparisons])
        print(
            f"coverage: {covered:.0%} of studies, {n_inside} of {len(comparisons)} "
            f"means, by ranges that are {width:.2f} wide"
        )


if __name__ == "__main__":
    main()
