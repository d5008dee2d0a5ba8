"""Files of a planned study: recorded as planned, `prepare` finds every trial."""

import csv
import importlib.util
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.results.measurements import NOT_INTERLEAVED, ORDER_UNKNOWN
from brainhive_cli.data.datasets import image_folder
from brainhive_cli.data.fmri import bids_bold
from brainhive_cli.data.recordings.event_names import NOT_IN_TABLE
from brainhive_cli.data.stores.signal_store import SignalStore
from brainhive_cli.evaluation.planning.order import CATCH, StudyPlan, choose_split
from brainhive_cli.evaluation.planning.study_files import assign_codes, write_study
from tests.worlds.command_fixtures import COLOURS

mne = pytest.importorskip("mne")
pybv = pytest.importorskip("pybv")
CHANNELS = ("Fp1", "Cz", "P7", "Pz", "O1", "O2")
RATE_HZ = 500
BEFORE_S = 3.0
"""Time from the start of a recording to the start of its run."""
STEPS = ("preparation.whiten=no", "preparation.epoch_ms=[0,100]")
STEPS += ("preparation.keep_ms=[0,100]", "preparation.baseline=no")


def plan_study(concepts, n_each, test_concepts, **fields):
    concept_of = {}
    for concept in range(concepts):
        for number in range(n_each):
            concept_of[f"c{concept:03d}/{number}.png"] = f"c{concept:03d}"
    train, test = choose_split(
        concept_of,
        (concepts - test_concepts) * n_each,
        test_concepts * n_each,
        seed=0,
    )
    defaults = StudyPlan(
        people=1,
        sessions=2,
        runs=2,
        onset_interval_s=0.2,
        stimulus_s=0.1,
        train_pictures=train,
        test_pictures=test,
        concept_of=concept_of,
        train_repetitions=2,
        test_repetitions=4,
        catch_share=0.1,
        break_s=30.0,
        bits=8,
        seed=1,
    )
    return replace(defaults, **fields)


def write_pictures(folder, plan):
    for number, picture in enumerate(sorted(plan.concept_of)):
        path = folder / picture
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((16, 16), 0).save(path)


def make_study(home, plan):
    write_pictures(home / "pictures", plan)
    write_study(home / "study", home / "pictures", plan)
    return home / "study"


def read_rows(path):
    delimiter = "\t" if path.suffix == ".tsv" else ","
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def load_script(study):
    """Import the written script, which must work without PsychoPy."""
    spec = importlib.util.spec_from_file_location("run_study", study / "run_study.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


class Port:
    """Port that notes the time of each code."""

    def __init__(self, screen):
        self.screen = screen
        self.codes = []

    def send(self, code):
        self.codes.append((self.screen.n_flips / self.screen.rate_hz, code))


def show_runs(study, person=1):
    """Show all runs without a screen.

    Returns:
        Script, and the log and the codes of each session and run.
    """
    script = load_script(study)
    logs = {}
    sessions = {row["session"] for row in read_rows(study / "order.csv")}
    for session in sorted(map(int, sessions)):
        for run_number, trials in script.read_runs(person, session).items():
            screen = script.DryScreen()
            port = Port(screen)
            (study / "logs").mkdir(exist_ok=True)
            name = (
                f"sub-{person:02d}_ses-{session:02d}_task-pictures_run-{run_number:02d}"
            )
            log = study / "logs" / f"{name}_events.tsv"
            script.show_run(screen, port, trials, log)
            logs[session, run_number] = (log, port.codes)
    return logs


def simulate(log, codes, events, before_s=BEFORE_S):
    """Simulate a run, in which each picture raises all channels by its own level.

    Returns:
        Signal [C, T] in volts, and the code [T] of each sample.
    """
    rows = [row for row in read_rows(log) if row["stim_file"] != "n/a"]
    n_times = int((before_s + float(rows[-1]["onset"]) + 12) * RATE_HZ)
    rng = np.random.default_rng(len(rows))
    signal = rng.normal(size=(len(CHANNELS), n_times)) * 1e-9
    for row in rows:
        start = round((before_s + float(row["onset"])) * RATE_HZ)
        signal[:, start : start + 60] += level_of(row["stim_file"], events)
    trigger = np.zeros(n_times)
    for time_s, code in codes:
        trigger[round((before_s + time_s) * RATE_HZ) :] = code
    return signal, trigger


def level_of(stim_file, events):
    """Return the level in volts after a picture."""
    return 1e-6 * (1 + list(events.values()).index(stim_file))


def record(study, folder, kind):
    """Record all runs of person 1."""
    folder.mkdir(parents=True)
    events = read_events(study)
    for (session, run_number), (log, codes) in show_runs(study).items():
        signal, trigger = simulate(log, codes, events)
        name = f"sub-01_ses-{session:02d}_run-{run_number:02d}"
        if kind == "fif":
            info = mne.create_info(
                list(CHANNELS) + ["STI101"], RATE_HZ, ["eeg"] * 6 + ["stim"]
            )
            raw = mne.io.RawArray(np.vstack([signal, trigger]), info, verbose="ERROR")
            raw.save(folder / f"{name}_raw.fif", verbose="ERROR")
        else:
            write_brainvision(folder, name, signal, trigger)


def write_brainvision(folder, name, signal, trigger):
    starts = np.flatnonzero(np.diff(trigger, prepend=0))
    markers = []
    for start in starts[trigger[starts] > 0]:
        markers.append({"onset": int(start), "description": int(trigger[start])})
    pybv.write_brainvision(
        data=signal,
        sfreq=RATE_HZ,
        ch_names=list(CHANNELS),
        fname_base=name,
        folder_out=folder,
        events=markers,
    )


def read_events(study):
    return {row["event"]: row["picture"] for row in read_rows(study / "events.csv")}


def list_planned(study):
    """List session, run, number of the trial and picture of the planned trials."""
    trials = []
    numbers = Counter()
    for row in read_rows(study / "order.csv"):
        if row["person"] == "1" and row["picture"] != "n/a":
            run_key = (int(row["session"]), int(row["run"]) - 1)
            trials.append(
                tuple(run_key) + (numbers[run_key], row["picture"].removesuffix(".png"))
            )
            numbers[run_key] += 1
    return sorted(trials)


def list_stored(store, events):
    """List the trials of a store as `list_planned`, and check level of each."""
    trials_of_run = {}
    for split in ("train", "test"):
        trials = store[split]
        for row, image_id in enumerate(trials.image_ids):
            level = 1e6 * level_of(f"{image_id}.png", events)
            signal = np.asarray(trials.signal[row])
            assert signal.mean() == pytest.approx(level, abs=0.2)
            run_key = (int(trials.sessions[row]), int(trials.runs[row]))
            trials_of_run.setdefault(run_key, []).append(
                (float(trials.onset_s[row]), image_id)
            )
    first_session = min(session for session, _ in trials_of_run)
    stored = []
    for (session, run_key), run_trials in trials_of_run.items():
        for number, (_, image_id) in enumerate(sorted(run_trials)):
            stored.append((session - first_session + 1, run_key, number, image_id))
    return sorted(stored)


@pytest.mark.parametrize(
    ("bits", "concepts", "kind"),
    [
        pytest.param(8, 8, "vhdr", id="8 bits, markers"),
        pytest.param(8, 8, "fif", id="8 bits, trigger channel"),
        pytest.param(16, 260, "fif", id="16 bits, trigger channel"),
        pytest.param(16, 260, "vhdr", id="16 bits, markers"),
        pytest.param(8, 260, "fif", id="two codes, trigger channel"),
        pytest.param(8, 260, "vhdr", id="two codes, markers"),
    ],
)
def test_every_trial_of_a_recording_is_found(home, run_command, bits, concepts, kind):
    repetitions = 1 if concepts > 8 else 4
    plan = plan_study(
        concepts, 1, 3, bits=bits, train_repetitions=repetitions, test_repetitions=4
    )
    study = make_study(home, plan)
    record(study, home / "recordings", kind)
    run_command(
        "prepare",
        "preparation.kind=recording",
        "preparation.root=recordings",
        "preparation.events=study/events.csv",
        "preparation.stimuli.root=study/bids/stimuli",
        *STEPS,
    )
    store = SignalStore.open(home / "signals/stimuli/default/sub-01.h5")
    planned = list_planned(study)
    assert len(planned) == (concepts - 3) * repetitions + 3 * 4
    assert list_stored(store, read_events(study)) == planned

    # catch trials are left out, and counted
    n_catch = sum(row["picture"] == "n/a" for row in read_rows(study / "order.csv"))
    n_dropped = Counter()
    for session in store["train"].provenance["sessions"]:
        n_dropped.update(session["dropped"])
        (event,) = session["unmatched"][NOT_IN_TABLE]
        assert event.endswith(str(2**bits - 1))
    assert n_dropped == {"not in the table": n_catch}
    assert n_catch > 3


@pytest.mark.parametrize("table", ["log", "planned"])
def test_the_logs_and_planned_tables_are_read_as_bids(home, run_command, table):
    study = make_study(home, plan_study(8, 1, 3))
    events = read_events(study)
    if table == "log":
        load_script(study).main(["--person", "1", "--session", "1", "--dry-run"])
        load_script(study).main(["--person", "1", "--session", "2", "--dry-run"])
        assert "psychopy" not in sys.modules
    for path in sorted((study / "bids").rglob("*_events.tsv")):
        log = study / "logs-dry-run" / path.name
        if table == "log":
            path.write_bytes(log.read_bytes())
        signal, trigger = simulate(path, [], events, before_s=0)
        stem = path.name.replace("_events.tsv", "_eeg")
        write_brainvision(path.parent / "eeg", stem, signal, trigger)
    run_command(
        "prepare", "preparation.kind=recording", "preparation.root=study/bids", *STEPS
    )
    store = SignalStore.open(home / "signals/bids/default/sub-01.h5")
    planned = list_planned(study)
    assert list_stored(store, events) == planned

    # prepare --from bold reads the same tables
    for session, run_number in sorted({trial[:2] for trial in planned}):
        name = f"sub-01_ses-{session:02d}_task-pictures_run-{run_number + 1:02d}"
        folder = study / f"bids/sub-01/ses-{session:02d}"
        bold = folder / f"func/{name}_bold.nii.gz"
        shown_events, _ = bids_bold.read_events(
            folder / f"{name}_events.tsv", "", {}, bold
        )
        names = [picture.removesuffix(".png") for _, _, picture, _ in shown_events]
        assert names == [
            trial[3] for trial in planned if trial[:2] == (session, run_number)
        ]


@pytest.mark.parametrize("is_sorted", [False, True])
def test_an_evaluation_doubts_only_other_orders(home, run_command, is_sorted):
    plan = plan_study(6, 4, 3, train_repetitions=2, test_repetitions=8)
    study = make_study(home, plan)
    if is_sorted:
        sort_order(study / "order.csv")
    # the layout and commands of the README
    record(study, home / "data/recordings", "fif")
    shutil.copy(study / "events.csv", home / "data/recordings")
    shutil.copytree(study / "bids/stimuli", home / "data/image-folder")
    run_command("prepare", "preparation.kind=recording", *STEPS)
    pictures = ["dataset=image-folder", f"encoders=[{COLOURS!r}]"]
    run_command("embed", *pictures)
    run_command(
        "train-align", *pictures, "backbone=ridge", "seeds=0", "train.validation=0"
    )
    result = run_command("eval-retrieval")
    protocols = {}
    for scope, metrics in result.metrics.scopes.items():
        for name, metric in metrics.items():
            protocols[f"{scope} {name}"] = metric.protocol
    assert any("ceiling" in name for name in protocols) != is_sorted
    assert {ORDER_UNKNOWN in protocol for protocol in protocols.values()} == {False}
    has_doubts = {NOT_INTERLEAVED in protocol for protocol in protocols.values()}
    assert has_doubts == {is_sorted}


def sort_order(path):
    """Show the pictures of each run by name, so that concepts come in blocks."""
    header, *lines = path.read_text().splitlines()
    rows = [line.split(",") for line in lines]
    sorted_rows = sorted(rows, key=lambda row: (row[:3], row[4]))
    lines = [header]
    for row, shown_row in zip(rows, sorted_rows, strict=True):
        lines.append(",".join(row[:4] + [shown_row[4], row[5], shown_row[6]]))
    path.write_text("\n".join(lines))


def test_image_folder_reads_the_held_out_concepts(home):
    plan = plan_study(10, 2, 4)
    study = make_study(home, plan)
    config = image_folder.Config(root=str(study / "bids/stimuli"))
    dataset = config.build(Paths())
    train = dataset.images("train")
    test = dataset.images("test")
    assert len(train) == 12
    assert len(test) == 8
    assert set(train.concepts) == {
        plan.concept_of[name] for name in plan.train_pictures
    }
    assert not set(train.concepts) & set(test.concepts)


def test_the_same_seed_writes_the_same_bytes(home):
    plan = plan_study(6, 2, 2, people=2)
    write_pictures(home / "pictures", plan)
    for name, seed in (("first", 1), ("second", 1), ("other", 2)):
        write_study(home / name, home / "pictures", replace(plan, seed=seed))
    contents = {}
    for name in ("first", "second", "other"):
        contents[name] = {}
        for path in sorted((home / name).rglob("*")):
            if path.is_file():
                key = path.relative_to(home / name)
                contents[name][key] = path.read_bytes()
    assert contents["first"] == contents["second"]
    assert contents["first"][Path("order.csv")] != contents["other"][Path("order.csv")]


def test_an_earlier_study_is_kept(home):
    plan = plan_study(6, 2, 2)
    study = make_study(home, plan)
    order = (study / "order.csv").read_bytes()
    with pytest.raises(OSError):
        write_study(study, home / "pictures", replace(plan, seed=9))
    assert (study / "order.csv").read_bytes() == order


def test_nothing_is_left_of_an_incomplete_study(home):
    plan = plan_study(6, 2, 2)
    write_pictures(home / "pictures", plan)
    (home / "pictures" / plan.test_pictures[-1]).unlink()
    with pytest.raises(FileNotFoundError):
        write_study(home / "study", home / "pictures", plan)
    assert [path.name for path in home.iterdir()] == ["pictures"]


@pytest.mark.parametrize(
    ("n_pictures", "bits", "has_pairs"),
    [(254, 8, False), (255, 8, True), (17_000, 8, True), (17_000, 16, False)],
)
def test_codes_are_unique_and_fit_their_bits(n_pictures, bits, has_pairs):
    events = assign_codes(plan_study(n_pictures, 1, 3, bits=bits))
    assert len(set(events.values())) == n_pictures + 1
    assert events[CATCH] == str(2**bits - 1)
    for picture, event in events.items():
        codes = event.split("/")
        assert len(codes) == 1 + (has_pairs and picture != CATCH)
        assert len(set(codes)) == len(codes)
        assert all(1 <= int(code) < 2**bits for code in codes)
        assert picture == CATCH or events[CATCH] not in codes


@pytest.mark.parametrize(
    ("n_pictures", "fields", "fact"),
    [
        (64_263, {"bits": 8}, "64263 pictures"),
        (65_535, {"bits": 16}, "65535 pictures"),
        (255, {"onset_interval_s": 0.09}, "0.09 s"),
    ],
)
def test_pictures_without_a_code_are_refused(n_pictures, fields, fact):
    with pytest.raises(BrainhiveError, match=fact) as caught:
        assign_codes(plan_study(n_pictures, 1, 3, **fields))
    assert caught.value.hint


def test_each_run_has_its_table(home):
    plan = plan_study(6, 2, 2, people=2)
    write_pictures(home / "pictures", plan)
    write_study(home / "study", home / "pictures", plan)
    paths = [path for path in (home / "study").rglob("*") if path.is_file()]
    names = Counter(path.name.rpartition("_")[2] for path in paths)
    assert names["events.tsv"] == 2 * 2 * 2
    assert {"README.txt", "order.csv", "events.csv", "stimuli.tsv"} <= names.keys()
