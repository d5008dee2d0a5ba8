"""COBIDAS checklists have facts that are stored, and leave other items open."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from brainhive_cli.core.results import ALL, Answer, Measurements, Metric
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.stores.signal_store import SignalStore
from brainhive_cli.evaluation.explanation.facts import AxisClaim, ExplanationFacts
from brainhive_cli.evaluation.retrieval.facts import RetrievalFacts
from brainhive_cli.reports.pages.checklists import (
    FILES,
    fill_checklists,
    lay_out_checklists,
    read_checklist,
)
from brainhive_cli.reports.sentences.sentences import REFERENCES
from brainhive_cli.reports.tables.runs_shown import ShownRun
from brainhive_cli.training.alignment.facts import TrainingFacts
from tests.worlds.array_trials import make_trials

STORE = "signals lab/default/sub-01"
PREPARATION = {
    "kind": "recording",
    "epoch_ms": [-200.0, 1000.0],
    "baseline": True,
    "whiten": "no",
    "whiten_by": "training",
    "exclude": ["Fp1"],
    "channels": None,
    "band_hz": [0.5, 40.0],
    "phase": "forward",
}
SESSION = {
    "session": 1,
    "recorded_hz": 1000.0,
    "filtered_hz": [0.1, 330.0],
    "reference": ["nose"],
    "events_from": ["annotations"],
    "stimulus_ms": 100.0,
    "dropped": {},
    "dropped_by_split": {"test": {"flat": 2}},
}
SET_UP = {
    "dataset": "lab",
    "subjects": [1],
    "mode": "intra",
    "seeds": [3],
    "encoders": ["pixels"],
    "similarity": "cosine",
    "backbone.kind": "ridge",
    "called.model": "Ridge regression for each subject",
    "called.fit": "closed form",
    "called.signals": "continuous files",
    "backbone.alpha": "auto",
    "channels": ["Oz", "O1"],
    "window_ms": [0.0, 1000.0],
    "rate_hz": 250.0,
    "repetitions": [1, 1],
    **{f"preparation.{key}": value for key, value in PREPARATION.items()},
}


def write_store(home, session, **provenance):
    """Write the signals of a subject, and return the identity of the store."""
    trials = make_trials(
        1,
        np.random.default_rng(0).normal(size=(4, 2, 250)).astype(np.float32),
        range(4),
        channels=["Oz", "O1"],
    )
    provenance = {"preparation": PREPARATION, "sessions": [session], **provenance}
    trials = replace(trials, image_ids=list("abcd"), unit="µV", provenance=provenance)
    path = home / "signals/lab/default/sub-01.h5"
    path.parent.mkdir(parents=True)
    SignalStore.write(path, {"test": trials})
    return SignalStore.open(path).identity


def write_run(home, digest="", **changes):
    """Write a finished retrieval with a single metric."""
    metric = Metric(
        "top1",
        0.5,
        n=4,
        pool=4,
        chance=0.25,
        low=0.2,
        high=0.8,
        interval="Wilson",
        seeds=(3,),
        protocol="intra, lab",
        split="test",
    )
    answer = Answer("which picture", 0.01, 1.0, 0.002, n=4, pool=4, test="permutations")
    fields = {"modality": "EEG", "set_up": SET_UP, "answers": [answer], **changes}
    folder = RunFolder(home / "runs/eval-retrieval/one")
    folder.write_text("recipe.yaml", yaml.safe_dump({"digests": {STORE: digest}}))
    facts = RetrievalFacts(**fields)
    folder.finish(Measurements({ALL: {"top1": metric}}, facts=facts))
    return ShownRun("one", folder)


def read_answers(filled):
    """Return answer and status by the item. Items of MEEG have different names."""
    return {row["item"]: (row["answer"], row["status"]) for row in filled.rows}


def test_answers_come_from_store_recipe_and_metrics(home):
    (filled,) = fill_checklists([write_run(home, write_store(home, SESSION))])
    answers = read_answers(filled)
    expected = {
        "Sampling frequency": "1000 Hz",
        "Filters during acquisition": "0.1 to 330 Hz, as the files say",
        "Downsampling": "from 1000 to 250 Hz, as in MNE-Python",
        "Channels that were decoded": "2: Oz, O1",
        "Filter (cut-off frequencies)": "0.5 to 40 Hz",
        "Filter (roll-off)": "fourth order",
        "Re-referencing": "none by Brainhive. In the files: nose",
        "Duration of a stimulus": "100 ms",
        "Trials removed by the preparation (section 2 has the trials left)": "2 flat",
        "Exact p values": "which picture: p = 0.02",
        "Intervals": "95 %: Wilson",
        "Random seeds": "3",
    }
    for item, answer in expected.items():
        assert answers[item] == (answer, "from the run"), item
    trials, _ = answers[
        "Trials and different stimuli of each participant, after preparation"
    ]
    assert trials == "4 trials of 4 pictures"
    assert "Fp1" in answers["Removed sensors, and how they were chosen"][0]
    assert (
        "1 test against chance"
        in answers["Correction for multiple comparisons, and level of significance"][0]
    )
    assert answers["Medication"] == ("", "to fill in")
    assert answers["Impedances, and when they were measured"] == ("", "to fill in")


@pytest.mark.parametrize("file_name", sorted(set(FILES.values())))
def test_absent_facts_are_never_filled(home, file_name):
    modality = "fMRI" if "fmri" in file_name else "EEG"
    folder = RunFolder(home / "runs/eval-retrieval/bare")
    folder.finish(Measurements({}, facts=RetrievalFacts(modality=modality)))
    (filled,) = fill_checklists([ShownRun("bare", folder)])
    templates = {}
    for section in read_checklist(file_name).sections:
        for item in section.items:
            templates[section.title, item.item] = item.answer
    assert len(templates) == len(filled.rows)
    guesses = []
    for row in filled.rows:
        if templates[row["section"], row["item"]].count("{") == 0:
            continue  # a fixed answer holds for all runs
        if row["status"] == "from the run" or "None" in row["answer"]:
            guesses.append(row)
    assert guesses == []


def test_a_changed_or_missing_store_fills_nothing(home):
    for digest in (write_store(home, SESSION)[::-1], ""):
        (filled,) = fill_checklists([write_run(home, digest)])
        answers = read_answers(filled)
        assert answers["Sampling frequency"] == ("", "to fill in")
        assert answers["Random seeds"] == ("3", "from the run")


def test_a_store_without_metadata_leaves_items_open(home):
    digest = write_store(home, {"session": 1})
    (filled,) = fill_checklists([write_run(home, digest)])
    answers = read_answers(filled)
    for item in (
        "Sampling frequency",
        "Downsampling",
        "Re-referencing",
        "Filters during acquisition",
        "Trials removed by the preparation (section 2 has the trials left)",
    ):
        assert answers[item] == ("", "to fill in"), item


def test_sidecars_describe_the_device(home):
    root = home / "bids"
    folder = root / "sub-01/eeg"
    folder.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"License": "CC0"}')
    device = {"Manufacturer": "Maker", "ManufacturersModelName": "Two"}
    (root / "task-look_eeg.json").write_text(json.dumps(device))
    events = folder / "sub-01_task-look_events.tsv"
    events.write_text("onset\n")
    digest = write_store(home, SESSION, files={str(events): {}})
    (filled,) = fill_checklists([write_run(home, digest)])
    answers = read_answers(filled)
    assert answers["Manufacturer and model of the device"][0] == "Maker Two"
    assert answers["Licence, constraints and cost of access"][0] == "CC0"

    # a damaged sidecar leaves its items open
    (root / "task-look_eeg.json").write_text("{")
    (filled,) = fill_checklists([write_run(home, digest)])
    answers = read_answers(filled)
    assert answers["Manufacturer and model of the device"] == ("", "to fill in")


def test_simulated_signals_are_marked(home):
    shown_run = write_run(home, write_store(home, SESSION), caveats=["simulated"])
    (filled,) = fill_checklists([shown_run])
    answers = read_answers(filled)
    assert answers["Sampling frequency"] == ("1000 Hz", "from simulated signals")
    assert answers["Medication"][1] == "not applicable"
    assert "from the run" not in {status for _, status in answers.values()}


def test_runs_that_differ_are_named(home):
    digest = write_store(home, SESSION)
    first_run = write_run(home, digest)
    other_run = write_run(home / "other", digest, set_up=SET_UP | {"seeds": [4]})
    other_run = replace(other_run, label="two")
    (filled,) = fill_checklists([first_run, other_run])
    answers = read_answers(filled)
    assert answers["Random seeds"] == ("one: 3; two: 4", "from the run")

    # steps of a workflow may have equal labels
    folder = other_run.folder.path
    other_run = ShownRun("one", RunFolder(folder.rename(folder.with_name("b"))))
    (filled,) = fill_checklists([first_run, other_run])
    assert read_answers(filled)["Random seeds"][0] == "one: 3; b: 4"


def test_meg_has_no_electrodes(home):
    shown_run = write_run(home, write_store(home, SESSION), modality="MEG")
    (filled,) = fill_checklists([shown_run])
    answers = read_answers(filled)
    assert answers["Reference and ground electrodes"][1] == "not applicable"
    head = "Head position and its monitoring, coils, degaussing, clothing (MEG)"
    assert answers[head] == ("", "to fill in")


def test_files_escape_hostile_names(home):
    name = "=1+1|<b>&{{ 1 }}\n$x_"
    shown_run = write_run(home, set_up=SET_UP | {"channels": [name]})
    (filled,) = fill_checklists([shown_run])
    rows = list(csv.reader(filled.write("csv").splitlines()))
    assert {len(row) for row in rows} == {5}
    assert not any(cell.startswith("=") for row in rows for cell in row)
    for line in filled.write("md").splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") == 5
        assert "<b>" not in line.replace("\\<", "")
    assert "\\$x\\_" in filled.write("tex")


@pytest.mark.parametrize("first_character", ["=", "+", "-", "@", "\t=", "a;="])
def test_no_answer_from_a_sidecar_is_a_formula(home, first_character):
    folder = home / "bids/sub-01/eeg"
    folder.mkdir(parents=True)
    (home / "bids/dataset_description.json").write_text("{}")
    device = {
        "Manufacturer": f"{first_character}1+1",
        "ManufacturersModelName": "<b>|$",
    }
    (folder / "sub-01_task-look_eeg.json").write_text(json.dumps(device))
    events = folder / "sub-01_task-look_events.tsv"
    events.write_text("onset\n")
    digest = write_store(home, SESSION, files={str(events): {}})
    (filled,) = fill_checklists([write_run(home, digest)])
    rows = csv.reader(filled.write("csv").splitlines())
    answers = {row[1]: row[3] for row in rows}
    cell = answers["Manufacturer and model of the device"]
    assert "1+1" in cell
    assert cell[0] not in "=+-@\t"
    assert ";=" not in cell
    assert "<b>" not in filled.write("md").replace("\\<", "")
    assert "\\$" in filled.write("tex")


def test_counts_and_sections_of_the_page(home):
    shown_run = write_run(home)
    (filled,) = fill_checklists([shown_run])
    (section,) = lay_out_checklists([shown_run])
    ((heading, tables),) = section.groups
    assert heading == "Details"
    assert sum(len(table.rows) for table in tables) == len(filled.rows)
    statuses = [row["status"] for row in filled.rows]
    for status in set(statuses):
        assert f"{statuses.count(status)} {status}" in filled.summary
    assert filled.checklist.paper in REFERENCES
    assert lay_out_checklists([write_run(home / "no", modality="")]) == []


def test_a_training_without_a_test_has_no_checklist(home):
    folder = RunFolder(home / "runs/train-align/one")
    folder.finish(Measurements({}, facts=TrainingFacts(modality="EEG")))
    assert fill_checklists([ShownRun("one", folder)]) == []


def test_an_explanation_reports_its_corrected_p(home):
    claim = AxisClaim(axis="time", place="100 to 200 ms", p=0.02)
    folder = RunFolder(home / "runs/explain/one")
    facts = ExplanationFacts(modality="EEG", claims=[claim], draws=999)
    folder.finish(Measurements({}, facts=facts))
    (filled,) = fill_checklists([ShownRun("one", folder)])
    answers = read_answers(filled)
    p_values, _ = answers["Exact p values"]
    assert "100 to 200 ms" in p_values
    assert "p = 0.02" in p_values
    assert answers["Test against chance"][0].startswith("999 permutations")
    generalisation = "Individual or group data, and how far results generalise"
    assert answers[generalisation] == ("", "to fill in")
