"""calibrate: curves of new persons by every arm, resumed where they stopped, and what it refuses."""

import html
import json
import re
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from worlds import COLOURS, SMALL, at_home, paint

from brainhive_cli.app import app
from brainhive_cli.core import artifacts, cell_files
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.measurements import TRIALS_TOGETHER
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.model_input import model_input
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.evaluation.calibration.measure import Part
from brainhive_cli.measurement.ranks import ranks
from brainhive_cli.reports.sentences import state_finding
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.few_shot import ARMS, PERMUTED_SCRATCH, TRANSFER, ZERO_SHOT
from tests.training.alignment.test_seen_pictures import (
    COPIES,
    copy_into_test,
    photograph_into_test,
    simulated,
)
from tests.training.alignment.test_seen_pictures import SMALL as TINY

DEMO = "dataset={kind: demo, noise: 0.3, subjects: 3, concepts: 40}"
INTER = (DEMO, *SMALL[1:], "mode=inter", "train.epochs=10")
ASKED = ("pictures=10,40", "draws=2", "transfer.pulls=1,0.1", "transfer.draws=1")
ALIGNMENTS = ("euclidean", "coral", "moments", "procrustes", "ridge")
PEOPLE, TESTED = 3, 100


@pytest.fixture(scope="module")
def base(tmp_path_factory, go):
    """A home with a model of two people for each third one."""
    with at_home(tmp_path_factory.mktemp("calibrate")) as base:
        go("embed", DEMO, f"encoders=[{COLOURS!r}]")
        go("train-align", *INTER)
        yield base


@pytest.fixture(scope="module")
def folder(base, go):
    return RunFolder(go("calibrate", *ASKED).folder)


@pytest.fixture(scope="module")
def measured(folder):
    return folder.measurements()


def invoke(*words):
    return CliRunner().invoke(app, ["calibrate", *map(str, words)])


def test_every_arm_is_measured_after_every_amount(measured):
    amounts = [amount.name for amount in measured.facts.amounts]
    assert amounts == ["10 pictures", "40 pictures", "everything"] and not measured.missing
    arms = [*ARMS[1:], *ALIGNMENTS]
    names = {ZERO_SHOT, *(f"{arm} · {amount}" for arm in arms for amount in amounts)}
    assert names <= measured.scopes.keys()
    for name in names:
        metrics = measured.scopes[name]
        assert [*metrics] == ["top1", "top5", "mrr"]
        top1 = metrics["top1"]
        assert (top1.n, top1.pool, top1.chance, top1.seeds) == (PEOPLE * TESTED, TESTED, 0.01, (1,))
        assert top1.low <= top1.value <= top1.high
        assert top1.people is not None or top1.value == 0  # people without a hit do not vary
        assert top1.protocol == "calibration of inter, demo-noise-0.3-40-concepts, 2 draws, simulated"
        assert top1.split == "test" and top1.selected is False


def test_wrong_labels_alone_are_at_chance_and_right_ones_are_not(measured):
    for amount in ("10 pictures", "40 pictures", "everything"):
        for metric in measured.scopes[f"{PERMUTED_SCRATCH} · {amount}"].values():
            assert metric.low <= metric.chance <= metric.high
    top5 = measured.scopes["scratch · everything"]["top5"]
    assert top5.low > top5.chance


def test_the_headline_is_transfer_and_each_person_is_told(measured):
    whole = measured.scopes["transfer · everything"]["top1"]
    assert (measured.overall["top1"].value, measured.overall["top1"].low) == (whole.value, whole.low)
    people = [measured.scopes[f"sub-{subject:02d}"]["top1"] for subject in (1, 2, 3)]
    assert np.mean([person.value for person in people]) == pytest.approx(whole.value)
    assert {person.n for person in people} == {TESTED}
    gain = measured.scopes["transfer over zero-shot · everything"]["top1_gain"]
    assert gain.value == pytest.approx(whole.value - measured.scopes[ZERO_SHOT]["top1"].value)
    assert gain.chance == 0 and gain.low < gain.value < gain.high
    share = measured.scopes["share_of_everything · 40 pictures"]["share_of_everything"]
    assert share.value == pytest.approx(measured.scopes["transfer · 40 pictures"]["top1"].value / whole.value)
    assert share.low < share.value < share.high
    finding = state_finding(measured)
    assert (
        finding.startswith("From simulated EEG, with ") and "was seen was ranked first of 100 in" in finding
    )
    assert "by transfer; with everything (240 pictures) in" in finding and "(these 3 new people)" in finding
    assert re.search("takes (more than|at most) .* people in general|do not settle how much", finding)


def test_the_strength_of_transfer_is_chosen_by_two_other_people(measured, base):
    choices = measured.facts.strength
    assert [*choices] == [f"sub-{subject:02d}_seed-1 sub-{subject:02d}" for subject in (1, 2, 3)]
    for choice in choices.values():
        assert (choice.chosen_by, choice.people) == ("people", 2)
        assert {*choice.mrr["everything"]} == {"zero-shot", "1", "0.1"}
        assert {*choice.pulls.values()} <= {None, 1.0, 0.1}
    assert len([*base.glob("runs/calibrate/.left-out/train-align/*/metrics.json")]) == 3  # pairs share them


def test_draws_are_paired_over_arms_and_everything_is_learned_once(folder):
    parts = [cell_files.load(path, Part) for path in sorted(folder.path.glob("parts/*/sub-01_draw-*"))]
    first, second = (part.ranks for part in parts)
    assert len(first) == 12 * 3 and len(second) == 12 * 2
    assert {ranks.shape for ranks in [*first.values(), *second.values()]} == {(TESTED,)}
    assert all((ranks > 0).all() for ranks in [*first.values(), *second.values()])
    assert {name for _, name in first.keys() - second.keys()} == {"everything"}
    few = "scratch", "10 pictures"
    assert not np.array_equal(first[few], second[few])  # other pictures
    for name in ("10 pictures", "40 pictures"):  # zero-shot learns from none
        assert np.array_equal(first[ZERO_SHOT, name], second[ZERO_SHOT, name])
    sizes = [size[:2].tolist() for size in parts[0].sizes.values()]
    assert sizes == [[10, 40], [40, 160], [240, 960]]


def test_curves_and_tables_are_artifacts(folder):
    drawn = artifacts.read(folder)
    curve = next(each for each in drawn if each.kind == "curve")
    assert [line.name for line in curve.lines] == [TRANSFER, ZERO_SHOT, "scratch"]
    assert [*curve.at] == [10, 40, 240] and curve.is_logarithmic
    titles = [each.title for each in drawn if each.kind == "table"]
    assert titles == ["Top-1 by amount", "Top-1 of every arm", "Amounts", "Pull of transfer", "Arms"]


def test_a_page_begins_with_the_finding_and_has_a_line_for_each_person(folder, measured, go, tmp_path):
    page = tmp_path / "page.html"
    go("report", f"runs={[str(folder.path)]}", f"to={page}")
    begin, _, rest = page.read_text().partition('<div class="body">')
    assert "how soon is a new person decoded?" in begin and state_finding(measured) in html.unescape(begin)
    assert "for these 3 subjects" in begin and "2 other people, who saw all of the new person" in begin
    for shown in ("Top-1 after recordings of a new person", "Each person, by transfer"):
        assert shown in begin and shown not in rest
    assert "Controls: wrong labels" in rest and "TRAIN_AND_TARGET_UNLABELED" in rest


def test_the_same_command_finds_the_run(folder, go, base):
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    assert go("calibrate", *ASKED).folder == folder.path
    after = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.name != "found.json"}
    assert after == before
    other = go("calibrate", "pictures=10", "draws=2", "seed=1", "arms=zero-shot", "alignments=[]")
    assert other.folder != folder.path


def test_an_interrupted_run_makes_only_what_it_lacks(folder, go, base, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(base / "runs", runs)
    again = runs / folder.path.relative_to(base / "runs")
    parts = sorted(again.glob("parts/*/*"))
    (again / "metrics.json").unlink()
    removed = cell_files.load(parts[3], Part)
    parts[3].unlink()
    kept = {path: path.stat().st_mtime_ns for path in parts if path != parts[3]}

    resumed = go("calibrate", *ASKED, f"paths.runs={runs}")

    assert resumed.folder == again and len(parts) == 6
    assert kept == {path: path.stat().st_mtime_ns for path in parts if path != parts[3]}
    ranked = cell_files.load(parts[3], Part).ranks
    assert ranked.keys() == removed.ranks.keys()
    assert all(np.array_equal(ranked[key], removed.ranks[key]) for key in ranked)
    assert resumed.metrics.scopes == folder.measurements().scopes


def test_one_trained_person_leaves_the_strength_to_the_number_of_pictures(go, base, tmp_path):
    runs = f"paths.runs={tmp_path / 'runs'}"
    run = go("train-align", *INTER[:-2], "mode=joint", "subjects=1", "train.epochs=1", runs).folder

    asked = (
        f"align_run={run}",
        runs,
        "subjects=2",
        "arms=zero-shot,transfer",
        "alignments=[]",
        "pictures=10",
        "draws=1",
    )
    (choice,) = go("calibrate", *asked).metrics.facts.strength.values()

    assert choice.pulls == {"10 pictures": 0.3, "everything": 0.03}
    assert not choice.mrr and choice.chosen_by == "one person"


def test_a_fixed_strength_trains_nothing_more(go, base, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(base / "runs/train-align", runs / "train-align")
    asked = ("arms=transfer", "alignments=[]", "pictures=10", "draws=1", "subjects=1", "transfer.pulls=0.1")

    measured = go("calibrate", *asked, f"paths.runs={runs}").metrics

    assert not (runs / "calibrate/.left-out").exists()
    (choice,) = measured.facts.strength.values()
    assert choice.chosen_by == "recipe" and {*choice.pulls.values()} == {0.1}


def test_the_order_of_recording_and_minutes_are_refused_before_anything_is_trained(go, base, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(base / "runs/train-align", runs / "train-align")
    for asked in ("minutes=1", "order=recording"):
        ended = invoke(asked, f"paths.runs={runs}")
        assert ended.exit_code == 1 and "signals do not say when trials began" in ended.stderr
        assert "with onsets (brainhive prepare)" in ended.stderr and "in draws" in ended.stderr
    assert not (runs / "calibrate/.left-out").exists()


@pytest.mark.parametrize(
    ("asked", "problem", "way"),
    [
        (["arms=transfor"], "no arm called 'transfor'", "did you mean transfer?"),
        (["alignments=corral"], "no alignment 'corral'", "did you mean coral?"),
        (["pictures=5", "minutes=3"], "amounts in pictures and in minutes", "name one of them"),
        (["pictures=5", "trials=3"], "amounts in pictures and in trials", "name one of them"),
        (["order=recording", "draws=3"], "draws has no effect in the order of recording", "leave it out"),
        (
            ["arms=scratch", "transfer.draws=3"],
            "transfer has no effect without the arm transfer",
            "leave it out",
        ),
        (["arms=scratch", "keep=transfer"], "keep has no effect without the arm transfer", "leave it out"),
    ],
)
def test_a_recipe_that_says_what_cannot_be_is_refused_in_two_lines(base, asked, problem, way):
    ended = invoke(*asked)
    first, second = ended.stderr.splitlines()
    assert ended.exit_code == RecipeError.exit_code == 2 and not ended.stdout
    assert first.startswith(f"error: {problem}") and second.startswith("  try: ") and way in second


def test_a_model_folder_and_people_who_are_known_are_refused(go, base, tmp_path):
    (run,) = base.glob("runs/train-align/*")
    model = f"run={run / 'cells/sub-01_seed-1/model'}"
    with pytest.raises(RecipeError, match="is a model folder, which does not say how it was trained"):
        go("calibrate", model, DEMO, "subjects=1")
    with pytest.raises(MissingData, match="has no subject 7"):
        go("calibrate", "subjects=7")
    runs = f"paths.runs={tmp_path / 'runs'}"
    joint = go("train-align", *INTER[:-2], "mode=joint", "train.epochs=1", runs).folder
    for subjects, who in (("", "anybody"), ("subjects=2", "2")):
        with pytest.raises(BrainhiveError, match=f"has yet to learn from subject {who}") as caught:
            go("calibrate", *filter(None, [f"run={joint}", runs, subjects]))
        assert "--mode inter" in caught.value.hint


def test_a_check_counts_the_models_that_are_trained(base, folder):
    ended = invoke(*ASKED, "--check", "--json")

    assert ended.exit_code == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert {one["state"] for one in document["inputs"]} == {"here"} and document["missing"] == []
    (table,) = [table for table in document["tables"] if table["title"] == "Work"]
    (time,) = [row["value"] for row in table["rows"] if row["item"] == "time"]
    assert "90 trained models" in time  # of 3 people, 6 arms, 2 amounts in 2 draws and everything
    assert invoke("arms=zero-shot", "--check", "--json").exit_code == 0


@pytest.mark.parametrize("copies", ["refuse", "allow"])
def test_a_calibration_picture_whose_copy_is_tested_is_left_out_and_counted(go, tmp_path, copies):
    photos = paint(tmp_path / "photos", 16, 3)  # one of 36 training pictures is one of 12 tested ones
    if copies == "refuse":
        copy_into_test(photos, 1)
    else:
        photograph_into_test(photos, *COPIES["centre"])
    dataset, runs = simulated(photos).replace("subjects: 1", "subjects: 2"), f"paths.runs={tmp_path / copies}"
    asked = ("arms=zero-shot,scratch", "alignments=[]", "pictures=10", "draws=1", f"copies={copies}")
    with at_home(tmp_path):
        go("embed", dataset, f"encoders=[{COLOURS!r}]")
        go("train-align", dataset, f"encoders=[{COLOURS!r}]", *TINY, "mode=inter", runs)
        found = go("calibrate", *asked, runs).metrics

    assert found.facts.pictures_left_out == {"1": 1, "2": 1}
    assert found.facts.amounts[-1].pictures == 35
    is_tested = copies == "allow"  # else it is a candidate only, as the model learned from its copy
    assert found.overall["top1"].n == 2 * (11 + is_tested) and found.overall["top1"].pool == 12


def test_an_arm_that_decodes_test_trials_together_is_stamped_and_no_other_arm_is(go, base, monkeypatch):
    def fit(self, tokens, references):
        return lambda tokens: tokens - tokens.mean(0)

    monkeypatch.setattr("brainhive_cli.measurement.alignments.Coral.fit", fit)
    asked = ("arms=zero-shot", "alignments=procrustes,coral", "pictures=10", "draws=1", "subjects=1")

    measured = go("calibrate", *asked).metrics

    stamped = {name.split(" · ")[0] for name, metrics in measured.scopes.items()
               if "mrr" in metrics and TRIALS_TOGETHER in metrics["mrr"].protocol}  # fmt: skip
    assert stamped == {"coral", "all", "sub-01"} and measured.facts.arm == "coral"
    assert TRIALS_TOGETHER in measured.facts.caveats and TRIALS_TOGETHER in measured.overall["top1"].protocol


def test_a_kept_model_decodes_recordings_as_its_arm_does(go, base):
    few = ("arms=transfer", "alignments=[]", "pictures=10", "draws=1", "subjects=2", "transfer.pulls=0.1")

    folder = go("calibrate", *few, "keep=transfer").folder

    (path,) = folder.glob("models/*/sub-02/transfer")
    model = aligners.load(path)
    recording = SignalStore.open(next(base.glob("signals/*/default/sub-02.h5")))["test"]
    store = TargetStore.open(next(base.glob("embeddings/*/test/*.h5")))
    with torch.inference_mode():
        tokens = model.encode_signal(torch.from_numpy(model_input(model.layout.spec, recording, None)))
        (key,) = model.layout.dims
        gallery = model.encode_image({key: torch.from_numpy(np.array(store.embedding, np.float32))})
    (part,) = (cell_files.load(file, Part) for file in folder.glob("parts/*/*"))
    shown = torch.from_numpy(store.rows(recording.image_ids))
    ranked = part.ranks[TRANSFER, "everything"]
    assert (ranks(tokens, gallery, shown).numpy() == ranked).mean() > 0.97  # or rounding

    # eval-retrieval finds the encoders in the run of the base
    evaluated = go("eval-retrieval", f"run={path}", DEMO, "subjects=2", "ceiling_splits=0")
    assert evaluated.metrics.overall["top1"].value == pytest.approx((ranked == 1).mean(), abs=0.03)


def test_a_control_is_never_the_headline(go, base):
    few = ("alignments=[]", "pictures=10,40", "draws=1")

    beside = go("calibrate", "arms=scratch,permuted-scratch", *few).metrics
    alone = go("calibrate", "arms=permuted-scratch", *few).metrics

    scratch = beside.scopes["scratch · everything"]["top1"].value
    assert beside.facts.arm == "scratch" and beside.overall["top1"].value == scratch
    assert "by training from scratch" in state_finding(beside)
    assert alone.facts.arm == "" and not alone.overall and not alone.facts.cells
    assert not any(name.startswith("share_of_everything") for name in alone.scopes)
    assert state_finding(alone) == "Only controls were measured, so nothing is said of a new person."


def test_a_run_without_a_trained_arm_ends_well(base):
    shown = invoke("arms=zero-shot", "alignments=[]", "pictures=10", "draws=1", "subjects=1")
    assert shown.exit_code == 0, shown.stderr


@pytest.mark.parametrize("word", ["pictures=0.5", "trials=2.5", "minutes=0"])
def test_amounts_that_are_none_are_refused(base, word):
    shown = invoke(word)
    assert shown.exit_code == 2 and len(shown.stderr.splitlines()) == 2


def test_people_of_another_data_set_are_new_and_those_of_the_run_choose_on_its_own_pictures(go, base):
    copied = DEMO.replace("concepts: 40", "concepts: 20")  # whose signals are part of the run's own
    other = copied.replace("noise: 0.3", "noise: 0.31")
    for dataset in (copied, other):
        go("embed", dataset, f"encoders=[{COLOURS!r}]")
    (run,) = (path.parent.name for path in base.glob("runs/train-align/*/metrics.json"))
    few = (f"run={run}", "arms=zero-shot,transfer", "alignments=[]", "pictures=10", "draws=1", "subjects=1")

    measured = go(
        "calibrate", other, *few, "transfer.pulls=0.3,0.1", "transfer.draws=1", "copies=allow"
    ).metrics

    assert all(choice.people == 2 for choice in measured.facts.strength.values())
    assert measured.overall["top1"].n == TESTED
    with pytest.raises(BrainhiveError, match=r"480 of 480 trials are copies of trials that .* learned from"):
        go("calibrate", copied, *few, "copies=allow")
