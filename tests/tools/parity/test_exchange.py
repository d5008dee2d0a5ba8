"""Planted data in the authors' layouts, and figures from the files of their code."""

import fnmatch
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from brainhive_cli.data.published.things_eeg import MONTAGE
from tools.parity import __main__ as command, comparison, exchange, planted, trainings
from tools.parity.layouts import WRITERS

SETTINGS = {"plant": {"train": 12, "test": 6, "samples": 50}, "epochs": 2}
CHANNELS, SAMPLES = 63, 50
REPETITIONS = {"train": 4, "test": 8}
COUNTS = {"train": 12, "test": 6}
SPLITS = ("train", "test")
Run = Callable[..., str]


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    """A folder of figures, whose settings plant few pictures."""
    folder = tmp_path / "figures"
    folder.mkdir()
    for method in WRITERS:
        content = {"settings": SETTINGS, "reference": []}
        (folder / f"{method}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def export(
    golden: Path, figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Export the planted data of a method."""
    monkeypatch.setattr(planted, "GOLDEN", golden)

    def export_method(method: str) -> Path:
        folder = tmp_path / "exported"
        exchange.export(method, folder, figures)
        return folder

    return export_method


@pytest.fixture
def run_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run the command line, and return its output."""

    def run_command(*arguments: object) -> str:
        texts = [str(argument) for argument in arguments]
        monkeypatch.setattr("sys.argv", ["python -m tools.parity"] + list(texts))
        command.main()
        return capsys.readouterr().out

    return run_command


@pytest.fixture
def fail(run_program: Run, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command line that the user has to change, and return its two lines."""

    def run_command(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            run_program(*arguments)
        assert ended.value.code == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert len(printed.err.splitlines()) == 2
        return printed.err

    return run_command


def plant(method: str, split: str) -> Any:
    """Plant a split again: signals [N, R, C, T] and embeddings [N, D] by letter."""
    letters = list(exchange.AUTHORS[method].embeddings)
    return planted.plant(SETTINGS, letters)[split]


def unit(values: Any) -> Any:
    rows = values.astype("f4")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def expand(pattern: str) -> list[str]:
    """Expand the braces of a pattern, as a shell does."""
    match = re.search(r"\{([^}]*)\}", pattern)
    if match is None:
        return [pattern]
    patterns = []
    for choice in match[1].split(","):
        patterns += expand(pattern[: match.start()] + choice + pattern[match.end() :])
    return patterns


@pytest.mark.parametrize("method", WRITERS)
def test_the_files_are_those_that_are_described(method, export):
    folder = export(method)

    patterns = []
    for pattern in exchange.AUTHORS[method].files:
        patterns += expand(pattern)
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in files]
    for name in names:
        assert any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns), name
    for pattern in patterns:
        assert fnmatch.filter(names, pattern), pattern


@pytest.mark.parametrize("method", sorted(set(WRITERS) & set(trainings.METHODS)))
def test_our_training_reads_the_exported_embeddings(method):
    letters = set(exchange.AUTHORS[method].embeddings)
    assert letters == set(trainings.METHODS[method].stores)


def test_methods_without_golden_figures_have_rows_and_settings():
    for method in ("samga", "neurobridge", "visual-blur-perception", "bridge"):
        assert exchange.AUTHORS[method].settings["batch_size"] < 480
        assert method in trainings.METHODS
    assert "lora-b32" not in trainings.METHODS


@pytest.mark.parametrize("path", exchange.FIGURES.glob("*.json"), ids=lambda p: p.stem)
def test_figures_here_are_of_the_settings_that_are_exported(path):
    figures = exchange.find_figures(path.stem)

    assert figures
    assert figures.settings == exchange.AUTHORS[path.stem].settings
    assert len({entry["seed"] for entry in figures.reference}) == 3
    assert all(
        len(entry["top1_by_epoch"]) == figures.settings["epochs"]
        and entry["top1"] == entry["top1_by_epoch"][-1]
        for entry in figures.reference
    )


@pytest.mark.parametrize("method", ["samga", "neurobridge"])
def test_signals_as_arrays(method, export):
    root = export(method) / "preprocessed_eeg"

    assert json.loads((root / "info.json").read_text())["ch_names"] == list(MONTAGE)
    for split in SPLITS:
        signals = np.load(root / "sub-01" / f"{split}.npy")
        assert signals.dtype == np.float32
        shape = (COUNTS[split], 1, REPETITIONS[split], CHANNELS, SAMPLES)
        assert signals.shape == shape
        assert np.array_equal(signals[:, 0], plant(method, split)["eeg"])


def test_samga_has_a_file_for_each_layer(export):
    features = export("samga") / "image_feature"

    for split in SPLITS:
        embeddings = plant("samga", split)["emb"]
        for layer, letter in zip((20, 24, 28, 32, 36), "cdeft", strict=True):
            values = np.load(features / f"image_{split}_layer{layer}.npy")
            assert values.shape == (COUNTS[split], 1, 1024)
            assert np.array_equal(values[:, 0], embeddings[letter])


def test_neurobridge_has_the_mean_of_degradations(
    export,
):
    features = export("neurobridge") / "image_feature" / "RN50"
    averaged = features / "GaussianBlur-GaussianNoise-LowResolution-Mosaic"

    for split in SPLITS:
        values = np.load(averaged / f"{split}.npy")
        assert (values.shape, values.dtype) == ((1, COUNTS[split], 1, 1024), "f4")
        views = list(plant("neurobridge", split)["emb"].values())
        assert np.allclose(values[0, :, 0], np.mean(np.float32(views), 0), atol=1e-6)
        width = np.load(features / f"image_{split}.npy").shape
        assert width == (COUNTS[split], 1, 1024)


WHITENED = {
    "visual-blur-perception": "data/things-eeg/Preprocessed_data",
    "bridge": "data/things-eeg/Preprocessed_data_250Hz_whiten",
    "brainhive": "data/things-eeg/Preprocessed_data_250Hz_whiten",
    "ubp": "data/things-eeg/Preprocessed_data_250Hz_whiten",
}


def load_whitened(folder: Path, method: str, split: str) -> dict[str, Any]:
    path = folder / WHITENED[method] / "sub-01" / f"{split}.pt"
    return torch.load(path, weights_only=False)


@pytest.mark.parametrize("method", WHITENED)
def test_signals_as_dictionaries(method, export):
    folder = export(method)

    for split in SPLITS:
        recording = load_whitened(folder, method, split)
        signals = torch.from_numpy(recording["eeg"])  # numpy, as their loaders expect
        assert signals.dtype == torch.float16
        counts = (COUNTS[split], REPETITIONS[split])
        assert signals.shape == tuple(counts) + (CHANNELS, SAMPLES)
        theirs, ours = signals.float().numpy(), plant(method, split)["eeg"]
        assert np.allclose(theirs, ours, rtol=1e-3, atol=1e-4)
        for key in ("img", "text", "label", "session"):
            assert recording[key].shape == counts
        assert len(set(recording["img"][:, 0])) == COUNTS[split]
        assert recording["ch_names"] == list(MONTAGE)


def test_blur_perception_has_twelve_blurs(export):
    folder = export("visual-blur-perception")
    features = folder / "data" / "things-eeg" / "Image_feature"

    kernels = "1 3 9 15 21 27 33 39 45 51 57 63".split()
    for split in SPLITS:
        blurs = torch.load(features / f"MultiBlur_RN50_{split}.pt")
        first_blur = torch.load(features / "UniformBlur" / f"UniBlur_RN50_{split}.pt")
        assert list(blurs) == list(first_blur) == kernels
        paths = load_whitened(folder, "visual-blur-perception", split)["img"][:, 0]
        embeddings = plant("visual-blur-perception", split)["emb"]
        for number, kernel in enumerate(kernels, 1):
            rows = torch.stack([blurs[kernel][path] for path in paths]).numpy()
            assert np.allclose(rows, unit(embeddings[f"d{number}"]), atol=1e-6)
            assert torch.equal(first_blur[kernel][paths[0]], blurs[kernel][paths[0]])


def test_views_lose_more_with_their_number(golden, monkeypatch):
    monkeypatch.setattr(planted, "GOLDEN", golden)
    letters = ["d1", "d", "d12"]

    embeddings = planted.plant(SETTINGS, letters)["train"]["emb"]

    assert list(embeddings) == letters
    first_std = np.std(np.float32(embeddings["d1"]) - embeddings["d"])
    last_std = np.std(np.float32(embeddings["d12"]) - embeddings["d"])
    assert first_std == pytest.approx(planted.VIEW_NOISE, rel=0.05)
    assert last_std == pytest.approx(12 * planted.VIEW_NOISE, rel=0.05)
    second_d12 = planted.plant(SETTINGS, ["d12"])["train"]["emb"]["d12"]
    assert np.array_equal(second_d12, embeddings["d12"])


@pytest.mark.parametrize(
    ("method", "folder", "files"),
    [
        (
            "brainhive",
            "embeddings",
            {
                "synclr_vit_b_16": ["a"],
                "CLIP-ViT-B-32-laion2B-s34B-b79K": ["b"],
                "vae": ["c"],
            },
        ),
        (
            "bridge",
            "embeddings_multiscale",
            {"CLIP-ViT-B-32-laion2B-s34B-b79K": ["a1", "a2", "a3", "a4", "b"]},
        ),
    ],
)
def test_embeddings_in_parquet(
    method,
    folder,
    files,
    export,
):
    parquet = pytest.importorskip("pyarrow.parquet")
    exported = export(method)

    for split in SPLITS:
        embeddings = plant(method, split)["emb"]
        paths = load_whitened(exported, method, split)["img"][:, 0]
        for network, letters in files.items():
            name = f"things_{split}_{network}-part-00000-of-00000.parquet"
            table = parquet.read_table(exported / "data" / "things-eeg" / folder / name)
            assert str(table.schema.field("image_id").type) == "string"
            assert str(table.schema.field("emb").type.value_type) == "float"
            ids = table["image_id"].to_pylist()
            assert ids == [Path(path).stem for path in paths]
            joined = np.concatenate([embeddings[letter] for letter in letters], 1)
            assert np.array_equal(np.float32(table["emb"].to_pylist()), joined)


def test_ubp_has_levels_by_path(export):
    folder = export("ubp")
    features = folder / "data" / "things-eeg" / "Image_feature" / "FoveaBlur"

    letters = {
        "train": {"low": "d", "medium": "e", "high": "f"},
        # our recipe searches among the weakest blur
        "test": {"low": "d", "medium": "d", "high": "f"},
    }
    for split in SPLITS:
        name = f"eeg_intra-subject_ubp_EEGProjectLayer_RN50_{split}.pt"
        cache = torch.load(features / name)
        recording = load_whitened(folder, "ubp", split)
        embeddings = plant("ubp", split)["emb"]
        for level, letter in letters[split].items():
            by_path = cache["img_features"][level]
            rows = torch.stack([by_path[path] for path in recording["img"][:, 0]])
            assert rows.dtype == torch.float32
            assert np.allclose(rows.numpy(), unit(embeddings[letter]), atol=1e-6)
        for text in recording["text"][:, 0]:
            assert cache["text_features"][text].shape == (1024,)


PICKLED = {
    "nice": "Preprocessed_data_250Hz",
    "atm-s": "Preprocessed_data_250Hz",
    "alignvis": "things_eeg_2/Preprocessed_data_250Hz",
}


@pytest.mark.parametrize("method", PICKLED)
def test_signals_as_bare_pickles(method, export):
    folder = export(method) / PICKLED[method] / "sub-01"

    for split, name in {"train": "training", "test": "test"}.items():
        path = folder / f"preprocessed_eeg_{name}.npy"
        assert path.read_bytes()[:2] == pickle.PROTO + b"\x04"  # no header of numpy
        recording = np.load(path, allow_pickle=True)
        signals = recording["preprocessed_eeg_data"]
        assert signals.dtype == np.float64
        assert np.array_equal(signals, plant(method, split)["eeg"])
        assert recording["ch_names"] == list(MONTAGE)
        # ATM drops the first fifty, and keeps what lies between 0 and 1 s
        times = recording["times"][50:]
        assert len(times) == SAMPLES
        assert times[0] == 0
        assert times[-1] < 1


def test_nice_has_test_pictures_as_centres(export):
    features = export("nice") / "dnn_feature"

    test = unit(plant("nice", "test")["emb"]["a"])
    train = unit(plant("nice", "train")["emb"]["a"])
    for name, values in {"training": train, "test": test}.items():
        maps = np.load(features / f"clip_feature_maps_{name}.npy")
        assert (maps.shape, maps.dtype) == ((len(values), 1, 768), "f4")
        assert np.allclose(np.squeeze(maps), values, atol=1e-6)
    assert np.allclose(np.load(features / "center_clip.npy"), test, atol=1e-6)


def test_alignvis_has_a_file_for_each_picture(export):
    root = export("alignvis") / "things_eeg_2" / "image_embeddings"

    metadata = np.load(root / "image_metadata.npy", allow_pickle=True).item()
    for split, folder in {"train": "training_images", "test": "test_images"}.items():
        embeddings = plant("alignvis", split)["emb"]["a"]
        concepts = metadata[f"{split}_img_concepts"]
        files = metadata[f"{split}_img_files"]
        assert len(concepts) == len(files) == COUNTS[split]
        for row, (concept, file) in enumerate(zip(concepts, files, strict=True)):
            assert int(concept.split("_")[0]) == row + 1
            name = file.replace(".jpg", "_dreamsim_synclr_vitb16.npy")
            values = np.load(root / folder / concept / name)
            assert values.shape == (1, 768)
            assert np.array_equal(values[0], embeddings[row])


def test_atm_has_a_text_for_ten_pictures(export):
    folder = export("atm-s")

    config = json.loads((folder / "data_config.json").read_text())
    directories = {"train": "img_directory_training", "test": "img_directory_test"}
    for split, key in directories.items():
        cache = torch.load(folder / f"ViT-H-14_features_{split}.pt")
        embeddings = plant("atm-s", split)["emb"]
        pictures = cache["img_features"].numpy()
        assert np.allclose(pictures, unit(embeddings["d"]), atol=1e-6)
        # its loader lists the pictures in this order
        paths = sorted((folder / config[key]).glob("*/*.jpg"))
        numbers = [int(path.stem.split("_")[1]) for path in paths]
        assert numbers == list(range(1, COUNTS[split] + 1))
        concepts = {path.parent.name for path in paths}
        assert len(cache["text_features"]) == len(concepts)
        if split == "train":
            texts = unit(embeddings["t"])[:10].mean(0, keepdims=True)
            assert len(concepts) == 2
            assert np.allclose(cache["text_features"][:1], unit(texts), atol=1e-6)


def test_an_empty_folder_is_written_into(golden, figures, tmp_path, run_program):
    folder = tmp_path / "data"
    folder.mkdir()

    output = run_program("--export", "samga", folder, "--figures", figures)

    assert (folder / "preprocessed_eeg" / "sub-01" / "test.npy").is_file()
    assert f"--eeg_data_dir {folder}/preprocessed_eeg" in output
    assert f"--num_epochs {SETTINGS['epochs']}" in output
    assert [path.name for path in tmp_path.iterdir() if path.name[0] == "."] == []


@pytest.mark.parametrize("method", ["samga", "bridge"])
def test_the_command_has_the_small_settings(method, golden, tmp_path):
    settings = exchange.find_settings(method, None)

    text = exchange.describe(method, tmp_path, settings)

    command_line = text.split("Run (")[1]
    for key in ("epochs", "batch_size"):
        assert re.search(rf"[ =]{settings[key]} ", command_line)
    assert "$epochs" not in text


def test_a_folder_with_files_is_left_alone(figures, tmp_path, fail):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")

    assert "data is not empty" in fail("--export", "samga", folder)
    assert "mine.txt is a file" in fail("--export", "ubp", folder / "mine.txt")
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_a_missing_generator_is_asked_for(tmp_path, fail, monkeypatch):
    monkeypatch.setattr(planted, "GOLDEN", tmp_path)
    assert "BRAINHIVE_GOLDEN" in fail("--export", "samga", tmp_path / "data")
    assert "BRAINHIVE_GOLDEN" in fail("samga")


def test_places_that_cannot_be_written_are_named(golden, figures, tmp_path, fail):
    (tmp_path / "train.log").write_text(SAMGA_LOG)
    file_path = tmp_path / "train.log" / "samga.json"
    arguments = ["--export", "samga", file_path, "--figures", figures]
    assert str(file_path) in fail(*arguments)
    arguments = ["--import", tmp_path / "train.log", "samga", "--figures", figures]
    assert str(file_path) in fail(*arguments, "--into", file_path)


def test_lora_cannot_be_exported(tmp_path, fail):
    assert "pictures" in fail("--export", "lora-b32", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_damaged_file_of_figures_is_no_settings(figures, tmp_path, fail):
    (figures / "samga.json").write_text('{"settings": {"epochs": 2}')
    assert "samga.json" in fail(
        "--export", "samga", tmp_path / "data", "--figures", figures
    )


SAMGA_LOG = """\
2026-05-03 18:28:30 - INFO - Input arguments:
2026-05-03 18:28:30 - INFO - seed                   7
2026-05-03 18:28:35 - INFO - Epoch [1/2] Train Loss: 4.1234 | stage1 mmd=0.900 contrast=0.100
2026-05-03 18:28:35 - INFO - Global layer weights [20, 24, 28, 32, 36]: [0.06, 0.15, 0.58, 0.15, 0.06]
2026-05-03 18:28:36 - INFO - top5 acc 12.00%\ttop1 acc 3.50%\tTest Loss: 5.1234
2026-05-03 18:28:37 - INFO - Freeze share_encoder at epoch 2
2026-05-03 18:28:38 - INFO - Epoch [2/2] Train Loss: 2.5000 | stage2 contrastive only
2026-05-03 18:28:39 - INFO - top5 acc 52.50%\ttop1 acc 26.00%\tTest Loss: 3.3290
2026-05-03 18:28:39 - INFO - best test loss: 3.3290 top5 acc: 52.50 top1 acc: 26.00 at epoch 2
"""  # noqa: E501
RESULT_TABLE = """\
top1 acc,top5 acc,best top1 acc,best top5 acc,best test loss,best epoch
26.00,52.50,27.00,51.00,3.3739,15
"""
BLUR_LOG = """\
2026-11-27 08:59:24,710 INFO: VAL  EMBED:  epoch:0,train_loss:7.2,top_1_acc:0.9,top_3_acc:0.9,top_5_acc:0.9\x20
2026-11-27 08:59:24,710 INFO: TEST EMBED:  epoch:0,train_loss:7.2,top_1_acc:0.01,top_3_acc:0.03,top_5_acc:0.05\x20
2026-11-27 08:59:25,895 INFO: TEST EMBED:  epoch:1,train_loss:7.01,top_1_acc:0.02,top_3_acc:0.04,top_5_acc:0.065\x20
2026-11-27 09:00:24,710 INFO: TEST EMBED:  epoch:0,train_loss:7.3,top_1_acc:0.005,top_3_acc:0.01,top_5_acc:0.03\x20
2026-11-27 09:00:25,895 INFO: TEST EMBED:  epoch:1,train_loss:6.9,top_1_acc:0.03,top_3_acc:0.05,top_5_acc:0.1\x20
2026-11-27 09:00:25,896 INFO: AVG top_1_acc: 0.025\x20
"""  # noqa: E501
BLUR_TABLE = """\
epoch,train_loss,test_top1_acc,test_top3_acc,test_top5_acc,train_loss_points,test_top1_acc_points,test_top3_acc_points,test_top5_acc_points
0,7.2,0.01,0.03,0.05,"[array(7.2, dtype=float32), array(7.01, dtype=float32)]","[0.01, 0.02]","[0.03, 0.04]","[0.05, 0.065]"
"""  # noqa: E501
TRAINER_STATE = json.dumps(
    {
        "epoch": 2.0,
        "num_train_epochs": 2,
        "log_history": [
            {"epoch": 1.0, "loss": 4.7, "grad_norm": 3.4, "step": 4},
            {"epoch": 1.0, "eval_top1_acc": 0.13, "eval_top5_acc": 0.25, "step": 4},
            {"epoch": 2.0, "loss": 1.0, "grad_norm": 1.9, "step": 8},
            {"epoch": 2.0, "eval_top1_acc": 0.29, "eval_top5_acc": 0.48, "step": 8},
            {"epoch": 2.0, "train_loss": 2.85, "step": 8},
        ],
    }
)
EVAL_RESULTS = (
    '{"epoch": 2.0, "eval_loss": 3.6, "eval_top1_acc": 0.29, "eval_top5_acc": 0.48}'
)
TEST_RESULTS = (
    '[{"test_loss": 2.1, "test_top1_acc": 0.07, "test_top5_acc": 0.19, "mAP": 0.2}]'
)
NICE_LOG = """\
Epoch 0: Cos eeg: 2.7000, Cos img: 2.6000, loss val: 2.7358
Epoch 1: Cos eeg: 2.0000, Cos img: 2.1000, loss val: 2.4138
The best epoch is: 2
The test Top1-0.315000, Top3-0.480000, Top5-0.575000
"""
NICE_OUTPUT = """\
seed is 1234
Subject 1
Epoch: 0   Cos eeg: 2.7000   Cos img: 2.6000   loss val: 2.7358
Epoch: 1   Cos eeg: 2.0000   Cos img: 2.1000   loss val: 2.4138
The test Top1-0.315000, Top3-0.480000, Top5-0.575000
"""
ALIGNVIS_OUTPUT = """\
Epoch: 0
Training Loss: 3.62704| Validation Loss: 4.06889
Epoch: 1
Training Loss: 2.08836| Validation Loss: 4.00705
Best Validation Loss = 4.00705 (Epoch = 1)
The test Top1-0.215000, Top3-0.340000, Top5-0.440000
"""
ATM_OUTPUT = """\
Epoch 1/2 - Train Loss: 6.9694, Train Accuracy: 0.0012, Test Loss: 0.0000, Test Accuracy: 0.0050, Top5 Accuracy: 0.0450
Epoch 1/2 - v2 Accuracy:0.7 - v4 Accuracy:0.5 - v10 Accuracy:0.3 - v50 Accuracy:0.1 - v100 Accuracy:0.1
Epoch 2/2 - Train Loss: 4.7939, Train Accuracy: 0.0100, Test Loss: 0.0000, Test Accuracy: 0.0900, Top5 Accuracy: 0.3200
"""  # noqa: E501
ATM_TABLE = """\
epoch,test_loss,test_accuracy,v2_acc,v4_acc,v10_acc,top5_acc,v50_acc,v100_acc,v50_top5_acc,v100_top5_acc
1,0.0,0.005,0.7,0.5,0.3,0.045,0.1,0.1,0.2,0.1
2,0.0,0.09,0.8,0.6,0.4,0.32,0.2,0.2,0.4,0.3
"""
LORA_OUTPUT = """\
Epoch 1
VALIDATION_METRICS {"loss": 1.23, "num_samples": 200, "step": 33, "top1_acc": 0.41, "top1_count": 82, "top5_acc": 0.7, "top5_count": 140}
VALIDATION_METRICS {"loss": 1.2, "num_samples": 200, "step": 66, "top1_acc": 0.5, "top1_count": 100, "top5_acc": 0.8, "top5_count": 160}
"""  # noqa: E501
LORA_EVALUATION = (
    '{"logit_scale": 7.389, "top1": 0.5, "top1_percent": 50.0, "top5": 0.8}'
)

SAMGA_CURVES = {
    "top1": 0.26,
    "top5": 0.525,
    "top1_by_epoch": [0.035, 0.26],
    "top5_by_epoch": [0.12, 0.525],
    "loss": [4.1234, 2.5],
}
BLUR_CURVES = {
    "top1": 0.02,
    "top5": 0.065,
    "top1_by_epoch": [0.01, 0.02],
    "top5_by_epoch": [0.05, 0.065],
    "loss": [7.2, 7.01],
}
TRAINER_CURVES = {
    "top1": 0.29,
    "top5": 0.48,
    "top1_by_epoch": [0.13, 0.29],
    "top5_by_epoch": [0.25, 0.48],
    "loss": [4.7, 1.0],
}
NICE_FIGURES = {
    "top1": 0.315,
    "top5": 0.575,
    "last_batch_loss": [2.65, 2.05],
    "val_loss": [2.7358, 2.4138],
}
ALIGNVIS_FIGURES = {
    "top1": 0.215,
    "top5": 0.44,
    "loss": [3.62704, 2.08836],
    "val_loss": [4.06889, 4.00705],
}
ATM_CURVES = {
    "top1": 0.09,
    "top5": 0.32,
    "top1_by_epoch": [0.005, 0.09],
    "top5_by_epoch": [0.045, 0.32],
}
LORA_CURVES = {
    "top1": 0.5,
    "top5": 0.8,
    "top1_by_epoch": [0.41, 0.5],
    "top5_by_epoch": [0.7, 0.8],
}


@pytest.mark.parametrize(
    ("method", "name", "text", "expected"),
    [
        ("samga", "train.log", SAMGA_LOG, SAMGA_CURVES),
        ("neurobridge", "train.log", SAMGA_LOG, SAMGA_CURVES),
        ("samga", "result.csv", RESULT_TABLE, {"top1": 0.26, "top5": 0.525}),
        ("visual-blur-perception", "all_metrics.csv", BLUR_TABLE, BLUR_CURVES),
        ("bridge", "trainer_state.json", TRAINER_STATE, TRAINER_CURVES),
        ("brainhive", "trainer_state.json", TRAINER_STATE, TRAINER_CURVES),
        ("bridge", "eval_results.json", EVAL_RESULTS, {"top1": 0.29, "top5": 0.48}),
        ("ubp", "test_results.json", TEST_RESULTS, {"top1": 0.07, "top5": 0.19}),
        ("nice", "log_subject1.txt", NICE_LOG, NICE_FIGURES),
        ("nice", "output.txt", NICE_OUTPUT, NICE_FIGURES),
        ("alignvis", "output.txt", ALIGNVIS_OUTPUT, ALIGNVIS_FIGURES),
        ("atm-s", "output.txt", ATM_OUTPUT, {**ATM_CURVES, "loss": [6.9694, 4.7939]}),
        ("atm-s", "ATMS_sub-01.csv", ATM_TABLE, ATM_CURVES),
        ("lora-b32", "metrics.jsonl", LORA_OUTPUT, LORA_CURVES),
        ("lora-b32", "formal.json", LORA_EVALUATION, {"top1": 0.5, "top5": 0.8}),
    ],
)
def test_figures_are_read_as_fractions(
    method,
    name,
    text,
    expected,
    tmp_path,
    run_program,
):
    (tmp_path / name).write_text(text)

    output = run_program("--import", tmp_path / name, method, "--seed", 3)

    assert json.loads(output) == {"seed": 3, **expected}


def test_several_trainings_in_a_log_count_up(tmp_path, run_program):
    (tmp_path / "2026.log").write_text(BLUR_LOG)

    entries = [
        json.loads(line)
        for line in run_program(
            "--import", tmp_path / "2026.log", "visual-blur-perception", "--seed", 21
        ).splitlines()
    ]

    assert entries[0] == {"seed": 21, **BLUR_CURVES}
    assert (entries[1]["seed"], entries[1]["top1"]) == (22, 0.03)


@pytest.mark.parametrize(
    ("method", "text", "seed"),
    [("samga", SAMGA_LOG, 7), ("nice", NICE_OUTPUT, 1234)],
)
def test_a_seed_that_the_file_says_is_taken(method, text, seed, tmp_path, run_program):
    (tmp_path / "output.log").write_text(text)
    output = run_program("--import", tmp_path / "output.log", method)
    assert json.loads(output)["seed"] == seed


def test_a_loss_of_every_fifty_steps_is_left_out(tmp_path, run_program):
    state = json.loads(TRAINER_STATE)
    del state["log_history"][0]
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    assert "loss" not in json.loads(
        run_program("--import", tmp_path / "trainer_state.json", "bridge", "--seed", 1)
    )


def test_figures_are_added_to_a_file(tmp_path, run_program, figures):
    log, figures_path = tmp_path / "train.log", figures / "samga.json"
    log.write_text(SAMGA_LOG)

    run_program("--import", log, "samga", "--into", figures_path)
    run_program("--import", log, "samga", "--seed", 8, "--into", figures_path)

    content = json.loads(figures_path.read_text())
    assert content["settings"] == SETTINGS
    assert content["reference"][0] == {"seed": 7, **SAMGA_CURVES}
    assert [entry["seed"] for entry in content["reference"]] == [7, 8]
    exchanged_figures = exchange.find_figures("samga", figures)
    assert exchanged_figures is not None
    assert exchanged_figures.path == figures_path
    assert exchanged_figures.reference == content["reference"]


def test_a_new_file_has_the_settings_of_the_export(tmp_path, run_program, golden):
    figures_path = tmp_path / "new" / "ubp.json"
    (tmp_path / "test_results.json").write_text(TEST_RESULTS)

    run_program(
        "--import",
        tmp_path / "test_results.json",
        "ubp",
        "--seed",
        0,
        "--into",
        figures_path,
    )

    golden_file = json.loads((golden / "trainings" / "ubp.json").read_text())
    content = json.loads(figures_path.read_text())
    assert content["settings"] == golden_file["settings"]
    assert content["reference"] == [{"seed": 0, "top1": 0.07, "top5": 0.19}]


def test_a_second_entry_of_a_seed_is_refused(tmp_path, run_program, fail, figures):
    log, figures_path = tmp_path / "train.log", figures / "samga.json"
    log.write_text(SAMGA_LOG)
    run_program("--import", log, "samga", "--into", figures_path)
    initial_content = figures_path.read_bytes()

    assert "seed 7" in fail("--import", log, "samga", "--into", figures_path)

    assert figures_path.read_bytes() == initial_content


def test_figures_go_into_the_file_of_their_method(tmp_path, fail, figures):
    log, figures_path = tmp_path / "train.log", figures / "neurobridge.json"
    log.write_text(SAMGA_LOG)
    initial_content = figures_path.read_bytes()

    assert "samga.json" in fail("--import", log, "samga", "--into", figures_path)

    assert figures_path.read_bytes() == initial_content


def test_figures_of_other_settings_are_refused(tmp_path, fail, figures):
    log, figures_path = tmp_path / "train.log", figures / "samga.json"
    log.write_text(SAMGA_LOG)
    settings = {"settings": {**SETTINGS, "epochs": 20}, "reference": []}
    figures_path.write_text(json.dumps(settings))

    assert "2 epochs" in fail("--import", log, "samga", "--into", figures_path)

    assert json.loads(figures_path.read_text()) == settings


@pytest.mark.parametrize(
    "damaged", ["", "[]", '{"settings": {}}', '{"settings": {}, "reference": [{}]}']
)
def test_a_damaged_file_is_not_added_to(damaged, tmp_path, fail, figures):
    log, figures_path = tmp_path / "train.log", figures / "samga.json"
    log.write_text(SAMGA_LOG)
    figures_path.write_text(damaged)

    assert "samga.json" in fail("--import", log, "samga", "--into", figures_path)

    assert figures_path.read_text() == damaged


@pytest.mark.parametrize(
    ("method", "name", "content"),
    [
        ("samga", "train.log", b""),
        ("samga", "train.log", b"\xff\xfe\x00"),
        ("samga", "train.json", b"{}"),
        ("samga", "train.log", SAMGA_LOG.replace("/2]", "/60]").encode()),
        ("samga", "train.log", SAMGA_LOG.replace("26.00%", "260.0%").encode()),
        ("samga", "train.log", SAMGA_LOG.replace("26.00%", "60.00%").encode()),
        ("samga", "train.log", SAMGA_LOG.replace("2.5000", "nan").encode()),
        ("samga", "train.log", SAMGA_LOG.replace("Train Loss: 4", "Trai").encode()),
        ("samga", "result.csv", b"top1 acc\n26.0\n"),
        ("visual-blur-perception", "2026.log", BLUR_LOG.replace(":1,", ":2,").encode()),
        ("visual-blur-perception", "all.csv", BLUR_TABLE.replace("]", "").encode()),
        ("bridge", "trainer_state.json", TRAINER_STATE[:-20].encode()),
        ("bridge", "trainer_state.json", b"[1, 2]"),
        ("bridge", "trainer_state.json", b'{"log_history": []}'),
        ("bridge", "eval_results.json", EVAL_RESULTS.replace("0.29", '""').encode()),
        ("ubp", "test_results.json", b"[]"),
        ("ubp", "test_results.json", b"[" * 100_000),
        ("nice", "log.txt", NICE_LOG.replace("Top1", "Top2").encode()),
        ("alignvis", "output.txt", (2 * ALIGNVIS_OUTPUT).encode()),
        ("atm-s", "output.txt", ATM_OUTPUT.replace("/2 ", "/40 ").encode()),
        ("atm-s", "table.csv", b"epoch\n1\n"),
        ("lora-b32", "metrics.jsonl", (2 * LORA_OUTPUT).encode()),
    ],
)
def test_damaged_and_unknown_files_are_refused(method, name, content, tmp_path, fail):
    (tmp_path / name).write_bytes(content)
    figures_path = tmp_path / f"{method}.json"

    assert name in fail(
        "--import", tmp_path / name, method, "--seed", 1, "--into", figures_path
    )

    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_files_seeds_and_methods_that_are_missing(tmp_path, fail):
    (tmp_path / "result.csv").write_text(RESULT_TABLE)
    assert "none.log" in fail("--import", tmp_path / "none.log", "samga")
    assert "--seed" in fail("--import", tmp_path / "result.csv", "samga")
    assert "havir" in fail("--import", tmp_path / "result.csv", "havir")
    assert "havir" in fail("--export", "havir", tmp_path / "data")
    assert "lora-b32" in fail(
        "--import",
        tmp_path / "result.csv",
        "lora-b32",
        "--seed",
        1,
        "--into",
        tmp_path / "lora-b32.json",
    )


def test_figures_are_asked_for_before_a_training(tmp_path, figures, fail):
    assert "--export samga" in fail("samga", "--figures", figures)
    assert "missing" in fail("samga", "--figures", tmp_path / "missing")


def test_figures_without_a_loss_are_compared(tmp_path):
    reference = [{"seed": 1, "top1": 0.2, "top5": 0.5}]
    entry = {"seed": 1, "top1": 0.3, "top5": 0.6, "loss": [3.0, 2.0]}
    trained = trainings.Training([entry], 1.0, "fp32", tmp_path)

    figures = planted.Figures(SETTINGS, reference, tmp_path)
    row = comparison.compare("bridge", figures, trained)

    assert row["top1"]["difference"] == pytest.approx(0.1)
    assert "loss" not in row
    assert "bridge" in comparison.table([row])


def test_all_channels_are_learned_from_where_the_settings_say_it(tmp_path, monkeypatch):
    """NICE's code takes 63 channels, and our row of the golden figures 17."""
    commands: list[list[str]] = []

    def note_overrides(*arguments: Any) -> SimpleNamespace:
        commands.append(arguments[-1])
        return SimpleNamespace(folder=tmp_path)

    monkeypatch.setattr(trainings, "run", note_overrides)
    settings = {"epochs": 2, "batch_size": 8}
    for channels in ("17 posterior", "all 63"):
        trainings.train_recipe(
            tmp_path, "nice", {**settings, "channels": channels}, [1]
        )

    posterior, all_channels = commands
    assert not any(text.startswith("signal.channels") for text in posterior)
    regions = "[frontal, central, temporal, parietal, occipital]"
    assert f"signal.channels={regions}" in all_channels
