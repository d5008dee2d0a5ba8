"""What a person sees when something is wrong: an exit code, what it is, and what to do
about it.
"""

import re
import signal
import socket
import time

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.data.stores.target_store import TargetStore

COLOURS = "python:brainhive_cli.models.encoders.python:example"
ENCODER = "brainhive_cli-models-encoders-python-example"


def explained(code, errors, number, text, hint):
    """Hold that stderr is an error line and a line of advice."""
    lines = [line for line in errors.splitlines() if not line.startswith("preparing ")]
    assert len(lines) == 2, errors
    assert lines[0].startswith("error: ") and re.search(text, lines[0]), errors
    assert lines[1].startswith("  try: ") and re.search(hint, lines[1]), errors
    assert code == number


@pytest.fixture
def refused():
    """Call the real command line and hold how it refuses."""

    def call(*argv, code, text, hint):
        result = CliRunner().invoke(app, list(argv))
        explained(result.exit_code, result.stderr, code, text, hint)
        assert result.stdout == ""

    return call


ALIGN = (
    "train-align",
    "dataset=things-eeg",
    "--encoders",
    COLOURS,
    "--subjects",
    "1",
    "--seeds",
    "1",
)
QUICK = (
    "dim=32",
    "fuser.intermediate_size=32",
    "train.precision=fp32",
    "train.epochs=1",
)


@pytest.fixture
def embedded(things_home, run_command):
    """The small THINGS with its embeddings."""
    run_command("embed", "dataset=things-eeg", f"encoders=[{COLOURS!r}]")
    return things_home


def test_a_wrong_recipe_is_refused_before_anything_is_read(home, refused):
    for override, problem, hint in (
        (
            "train.epoch=3",
            "'train.epoch'",
            r" train\.epochs\?",
        ),
        ("train.epochs=many", "train.epochs: .*integer.*'many'", "as in train.epochs="),
        (
            "signal.scale=.inf",
            "signal.scale: .*finite.*got inf",
            "change signal.scale",
        ),
        (
            "mode=all",
            "mode: .*'intra', 'inter', 'joint' or 'finetune'.*'all'",
            "as in (--mode |mode=)intra",
        ),
        ("loss.kind=clipp", "loss.*'clipp'", r" clip\?"),
        ("encoders=clipp-h14", "encoder.*'clipp-h14'", r" clip-h14\?.*: "),
        ("seeds=1,1", "seeds: .*'1,1'", "(--seeds |seeds=)1,2"),
        (
            "sweep={prior: [demo:prior], fuser.kind: [heads]}",
            "fuser is heads, but the prior",
            "prior=null",
        ),
    ):
        refused("train-align", override, code=2, text=problem, hint=hint)
    assert not list(home.iterdir())


def test_missing_data_are_told_with_their_place_and_source(home, monkeypatch, refused):
    monkeypatch.setenv("BRAINHIVE_HOME", "")  # so that paths in messages are short
    for argv, problem, hint in (
        (
            ("embed", "--encoders", COLOURS),
            r"things-eeg: no pictures in /.*/\*\*/training_images/<concept>/\*.jpg",
            "brainhive fetch things-eeg",
        ),
        (
            ("train-align", "--dataset", "demo", "--encoders", COLOURS),
            f"no train embeddings of {ENCODER} for demo",
            f"brainhive embed --dataset demo --encoders {re.escape(COLOURS)}",
        ),
        (("eval-retrieval",), "no finished train-align run", "brainhive train-align"),
        (
            ("reconstruct", "--prior", "nowhere"),
            "no folder 'nowhere'",
            "hub:owner/name",
        ),
    ):
        refused(*argv, code=3, text=problem, hint=hint)
    assert not list(home.rglob("*.h5"))


def test_a_damaged_embedding_store_is_named_and_again_mends_it(
    embedded, refused, run_command
):
    path = embedded / "embeddings" / "things-eeg" / "train" / f"{ENCODER}.h5"
    path.write_bytes(path.read_bytes()[:-64])
    message = {
        "code": 1,
        "text": f"{ENCODER}.h5 is damaged or cut short",
        "hint": "delete it, then: brainhive",
    }
    refused(*ALIGN, *QUICK, **message)
    refused("embed", "--dataset", "things-eeg", "--encoders", COLOURS, **message)
    run_command("embed", "dataset=things-eeg", f"encoders=[{COLOURS!r}]", again=True)
    assert TargetStore.open(path).done.all()


def test_a_recording_that_is_cut_short_leaves_no_signal_store(embedded, refused):
    path = next(embedded.rglob("test.pt"))
    path.write_bytes(path.read_bytes()[:-5000])

    refused(
        *ALIGN,
        *QUICK,
        code=3,
        text="test.pt .*cut short",
        hint="delete it, then: brainhive fetch",
    )
    assert not list((embedded / "signals").rglob("*.h5"))


def test_a_channel_that_the_data_lack_is_told_with_the_nearest(embedded, refused):
    hint = r" POz\?.*: Fp1 .* O2"
    refused(
        *ALIGN,
        *QUICK,
        "signal.channels=O1,POzz",
        code=2,
        text="'POzz'",
        hint=hint,
    )


@pytest.mark.nightly
def test_a_second_command_waits_and_ctrl_c_ends_both_resumably(
    world, align_overrides, tmp_path, brainhive
):
    argv = (
        ["train-align"]
        + list(align_overrides)
        + [f"paths.runs={tmp_path}", "subjects=1", "train.epochs=100000"]
    )
    process = brainhive(*argv, wait=False)
    while not list(tmp_path.glob("train-align/*/log.jsonl")) and process.poll() is None:
        time.sleep(0.05)

    second = brainhive(*argv, wait=False)
    error_path = second.folder / "stderr"
    while (
        not (error_path.is_file() and "waiting for cells" in error_path.read_text())
        and second.poll() is None
    ):
        time.sleep(0.05)
    ends = []
    for waiting_process in (second, process):
        waiting_process.send_signal(signal.SIGINT)
        ends.append(waiting_process.communicate(timeout=60))

    assert [
        (waiting_process.returncode, output)
        for waiting_process, (output, _) in zip((second, process), ends, strict=True)
    ] == [(130, "")] * 2
    run_folder = next(tmp_path.glob("train-align/*"))
    error_path = (
        f"waiting for cells of other workers: 1: sub-01_seed-1 ({socket.gethostname()} "
        f"{process.pid})"
    )
    # a slow start is announced, too
    lines = ends[0][1].removeprefix("train-align: starting …\n").strip().splitlines()
    assert lines[:2] == [
        f"continuing run {run_folder.name} with 1 other worker",
        error_path,
    ]
    assert len(lines) == 3
    assert lines[2].startswith("interrupted: ")
    assert ends[1][1].strip().splitlines()[-1] == lines[2]
    assert not (run_folder / "metrics.json").exists()
    assert (run_folder / "recipe.yaml").is_file()
