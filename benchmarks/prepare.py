"""How fast `brainhive prepare` is next to the published steps, with the same result; and at full size.

The published steps are those of THINGS-EEG2's authors and NICE: epochs of mne, then the shrinkage of
scikit-learn, one block at a time. Recordings are synthetic, in the real layout. `--full` runs the command on
a session of the published size, which takes 7 GB for a while, `--subject` on all four of them: 28 GB.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import processes
import raw_recordings
from numpy.typing import NDArray

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._noise import covariance, whiten, whitener
from brainhive_cli.data.preparations.things_eeg import TARGET, Config
from brainhive_cli.data.things_files import THINGS_EEG

SMALL = raw_recordings.Size(1, 70, 50, extra=(20, 10), targets=(12, 12))
"""700 training trials and 20, 1000 of test and 10."""
TOLERANCE = 1e-4
LEAST = {"MVNN, epochs": 15, "MVNN, time": 50, "whole": 4}
"""Ratios that are promised."""
SEED = 20200220
MOST_S, MOST_GIB = 60, 2
"""Of a full-size session, in one process of one thread; of a subject, so much memory."""
Signal = NDArray[Any]


def published_covariance(epochs: Signal, across: str) -> NDArray[np.float64]:
    """Average scikit-learn's shrunk covariances of blocks, one by one; `epochs` is [N, R, C, T]."""
    from sklearn.discriminant_analysis import _cov

    by_image = []
    for image in epochs:  # [R, C, T]
        blocks = image.transpose(0, 2, 1) if across == "epochs" else image.transpose(2, 0, 1)
        by_image.append(np.mean([_cov(block, shrinkage="auto") for block in blocks], axis=0))
    mean: NDArray[np.float64] = np.mean(by_image, axis=0)
    return mean


def published_mvnn(epochs: Signal, across: str) -> Signal:
    """Whiten [N, R, C, T] by their own noise."""
    from scipy.linalg import fractional_matrix_power

    inverse_root = fractional_matrix_power(published_covariance(epochs, across), -0.5)
    whitened: Signal = (epochs.swapaxes(2, 3) @ inverse_root).swapaxes(2, 3)
    return whitened


def own_mvnn(epochs: Signal, across: str) -> Signal:
    """Whiten [N, R, C, T] as the command does."""
    flat = epochs.reshape(-1, *epochs.shape[2:]).copy()
    stimuli = np.repeat(np.arange(len(epochs)), epochs.shape[1])
    noise = covariance(flat, stimuli, "time" if across == "time" else "epochs")
    whiten(flat, whitener(noise, [str(number) for number in range(flat.shape[1])]))
    return flat.reshape(epochs.shape)


def published_epochs(path: Path, repetitions: int) -> Signal:
    """Cut the trials of a recording [N, R, C, T] in microvolts, and draw R of each image."""
    import mne

    content = np.load(path, allow_pickle=True).item()
    info = mne.create_info(content["ch_names"], content["sfreq"], content["ch_types"], verbose="error")
    raw = mne.io.RawArray(content["raw_eeg_data"], info, verbose="error")
    events = mne.find_events(raw, stim_channel="stim", verbose="error")
    raw.pick(list(THINGS_EEG)).reorder_channels(list(THINGS_EEG))
    events = events[events[:, 2] != TARGET]
    epochs = mne.Epochs(raw, events, tmin=-0.2, tmax=1.0, baseline=(None, 0), preload=True, verbose="error")
    epochs.resample(250, verbose="error")
    signal, codes = epochs.get_data()[:, :, 50:] * 1e6, epochs.events[:, 2]
    by_image = []
    for code in np.unique(codes):
        trials = np.flatnonzero(codes == code)
        np.random.RandomState(SEED).shuffle(trials)
        by_image.append(signal[trials[:repetitions]])
    return np.stack(by_image)


def published_session(folder: Path) -> list[Signal]:
    """Prepare a session: training and test [N, R, C, T], whitened by the noise of training."""
    from scipy.linalg import fractional_matrix_power

    train, test = (
        published_epochs(folder / f"raw_eeg_{name}.npy", count)
        for name, count in (("training", 2), ("test", 20))
    )
    inverse_root = fractional_matrix_power(published_covariance(train, "epochs"), -0.5)
    return [(each.swapaxes(2, 3) @ inverse_root).swapaxes(2, 3) for each in (train, test)]


def own_session(root: Path) -> list[Signal]:
    """Prepare a session as the command does."""
    config = Config(root=str(root), sessions=[1], repetitions=(2, 20), seed=SEED)
    session = config.build(Paths()).session(1, 1)
    pairs = ((session["train"].signal, 2), (session["test"].signal, 20))
    return [signal.reshape(-1, count, *signal.shape[1:]) for signal, count in pairs]


def timed(work: Callable[[], Any], times: int = 1) -> tuple[float, Any]:
    """Return the seconds of the fastest of several calls, and its result."""
    fastest = np.inf
    for _ in range(times):
        began = time.perf_counter()
        result = work()
        fastest = min(fastest, time.perf_counter() - began)
    return fastest, result


def compared(name: str, published: Callable[[], Any], own: Callable[[], Any]) -> dict[str, Any]:
    """Measure both ways of one step, and by how much their results differ at most."""
    own_s, found = timed(own, 3)
    published_s, expected = timed(published)
    pairs = zip(*(each if isinstance(each, list) else [each] for each in (found, expected)), strict=True)
    difference = max(float(np.abs(one - other).max()) for one, other in pairs)
    return {
        "step": name,
        "published_s": published_s,
        "own_s": own_s,
        "ratio": published_s / own_s,
        "promised": LEAST[name],
        "largest_difference": difference,
    }


def noise(images: int, repetitions: int, channels: int, samples: int) -> Signal:
    """Draw correlated noise [N, R, C, T] in microvolts."""
    random = np.random.default_rng(0)
    mixing = np.eye(channels) + 0.2 * random.normal(size=(channels, channels))
    values: Signal = 5 * mixing @ random.normal(size=(images, repetitions, channels, samples))
    return values.astype(np.float32)


def ratios(folder: Path) -> list[dict[str, Any]]:
    """Compare each step with the published one."""
    wide, narrow = noise(200, 4, 63, 250), noise(200, 4, 17, 100)
    raw_recordings.write(folder, SMALL)
    session = folder / "raw_eeg/sub-01/ses-01"
    return [
        compared("MVNN, epochs", lambda: published_mvnn(wide, "epochs"), lambda: own_mvnn(wide, "epochs")),
        compared("MVNN, time", lambda: published_mvnn(narrow, "time"), lambda: own_mvnn(narrow, "time")),
        compared("whole", lambda: published_session(session), lambda: own_session(folder)),
    ]


def full(home: Path, sessions: int, flags: list[str]) -> dict[str, float]:
    """Run the command on sessions of the real size, each 16,710 training and 4,056 test trials."""
    raw_recordings.write(home / "data/things-eeg", raw_recordings.Size(sessions))
    numbers = [*range(1, sessions + 1)]
    line = ["prepare", f"preparation.sessions={numbers}", *flags]
    *_, used = processes.run(line, home, OMP_NUM_THREADS="1")
    return asdict(used)


def main() -> None:
    """Measure, and say whether all is as promised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="also a full-size session, which takes 7 GB")
    parser.add_argument("--subject", action="store_true", help="also a full-size subject, which takes 28 GB")
    parser.add_argument("--processes", default="1", help="of the command, for --subject")
    parser.add_argument("--folder", help="where there is room for a while; default: the system's")
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        figures: dict[str, Any] = {"ratios": ratios(Path(folder, "small"))}
    for row in figures["ratios"]:
        sys.stdout.write(
            f"{row['step']:14}published {row['published_s']:7.2f} s, own {row['own_s']:6.2f} s: "
            f"{row['ratio']:6.1f} times (promised {row['promised']}), "
            f"largest difference {row['largest_difference']:.1e}\n"
        )
    missed = [row["step"] for row in figures["ratios"] if row["ratio"] < row["promised"]]
    missed += [row["step"] for row in figures["ratios"] if row["largest_difference"] > TOLERANCE]
    asked = [("session", 1, MOST_S, [])] if args.full else []
    asked += [("subject", 4, np.inf, ["--processes", args.processes])] if args.subject else []
    for name, sessions, most_s, flags in asked:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            figures[name] = found = full(Path(folder), sessions, flags)
        sys.stdout.write(
            f"full {name}  {found['wall_s']:.1f} s, {found['cpu_s']:.1f} s of CPU (promised {most_s} s); "
            f"most memory of a process: {found['own_gib']:.2f} GiB of its own (RssAnon + RssShmem), "
            f"{found['resident_gib']:.2f} GiB with mapped files (VmHWM; promised {MOST_GIB} GiB)\n"
        )
        if found["wall_s"] > most_s or found["resident_gib"] > MOST_GIB:
            missed.append(name)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2))
    if missed:
        raise SystemExit(f"not as promised: {', '.join(missed)}")


if __name__ == "__main__":
    main()
