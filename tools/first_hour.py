"""Run what a stranger runs first, and print the seconds of each step: the demos, the
ten lines of the README, and `api.fit`.

`tools/check_wheel.sh` copies this file, the README and `own_recordings.py` of the tests
into an empty folder, where the Python that has the wheel runs it.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import own_recordings  # type: ignore[import-not-found]
from own_recordings import Presentation

HERE = Path(__file__).resolve().parent
REPETITIONS = 3


def run(line: str, folder: Path) -> None:
    """Run a line of bash in a folder, and print its seconds and how it ended."""
    folder.mkdir(exist_ok=True)
    began_s = time.monotonic()
    ended = subprocess.run(
        ["bash", "-ec", line], cwd=folder, capture_output=True, text=True, check=False
    )
    took_s = time.monotonic() - began_s
    print(f"{took_s:6.0f} s  exit {ended.returncode}  {line}", flush=True)
    if ended.returncode:
        sys.exit(ended.stdout + ended.stderr)


def write_own_data(home: Path) -> None:
    """Write the pictures and the recording on which the ten lines are run."""
    own_recordings.write_pictures(home / "pictures")
    (home / "recordings").mkdir()
    shown = Presentation.randomize(REPETITIONS, seed=0)
    codes = [str(code) for code in own_recordings.list_event_codes(shown)]
    raw = own_recordings.make_raw(shown, seed=0)
    own_recordings.annotate(raw, shown, codes).save(
        home / "recordings/sub-01_ses-01.fif", verbose="ERROR"
    )
    own_recordings.write_table(home / "recordings/events.csv")


def run_python_of_readme(text: str, folder: Path) -> None:
    """Run the Python lines of the README on the runs of its ten lines."""
    block = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    for word, command in (
        ("EVALUATION", "eval-retrieval"),
        ("TRAINING", "train-align"),
    ):
        (run_folder,) = (folder / "runs" / command).glob("image-folder-*")
        block = block.replace(word, run_folder.name)
    (folder / "readme.py").write_text(block)
    run("python readme.py", folder)


def fit_arrays(folder: Path) -> None:
    """Fit the trials of a recording in memory."""
    from brainhive_cli import api

    shown = Presentation.randomize(REPETITIONS, seed=0)
    raw = own_recordings.make_raw(shown, seed=0)
    signal_uv = raw.get_data(units="uV")
    n_samples = own_recordings.RATE_HZ
    trials = []
    for onset in shown.onsets:
        trials.append(signal_uv[:, onset : onset + n_samples])
    times_s = [sample / own_recordings.RATE_HZ for sample in range(n_samples)]
    axes: dict[str, Any] = {"channels": own_recordings.CHANNELS, "times_s": times_s}
    files = [f"{name}.png" for name in shown.pictures]
    folder.mkdir()
    os.chdir(folder)
    began_s = time.monotonic()
    _, result = api.fit(trials, files, Path.home() / "pictures", unit="µV", **axes)
    took_s = time.monotonic() - began_s
    print(result)
    print(f"{took_s:6.0f} s          api.fit(X, shown, pictures)", flush=True)


def main() -> None:
    """Run all steps. The first that fails ends the program with its output."""
    import brainhive_cli

    package = Path(brainhive_cli.__file__)
    if not package.is_relative_to(sys.prefix):
        sys.exit(f"{package} is not the installed package")
    print(f"Python {sys.version.split()[0]}, Brainhive {brainhive_cli.__version__}")
    run("brainhive demo", HERE / "demo")
    run("brainhive demo --real", HERE / "real")

    write_own_data(Path.home())
    readme = (HERE / "README.md").read_text()
    section = readme.partition("## Your own data in ten lines")[2]
    lines = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[0].splitlines()
    for line in lines:
        run(line, HERE / "own")
    run_python_of_readme(readme, HERE / "own")
    fit_arrays(HERE / "arrays")


if __name__ == "__main__":
    main()
