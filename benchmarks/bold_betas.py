"""Single-trial betas of BOLD: closed forms next to loops, time and memory of a session
of a whole brain.

Series are simulated: trials of repeated stimuli, an HRF of the library for each voxel,
drift, noise that voxels share, and noise of their own. They lie in files, as `prepare`
has them. Memory is seen from outside.
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
    "--voxels": {"type": int, "help": "of `session`; each takes 14 kB of disk"},
    "--runs": {"type": int, "help": "of `session`"},
    "--confounds": {"type": int, "default": 0, "help": "of each run"},
}
VOLUMES, TRIALS, TR_S, STIMULUS_S, REPETITIONS = 300, 62, 1.0, 2.0, 3
BLOCK = 5000
"""Voxels that are simulated at a time."""
PROGRAM = "import sys, bold_betas; bold_betas.estimate(*sys.argv[1:])"


def make_runs(count: int, confounds: int = 0, seed: int = 0) -> list[TrialRun]:
    """Show each stimulus three times, in different runs where there are enough."""
    random = np.random.default_rng(seed)
    stimuli = np.concatenate(
        [random.permutation(count * TRIALS // REPETITIONS) for _ in range(REPETITIONS)]
    )
    stimuli = np.r_[
        stimuli, stimuli.max() + 1 + np.arange(count * TRIALS - len(stimuli))
    ]
    times_s = np.arange(VOLUMES) * TR_S + TR_S / 2
    return [
        TrialRun(
            times_s,
            4 + np.arange(TRIALS) * 4.5 + random.uniform(0, 1, TRIALS),
            shown,
            TR_S,
            confounds=random.standard_normal((VOLUMES, confounds)),
        )
        for shown in stimuli.reshape(count, TRIALS)
    ]


def simulate(
    runs: list[TrialRun], voxels: int, seed: int = 0
) -> list[NDArray[np.float32]]:
    """Draw the series [V, T] of each run, around a mean of 1000."""
    random = np.random.default_rng(seed)
    hrf, responds = random.integers(0, 20, voxels), random.random(voxels) < 0.3
    betas = np.zeros((max(run.stimuli.max() for run in runs) + 1, voxels))
    betas[:, responds] = 1 + 0.6 * random.standard_normal((len(betas), responds.sum()))
    series = []
    for one in runs:
        sources = random.standard_normal((2, voxels)).T @ random.standard_normal(
            (2, VOLUMES)
        )
        values = sources + 1.5 * random.standard_normal((voxels, VOLUMES))
        values += random.standard_normal((voxels, 1)) * np.linspace(-1, 1, VOLUMES)
        for number, regressors in enumerate(
            glm.build_design(one, STIMULUS_S, "library")
        ):
            values[hrf == number] += (
                regressors @ betas[one.stimuli][:, hrf == number]
            ).T
        series.append((1000 + 10 * values).astype(np.float32))
    return series


def lss(on: Bench) -> None:
    """Compare LSS of a run with a loop that fits a model a trial, as nilearn's example
    does.
    """
    voxels = on.pick(20, 5000, 5000)
    (run,) = make_runs(1)
    (series,) = simulate([run], voxels)
    (regressors,) = glm.build_design(run, STIMULUS_S, "glover")
    drift = glm.build_polynomials(VOLUMES, 3)
    series = series.T.astype(np.float64)

    def ours() -> NDArray[np.float64]:
        clean = regressors - drift @ (drift.T @ regressors)
        return glm.compute_lss_weights(clean.T @ clean) @ (clean.T @ series)

    def peer() -> NDArray[np.float64]:
        total = regressors.sum(1)
        models = (np.column_stack([one, total - one, drift]) for one in regressors.T)
        return np.stack([np.linalg.lstsq(model, series)[0][0] for model in models])

    note = (
        f"largest difference {np.abs(ours() - peer()).max() / peer().std():.0e} of the "
        "spread"
    )
    with threadpool_limits(1):
        on.compare(
            "lss: a loop over trials", ours, peer, voxels / 1000, "k voxels/s", 20, note
        )


def hrf(on: Bench) -> None:
    """Compare the fit of 20 HRFs to a run with a least-squares fit of each."""
    voxels = on.pick(20, 5000, 20_000)
    (run,) = make_runs(1)
    (series,) = simulate([run], voxels)
    designs = [glm.build_design(run, STIMULUS_S, "library")]
    drift = glm.build_polynomials(VOLUMES, 3)

    def ours() -> NDArray[np.float64]:
        return glm.survey_voxels(
            BoldSession([run], lambda _, part: series[part], voxels, designs)
        )[3]

    def peer() -> NDArray[np.float64]:
        values = series.T.astype(np.float64)
        clean = values - drift @ (drift.T @ values)
        residuals = [
            np.linalg.lstsq(np.column_stack([regressors, drift]), clean)[1]
            for regressors in designs[0]
        ]
        return 100 * (1 - np.stack(residuals, 1) / (clean**2).sum(0)[:, None])

    note = f"R² differs by {np.abs(ours() - peer()).max():.0e} points"
    with threadpool_limits(1):
        on.compare(
            "20 HRFs: a least-squares fit of each",
            ours,
            peer,
            voxels / 1000,
            "k voxels/s",
            2,
            note,
        )


def estimate(folder: str, estimator: Any, runs: str, confounds: str) -> None:
    """Estimate the session in a folder; the estimates are dropped."""
    series = [
        np.load(Path(folder) / f"{run}.npy", mmap_mode="r") for run in range(int(runs))
    ]
    read = lambda run, voxels: np.asarray(series[run][voxels])  # noqa: E731
    sessions = make_runs(int(runs), int(confounds))
    glm.estimate_trials(sessions, read, len(series[0]), estimator, STIMULUS_S)


def session(on: Bench) -> None:
    """Measure time and most memory of a session by each estimator."""
    voxels = on.options.get("voxels") or on.pick(200, 20_000, 100_000)
    count = on.options.get("runs") or on.pick(3, 12, 12)
    confounds = str(on.options.get("confounds", 0))
    runs, folder = make_runs(count), on.make_folder()
    shape = (voxels, VOLUMES)
    files = [
        np.lib.format.open_memmap(folder / f"{number}.npy", "w+", np.float32, shape)
        for number in range(count)
    ]
    for start in range(0, voxels, BLOCK):
        series = simulate(runs, min(BLOCK, voxels - start), start)
        for file, values in zip(files, series, strict=True):
            file[start : start + BLOCK] = values
    del files, file
    path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "benchmarks")])
    environment = {**os.environ, "PYTHONPATH": path}
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
        used = run_command(arguments, env=environment)
        note = (
            f"{used.cpu_s:.0f} s of processor, {used.wall_s:.0f} s; {used.own_gib:.2f} "
            "GiB held by no file"
        )
        what = f"{name}: {voxels} voxels, {count} runs"
        on.show(what, used.peak_gib, unit="GiB", target=8, at_most=True, note=note)


if __name__ == "__main__":
    main(__doc__, (lss, hrf, session), OPTIONS)
