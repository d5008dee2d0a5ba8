"""The command `live`: its results, its saved session and its caveats."""

import json
import re
import shlex
import signal
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.results.measurements import (
    SEEN_PICTURES,
    SIMULATED,
    TRAINED_TRIALS,
    UNKNOWN_TRIALS,
)
from brainhive_cli.core.runs import Curve, RunFolder, Sheet, artifacts
from brainhive_cli.reports.sentences.sentences import state_finding
from tests.docs.test_docs import DOCS, LINES
from tests.tools.changed_stores import resealed
from tests.worlds.command_fixtures import ALIGN_OVERRIDES, COLOURS, use_home
from tests.worlds.own_recordings import (
    PICTURES,
    Presentation,
    annotate,
    list_event_codes,
    make_raw,
    write_pictures,
    write_table,
)

pytest.importorskip("mne")
pytest.importorskip("starlette", reason="pip install brainhive[live]")
STEPS = (
    "preparation.whiten=no",
    "preparation.band_hz=[0.5,40]",
    "preparation.phase=forward",
)
QUICK = (
    "seeds=1",
    "dim=16",
    "fuser.intermediate_size=16",
    "train.epochs=1",
    "train.precision=fp32",
)
DEMO = "dataset={kind: demo, noise: 0.3, subjects: 1, concepts: 40}"


@pytest.fixture(scope="module")
def base(tmp_path_factory, run_command):
    """A home with a model of own recordings."""
    with use_home(tmp_path_factory.mktemp("live")) as base:
        write_pictures(base / "data/image-folder")
        (base / "data/recordings").mkdir()
        presentation = Presentation.randomize(3, seed=1)
        raw = annotate(
            make_raw(presentation, seed=1), presentation, list(presentation.pictures)
        )
        raw.save(base / "data/recordings/sub-01_ses-01.fif", verbose="ERROR")
        run_command("embed", "dataset=image-folder", f"encoders=[{COLOURS!r}]")
        run_command("prepare", "preparation.kind=recording", *STEPS)
        run_command(
            "train-align",
            "dataset=image-folder",
            f"encoders=[{COLOURS!r}]",
            "train.validation=0",
            "train.batch_size=8",
            *QUICK,
        )
        yield base


@pytest.fixture(scope="module")
def own_pictures(base):
    return str(next((base / "runs/train-align").glob("image-folder-*")))


@pytest.fixture(scope="module")
def demo(base, run_command):
    run_command("embed", DEMO, f"encoders=[{COLOURS!r}]")
    return str(
        run_command("train-align", DEMO, *ALIGN_OVERRIDES[1:], "train.epochs=20").folder
    )


def invoke(*arguments):
    return CliRunner().invoke(app, ["live"] + list(map(str, arguments)))


def replay(run_folder, *arguments):
    file = "source.file=data/recordings/sub-01_ses-01.fif"
    return invoke(
        run_folder,
        "--source",
        "recording",
        file,
        "source.speed=10000",
        "page=false",
        *arguments,
    )


def test_each_result_is_a_line_and_the_run_has_the_hit_rate(own_pictures):
    ended = replay(own_pictures, "--lines")

    assert ended.exit_code == 0, ended.output
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    results = [event for event in events if event["kind"] == "result"]
    assert len(results) == 24
    assert events[-1]["kind"] == "ended"
    assert "stream" in events[-1]["text"]
    # pictures of the training are known, and not ranked
    assert {result["shown"] for result in results} == set(chain(*PICTURES.values()))
    shown_results = [result for result in results if result["rank"]]
    assert {result["shown"] for result in shown_results} == set(PICTURES["test"])
    assert len(shown_results) == 6
    last_result = shown_results[-1]
    assert last_result["repetitions"] == 3
    assert last_result["average_rank"] in (1, 2)
    assert len(last_result["best"]) == 2
    assert last_result["hits"]["n"] == 6
    assert last_result["hits"]["chance"] == 0.5
    assert (
        last_result["hits"]["interval"][0]
        <= last_result["hits"]["rate"]
        <= last_result["hits"]["interval"][1]
    )
    assert last_result["stream"]["dropped"] == {}
    assert last_result["stream"]["events"] == 24

    folder = RunFolder(find_run(ended))
    measurements = folder.measurements()
    top1 = measurements.overall["top1"]
    assert (top1.n, top1.pool, top1.chance, top1.seeds, top1.split) == (
        6,
        2,
        0.5,
        (1,),
        "test",
    )
    assert "confidence sequence" in top1.interval
    assert top1.selected is False
    assert measurements.items["all"]["ranks"] == [
        result["rank"] for result in shown_results
    ]
    assert measurements.scopes["averages"]["top1"].n == 2


def test_markers_are_read_by_the_table_that_prepare_finds(own_pictures, base):
    presentation = Presentation.randomize(3, seed=1)
    (base / "coded").mkdir(exist_ok=True)
    raw = annotate(
        make_raw(presentation, seed=1),
        presentation,
        [str(code) for code in list_event_codes(presentation)],
    )
    raw.save(base / "coded/sub-01_ses-01.fif", verbose="ERROR", overwrite=True)
    arguments = ["--lines", "save=false", "source.file=coded/sub-01_ses-01.fif"]

    # without a table, codes are no pictures, and the session says what to add
    messages = " ".join(replay(own_pictures, *arguments).stderr.split())
    for fact in ("test/", "2 pictures", "6 ", "24 of 24 windows", "8: "):
        assert fact in messages
    assert "--events FILE.csv" in messages

    # the table in the folder of the recording, which lacks a line
    write_table(base / "coded/events.csv")
    lines = (base / "coded/events.csv").read_text().splitlines(True)
    (base / "coded/events.csv").write_text("".join(lines[:-1]))
    ended = replay(own_pictures, *arguments)
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    results = [event for event in events if event["kind"] == "result"]
    assert sum(result["shown"] is None for result in results) == 3
    messages = " ".join(ended.stderr.split())
    for fact in ("coded/events.csv", "1 of 2", "6 of 6", "3 of 24 windows", "1: 8"):
        assert fact in messages

    # a table of other pictures is left out, and said
    table = base / "coded/events.csv"
    table.write_text("event,picture\n1,other/a.png\n")
    (warning,) = list_warnings(replay(own_pictures, *arguments), "coded/events.csv")
    assert "image-folder" in warning
    table.unlink()


def find_run(ended):
    return Path(re.search(r"\S+runs/live/\S+", ended.stderr)[0])


def test_eval_retrieval_of_a_saved_session_repeats_its_ranks(own_pictures, run_command):
    live_process = replay(own_pictures, "--lines")
    events = [json.loads(line) for line in live_process.stdout.splitlines()]
    # the last event of a picture has the rank of the average over its repetitions
    live_ranks = {}
    for event in events:
        if event.get("rank"):
            live_ranks[event["shown"]] = event["average_rank"]
    session = find_run(live_process) / "session"

    run_command(
        "prepare",
        "preparation.kind=recording",
        f"preparation.root={session}",
        *STEPS,
        "paths.signals=live",
    )
    offline = run_command(
        "eval-retrieval", f"run={own_pictures}", "paths.signals=live", "sheet_rows=0"
    )

    measurements = RunFolder(offline.folder).measurements()
    (items,) = [measurements.items[name] for name in measurements.facts.cells]
    ranks = dict(zip(items["image_ids"], np.array(items["ranks"]).ravel(), strict=True))
    assert ranks == live_ranks
    # two test pictures
    assert measurements.overall["top1"].n == 2


@pytest.mark.nightly
def test_simulated_signals_are_marked_on_the_page_and_when_saved(demo, run_command):
    ended = invoke(
        demo, "--source", "mock", "source.speed=1000", "page=false", "--windows", "300"
    )
    assert ended.exit_code == 0, ended.output
    measurements = RunFolder(find_run(ended)).measurements()
    top1 = measurements.overall["top1"]
    assert SIMULATED in top1.caveats
    assert "simulated" in ended.stdout
    assert (top1.n, top1.pool) == (300, 100)
    assert top1.low > top1.chance

    session = find_run(ended) / "session"
    saved = json.loads((session / "dataset_description.json").read_text())
    assert "brainhive_cli.demo" in json.dumps(saved)


def test_bad_input_gets_two_lines_and_check_lists_missing_inputs(own_pictures):
    absent = ("--source", "recording", "source.file=absent.fif")
    for arguments, code, fact in (
        (absent, 3, "absent.fif"),
        (("--source", "mock", "--whiten-trials", "100"), 2, "whiten"),
        (("--source", "mock", "port=8123"), 2, "port"),
        (tuple(absent) + ("--check",), 3, "absent.fif"),
    ):
        ended = invoke(own_pictures, *arguments, "page=false")
        assert ended.exit_code == code, arguments
        assert fact in ended.output
        assert "Traceback" not in ended.stderr
    checked = replay(own_pictures, "--check")
    assert checked.exit_code == 0, checked.output
    for fact in ("sub-01_seed-1", "sub-01_ses-01.fif", "image-folder/test"):
        assert fact in checked.stdout


@pytest.fixture(scope="module")
def categories(base, run_command):
    """A model of categories without pictures, trained on the first of two sessions."""
    dataset = "{kind: categories, names: [cat, dog, owl, hat]%s}"
    for session in (1, 2):
        presentation = Presentation.randomize(3, seed=session)
        names = [name.split("/")[1] for name in presentation.pictures]
        raw = annotate(make_raw(presentation, seed=session), presentation, names)
        (base / "categories").mkdir(exist_ok=True)
        raw.save(base / f"categories/sub-01_ses-0{session}.fif", verbose="ERROR")
    held_out = "dataset=" + dataset % ", holdout: {by: sessions, test: [2]}"
    run_command("embed", held_out)
    stimuli = f"preparation.stimuli={dataset % ''}"
    run_command(
        "prepare",
        "preparation.kind=recording",
        "preparation.root=categories",
        stimuli,
        *STEPS,
    )
    return str(
        run_command("train-align", held_out, "train.validation=0", *QUICK).folder
    )


def list_warnings(ended, fact):
    lines = ended.stderr.splitlines()
    return [line for line in lines if line.startswith("warning: ") and fact in line]


def replay_session(run_folder, session):
    file = f"source.file=categories/sub-01_ses-0{session}.fif"
    ended = invoke(
        run_folder,
        "--source",
        "recording",
        file,
        "source.speed=10000",
        "page=false",
        "save=false",
    )
    assert ended.exit_code == 0, ended.output
    run_folder = RunFolder(find_run(ended))
    # the run has its sheet and its curve, though no category has a picture
    assert {Sheet, Curve} <= set(map(type, artifacts.read(run_folder)))
    return ended, run_folder.measurements()


def test_only_a_recording_of_the_training_gets_a_caveat(categories):
    """Issue 60, row 8: trials of the training had 96 hits of 96 and no caveat. Row E:
    live on labels without pictures ended while drawing, without a run.
    """
    ended, hit_rate = replay_session(categories, 1)
    assert hit_rate.overall["top1"].caveats == (TRAINED_TRIALS, SEEN_PICTURES)
    assert hit_rate.facts.anytime_p is None
    assert str(hit_rate.facts.trials_learned_from) in state_finding(hit_rate)
    assert list_warnings(ended, "training")

    ended, hit_rate = replay_session(categories, 2)
    assert hit_rate.overall["top1"].caveats == (SEEN_PICTURES,)
    assert hit_rate.facts.anytime_p <= 1
    assert hit_rate.overall["top1"].pool == 3
    assert len(list_warnings(ended, " hat")) == 1
    assert list_warnings(ended, "training") == []


def test_where_trials_of_the_training_are_not_here_it_is_said(categories, base):
    """Issue 60, row 8: nothing said that a model might have been trained on
    the trials that it decodes.
    """
    store = base / "signals/categories/default/sub-01.h5"
    content = store.read_bytes()
    with resealed(store) as file:
        file["train/signal"][0] += 1
    try:
        _, hit_rate = replay_session(categories, 2)
    finally:
        store.write_bytes(content)

    assert hit_rate.overall["top1"].caveats == (UNKNOWN_TRIALS, SEEN_PICTURES)


@pytest.mark.nightly
def test_ctrl_c_ends_a_session_in_order(own_pictures, base, brainhive):
    process = brainhive(
        "live",
        own_pictures,
        "--source",
        "mock",
        "page=false",
        "--lines",
        "source.interval_s=0.3",
        wait=False,
    )
    lines = process.folder / "stdout"
    while (
        not (lines.is_file() and lines.read_text().count('"result"') > 2)
        and process.poll() is None
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert json.loads(output.splitlines()[-1])["kind"] == "ended"
    run_folder = base / re.search(r"\S*runs/live/\S+", err)[0]
    assert (run_folder / "metrics.json").is_file()
    assert (run_folder / "session").is_dir()


def test_every_line_of_the_guide_does_its_work(own_pictures, base):
    lines = [
        line
        for page, line in LINES
        if page == DOCS / "live.md" and line.startswith("live")
    ]
    assert len(lines) == 5
    for line in lines:
        line = line.replace(" RUN", f" {own_pictures}").replace(
            "sub-01_ses-02", "data/recordings/sub-01_ses-01"
        )
        if "--recipe demo" in line:
            continue  # which needs the demo's training
        # not the newest run of these tests
        arguments = list([] if own_pictures in line else [own_pictures]) + list(
            shlex.split(line)[1:]
        )
        if "--events" in arguments:
            (base / "events.csv").write_text("event,picture\n1,test/owl/owl_9.png\n")
            # streams of the lab have tests of their own
            ended = invoke(*arguments, "--check")
        else:
            count = [] if "--windows" in arguments else ["windows=3"]
            ended = invoke(*arguments, "page=false", "source.speed=1000", *count)
        assert ended.exit_code == 0, f"{line}\n{ended.output}"
