"""Speed and memory of single-trial betas of BOLD.

Closed forms are compared with loops. Sessions of a whole brain are simulated, and read
from files as `prepare` does: trials of repeated stimuli, an HRF of the library for each
voxel, drift, and noise with a part that voxels share. Memory is read from outside.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from harness import CHECKOUT, Bench, main, run_command
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from brainhive_cli.data.fmri import glm
from brainhive_cli.data.fmri.glm import BoldSession, TrialRun

OPTIONS: dict[str, dict[str, Any]] = {
    "--voxels": {
        "type": int,
        "help": "voxels of `session`; each takes 14 kB of disk",
    },
    "--runs": {"type": int, "help": "runs of `session`"},
    "--confounds": {"type": int, "default": 0, "help": "confounds of each run"},
}
VOLUMES = 300
TRIALS = 62
TR_S = 1.0
STIMULUS_S = 2.0
REPETITIONS = 3
VOXELS_PER_BLOCK = 5000
PROGRAM = "import sys, bold_betas; bold_betas.estimate(*sys.argv[1:])"


def make_runs(count: int, confounds: int = 0, seed: int = 0) -> list[TrialRun]:
    """Make runs that show each stimulus three times, in different runs if possible."""
    random = np.random.default_rng(seed)
    n_trials = count * TRIALS
    n_repeated = n_trials // REPETITIONS
    permutations = [random.permutation(n_repeated) for _ in range(REPETITIONS)]
    stimuli = np.concatenate(permutations)
    new_stimuli = stimuli.max() + 1 + np.arange(n_trials - len(stimuli))
    stimuli = np.concatenate([stimuli, new_stimuli])
    times_s = np.arange(VOLUMES) * TR_S + TR_S / 2
    runs = []
    for run_stimuli in stimuli.reshape(count, TRIALS):
        onsets_s = 4 + np.arange(TRIALS) * 4.5 + random.uniform(0, 1, TRIALS)
        regressors = random.standard_normal((VOLUMES, confounds))
        runs.append(
            TrialRun(times_s, onsets_s, run_stimuli, TR_S, confounds=regressors)
        )
    return runs


def simulate(
    runs: list[TrialRun], voxels: int, seed: int = 0
) -> list[NDArray[np.float32]]:
    """Draw the series [V, T] of each run, around a mean of 1000."""
    random = np.random.default_rng(seed)
    hrf_index = random.integers(0, 20, voxels)
    is_responsive = random.random(voxels) < 0.3
    n_stimuli = max(run.stimuli.max() for run in runs) + 1
    betas = np.zeros((n_stimuli, voxels))
    noise = random.standard_normal((n_stimuli, is_responsive.sum()))
    betas[:, is_responsive] = 1 + 0.6 * noise
    series = []
    for trial_run in runs:
        weights = random.standard_normal((2, voxels))
        shared_noise = weights.T @ random.standard_normal((2, VOLUMES))
        values = shared_noise + 1.5 * random.standard_normal((voxels, VOLUMES))
        values += random.standard_normal((voxels, 1)) * np.linspace(-1, 1, VOLUMES)
        designs = glm.build_design(trial_run, STIMULUS_S, "library")
        trial_betas = betas[trial_run.stimuli]
        for number, regressors in enumerate(designs):
            has_hrf = hrf_index == number
            values[has_hrf] += (regressors @ trial_betas[:, has_hrf]).T
        series.append((1000 + 10 * values).astype(np.float32))
    return series


def lss(bench: Bench) -> None:
    """Compare LSS of a run with a loop over trials, as in an example of nilearn."""
    voxels = bench.pick(20, 5000, 5000)
    runs = make_runs(1)
    series = simulate(runs, voxels)[0].T.astype(np.float64)
    regressors = glm.build_design(runs[0], STIMULUS_S, "glover")[0]
    drift = glm.build_polynomials(VOLUMES, 3)

    def ours() -> NDArray[np.float64]:
        clean = regressors - drift @ (drift.T @ regressors)
        return glm.compute_lss_weights(clean.T @ clean) @ (clean.T @ series)

    def peer() -> NDArray[np.float64]:
        total = regressors.sum(1)
        betas = []
        for regressor in regressors.T:
            model = np.column_stack([regressor, total - regressor, drift])
            betas.append(np.linalg.lstsq(model, series)[0][0])
        return np.stack(betas)

    difference = np.abs(ours() - peer()).max() / peer().std()
    note = f"largest difference {difference:.0e} of the spread"
    with threadpool_limits(1):
        bench.compare(
            "lss: a loop over trials", ours, peer, voxels / 1000, "k voxels/s", 20, note
        )


def hrf(bench: Bench) -> None:
    """Compare the fit of 20 HRFs to a run with a least-squares fit of each."""
    voxels = bench.pick(20, 5000, 20_000)
    runs = make_runs(1)
    series = simulate(runs, voxels)[0]
    designs = [glm.build_design(runs[0], STIMULUS_S, "library")]
    drift = glm.build_polynomials(VOLUMES, 3)

    def ours() -> NDArray[np.float64]:
        session = BoldSession(runs, lambda _, block: series[block], voxels, designs)
        return glm.survey_voxels(session)[3]

    def peer() -> NDArray[np.float64]:
        values = series.T.astype(np.float64)
        clean = values - drift @ (drift.T @ values)
        residuals = []
        for regressors in designs[0]:
            model = np.column_stack([regressors, drift])
            residuals.append(np.linalg.lstsq(model, clean)[1])
        return 100 * (1 - np.stack(residuals, 1) / (clean**2).sum(0)[:, None])

    note = f"R² differs by {np.abs(ours() - peer()).max():.0e} points"
    with threadpool_limits(1):
        bench.compare(
            "20 HRFs: a least-squares fit of each",
            ours,
            peer,
            voxels / 1000,
            "k voxels/s",
            2,
            note,
        )


def estimate(folder: str, estimator: Any, runs: str, confounds: str) -> None:
    """Estimate the betas of a session whose series are files in a folder."""
    trial_runs = make_runs(int(runs), int(confounds))
    series = []
    for number in range(len(trial_runs)):
        series.append(np.load(Path(folder) / f"{number}.npy", mmap_mode="r"))

    def read(number: int, voxels: Any) -> NDArray[np.float32]:
        return np.asarray(series[number][voxels])

    glm.estimate_trials(trial_runs, read, len(series[0]), estimator, STIMULUS_S)


def session(bench: Bench) -> None:
    """Measure the time and the peak memory of each estimator of a session."""
    voxels = bench.options.get("voxels") or bench.pick(200, 20_000, 100_000)
    count = bench.options.get("runs") or bench.pick(3, 12, 12)
    confounds = str(bench.options.get("confounds", 0))
    runs = make_runs(count)
    folder = bench.make_folder()
    files = []
    for number in range(count):
        path = folder / f"{number}.npy"
        shape = (voxels, VOLUMES)
        files.append(np.lib.format.open_memmap(path, "w+", np.float32, shape))
    for start in range(0, voxels, VOXELS_PER_BLOCK):
        series = simulate(runs, min(VOXELS_PER_BLOCK, voxels - start), start)
        for file, values in zip(files, series, strict=True):
            file[start : start + VOXELS_PER_BLOCK] = values
    del files, file
    python_path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "benchmarks")])
    environment = os.environ | {"PYTHONPATH": python_path}
    for name in ("lss", "hrf", "denoised"):
        arguments = [
            sys.executable,
            "-c",
            PROGRAM,
            str(folder),
            name,
            str(count),
            confounds,
        ]
        usage = run_command(arguments, env=environment)
        note = (
            f"{usage.cpu_s:.0f} s of processor, {usage.wall_s:.0f} s; "
            f"{usage.own_gib:.2f} GiB held by no file"
        )
        bench.show(
            f"{name}: {voxels} voxels, {count} runs",
            usage.peak_gib,
            unit="GiB",
            target=8,
            at_most=True,
            note=note,
        )


if __name__ == "__main__":
    main(__doc__, (lss, hrf, session), OPTIONS)
