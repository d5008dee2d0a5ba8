"""Files of a planned study, as a lab shows it and as `prepare` reads it."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Float32
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import atomic_write
from brainhive_cli.evaluation.planning.designs import MARGIN_S
from brainhive_cli.evaluation.planning.order import (
    CATCH,
    PlannedTrial,
    StudyPlan,
    draw_order,
    measure_minutes,
)

MIN_PAIR_INTERVAL_S = 0.1
"""Shortest time between pictures with two trigger codes. `prepare` takes codes within
0.05 s for a pair.
"""
ABSENT = "n/a"
"""Cell without a value."""
CODE_COLUMNS = ("event", "first_code", "second_code", "picture", "concept", "split")
ORDER_COLUMNS = ("person", "session", "run", "trial", "picture", "onset_s", "event")
EVENT_COLUMNS = ("onset", "duration", "trial_type", "stim_file", "value")
Row = Sequence[object]
"""Cells of a row of a table."""


def write_study(
    folder: Path,
    pictures_folder: Path,
    plan: StudyPlan,
    embeddings: Mapping[str, Float32] | None = None,
) -> list[Path]:
    """Write the order of a study, its tables, its pictures and a PsychoPy script.

    Args:
        folder: New folder of the study.
        pictures_folder: Folder of the pictures, which are copied.
        plan: The study.
        embeddings: As in `draw_order`.

    Returns:
        Paths of the files, without the pictures.

    Raises:
        BrainhiveError: if the folder exists, or if there is no order or no code.
    """
    if folder.exists():
        raise BrainhiveError(
            f"{folder} exists, and may be the order of a study that was recorded",
            "name another folder, or move this folder away",
        )
    stimuli = {}
    for split, pictures in (
        ("train", plan.train_pictures),
        ("test", plan.test_pictures),
    ):
        for picture in pictures:
            stimuli[picture] = f"{split}/{picture}"
    events = assign_codes(plan)
    order = draw_order(plan, embeddings)

    with atomic_write(folder) as temporary:
        temporary.mkdir()
        _write_tables(temporary, plan, stimuli, events)
        _write_order(temporary, plan, order, stimuli, events)
        _write_texts(temporary, plan, order, events)
        names = []
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                names.append(path.relative_to(temporary))
        with console.progress("copying pictures", len(stimuli)) as bar:
            for picture, stimulus in stimuli.items():
                copy = temporary / "bids/stimuli" / stimulus
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(pictures_folder / picture, copy)
                bar.advance()
    return [folder / name for name in names]


def assign_codes(plan: StudyPlan) -> dict[str, str]:
    """Assign trigger codes to pictures and catch trials.

    0 means no code, and the largest code means a catch trial. If there are more
    pictures than other codes, a picture has two different codes, sent one after the
    other: `12/200`.

    Returns:
        Name of the event of each picture and of `CATCH`, in tables of events.

    Raises:
        BrainhiveError: if there are too many pictures, or too little time for two
            codes.
    """
    catch = 2**plan.bits - 1
    n_codes = catch - 1
    pictures = plan.train_pictures + plan.test_pictures
    events = {}
    if len(pictures) <= n_codes:
        for code, picture in enumerate(pictures, 1):
            events[picture] = str(code)
        return events | {CATCH: str(catch)}

    if plan.bits > 8 or len(pictures) > n_codes * (n_codes - 1):
        raise BrainhiveError(
            f"{len(pictures)} pictures are too many for trigger codes of {plan.bits} "
            "bits",
            "show fewer pictures, or use codes of 16 bits",
        )
    if plan.onset_interval_s < MIN_PAIR_INTERVAL_S:
        raise BrainhiveError(
            f"{len(pictures)} pictures need two trigger codes of 8 bits each, and "
            f"{plan.onset_interval_s:g} s between pictures is too short for them",
            f"show a picture every {MIN_PAIR_INTERVAL_S:g} s or more slowly, or use "
            "codes of 16 bits",
        )
    for index, picture in enumerate(pictures):
        first, second = divmod(index, n_codes - 1)
        second += second >= first  # equal codes would look like one
        events[picture] = f"{first + 1}/{second + 1}"
    return events | {CATCH: str(catch)}


def _write_tables(
    folder: Path,
    plan: StudyPlan,
    stimuli: Mapping[str, str],
    events: Mapping[str, str],
) -> None:
    """Write the tables of trigger codes and pictures, and the description of BIDS."""
    codes: list[Row] = [CODE_COLUMNS]
    shown: list[Row] = [["event", "picture"]]
    files: list[Row] = [["stimulus_id", "type", "filename"]]
    for picture, event in events.items():
        first, _, second = event.partition("/")
        row = [event, first, second or ABSENT]
        if picture == CATCH:
            codes.append(row + [ABSENT, ABSENT, "catch"])
            continue
        stimulus = stimuli[picture]
        split = stimulus.partition("/")[0]
        codes.append(row + [stimulus, plan.concept_of[picture], split])
        shown.append([event, stimulus])
        files.append([event, "image", stimulus])
    _write_rows(folder / "trigger_codes.csv", codes)
    _write_rows(folder / "events.csv", shown)
    _write_rows(folder / "bids/stimuli/stimuli.tsv", files)
    description = {"Name": "Planned study", "BIDSVersion": "1.10.0"}
    text = json.dumps(description, indent=2) + "\n"
    (folder / "bids/dataset_description.json").write_text(text, "utf-8")


def _write_order(
    folder: Path,
    plan: StudyPlan,
    order: Sequence[PlannedTrial],
    stimuli: Mapping[str, str],
    events: Mapping[str, str],
) -> None:
    """Write the order of all trials, and the planned events.tsv of each run."""
    rows: list[Row] = [ORDER_COLUMNS]
    tables: dict[Path, list[Row]] = {}
    for trial in order:
        stimulus = stimuli.get(trial.picture, ABSENT)
        event = events[trial.picture]
        numbers = [trial.person, trial.session, trial.run, trial.number]
        rows.append(numbers + [stimulus, trial.onset_s, event])

        person = f"sub-{trial.person:02d}"
        session = f"ses-{trial.session:02d}"
        name = f"{person}_{session}_task-pictures_run-{trial.run:02d}_events.tsv"
        table = tables.setdefault(Path(person, session, name), [EVENT_COLUMNS])
        trial_type = "catch" if trial.picture == CATCH else "picture"
        table.append([trial.onset_s, plan.stimulus_s, trial_type, stimulus, event])
    _write_rows(folder / "order.csv", rows)
    for path, table in tables.items():
        _write_rows(folder / "bids" / path, table)


def _write_texts(
    folder: Path,
    plan: StudyPlan,
    order: Sequence[PlannedTrial],
    events: Mapping[str, str],
) -> None:
    """Write the script that shows the study, and the README."""
    # minutes of each session
    run_minutes: dict[int, list[float]] = {}
    for (session, _), minutes in measure_minutes(plan, order).items():
        run_minutes.setdefault(session, []).append(minutes)
    lines = []
    for session, durations in run_minutes.items():
        total = sum(durations) + (plan.runs - 1) * plan.break_s / 60
        runs = ", ".join(f"{duration:.1f}" for duration in durations)
        lines.append(f"session {session}: {total:.0f} (runs: {runs})")

    values = vars(plan) | {
        "margin_s": MARGIN_S,
        "break_s": f"{plan.break_s:g}",
        "n_train": len(plan.train_pictures),
        "n_test": len(plan.test_pictures),
        "catch_percent": f"{100 * plan.catch_share:g}",
        "catch_code": events[CATCH],
        "minutes": "\n".join(lines),
    }
    for template, name in (
        ("run_study.txt", "run_study.py"),
        ("study_readme.txt", "README.txt"),
    ):
        text = Path(__file__).with_name(template).read_text("utf-8")
        (folder / name).write_text(Template(text).substitute(values), "utf-8")


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a table with a header, separated by commas or (`.tsv`) tabs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    delimiter = "\t" if path.suffix == ".tsv" else ","
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
