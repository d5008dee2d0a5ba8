"""How fast `brainhive prepare` is next to the published steps, with the same result; and a full-size session.

The published steps are those of THINGS-EEG2's authors and NICE: epochs of mne, then the shrinkage of
scikit-learn, one block at a time. Recordings are synthetic, in the real layout, by `prepare/mini_raw.py` of
the golden values (BRAINHIVE_GOLDEN, or --golden). `--full` takes 7 GB for a while.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.montages import THINGS_EEG
from brainhive_cli.core.recipe import Paths
from brainhive_cli.preparations._noise import covariance, whiten, whitener
from brainhive_cli.preparations.things_eeg import TARGET, Config

CHECKOUT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-4
LEAST = {"MVNN, epochs": 15, "MVNN, time": 50, "whole": 4}
"""Ratios that are promised."""
SEED = 20200220
MOST_S, MOST_GIB = 60, 2
"""Of a full-size session, in one process."""
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


def ratios(mini_raw: Any, folder: Path) -> list[dict[str, Any]]:
    """Compare each step with the published one."""
    wide, narrow = noise(200, 4, 63, 250), noise(200, 4, 17, 100)
    sizes = {
        "sessions": 1,
        "concepts": 70,
        "images_per_concept": 10,
        "test_images": 50,
        "test_repetitions": 20,
    }
    size = mini_raw.replace(
        mini_raw.SIZES["small"], **sizes
    )  # 700 training trials and 20, 1000 of test and 10
    mini_raw.make_eeg(folder, size, seed=1)
    session = folder / "raw_eeg/sub-01/ses-01"
    return [
        compared("MVNN, epochs", lambda: published_mvnn(wide, "epochs"), lambda: own_mvnn(wide, "epochs")),
        compared("MVNN, time", lambda: published_mvnn(narrow, "time"), lambda: own_mvnn(narrow, "time")),
        compared("whole", lambda: published_session(session), lambda: own_session(folder)),
    ]


def full_session(mini_raw: Any, home: Path) -> dict[str, float]:
    """Run the command on a session of the real size: 16,710 training and 4,056 test trials."""
    size = mini_raw.replace(mini_raw.SIZES["full"], sessions=1)
    mini_raw.make_eeg(home / "data/things-eeg", size, seed=1)
    environment = {
        **os.environ,
        "BRAINHIVE_HOME": str(home),
        "PYTHONPATH": str(CHECKOUT),
        "OMP_NUM_THREADS": "1",
    }
    line = [sys.executable, "-m", "brainhive_cli", "prepare", "preparation.sessions=[1]"]
    began = time.perf_counter()
    process = subprocess.Popen(line, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"prepare ended with {os.waitstatus_to_exitcode(status)}")
    wall_s = time.perf_counter() - began
    return {"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "peak_gib": used.ru_maxrss / 2**20}


def main() -> None:
    """Measure, and say whether all is as promised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--golden", default=os.environ.get("BRAINHIVE_GOLDEN", "golden"), help="golden values"
    )
    parser.add_argument("--full", action="store_true", help="also a full-size session, which takes 7 GB")
    parser.add_argument("--folder", help="where there is room for a while; default: the system's")
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args()
    spec = spec_from_file_location("mini_raw", Path(args.golden) / "prepare/mini_raw.py")
    mini_raw = sys.modules["mini_raw"] = module_from_spec(spec)
    spec.loader.exec_module(mini_raw)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        figures: dict[str, Any] = {"ratios": ratios(mini_raw, Path(folder, "small"))}
        for row in figures["ratios"]:
            sys.stdout.write(
                f"{row['step']:14}published {row['published_s']:7.2f} s, own {row['own_s']:6.2f} s: "
                f"{row['ratio']:6.1f} times (promised {row['promised']}), "
                f"largest difference {row['largest_difference']:.1e}\n"
            )
        if args.full:
            figures["full"] = full_session(mini_raw, Path(folder, "full"))
            full = figures["full"]
            sys.stdout.write(
                f"full session  {full['wall_s']:.1f} s ({full['cpu_s']:.1f} s of CPU), "
                f"{full['peak_gib']:.2f} GiB (promised {MOST_S} s, {MOST_GIB} GiB)\n"
            )
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2))
    too_slow = [row["step"] for row in figures["ratios"] if row["ratio"] < row["promised"]]
    other = [row["step"] for row in figures["ratios"] if row["largest_difference"] > TOLERANCE]
    if "full" in figures and (figures["full"]["wall_s"] > MOST_S or figures["full"]["peak_gib"] > MOST_GIB):
        too_slow.append("full session")
    if too_slow or other:
        raise SystemExit(f"not as promised: {too_slow} too slow or large, {other} differ")


if __name__ == "__main__":
    main()
