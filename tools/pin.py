"""Compares the results of four studies with the pinned results of tests/pinned.

python -m tools.pin                      # run and compare all four
python -m tools.pin demo-real gratings   # some of them
python -m tools.pin demo-real --write    # pin the numbers of this environment

gratings and digits are recordings of other projects. They are searched below the folder
of --recordings; `brainhive fetch digits69` gets the digits.
"""

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from brainhive_cli import __version__
from brainhive_cli.core.results.measurements import Metric
from brainhive_cli.core.runs.launch import library_versions
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.exchange import digits69
from tools import gratings_recordings, pinned
from tools.pinned import ROOT, PinnedNumber, PinnedResults, round_number
from tools.shared_folders import SHARED

RECORDINGS = SHARED / "data/real"
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
"""Environment of the commands. Sums of several threads are rounded in another order."""
CPU_FILE = Path("/proc/cpuinfo")
UNPINNED_SCOPES = re.compile("sub-|shuffled labels")
"""Scopes of single subjects, and of windows with shuffled labels, are not pinned."""


def link_digits(recordings: Path, home: Path) -> None:
    """Link the file of the digits, so that it is not downloaded."""
    (path,) = find_files(recordings, (digits69.FILE,))
    folder = home / "data/digits69"
    folder.mkdir(parents=True)
    (folder / digits69.FILE).symlink_to(path.absolute())


def write_gratings(recordings: Path, home: Path) -> None:
    """Write the EEG of gratings as recordings."""
    paths = find_files(recordings, gratings_recordings.FILES)
    gratings_recordings.write(paths, home)


def find_files(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Find a file of each name below a folder.

    Raises:
        FileNotFoundError: if a file is missing.
    """
    paths = []
    for name in names:
        matches = sorted(folder.rglob(name))
        if not matches:
            raise FileNotFoundError(f"there is no {name} below {folder}")
        paths.append(matches[0])
    return paths


@dataclass(frozen=True)
class Study:
    """Command lines whose results are pinned.

    Attributes:
        title: Name on the page of releases.
        lines: Command lines, as in the gallery.
        runs: Pattern of the folder of a run below `runs/`, by the name of its step.
        headlines: Names of the numbers on the page of releases.
        write_recordings: Function that writes the recordings into a home, or None.
    """

    title: str
    lines: tuple[str, ...]
    runs: Mapping[str, str]
    headlines: tuple[str, ...]
    write_recordings: Callable[[Path, Path], None] | None = None


FREQUENCIES = "kind: categories, name: frequency, names: [f1, f2, f3, f4]"
STUDIES = {
    "demo-real": Study(
        title="`demo --real`",
        lines=("brainhive demo --real",),
        runs={"eval-retrieval": "eval-retrieval/*"},
        headlines=("eval-retrieval / all / accuracy", "eval-retrieval / all / auc"),
    ),
    "gratings": Study(
        title="gratings",
        lines=(
            "brainhive prepare --from recording preparation.events=frequency.csv "
            f"'preparation.stimuli={{{FREQUENCIES}}}' "
            "preparation.band_hz=[1,40] preparation.rate_hz=128",
            f"brainhive embed 'dataset={{{FREQUENCIES}}}'",
            "brainhive train-align backbone=lda seeds=0 signal.window_ms=[0,500] "
            f"'dataset={{{FREQUENCIES}, holdout: {{by: runs, folds: 3}}}}'",
            "brainhive eval-retrieval",
        ),
        runs={"eval-retrieval": "eval-retrieval/*"},
        headlines=("eval-retrieval / all / accuracy", "eval-retrieval / all / auc"),
        write_recordings=write_gratings,
    ),
    "digits": Study(
        title="digits",
        lines=("brainhive fetch digits69", "brainhive workflow --recipe digits69"),
        runs={
            "eval-retrieval": "eval-retrieval/*",
            "reconstruct": "reconstruct/*-further-*",
            "reconstruct-pixels": "reconstruct/*-pixels-*",
        },
        headlines=(
            "eval-retrieval / all / top1",
            "reconstruct / brain / two_way_pixels",
            "reconstruct / brain / pixcorr",
            "reconstruct-pixels / brain / two_way_pixels",
        ),
        write_recordings=link_digits,
    ),
    "demo": Study(
        title="`demo` (simulated)",
        lines=("brainhive demo", "brainhive explain --run demo --analyses windows"),
        runs={
            "eval-retrieval": "eval-retrieval/*",
            "train-prior": "train-prior/*",
            "reconstruct": "reconstruct/*",
            "explain": "explain/*",
        },
        headlines=(
            "eval-retrieval / all / top1",
            "eval-retrieval / all / top5",
            "reconstruct / brain / two_way_demo-clip",
            "reconstruct / brain / pixcorr",
        ),
    ),
}


def run_study(name: str, home: Path, recordings: Path = RECORDINGS) -> PinnedResults:
    """Run a study with one thread, and return its numbers.

    Args:
        name: Name in `STUDIES`.
        home: Empty folder for the study.
        recordings: Folder with the recordings of other projects.

    Raises:
        FileNotFoundError: if recordings are missing.
        CalledProcessError: if a command fails.
    """
    study = STUDIES[name]
    if study.write_recordings:
        study.write_recordings(recordings, home)
    environment = os.environ | ONE_THREAD
    environment |= {"BRAINHIVE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    run_process = partial(
        subprocess.run, env=environment, check=True, capture_output=True, text=True
    )
    for line in study.lines:
        arguments = shlex.split(line)[1:]
        run_process([sys.executable, "-m", "brainhive_cli", *arguments], cwd=home)
    # a process of its own, because tests load further libraries with a BLAS
    described = run_process(
        [sys.executable, "-m", "tools.pin", "--environment"], cwd=ROOT
    )

    results = PinnedResults(
        release=__version__,
        environment=json.loads(described.stdout),
        numbers={},
        p_values={},
    )
    for step, pattern in study.runs.items():
        (folder,) = home.glob(f"runs/{pattern}")
        add_numbers(results, step, RunFolder(folder))
    return results


def add_numbers(results: PinnedResults, step: str, run: RunFolder) -> None:
    """Add the metrics and p-values of a run."""
    measurements = run.measurements()
    for scope, metrics in measurements.scopes.items():
        if UNPINNED_SCOPES.search(scope):
            continue
        for name, metric in metrics.items():
            results.numbers[f"{step} / {scope} / {name}"] = pin_metric(metric)
    for answer in getattr(measurements.facts, "answers", ()):
        if isinstance(answer.p, float):
            p = round_number(answer.p)
            results.p_values[f"{step} / {answer.question}"] = p


def pin_metric(metric: Metric) -> PinnedNumber:
    """Round a metric."""
    has_interval = metric.low is not None and metric.high is not None
    return PinnedNumber(
        value=round_number(metric.value),
        low=round_number(metric.low) if has_interval else None,
        high=round_number(metric.high) if has_interval else None,
        chance=None if metric.chance is None else round_number(metric.chance),
        n=metric.n,
        candidates=metric.pool,
    )


def describe_environment() -> dict[str, str]:
    """Describe libraries and hardware that can change numbers."""
    # numpy and scipy have a BLAS each, which is found once it is loaded
    import scipy.linalg  # noqa: F401
    import torch
    from threadpoolctl import threadpool_info

    versions = library_versions()
    del versions["brainhive"]
    blas = set()
    for library in threadpool_info():
        if library["user_api"] == "blas":
            words = [library["internal_api"], library["version"] or ""]
            words.append(library.get("architecture", ""))  # its kernels for this CPU
            blas.add(" ".join(words).strip())
    vendor = platform.machine()
    if CPU_FILE.is_file():
        for line in CPU_FILE.read_text().splitlines():
            if line.startswith("vendor_id"):
                vendor = line.partition(":")[2].strip()
                break
    return versions | {
        "system": f"{platform.system()} {platform.machine()}",
        "CPU": f"{vendor} {torch.backends.cpu.get_cpu_capability()}",
        "BLAS": ", ".join(sorted(blas)),
        "threads": str(torch.get_num_threads()),
    }


def main() -> None:
    """Read the arguments, run the studies, and print how they compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="STUDY", help=", ".join(STUDIES))
    parser.add_argument("--write", action="store_true", help="pin the numbers")
    parser.add_argument("--recordings", type=Path, default=RECORDINGS)
    parser.add_argument("--environment", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.environment:
        print(json.dumps(describe_environment()))
        return
    for name in arguments.names:
        if name not in STUDIES:
            parser.error(f"there is no study {name}; choose from {', '.join(STUDIES)}")

    has_failed = False
    for name in arguments.names or STUDIES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = run_study(name, Path(folder), arguments.recordings)
            except FileNotFoundError as error:
                print(f"{name}: not run, because {error} (--recordings FOLDER)")
                has_failed |= name in arguments.names
                continue
            except subprocess.CalledProcessError as error:
                sys.exit(f"{name}: {shlex.join(error.cmd)} failed:\n{error.stderr}")
        results = pinned.read(name)
        if results:
            nearest = pinned.find_nearest(results, found.environment)
            comparison = pinned.compare(nearest, found)
            print(comparison.explain(name))
            has_failed |= bool(comparison.failures)
        if arguments.write:
            pinned.write(name, pinned.add(results, found))
            print(f"{name}: pinned {len(found.numbers)} numbers")
    if has_failed and not arguments.write:
        sys.exit(1)


if __name__ == "__main__":
    main()
