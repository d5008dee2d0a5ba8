"""Tests of calibrate: accuracy of new people by arm and amount, refused recipes."""

import html
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import calibrate
from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.runs import Launch, RunFolder, announce
from brainhive_cli.evaluation.calibration.measure import find_fixed_pulls
from brainhive_cli.reports.sentences.sentences import state_finding
from brainhive_cli.training.alignment.trained.few_shot import (
    ARMS,
    PERMUTED_SCRATCH,
    ZERO_SHOT,
)
from tests.data.stores.learned_pictures.test_seen_pictures import (
    SMALL as TINY,
    photograph_into_test,
    simulated,
)
from tests.worlds.command_fixtures import (
    ALIGN_OVERRIDES,
    COLOURS,
    paint_pictures,
    use_home,
)

DEMO = "dataset={kind: demo, noise: 0.3, subjects: 3, concepts: 40}"
INTER = (DEMO,) + tuple(ALIGN_OVERRIDES[1:]) + ("mode=inter", "train.epochs=6")
STUDY = "calibration-study"
FEW = ("pictures=10", "draws=2", "transfer.pulls=1,0.1", "transfer.draws=1")
ALIGNMENTS = ("euclidean", "coral", "moments", "procrustes", "ridge")
PEOPLE, TESTED = 3, 100


@pytest.fixture(scope="module")
def base(tmp_path_factory, run_command):
    """Home with a model for each of three people, trained on the other two."""
    with use_home(tmp_path_factory.mktemp("calibrate")) as base:
        run_command("embed", DEMO, f"encoders=[{COLOURS!r}]")
        run_command("train-align", *INTER)
        yield base


@pytest.fixture(scope="module")
def folder(base, run_command):
    return RunFolder(study().folder)


def study():
    """Run the shipped study with fewer amounts and draws."""
    recipe = calibrate.Recipe.resolve("calibrate", STUDY, {}, FEW)
    return calibrate.run(recipe, Launch(0, 1, "cpu"))


@pytest.fixture(scope="module")
def measure_folder(folder):
    return folder.measurements()


def invoke(*arguments):
    """Run `brainhive calibrate` in this process."""
    return CliRunner().invoke(app, ["calibrate"] + list(arguments))


def test_every_arm_is_measured_after_every_amount(measure_folder):
    amounts = [amount.name for amount in measure_folder.facts.amounts]
    assert amounts == ["10 pictures", "everything"]
    assert not measure_folder.missing
    arms = list(ARMS[1:]) + list(ALIGNMENTS)
    names = {ZERO_SHOT} | {f"{arm} · {amount}" for arm in arms for amount in amounts}
    assert names <= measure_folder.scopes.keys()
    for name in names:
        metrics = measure_folder.scopes[name]
        assert list(metrics) == ["top1", "top5", "mrr"]
        top1 = metrics["top1"]
        assert (top1.n, top1.pool) == (PEOPLE * TESTED, TESTED)
        assert (top1.chance, top1.seeds) == (0.01, (1,))
        assert top1.low <= top1.value <= top1.high
        # without a hit there is no interval over people
        assert top1.people is not None or top1.value == 0
        for fact in ("inter", "demo-noise-0.3-40-concepts", "2 draws", "simulated"):
            assert fact in top1.protocol
        assert top1.split == "test"
        assert top1.selected is False
    # permuted labels are at chance, and the right labels are above chance
    for amount in amounts:
        for metric in measure_folder.scopes[f"{PERMUTED_SCRATCH} · {amount}"].values():
            assert metric.low <= metric.chance <= metric.high
    top5 = measure_folder.scopes["scratch · everything"]["top5"]
    assert top5.low > top5.chance
    # the two other people choose the strength of transfer
    for choice in measure_folder.facts.strength.values():
        assert (choice.chosen_by, choice.people) == ("people", 2)
        assert set(choice.mrr["everything"]) == {"zero-shot", "1", "0.1"}


def test_the_headline_is_transfer_and_each_person_is_told(measure_folder):
    whole_top1 = measure_folder.scopes["transfer · everything"]["top1"]
    overall = measure_folder.overall["top1"]
    assert (overall.value, overall.low) == (whole_top1.value, whole_top1.low)
    people = [
        measure_folder.scopes[f"sub-{subject:02d}"]["top1"] for subject in (1, 2, 3)
    ]
    assert np.mean([person.value for person in people]) == pytest.approx(
        whole_top1.value
    )
    gain = measure_folder.scopes["transfer over zero-shot · everything"]["top1_gain"]
    zero_shot = measure_folder.scopes[ZERO_SHOT]["top1"]
    assert gain.value == pytest.approx(whole_top1.value - zero_shot.value)
    assert gain.chance == 0
    assert gain.low < gain.value < gain.high
    finding = state_finding(measure_folder)
    assert "simulated EEG" in finding
    assert "3 new people" in finding


@pytest.mark.nightly
def test_a_page_has_the_finding_and_a_line_for_each_person(
    folder, measure_folder, run_command, tmp_path
):
    page = tmp_path / "page.html"
    run_command("report", f"runs={[str(folder.path)]}", f"to={page}")
    beginning, _, body = page.read_text().partition('<div class="body">')
    assert state_finding(measure_folder) in html.unescape(beginning).replace(
        "\xa0", " "
    )
    assert "3 subjects" in beginning
    # both figures are above the body
    assert beginning.count("<svg") == 2
    assert "TRAIN_AND_TARGET_UNLABELED" in body


def test_the_same_command_finds_the_run(folder, run_command, base):
    initial_st_mtime_ns_by_name = {
        path: path.stat().st_mtime_ns for path in folder.path.rglob("*")
    }
    assert study().folder == folder.path
    final_st_mtime_ns_by_name = {
        path: path.stat().st_mtime_ns
        for path in folder.path.rglob("*")
        if path.name != "found.json"
    }
    assert final_st_mtime_ns_by_name == initial_st_mtime_ns_by_name
    ended = invoke("--recipe", STUDY, *FEW, "--check", "--json")
    document = json.loads(ended.stdout)
    assert {item["state"] for item in document["inputs"]} == {"here"}
    assert document["missing"] == []
    (table,) = [table for table in document["tables"] if table["title"] == "Work"]
    (time,) = [row["value"] for row in table["rows"] if row["item"] == "time"]
    # 3 people × 6 arms × (2 draws of an amount + everything), and for each of the two
    # other people a model without them, and two strengths at two amounts
    assert "84" in time
    assert "6 parts" in time


@pytest.mark.nightly
def test_arms_that_are_named_are_measured_and_no_others(base, run_command, capsys):
    metrics = run_command("calibrate", "arms=scratch", "pictures=10", "draws=1").metrics
    assert set(metrics.facts.arms) == {"scratch"}
    scopes = {name.partition(" · ")[0] for name in metrics.scopes}
    assert scopes == {"all", "scratch", "sub-01", "sub-02", "sub-03"}


def test_the_default_is_small_and_fits_no_further_models(base):
    job = calibrate.resolve_job(calibrate.Recipe.resolve("calibrate", None, {}, []))
    assert job.recipe.arms == ["zero-shot", "transfer", "scratch"]
    # 3 people × 2 trained arms × (5 amounts × 3 draws + everything)
    assert job.count_work().count == 3 * 2 * (5 * 3 + 1)
    (choice,) = {find_fixed_pulls(job, cell).chosen_by for cell in job.cells}
    assert choice == "number of pictures"


def test_a_calibration_that_takes_long_says_so_before_it_begins(
    base, run_command, capsys
):
    job = calibrate.resolve_job(calibrate.Recipe.resolve("calibrate", None, {}, []))
    work, runs = job.count_work(), base / "runs"
    work.remember(runs, work.key("calibrate", "cpu"), 10.0 * work.count, 1)
    run_command("calibrate", "pictures=10", "draws=2", "arms=scratch", "seed=3")
    # 9 models take too little time to be announced
    assert "10 s" not in capsys.readouterr().err
    announce(work, "calibrate", runs, Launch(0, 1, "cpu"))
    announce(work, "calibrate", runs, Launch(0, 1, "cpu"), remaining_share=0.01)
    (message,) = capsys.readouterr().err.splitlines()
    for fact in ("16 min", "96", "9 parts", "10 s"):
        assert fact in message


def test_an_impossible_recipe_is_refused_in_two_lines(base):
    for overrides, facts, hint_fact in (
        (["arms=transfor"], ("'transfor'",), "transfer"),
        (["pictures=5", "minutes=3"], ("pictures", "minutes"), ""),
    ):
        ended = invoke(*overrides)
        error, hint = ended.stderr.splitlines()
        assert ended.exit_code == RecipeError.exit_code == 2
        assert not ended.stdout
        assert error.startswith("error: ")
        assert hint.startswith("  try: ")
        assert hint_fact in hint
        for fact in facts:
            assert fact in error


def test_people_who_are_known_are_refused(run_command, base, tmp_path):
    with pytest.raises(MissingData, match="subject 7"):
        run_command("calibrate", "subjects=7")
    runs = f"paths.runs={tmp_path / 'runs'}"
    joint = run_command(
        "train-align", *INTER[:-2], "mode=joint", "train.epochs=1", runs
    ).folder
    with pytest.raises(BrainhiveError, match="subject 2") as caught:
        run_command("calibrate", f"run={joint}", runs, "subjects=2")
    assert "--mode inter" in caught.value.hint


@pytest.mark.nightly
def test_calibration_pictures_with_a_tested_copy_are_left_out(run_command, tmp_path):
    """A JPEG has other pixels than its original, and still counts as a copy."""
    # one of 36 training pictures is a JPEG of one of 12 test pictures
    photos = paint_pictures(tmp_path / "photos", 16, 3)
    photograph_into_test(photos, lambda picture: picture, ".jpg")
    dataset = simulated(photos).replace("subjects: 1", "subjects: 2")
    runs = f"paths.runs={tmp_path / 'own'}"
    with use_home(tmp_path):
        run_command("embed", dataset, f"encoders=[{COLOURS!r}]")
        run_command(
            "train-align", dataset, f"encoders=[{COLOURS!r}]", *TINY, "mode=inter", runs
        )
        metrics = run_command(
            "calibrate",
            "arms=zero-shot,scratch",
            "alignments=[]",
            "pictures=10",
            "draws=1",
            runs,
        ).metrics
    assert metrics.facts.pictures_left_out == {"1": 1, "2": 1}
    assert metrics.facts.amounts[-1].pictures == 35
    top1 = metrics.overall["top1"]
    assert (top1.n, top1.pool) == (2 * 11, 12)
