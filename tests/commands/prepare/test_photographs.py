"""Tests with own recordings of photographs: usual encoders, and the ridge baseline."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import train_align
from brainhive_cli.evaluation.retrieval import baseline
from brainhive_cli.reports.sentences.sentences import RIDGE_RECIPE
from tests.worlds import command_fixtures, lite0_encoder

mne = pytest.importorskip("mne")
RATE_HZ, CHANNELS, TRAIN, TEST = 100, 16, 60, 20
QUICK = ("ceiling_splits=0", "sheet_rows=0")


def draw_responses(files, random):
    """Draw the evoked response to each photograph.

    Each source has a map, a latency and a strength. The strengths are principal
    components of the pixels, and of the features of a network.

    Args:
        files: Files [N] of the photographs.
        random: Generator of maps and latencies.

    Returns:
        Responses [N, C, T] in microvolts.
    """
    pictures = [Image.open(file).convert("RGB") for file in files]
    network, preprocess = lite0_encoder.load()
    with torch.inference_mode():
        features = network(torch.stack([preprocess(picture) for picture in pictures]))
    pixels = np.stack([np.ravel(picture.resize((16, 16))) for picture in pictures])
    strengths = []
    for levels in (pixels, features.numpy()):
        left_vectors, _, _ = np.linalg.svd(levels - levels.mean(0), full_matrices=False)
        strengths += [left_vectors[:, :12] * len(files) ** 0.5]
    maps = random.normal(size=(24, CHANNELS))
    times = np.arange(RATE_HZ // 2) / RATE_HZ
    course = np.exp(-(((times - random.uniform(0.08, 0.35, (24, 1))) / 0.04) ** 2))
    return 4 * np.einsum("ns,sc,st->nct", np.hstack(strengths), maps, course)


@pytest.fixture(scope="module")
def recorded(shared, tmp_path_factory):
    """Home with the recording and the pictures of a person."""
    photos = shared / "data" / "photos"
    if not photos.is_dir():
        pytest.skip("no photographs in the shared folder")
    pytest.importorskip("efficientnet_lite_pytorch")
    home, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    files = [sorted(photos.glob("*.jpg"))[number] for number in random.permutation(100)]
    names = []
    for number, file in enumerate(files[: TRAIN + TEST]):
        split = "train" if number < TRAIN else "test"
        names.append(f"{split}/{file.stem}/{file.name}")
        path = home / "data/image-folder" / names[-1]
        path.parent.mkdir(parents=True)
        shutil.copy(file, path)

    # each training picture four times, and each test picture eight times
    evoked = draw_responses(files[: TRAIN + TEST], random)
    counts = [4] * TRAIN + [8] * TEST
    permutation = random.permutation(np.repeat(np.arange(TRAIN + TEST), counts))
    onsets = RATE_HZ + np.arange(len(permutation)) * RATE_HZ * 6 // 10
    signal = 12 * random.normal(size=(CHANNELS, onsets[-1] + 2 * RATE_HZ))
    for number, onset in zip(permutation, onsets, strict=True):
        signal[:, onset : onset + RATE_HZ // 2] += evoked[number]
    names_of_channels = mne.channels.make_standard_montage("biosemi16").ch_names
    header = mne.create_info(names_of_channels, RATE_HZ, "eeg")
    raw = mne.io.RawArray(1e-6 * signal, header, verbose="ERROR")
    texts = [str(number + 1) for number in permutation]
    raw.set_annotations(mne.Annotations(onsets / RATE_HZ, 0.0, texts))
    recordings = home / "data/recordings"
    recordings.mkdir(parents=True)
    raw.save(recordings / "sub-01_ses-01.fif", verbose="ERROR")
    rows = [f"{number + 1},{name}" for number, name in enumerate(names)]
    (recordings / "events.csv").write_text(
        "\n".join(["event,picture"] + list(rows)) + "\n"
    )
    return home


@pytest.fixture(scope="module")
def at_home(recorded, run_command):
    """Home with stores of signals and embeddings."""
    with command_fixtures.use_home(recorded):
        keys = f"rate_hz: {RATE_HZ}, keep_ms: [0, 500]"
        run_command("prepare", f"preparation={{kind: recording, {keys}}}")
        run_command("embed", "dataset=image-folder")
        yield recorded


@pytest.fixture(scope="module")
def network(at_home, run_command):
    """Run of small networks after two epochs of training."""
    return run_command(
        "train-align",
        "dataset=image-folder",
        "backbone=brain-mlp",
        "backbone.hidden=16",
        "seeds=1",
        "train.epochs=2",
        "dim=16",
        "fuser.intermediate_size=16",
    ).folder


@pytest.mark.nightly
def test_the_ten_lines_find_photographs_with_what_is_installed(at_home, run_command):
    stores = (at_home / "embeddings/image-folder").glob("*/*.h5")
    trained = run_command("train-align", "dataset=image-folder")
    result = run_command("eval-retrieval", *QUICK)

    assert {path.stem for path in stores} == {"lite0", "gabor"}
    recipe = train_align.Recipe.resolve(
        "train-align", str(trained.folder / "recipe.yaml"), {}, []
    )
    assert recipe.backbone.kind == "ridge"
    assert recipe.seeds == [2025]
    top1 = result.metrics.overall["top1"]
    (answer,) = result.metrics.facts.answers
    assert answer.side == "above chance"
    assert top1.value >= 0.3
    # the model is a ridge, so the table has no ridge for comparison
    assert "ridge" not in [row[0] for row in result.tables[0].rows]


@pytest.mark.nightly
def test_the_line_of_a_ridge_in_the_table_trains_the_same_ridge(
    network, run_command, capsys
):
    result = run_command("eval-retrieval", f"run={network}", *QUICK)
    messages = " ".join(capsys.readouterr().err.split())
    path = result.folder / RIDGE_RECIPE

    ended = CliRunner().invoke(app, ["train-align", "--recipe", str(path), "--json"])
    assert ended.exit_code == 0, ended.stderr
    ridge_run = json.loads(ended.stdout)["folder"]
    ridge_metrics = run_command("eval-retrieval", f"run={ridge_run}", *QUICK).metrics

    rows = {row[0]: row for row in result.tables[0].rows}
    ridge = result.metrics.scopes["plain · ridge"]
    assert rows.keys() >= {"all", "ridge"}
    for name in ("top1", "top5", "median_rank"):
        assert ridge_metrics.overall[name].value == ridge[name].value
    (difference,) = result.metrics.facts.plain
    assert difference.second == "ridge"
    assert difference.difference == pytest.approx(
        result.metrics.overall["top1"].value - ridge["top1"].value
    )
    assert "ridge" in result.tables[0].note
    assert difference.is_significant
    assert not difference.is_better
    assert f"brainhive train-align --recipe {path}" in messages


def test_a_ridge_that_takes_longer_than_the_training_is_left_out(
    network, run_command, monkeypatch
):
    monkeypatch.setattr(baseline, "OPERATIONS_PER_S", 1.0)
    evaluation = ["eval-retrieval", f"run={network}"] + list(QUICK)

    skipped = run_command(*evaluation, again=True).metrics.facts
    requested = run_command(*evaluation, "baseline=ridge").metrics.facts

    assert "baseline=ridge" in skipped.baseline.reason
    assert not skipped.plain
    assert [difference.second for difference in requested.plain] == ["ridge"]


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ((), "ridge"),
        (("mode=inter",), "shared-ridge"),
        (("train.epochs=3",), "brain-mlp"),
        (("loss=mse",), "brain-mlp"),
    ],
)
def test_few_pictures_are_decoded_by_a_ridge_by_default(at_home, keys, kind):
    overrides = ["dataset=image-folder"] + list(keys)
    recipe = train_align.Recipe.resolve("train-align", None, {}, overrides)
    assert recipe.backbone.kind == kind
    assert (recipe.similarity == "cosine_from_mean") == ("ridge" in kind)


def test_many_pictures_and_other_data_sets_are_trained_in_steps(at_home, monkeypatch):
    monkeypatch.setattr(
        "brainhive_cli.data.datasets.image_folder.FEW_PICTURES", TRAIN - 1
    )
    for dataset in ("image-folder", "things-eeg"):
        recipe = train_align.Recipe.resolve(
            "train-align", None, {}, [f"dataset={dataset}"]
        )
        assert recipe.backbone.kind == "brain-mlp"
        assert len(recipe.seeds) == 3


def test_heads_of_a_ridge_keep_their_order(at_home, run_command):
    """The order of the encoders in the recipe does not change the ranks."""
    runs = [
        run_command("train-align", "dataset=image-folder", f"encoders=[{names}]").folder
        for names in ("lite0, gabor", "gabor, lite0")
    ]
    first_weights, second = (
        run_command("eval-retrieval", f"run={finished_run}", *QUICK).metrics
        for finished_run in runs
    )
    assert first_weights.items == second.items


def test_a_model_that_is_no_run_has_no_ridge(network, run_command):
    model = next(network.glob("cells/*/model"))
    facts = run_command(
        "eval-retrieval", f"run={model}", "dataset=image-folder", "subjects=1", *QUICK
    ).metrics.facts
    assert facts.baseline.reason
    assert not facts.plain
