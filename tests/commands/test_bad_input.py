"""What a person sees when something is wrong: an exit code, what it is, and what to do about it."""

import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import published
import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.data.stores.target_store import TargetStore

COLOURS = "python:brainhive_cli.models.encoders.python:example"
ENCODER = "brainhive_cli-models-encoders-python-example"
Refused = Callable[..., str]


def explained(code: int, errors: str, wanted: int, what: str, hint: str) -> None:
    """Hold that stderr is one error line and one line of advice."""
    lines = [line for line in errors.splitlines() if not line.startswith("preparing ")]
    assert len(lines) == 2, errors
    assert lines[0].startswith("error: ") and re.search(what, lines[0]), errors
    assert lines[1].startswith("  try: ") and re.search(hint, lines[1]), errors
    assert code == wanted


@pytest.fixture
def refused() -> Callable[..., None]:
    """Call the real command line and hold how it refuses."""

    def call(*argv: str, code: int, what: str, hint: str) -> None:
        result = CliRunner().invoke(app, list(argv))
        explained(result.exit_code, result.stderr, code, what, hint)
        assert result.stdout == ""

    return call


@pytest.fixture
def folder(home: Path, pictures: Path) -> str:
    return f"dataset={{kind: image-folder, root: {pictures}}}"


ALIGN = ("train-align", "dataset=things-eeg", "--encoders", COLOURS, "--subjects", "1", "--seeds", "1")
QUICK = ("dim=32", "fuser.intermediate_size=32", "train.precision=fp32", "train.epochs=1")


@pytest.fixture
def embedded(things: Path, go) -> Path:
    """The small THINGS with its embeddings."""
    go("embed", "dataset=things-eeg", f"encoders=[{COLOURS!r}]")
    return things


@pytest.mark.parametrize(
    ("override", "what", "hint"),
    [
        ("train.epoch=3", "unknown recipe key 'train.epoch'", r"did you mean train\.epochs\?"),
        ("encoder=vae", "unknown recipe key 'encoder'", r"did you mean encoders\?"),
        ("backbone.hiden=3", "unknown recipe key 'backbone.hiden'", "known here: "),
        ("train.epochs=many", "train.epochs: .*integer.*'many'", "as in train.epochs="),
        ("train.lr=-1", "train.lr: .*greater than 0.*-1", "as in train.lr="),
        ("signal.scale=0", "signal.scale: .*greater than 0.*got 0", "as in signal.scale=1"),
        ("signal.scale=.inf", "signal.scale: .*finite.*got inf", "as in signal.scale=1"),
        ("mode=all", "mode: .*'intra', 'inter', 'joint' or 'finetune'.*'all'", "as in (--mode |mode=)intra"),
        ("train.epochs", "override 'train.epochs' has no value", "key.path=value"),
        ("loss.kind=clipp", "no loss.* called 'clipp'", r"did you mean clip\?"),
        ("seeds=1,1", r"seeds: name each once, and at least one, got '1,1'", "as in (--seeds |seeds=)1,2"),
        ("subjects=[]", r"subjects: .*name each once, and at least one, got \[\]", "1-4, .*all"),
        ("sweep={prior: [demo:prior], fuser.kind: [heads]}", "fuser is heads, but the prior", "prior=null"),
        (
            "sweep={prior: [demo:prior], similarity: [centred_cosine]}",
            "similarity is centred_cosine, but",
            "prior=null",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_is_read(home, refused, override, what, hint):
    refused("train-align", override, code=2, what=what, hint=hint)
    assert not list(home.iterdir())


@pytest.mark.parametrize(
    ("command", "key"),
    [
        *(("train-align", key) for key in ("dim", "train.epochs", "train.batch_size", "run.processes")),
        ("train-align", "backbone={kind: voxel_ridge, depth: N}"),
        *(("train-align", key) for key in ("fuser.intermediate_size", "run.workers")),
        *(
            ("embed", f"dataset={{kind: {kind}, subjects: N}}")
            for kind in ("demo", "simulated, images: demo")
        ),
        ("embed", "batch_size"),
        *(("eval-retrieval", key) for key in ("ceiling_splits", "subsets")),
        *(("train-prior", key) for key in ("train.steps", "train.accumulate", "resolution_px")),
        *(("reconstruct", key) for key in ("repeats", "best_of", "steps", "batch_size", "resolution_px")),
    ],
)
def test_a_count_that_no_machine_has_room_for_is_refused_at_once(home, refused, command, key):
    override = key.replace("N", "999999999999") if "N" in key else f"{key}=999999999999"
    refused(command, override, code=2, what="less than or equal to .* got 999999999999", hint="as in ")


@pytest.mark.parametrize(
    ("command", "hint"), [("train-align", "as in seeds=1,2"), ("reconstruct", "as in seeds=")]
)
def test_a_seed_below_zero_is_refused(refused, command, hint):
    refused(command, "seeds=-1", code=2, what=r"seeds\.0: .*greater than or equal to 0", hint=hint)


@pytest.mark.parametrize(
    ("override", "what", "hint"),
    [
        ("repetitions=[0]", r"repetitions\.0: Input should be greater than 0, got 0", "as in repetitions="),
        ("subset=9", r"unknown recipe key 'subset'", r"did you mean subsets\? known"),
    ],
)
def test_a_wrong_curve_is_told_by_its_own_keys(home, refused, override, what, hint):
    refused("eval-retrieval", override, code=2, what=what, hint=hint)


def test_an_unknown_encoder_is_answered_with_those_there_are(home, refused):
    hint = r"did you mean clip-h14\? there are: .*clip-b32.*python.*timm"
    refused("embed", "--encoders", "clipp-h14", code=2, what="no encoder called 'clipp-h14'", hint=hint)


@pytest.mark.parametrize(
    ("argv", "what", "hint"),
    [
        (
            ("embed", "--encoders", COLOURS),
            r"things-eeg: no pictures in /.*/data/things-eeg/\*\*/training_images/<concept>/\*.jpg",
            "brainhive fetch things-eeg",
        ),
        (
            ("embed", "--dataset", "image-folder", "--encoders", COLOURS),
            r"no folder /.*/data/image-folder",
            r"mkdir -p /.*/data && ln -s /FOLDER /.*/data/image-folder  # one sub-folder a concept",
        ),
        (
            ("train-align", "--dataset", "demo", "--encoders", COLOURS),
            f"no train embeddings of {ENCODER} for demo",
            f"brainhive embed --dataset demo --encoders {re.escape(COLOURS)}",
        ),
        (("eval-retrieval",), "no finished train-align run", "brainhive train-align"),
        (("reconstruct", "--prior", "nowhere"), "no folder 'nowhere'", "hub:owner/name"),
        (
            ("train-prior", "--dataset", "demo", "--encoders", COLOURS),
            "no train embeddings",
            "brainhive embed",
        ),
    ],
)
def test_missing_data_are_told_with_their_place_and_source(home, monkeypatch, refused, argv, what, hint):
    monkeypatch.setenv("BRAINHIVE_HOME", "")  # so that paths in messages are short
    refused(*argv, code=3, what=what, hint=hint)
    assert not list(home.rglob("*.h5"))


@pytest.mark.parametrize("spoil", ["cut", "garbage"])
def test_a_damaged_embedding_store_is_named_and_again_mends_it(embedded, refused, go, spoil):
    path = embedded / "embeddings" / "things-eeg" / "train" / f"{ENCODER}.h5"
    path.write_bytes(path.read_bytes()[:-64] if spoil == "cut" else b"no HDF5" * 100)

    told = {"code": 1, "what": f"{ENCODER}.h5 is damaged or cut short", "hint": "delete it, then: brainhive"}
    refused(*ALIGN, *QUICK, **told)
    refused("embed", "--dataset", "things-eeg", "--encoders", COLOURS, **told)
    go("embed", "dataset=things-eeg", f"encoders=[{COLOURS!r}]", again=True)
    assert TargetStore.open(path).done.all()


def test_a_damaged_signal_store_is_named(embedded, refused, go):
    go("train-align", "dataset=things-eeg", f"encoders=[{COLOURS!r}]", "subjects=1", "seeds=1", *QUICK)
    path = embedded / "signals" / "things-eeg" / "default" / "sub-01.h5"
    path.write_bytes(path.read_bytes()[:-64])

    refused(
        *ALIGN, *QUICK, "train.epochs=2", code=1, what="sub-01.h5 is damaged or cut short", hint="delete it"
    )


def test_a_recording_that_is_cut_short_leaves_no_signal_store(embedded, refused):
    path = next(embedded.rglob("test.pt"))
    path.write_bytes(path.read_bytes()[:-5000])

    refused(*ALIGN, *QUICK, code=3, what="test.pt .*cut short", hint="delete it, then: brainhive fetch")
    assert not list((embedded / "signals").rglob("*.h5"))


def test_a_picture_that_cannot_be_decoded_is_named_and_can_be_accepted(folder, home, pictures, refused):
    bad = pictures / "concept_1" / "0.png"
    bad.write_bytes(bad.read_bytes()[:40])
    argv = ("embed", folder, "--encoders", COLOURS)
    path = home / "embeddings" / "pictures" / "train" / f"{ENCODER}.h5"

    refused(*argv, code=1, what="1 pictures cannot be decoded: .*concept_1/0.png", hint="--skip-bad")
    assert not path.exists()
    accepted = CliRunner().invoke(app, [*argv, "--skip-bad"])

    assert accepted.exit_code == 0, accepted.stderr
    found = TargetStore.open(path)
    assert found.done.sum() == 11 and found.attributes["skipped"] == 1
    assert not found.done[found.image_ids.index("concept_1/0")]


def test_a_mended_picture_is_all_that_is_embedded_the_second_time(folder, home, pictures, refused, go):
    bad = pictures / "concept_1" / "0.png"
    sound = bad.read_bytes()
    bad.write_bytes(b"")
    refused("embed", folder, "--encoders", COLOURS, code=1, what="1 pictures", hint="--skip-bad")

    bad.write_bytes(sound)
    for file in pictures.rglob("*.png"):
        if file != bad:
            file.write_bytes(b"it must not be read a second time")
    go("embed", folder, f"encoders=[{COLOURS!r}]")

    path = home / "embeddings" / "pictures" / "train" / f"{ENCODER}.h5"
    assert TargetStore.open(path).done.all()


def test_nan_in_signals_is_told_with_picture_and_channel(embedded, refused):
    path = next(embedded.rglob("train.pt"))
    content = torch.load(path, weights_only=False)
    content["eeg"][5, 1, 62, 7] = np.nan
    published.save(content, path)

    what = "subject 1 train: a signal is not finite.*picture training_images/concept_1/1, channel O2"
    refused(*ALIGN, *QUICK, code=1, what=what, hint="signal.channels")


def test_a_channel_that_the_data_lack_is_told_with_the_nearest(embedded, refused):
    hint = r"did you mean POz\? there are: Fp1 .* O2"
    refused(*ALIGN, *QUICK, "signal.channels=O1,POzz", code=2, what="no channel 'POzz'", hint=hint)


def test_a_window_beyond_the_recording_is_told_with_its_span(embedded, refused):
    told = {"what": r"no sample in the window \[900.0, 950.0\] ms", "hint": "spans 0 to 156 ms"}
    refused(*ALIGN, *QUICK, "signal.window_ms=[900, 950]", code=2, **told)


def test_a_warm_up_beyond_the_training_is_told_with_both_numbers(embedded, refused):
    """80 pictures of 20 concepts, of which 2 are held out: 72 in batches of 36, twice."""
    told = {
        "what": "warmup_steps is 5, but the training of a cell has 4 steps",
        "hint": "more train.epochs or",
    }
    settings = (*QUICK, "train.epochs=2", "train.batch_size=36")
    refused(*ALIGN, *settings, "train.warmup_steps=5", code=2, **told)
    assert CliRunner().invoke(app, [*ALIGN, *settings, "train.warmup_steps=4"]).exit_code == 0


def test_a_home_that_cannot_be_written_is_named(folder, home, pictures, monkeypatch, refused):
    (home / "file").touch()
    monkeypatch.setenv("BRAINHIVE_HOME", str(home / "file"))

    argv = ("embed", folder, "--encoders", COLOURS)
    refused(*argv, code=1, what=f"{home}/file.*Not a directory", hint="move away what has the place")


@pytest.fixture
def little_room() -> Iterator[None]:
    """Let this process write no file beyond 1 MiB, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing_half_written(folder, home, refused, little_room):
    argv = ("embed", folder, "--encoders", "python:slow:wide")

    refused(*argv, code=1, what="slow-wide.h5.*File too large", hint="ulimit -f")
    assert not list(home.rglob("*.h5*"))


def test_a_disk_that_fills_up_later_leaves_no_run_finished(embedded, refused, little_room):
    wide = ("dim=1024", "fuser.intermediate_size=1024")

    refused(*ALIGN, *QUICK, *wide, code=1, what="[Ff]ile too large", hint="ulimit -f")
    assert not list(embedded.rglob("metrics.json")) and not list(embedded.rglob("model"))


def test_a_second_command_waits_for_the_cell_of_the_first_and_ctrl_c_ends_both_resumably(
    world, small, tmp_path, brainhive
):
    argv = ("train-align", *small, f"paths.runs={tmp_path}", "subjects=1", "train.epochs=100000")
    process = brainhive(*argv, wait=False)
    while not list(tmp_path.glob("train-align/*/log.jsonl")) and process.poll() is None:
        time.sleep(0.05)

    second = brainhive(*argv, wait=False)
    with pytest.raises(subprocess.TimeoutExpired):
        second.communicate(timeout=6)
    ends = []
    for each in (second, process):
        each.send_signal(signal.SIGINT)
        ends.append(each.communicate(timeout=60))

    assert [(each.returncode, out) for each, (out, _) in zip((second, process), ends, strict=True)] == [
        (130, "")
    ] * 2
    interrupted = "interrupted: the same command continues where it stopped"
    run = next(tmp_path.glob("train-align/*"))
    said = f"waiting for cells of other workers: 1: sub-01_seed-1 ({socket.gethostname()} {process.pid})"
    assert ends[0][1].strip().splitlines() == [
        f"continuing run {run.name} with 1 other worker",
        said,
        interrupted,
    ]
    assert ends[1][1].strip().splitlines()[-1] == interrupted
    assert not (run / "metrics.json").exists() and (run / "recipe.yaml").is_file()


def test_a_damaged_model_is_named(world, small, go, tmp_path, refused):
    run = go("train-align", *small, f"paths.runs={tmp_path}", "subjects=1", "train.epochs=1").folder
    model = run / "cells" / "sub-01_seed-1" / "model" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:1000])

    argv = ("eval-retrieval", "--run", str(run), f"paths.runs={tmp_path}")
    refused(*argv, code=1, what=f"{model} is damaged", hint="train-align --again")


def test_stores_of_different_pictures_are_not_mixed(embedded, refused, go):
    timm = "{kind: timm, source: random, architecture: test_vit}"
    shutil.rmtree(embedded / "data" / "things-eeg" / "training_images" / "concept_9")
    go("embed", "dataset=things-eeg", f"encoders=[{timm}]", "splits=train")

    argv = ("train-align", "dataset=things-eeg", f"encoders=[{COLOURS!r}, {timm}]", "subjects=1", *QUICK)
    hint = "brainhive embed .* --again"
    refused(*argv, code=1, what="does not match the pictures .* has now: 0 added, 4 removed", hint=hint)
    shutil.rmtree(embedded / "data" / "things-eeg" / "training_images")  # stores are all that is left
    refused(*argv, code=1, what="hold different pictures", hint=hint)


def test_what_a_store_holds_is_never_a_guess(embedded, refused):
    path = embedded / "embeddings" / "things-eeg" / "train" / f"{ENCODER}.h5"
    with h5py.File(path, "w") as file:
        file["something"] = [1, 2, 3]

    what = f"{ENCODER}.h5 is not a target store of format 4"
    refused(*ALIGN, *QUICK, code=1, what=what, hint="brainhive embed")
