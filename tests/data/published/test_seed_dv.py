"""Tests of SEED-DV."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.published.seed_dv import SeedDvClips, SeedDvEeg
from tests.publishers import seed_dv_files
from tests.worlds.array_trials import arrange

pytest.importorskip("av")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return a folder with all files."""
    return seed_dv_files.write(tmp_path_factory.mktemp("seed-dv"))


def list_clips(root, **keys):
    """List the clips of a root."""
    return SeedDvClips(root=str(root), **keys).build(Paths()).images("train")


@pytest.mark.parametrize("index", [199, 200, 1399])
def test_clips_begin_at_their_frame_of_the_film(root, index):
    """Six frames of two seconds, eight frames apart, from the first frame on."""
    clip = list_clips(root).open(index)
    assert clip.frames.shape == (6, 32, 32, 3)
    assert clip.rate_hz == 3
    # the corner brightens by 5 a frame
    corner = clip.frames[:, 4, 4, 0].astype(int)
    np.testing.assert_allclose(corner, 40 * np.arange(6), atol=4)

    film, row = divmod(index, 200)
    concepts = seed_dv_files.draw_concepts()[film]
    expected = seed_dv_files.draw_pictures(concepts)[row].astype(int)
    # the film has fewer colours than pixels
    error = np.abs(clip.frames[0, 8:].mean(-1) - expected[8:].mean(-1))
    assert error.mean() < 5


def test_clips_have_concepts_captions_and_labels(root):
    clips = list_clips(root)
    concepts = np.repeat(seed_dv_files.draw_concepts(), 5)
    assert clips.image_ids[201] == "2nd_10min/001"
    assert clips.concepts == [f"concept-{number}" for number in concepts]
    (caption,) = clips.get_captions(201)
    assert caption.endswith(f" shows {concepts.ravel()[201]}")
    label = int(clips.get_labels(201).argmax())
    assert clips.label_names[label] == clips.concepts[201]


@pytest.mark.parametrize(
    ("label", "count"),
    [("color", 7), ("face", 2), ("human", 2), ("number", 3), ("flow", 2)],
)
def test_labels_are_the_values_of_the_file(root, label, count):
    clips = list_clips(root, labels=label)
    assert len(clips.label_names) == count
    assert clips.get_labels(3).sum() == 1
    assert clips.dataset == f"seed-dv-6-{label}"


def test_frames_are_evenly_spaced(root):
    clip = list_clips(root, frames=4).open(7)
    assert clip.rate_hz == 2
    corner = clip.frames[:, 4, 4, 0].astype(int)
    np.testing.assert_allclose(corner, 60 * np.arange(4), atol=4)


def test_a_fold_holds_out_a_film(root):
    dataset = SeedDvClips(root=str(root)).build(Paths())
    assert dataset.stimulus == "clip"
    assert dataset.holdout.fold_numbers == [1, 2, 3, 4, 5, 6, 7]
    clips = dataset.images("train")
    is_tested = dataset.holdout.choose_stimuli(clips, "test", 7)
    assert np.flatnonzero(is_tested).tolist() == list(range(1200, 1400))


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_trial_is_the_two_seconds_of_a_clip(root, tmp_path, is_cut):
    signal = np.load(root / "EEG" / "sub1.npy")
    if is_cut:
        starts = 600 + 2600 * np.arange(40)[:, None] + 400 * np.arange(5)
        samples = starts[..., None] + np.arange(400)  # [40, 5, 400]
        segments = signal[:, :, samples].transpose(0, 2, 3, 1, 4)
        folder = tmp_path / "Segmented_Rawf_200Hz_2s"
        folder.mkdir()
        np.save(folder / "sub1.npy", segments)
    files = SeedDvEeg(root=str(tmp_path if is_cut else root)).build(Paths())
    assert files.subjects == (1,)

    trials = files.recording(1, "train")
    assert trials.image_ids[1306] == "7th_10min/106"
    expected = signal[6, :, 2600 * 21 + 1000 : 2600 * 21 + 1400]
    np.testing.assert_array_equal(trials.signal[1306:1307][0], expected)
    assert trials.runs[1306] == 7
    assert trials.onset_s[1306] == 21 * 13 + 5
    assert trials.positions is None


def test_concepts_have_the_trials_of_all_films(root):
    files = SeedDvEeg(root=str(root), labels="concept").build(Paths())
    assert files.dataset == "seed-dv-concept"
    trials = files.recording(1, "train")
    arranged = arrange(trials)
    assert arranged.signal.shape == (40, 35, 3, 400)
    row = arranged.image_ids.index("concept-23")
    position = int(np.flatnonzero(seed_dv_files.draw_concepts()[2] == 23)[0])
    assert arranged.runs[row, 10] == 3
    assert arranged.onset_s[row, 10] == 13 * position + 3


@pytest.mark.parametrize(
    ("name", "count"),
    [("All_video_label.npy", "280"), ("3rd_10min.txt", "200"), ("sub1.npy", "104000")],
)
def test_files_of_another_length_are_refused(root, tmp_path, name, count):
    shutil.copytree(root, tmp_path / "data")
    path = next((tmp_path / "data").rglob(name))
    if path.suffix == ".txt":
        path.write_text("a dog\n" * 199)
    else:
        np.save(path, np.load(path)[..., :-1])
    with pytest.raises(MissingData) as caught:
        list_clips(tmp_path / "data")
        SeedDvEeg(root=str(tmp_path / "data")).build(Paths()).recording(1, "train")
    assert name in caught.value.message
    assert count in caught.value.message


def test_a_film_that_is_too_short_is_refused(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    path = tmp_path / "data" / "Video" / "2nd_10min.mp4"
    seed_dv_files.write_film(path, np.arange(1, 41), 12_000)
    with pytest.raises(MissingData) as caught:
        list_clips(tmp_path / "data")
    assert "2nd_10min.mp4" in caught.value.message
    assert "12,000" in caught.value.message


def run_json(*arguments):
    """Run a command and return its result."""
    result = CliRunner().invoke(app, list(arguments) + ["--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def list_answers(evaluation):
    """Return the answers of an evaluation by their question."""
    answers = evaluation["metrics"]["facts"]["answers"]
    return {answer["question"]: answer for answer in answers}


@pytest.fixture
def home(root, tmp_path, monkeypatch):
    """Return a home with noise of subject 1, and responses of subject 2."""
    (tmp_path / "data").mkdir()
    shutil.copytree(root, tmp_path / "data" / "seed-dv")
    seed_dv_files.write_eeg(tmp_path / "data" / "seed-dv", 2, effect=0.2)
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.nightly
@pytest.mark.parametrize(("subject", "has_effect"), [(1, False), (2, True)])
def test_concepts_are_decoded_in_held_out_blocks(home, subject, has_effect):
    subjects = ["--subjects", str(subject)]
    run_json("prepare", "--recipe", "studies/seed-dv", *subjects)
    run_json("embed", "--recipe", "studies/seed-dv")
    run_json("train-align", "--recipe", "studies/seed-dv", *subjects)
    (answer,) = list_answers(run_json("eval-retrieval")).values()
    assert (answer["better"] < 0.025) == has_effect
    assert "series of trials" in answer["test"]


@pytest.mark.parametrize(("subject", "has_effect"), [(1, False), (2, True)])
def test_clips_of_held_out_films_are_retrieved(home, subject, has_effect):
    """Concepts follow one another in series, and can be tested nevertheless."""
    subjects = ["--subjects", str(subject)]
    run_json("prepare", "--recipe", "papers/seed-dv", *subjects)
    encoder = "encoders=[{kind: concepts, count: 40}, demo-text]"
    run_json("embed", "--dataset", "seed-dv", encoder)
    run_json("train-align", "--recipe", "papers/seed-dv", encoder, *subjects)
    answers = list_answers(run_json("eval-retrieval"))
    assert (answers["which concept"]["better"] < 0.025) == has_effect
    assert (answers["which clip"]["better"] < 0.025) == has_effect
    assert answers["which concept"]["pool"] == 200
    assert "series of trials" in answers["which concept"]["test"]


def test_a_damaged_film_is_fetched_again(root, tmp_path):
    folder = tmp_path / "Video"
    folder.mkdir()
    for film in seed_dv_files.FILMS:
        (folder / f"{film}.mp4").write_bytes(b"no film")
    with pytest.raises(MissingData, match="has 0 frames") as caught:
        list_clips(tmp_path)
    assert caught.value.hint == "brainhive fetch seed-dv"
