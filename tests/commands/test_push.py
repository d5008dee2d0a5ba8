"""The command `push`: the files that it shares, and the model that comes back."""

import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Timer

import pytest
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import _http
from safetensors.torch import load_file, save_file

from brainhive_cli import api
from brainhive_cli.core.runs.run_folder import RunFolder
from tests.tools import upload_hub
from tests.tools.upload_hub import (
    brainhive,
    list_newest_files,
    read_error_lines,
    run_command,
)
from tests.worlds.command_fixtures import use_home

DATASET = "dataset={kind: demo, concepts: 20, subjects: 2}"
LINES = ("--encoders", "demo-clip", DATASET)
QUICK = (
    "train.epochs=2",
    "seeds=1",
    "dim=16",
    "fuser.intermediate_size=16",
    "train.precision=fp32",
)
FILES = {
    "README.md",
    "SHA256SUMS",
    "brainhive.json",
    "embeddings.json",
    "metrics.json",
    "recipe.yaml",
} | {
    f"cells/sub-0{subject}_seed-1/model/{name}"
    for subject in (1, 2)
    for name in ("config.json", "learned.safetensors", "model.safetensors")
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with embeddings and simulated recordings."""
    with use_home(tmp_path_factory.mktemp("home")) as home:
        run_command("embed", *LINES)
        yield home


@pytest.fixture(scope="module")
def pushed_run(home):
    """A run of two models, tested."""
    folder = run_command("train-align", *LINES, *QUICK)
    run_command("eval-retrieval", str(folder), "sheet_rows=0")
    return folder


@pytest.fixture(scope="module")
def inter(home):
    """A run of models that lack a subject each."""
    return run_command("train-align", *LINES, *QUICK, "--mode", "inter")


@pytest.fixture
def impatient(monkeypatch):
    """Let the hub's client try again without waiting."""
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)


def commit_of(hub, name="me/demo"):
    return str(hub.repos[name].log[-1][0])


@pytest.mark.nightly
def test_check_lists_every_file_with_its_size_and_sends_nothing(hub, pushed_run):
    process = brainhive("push", pushed_run.name, "hub:me/demo", "--check", "--json")

    document = json.loads(process.stdout)
    upload, files, card, _ = document["tables"]
    assert process.exit_code == 0
    assert hub.requests == []
    assert hub.repos == {}
    assert {row["file"] for row in files["rows"]} == FILES
    weights = "cells/sub-01_seed-1/model/model.safetensors"
    assert {row["file"]: row["bytes"] for row in files["rows"]}[weights] == (
        pushed_run / weights
    ).stat().st_size
    items = {row["item"]: row["value"] for row in upload["rows"]}
    assert "private" in items["to"]
    assert items["licence"] == "apache-2.0"
    assert {"line": "# demo"} in card["rows"]


@pytest.mark.nightly
def test_a_push_is_one_commit_and_keeps_weights_and_metrics(hub, pushed_run):
    pushed = brainhive(
        "push",
        pushed_run.name,
        "hub:me/demo",
        "--contact",
        "lab@example.org",
        "--citation",
        "A paper",
    )
    assert pushed.exit_code == 0
    assert f" {len(FILES)} files" in pushed.stderr
    # the first is the hub's own
    assert len(hub.repos["me/demo"].log) == 2
    assert set(list_newest_files(hub)) == FILES
    assert hub.repos["me/demo"].private
    # small files need none
    uploads = [path for method, path, _ in hub.requests if method == "PUT"]
    assert len(uploads) == len(
        [name for name in FILES if name.endswith(".safetensors")]
    )

    local = RunFolder(
        run_command("eval-retrieval", str(pushed_run), "sheet_rows=0")
    ).measurements()
    loaded = RunFolder(run_command("eval-retrieval", "hub:me/demo", "sheet_rows=0"))
    assert loaded.measurements().scopes == local.scopes
    assert local.scopes["all"]["top1"].n == 200
    assert loaded.measurements().items == local.items
    for name in FILES - {
        "README.md",
        "SHA256SUMS",
        "brainhive.json",
        "metrics.json",
        "recipe.yaml",
    }:
        assert list_newest_files(hub)[name] == (pushed_run / name).read_bytes()
    pinned = f"hub:me/demo@{commit_of(hub)}"
    assert loaded.recipe()["align_run"] == [pinned]
    assert loaded.measurements().facts.run == pinned
    # the digest of the recipe, which holds the commit, follows the short name
    assert loaded.path.name.startswith("demo-")

    # the card holds the numbers of the tests, and where they came from
    card = ModelCard(list_newest_files(hub)["README.md"].decode())
    results = {result.metric_type: result for result in card.data.eval_results}
    assert set(results) == {"top1", "top5"}
    for name, result in results.items():
        overall = local.overall[name]
        assert result.metric_value == overall.value
        assert result.dataset_split == "test"
        assert result.metric_args["pool"] == overall.pool
        assert result.metric_args["interval"] == [overall.low, overall.high]
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "brainhive"
    assert "lab@example.org" in card.text
    assert "A paper" in card.text
    assert "simulated" in card.text
    assert 'api.open_model("hub:me/demo", cell="sub-01_seed-1")' in card.text


@pytest.mark.nightly
def test_each_command_takes_the_name_and_writes_down_the_commit(hub, pushed_run, inter):
    for folder, name in ((pushed_run, "hub:me/demo"), (inter, "hub:me/inter")):
        assert brainhive("push", folder.name, name).exit_code == 0
    finetune = ("mode=finetune", "finetune.run=hub:me/inter", "subjects=1")
    for line, key, repository in (
        (
            ("train-align",) + tuple(LINES) + tuple(QUICK) + tuple(finetune),
            "finetune",
            "me/inter",
        ),
        (
            (
                "eval-retrieval",
                str(pushed_run),
                "--against",
                "hub:me/demo",
                "sheet_rows=0",
            ),
            "against",
            "me/demo",
        ),
    ):
        assert f"hub:{repository}@{commit_of(hub, repository)}" in str(
            RunFolder(run_command(*line)).recipe()[key]
        )


def test_a_prior_is_pushed_as_priors_are_read(hub, home):
    prior_run = run_command(
        "train-prior",
        *LINES,
        "prior.start_from=null",
        "prior.hidden_size=32",
        "validation_items=2",
        "sample_items=0",
        "train.steps=1",
        "train.batch_size=4",
        "train.precision=fp32",
        "run.workers=0",
        "lpips=false",
        "generator.source=demo:generator",
        "resolution_px=64",
        "similarity=[]",
    )
    process = brainhive(
        "push",
        prior_run.name,
        "hub:me/prior",
        "--data-terms-checked",
        "--licence",
        "cc-by-nc-4.0",
    )

    assert process.exit_code == 0, process.stderr
    model = {
        path.relative_to(prior_run / "model").as_posix()
        for path in (prior_run / "model").rglob("*.*")
    }
    documents_too = {
        "README.md",
        "SHA256SUMS",
        "brainhive.json",
        "metrics.json",
        "recipe.yaml",
    }
    assert set(list_newest_files(hub, "me/prior")) == model | documents_too
    message, _ = read_error_lines(brainhive("eval-retrieval", "hub:me/prior"), 3)
    assert "train-prior" in message
    assert "train-align" in message


def test_an_interrupted_push_leaves_no_commit_and_can_resume(
    hub, pushed_run, impatient
):
    hub.fail["PUT", "_lfs"] = 99
    message, hint = read_error_lines(
        brainhive("push", pushed_run.name, "hub:me/demo"), 3
    )
    assert "hub" in message
    assert "continues" in hint
    assert list_newest_files(hub) == {}
    hub.fail.clear()
    assert brainhive("push", pushed_run.name, "hub:me/demo").exit_code == 0
    assert set(list_newest_files(hub)) == FILES


def test_ctrl_c_does_not_wait_for_an_upload(hub, pushed_run, monkeypatch):
    def upload(*_, **__):
        Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(time.sleep, 3).result()

    monkeypatch.setattr(HfApi, "preupload_lfs_files", upload)
    initial_signal, start = (
        signal.signal(signal.SIGTERM, signal.SIG_DFL),
        time.monotonic(),
    )
    try:
        assert brainhive("push", pushed_run.name, "hub:me/demo").exit_code == 130
    finally:
        signal.signal(signal.SIGTERM, initial_signal)
    assert time.monotonic() - start < 3
    assert list_newest_files(hub) == {}


@pytest.mark.nightly
def test_a_tag_never_changes_and_a_new_tag_has_only_new_files(hub, pushed_run, inter):
    brainhive("push", pushed_run.name, "hub:me/demo@v1")
    pinned = f"hub:me/demo@{commit_of(hub)}"
    upload_hub.make_client().upload_file(
        repo_id="me/demo", path_or_fileobj=b"x", path_in_repo="cover.png"
    )
    (first_tag,) = hub.repos["me/demo"].tags.values()

    message, hint = read_error_lines(brainhive("push", inter.name, "hub:me/demo@v1"), 1)
    assert "hub:me/demo@v1" in message
    assert "hub:me/demo@TAG" in hint

    assert brainhive("push", inter.name, "hub:me/demo@v2").exit_code == 0
    cells = {path.name for path in (inter / "cells").iterdir()}
    assert {
        name.split("/")[1]
        for name in list_newest_files(hub)
        if name.startswith("cells/")
    } == cells
    assert list_newest_files(hub)["cover.png"] == b"x"
    assert hub.repos["me/demo"].tags == {
        "v1": first_tag,
        "v2": commit_of(hub),
    }
    assert first_tag != commit_of(hub)
    names = ("hub:me/demo@v1", pinned, "hub:me/demo@v2", "hub:me/demo")
    modes = [api.open_run(name).recipe()["mode"] for name in names]
    assert modes == ["intra", "intra", "inter", "inter"]


def test_forbidden_and_public_repositories_are_refused(
    hub, pushed_run, monkeypatch, impatient
):
    upload_hub.make_client().create_repo("me/demo", private=False)
    message, hint = read_error_lines(
        brainhive("push", pushed_run.name, "hub:me/demo"), 1
    )
    assert "hub:me/demo" in message
    assert "public" in message
    assert "--public" in hint
    assert list_newest_files(hub) == {}
    assert brainhive("push", pushed_run.name, "hub:me/open", "--public").exit_code == 0
    assert not hub.repos["me/open"].private

    message, hint = read_error_lines(
        brainhive("push", pushed_run.name, "hub:other/demo"), 1
    )
    assert "hub:other/demo" in message
    assert "hf auth login" in hint
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    message, hint = read_error_lines(
        brainhive("push", pushed_run.name, "hub:me/new"), 3
    )
    assert "token" in message
    assert "hf auth login" in hint
    assert "me/new" not in hub.repos


def test_the_token_of_the_environment_wins_over_a_login(
    hub, pushed_run, monkeypatch, tmp_path
):
    stored_login = tmp_path / "token"
    stored_login.write_text("hf_wrong")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(stored_login))
    assert brainhive("push", pushed_run.name, "hub:me/demo").exit_code == 0

    # the advice names the variable while it hides the login
    stored_login.write_text(hub.token)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    message, hint = read_error_lines(
        brainhive("push", pushed_run.name, "hub:me/new"), 3
    )
    assert "HF_TOKEN" in message
    assert "unset HF_TOKEN" in hint
    monkeypatch.delenv("HF_TOKEN")
    assert brainhive("push", pushed_run.name, "hub:me/new").exit_code == 0

    stored_login.write_text("hf_wrong")
    message, hint = read_error_lines(
        brainhive("push", pushed_run.name, "hub:me/third"), 3
    )
    assert "hf auth login" in message
    assert "unset" not in hint
    stored_login.unlink()
    message, hint = read_error_lines(
        brainhive("push", pushed_run.name, "hub:me/third"), 3
    )
    assert hint.startswith("set HF_TOKEN")
    assert "me/third" not in hub.repos


def test_a_repository_that_lies_is_one_line(hub, pushed_run):
    brainhive("push", pushed_run.name, "hub:me/demo")
    sound = dict(list_newest_files(hub))
    weights = "cells/sub-01_seed-1/model/model.safetensors"
    future = sound["brainhive.json"].replace(b'"format": 1', b'"format": 9')
    for change, facts in (
        ({"brainhive.json": future}, ("format 9", "1")),
        ({"recipe.yaml": sound["recipe.yaml"] + b"\n"}, ("recipe.yaml", "digest")),
        ({weights: None}, (weights, "cache")),
    ):
        files = {
            name: content
            for name, content in {**sound, **change}.items()
            if content is not None
        }
        if "brainhive.json" in change:  # sealed again
            file_names = sorted(files.keys() - {"README.md", "SHA256SUMS"})
            sums = [
                f"{upload_hub.sha256(files[name])}  {name}\n" for name in file_names
            ]
            files["SHA256SUMS"] = "".join(sums).encode()
        hub.repos["me/demo"].commit(
            f"change {list(change)}", files, hub.repos["me/demo"].log[-1][3]
        )
        process = brainhive("eval-retrieval", "hub:me/demo", "sheet_rows=0")
        lines = [
            line
            for line in process.stderr.splitlines()
            if line.startswith(("error: ", "  try: "))
        ]
        assert process.exit_code in (1, 2, 3) and len(lines) == 2, process.stderr
        assert all(fact in lines[0] for fact in facts), lines


def test_a_model_folder_on_the_hub_is_a_model(hub, pushed_run, home):
    model = pushed_run / "cells/sub-01_seed-1/model"
    client = upload_hub.make_client()
    client.create_repo("me/folder", private=True)
    client.upload_folder(repo_id="me/folder", folder_path=str(model))
    assert api.open_model("hub:me/folder").learned.subjects == (1,)
    tested_run, own_run = (
        RunFolder(
            run_command(
                "eval-retrieval", name, DATASET, "--subjects", "1", "sheet_rows=0"
            )
        )
        for name in ("hub:me/folder", str(model))
    )
    assert tested_run.measurements().overall == own_run.measurements().overall


def test_wrong_or_damaged_models_are_refused_before_the_hub(hub, pushed_run, home):
    copy = home / "runs/train-align/copied"
    shutil.copytree(pushed_run, copy)
    weights = copy / "cells/sub-01_seed-1/model/model.safetensors"
    state = load_file(weights)
    next(iter(state.values())).view(-1)[0] = float("nan")
    save_file(state, weights)
    result = run_command("eval-retrieval", str(pushed_run), "sheet_rows=0")
    usage = "brainhive push RUN hub:owner/name"
    for arguments, code, fact, way_out in (
        ((pushed_run.name, "me/demo"), 2, "repository", usage),
        ((pushed_run.name, "hub:me/demo@main"), 2, "main", "@v2"),
        ((pushed_run.name, "hub:me"), 2, "hub:me", "hub:owner/name"),
        (
            (f"{pushed_run.name}:full", "hub:me/demo"),
            3,
            f"{pushed_run.name}:full",
            pushed_run.name,
        ),
        (("hub:me/other", "hub:me/demo"), 2, "hub:me/other", usage),
        ((result.name, "hub:me/demo"), 2, "eval-retrieval", pushed_run.name),
        (("copied", "hub:me/demo"), 1, "not finite", ""),
    ):
        message, hint = read_error_lines(brainhive("push", *arguments), code)
        assert fact in message
        assert way_out in hint
        assert hub.requests == []
    shutil.rmtree(copy)
