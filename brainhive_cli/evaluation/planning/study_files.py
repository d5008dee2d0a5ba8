"""Files of a planned study, as a lab shows it and as `prepare` reads it."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from brainhive_cli.core.base import BrainhiveError, Float32, console, write_cell
from brainhive_cli.core.files import atomic_write
from brainhive_cli.evaluation.planning.designs import MARGIN_S
from brainhive_cli.evaluation.planning.order import (
    CATCH,
    PlannedTrial,
    StudyPlan,
    draw_order,
    measure_minutes,
)

ABSENT = "n/a"
"""Cell without a value."""
CsvRow = Sequence[object]
"""Cells of a row of a table."""


def write_study(
    folder: Path,
    pictures_folder: Path,
    plan: StudyPlan,
    embeddings: Mapping[str, Float32] | None = None,
) -> None:
    """Write the order of a study, its tables, its pictures and a PsychoPy script.

    Args:
        folder: New folder of the study.
        pictures_folder: Folder of the pictures, which are copied.
        plan: The study.
        embeddings: As in `draw_order`.

    Raises:
        BrainhiveError: if there is no order or no code.
        OSError: if the folder has files, such as the order of a recorded study.
    """
    stimuli = {picture: f"train/{picture}" for picture in plan.train_pictures}
    stimuli |= {picture: f"test/{picture}" for picture in plan.test_pictures}
    events = assign_codes(plan)
    order = draw_order(plan, embeddings)
    tables = _list_pictures(plan, stimuli, events)
    tables |= _list_trials(plan, order, stimuli, events)
    with atomic_write(folder) as temporary:
        for name, rows in tables.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            is_bids = path.suffix == ".tsv"
            delimiter = "\t" if is_bids else ","
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
                for row in rows:
                    # people open CSV files in spreadsheets, which run formulas
                    writer.writerow(row if is_bids else map(write_cell, row))
        _write_texts(temporary, plan, order, events)
        with console.progress("copying pictures", len(stimuli)) as bar:
            for picture, stimulus in stimuli.items():
                copy = temporary / "bids/stimuli" / stimulus
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(pictures_folder / picture, copy)
                bar.advance()


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
    has_pairs = len(pictures) > n_codes
    max_pictures = n_codes * (n_codes - 1) if plan.bits == 8 else n_codes
    if len(pictures) > max_pictures:
        raise BrainhiveError(
            f"{len(pictures)} pictures are too many for trigger codes of {plan.bits} "
            "bits",
            "show fewer pictures, or use codes of 16 bits",
        )
    # Shortest time between pictures with two trigger codes. `prepare` takes codes
    # within 0.05 s for a pair.
    min_pair_interval_s = 0.1
    if has_pairs and plan.onset_interval_s < min_pair_interval_s:
        raise BrainhiveError(
            f"{len(pictures)} pictures need two trigger codes of 8 bits each, and "
            f"{plan.onset_interval_s:g} s between pictures is too short for them",
            f"show a picture every {min_pair_interval_s:g} s or more slowly, or use "
            "codes of 16 bits",
        )
    events = {CATCH: str(catch)}
    for index, picture in enumerate(pictures):
        first, second = divmod(index, n_codes - 1)
        second += second >= first  # equal codes would look like one
        pair = f"{first + 1}/{second + 1}"
        events[picture] = pair if has_pairs else str(index + 1)
    return events


def _list_pictures(
    plan: StudyPlan, stimuli: Mapping[str, str], events: Mapping[str, str]
) -> dict[str, list[CsvRow]]:
    """List the rows of the tables of pictures and trigger codes, by file name."""
    code_columns = ("event", "first_code", "second_code", "picture", "concept", "split")
    codes: list[CsvRow] = [code_columns]
    shown: list[CsvRow] = [("event", "picture")]
    files: list[CsvRow] = [("stimulus_id", "type", "filename")]
    for picture, stimulus in stimuli.items():
        event = events[picture]
        first, _, second = event.partition("/")
        split = stimulus.partition("/")[0]
        concept = plan.concept_of[picture]
        codes.append((event, first, second or ABSENT, stimulus, concept, split))
        shown.append((event, stimulus))
        files.append((event, "image", stimulus))
    codes.append((events[CATCH], events[CATCH], ABSENT, ABSENT, ABSENT, "catch"))
    shown.append((events[CATCH], ABSENT))
    return {
        "trigger_codes.csv": codes,
        "events.csv": shown,
        "bids/stimuli/stimuli.tsv": files,
    }


def _list_trials(
    plan: StudyPlan,
    order: Sequence[PlannedTrial],
    stimuli: Mapping[str, str],
    events: Mapping[str, str],
) -> dict[str, list[CsvRow]]:
    """List the rows of the order, and of the planned events.tsv of each run."""
    order_columns = ("person", "session", "run", "trial", "picture", "onset_s", "event")
    tables: dict[str, list[CsvRow]] = {"order.csv": [order_columns]}
    for trial in order:
        stimulus = stimuli.get(trial.picture, ABSENT)
        kind = "picture" if trial.picture in stimuli else "catch"
        event = events[trial.picture]
        numbers = (trial.person, trial.session, trial.run, trial.number)
        tables["order.csv"].append((*numbers, stimulus, trial.onset_s, event))

        folder = f"sub-{trial.person:02d}/ses-{trial.session:02d}"
        prefix = f"{folder.replace('/', '_')}_task-pictures_run-{trial.run:02d}"
        table = tables.setdefault(
            f"bids/{folder}/{prefix}_events.tsv",
            [("onset", "duration", "trial_type", "stim_file", "value")],
        )
        table.append((trial.onset_s, plan.stimulus_s, kind, stimulus, event))
    return tables


def _write_texts(
    folder: Path,
    plan: StudyPlan,
    order: Sequence[PlannedTrial],
    events: Mapping[str, str],
) -> None:
    """Write the script that shows the study, README.txt and the description of BIDS."""
    lines = []
    for session, durations in enumerate(measure_minutes(plan, order), 1):
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
    description = {"Name": "Planned study", "BIDSVersion": "1.10.0"}
    text = json.dumps(description, indent=2) + "\n"
    (folder / "bids/dataset_description.json").write_text(text, "utf-8")
