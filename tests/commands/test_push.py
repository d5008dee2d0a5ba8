"""push: what leaves home, what stays, and that a colleague who loads it by name has the same model."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mini_hub
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.utils import _http
from mini_hub import brainhive, done, newest, two_lines
from safetensors.torch import load_file, save_file
from worlds import at_home

from brainhive_cli import api
from brainhive_cli.core import documents
from brainhive_cli.core import hub as hub_names
from brainhive_cli.core.runs import RunFolder

DATASET = "dataset={kind: demo, concepts: 20, subjects: 2}"
LINES = ("--encoders", "demo-clip", DATASET)
QUICK = ("train.epochs=2", "seeds=1", "dim=16", "fuser.intermediate_size=16", "train.precision=fp32")
FILES = {
    *("README.md", "SHA256SUMS", "brainhive.json", "embeddings.json", "metrics.json", "recipe.yaml"),
    *(
        f"cells/sub-0{subject}_seed-1/model/{name}"
        for subject in (1, 2)
        for name in ("config.json", "learned.safetensors", "model.safetensors")
    ),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with embeddings and simulated recordings."""
    with at_home(tmp_path_factory.mktemp("home")) as home:
        done("embed", *LINES)
        yield home


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    """A run of two models, tested."""
    folder = done("train-align", *LINES, *QUICK)
    done("eval-retrieval", str(folder), "sheet_rows=0")
    return folder


@pytest.fixture(scope="module")
def inter(home: Path) -> Path:
    """A run of models that lack a subject each."""
    return done("train-align", *LINES, *QUICK, "--mode", "inter")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's client try again without waiting."""
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)


def commit_of(hub: Any, name: str = "me/demo") -> str:
    return str(hub.repos[name].log[-1][0])


def test_a_check_lists_every_file_with_its_size_and_sends_nothing(hub: Any, run: Path) -> None:
    shown = brainhive("push", run.name, "hub:me/demo", "--check", "--json")

    document = json.loads(shown.stdout)
    upload, files, card, _ = document["tables"]
    assert shown.exit_code == 0 and hub.requests == [] and hub.repos == {}
    assert {row["file"] for row in files["rows"]} == FILES
    weights = "cells/sub-01_seed-1/model/model.safetensors"
    assert {row["file"]: row["bytes"] for row in files["rows"]}[weights] == (run / weights).stat().st_size
    items = {row["item"]: row["value"] for row in upload["rows"]}
    assert "private" in items["to"] and items["licence"] == "apache-2.0"
    assert {"line": "# demo"} in card["rows"]


def test_a_push_is_one_commit_with_all_files(hub: Any, run: Path) -> None:
    pushed = brainhive("push", run.name, "hub:me/demo")

    assert pushed.exit_code == 0 and f"pushed {len(FILES)} files" in pushed.stderr
    assert len(hub.repos["me/demo"].log) == 2 and {*newest(hub)} == FILES  # the first is the hub's own
    assert hub.repos["me/demo"].private


def test_what_comes_back_has_the_same_weights_and_the_same_metrics(hub: Any, run: Path) -> None:
    brainhive("push", run.name, "hub:me/demo")

    local = RunFolder(done("eval-retrieval", str(run), "sheet_rows=0")).measurements()
    loaded = RunFolder(done("eval-retrieval", "hub:me/demo", "sheet_rows=0"))

    assert loaded.measurements().scopes == local.scopes and local.scopes["all"]["top1"].n == 200
    assert loaded.measurements().items == local.items
    for name in FILES - {"README.md", "SHA256SUMS", "brainhive.json", "metrics.json", "recipe.yaml"}:
        assert newest(hub)[name] == (run / name).read_bytes()
    pinned = f"hub:me/demo@{commit_of(hub)}"
    assert loaded.recipe()["align_run"] == [pinned]
    assert loaded.measurements().facts.run == pinned
    assert str(loaded.path).count(commit_of(hub)[:10]) == 1


def test_a_name_that_moves_on_leaves_what_was_pinned(hub: Any, run: Path, inter: Path) -> None:
    brainhive("push", run.name, "hub:me/demo@v1")
    pinned = f"hub:me/demo@{commit_of(hub)}"
    brainhive("push", inter.name, "hub:me/demo@v2")

    names = ("hub:me/demo@v1", pinned, "hub:me/demo@v2", "hub:me/demo")
    heads = [api.open_run(name).recipe()["mode"] for name in names]

    assert heads == ["intra", "intra", "inter", "inter"]


def test_what_was_fetched_is_read_without_a_network(
    shared: Path, tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mini_hub.serving(shared, tmp_path / "cache", monkeypatch) as hub:
        brainhive("push", run.name, "hub:me/demo")
        pinned = f"hub:me/demo@{commit_of(hub)}"
        assert api.open_model("hub:me/demo", cell="sub-02_seed-1").learned.subjects == (2,)

    # the server is gone
    assert api.open_model(pinned, cell="sub-02_seed-1").learned.subjects == (2,)
    assert api.open_model("hub:me/demo", cell="sub-02_seed-1").learned.subjects == (2,)


ZERO_SHOT = ("--arms", "zero-shot")
FINETUNE = ("mode=finetune", "finetune.run=hub:me/inter", "subjects=1")
DRAWING = ("--prior", "demo:prior", "generator.source=demo:generator", "resolution_px=64", "steps=1")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (("explain", "hub:me/demo", "--analyses", "windows", "subjects=1"), "align_run"),
        (("calibrate", "hub:me/inter", "--pictures", "10", "--draws", "1", *ZERO_SHOT), "align_run"),
        (("train-align", *LINES, *QUICK, *FINETUNE), "finetune"),
        (("train-align", *LINES, *QUICK, "train.start_from=hub:me/demo"), "digests"),
        (("live", "hub:me/demo", "--source", "signals", "--subject", "1", "--windows", "1"), "align_run"),
        (("eval-retrieval", "RUN", "--against", "hub:me/demo", "sheet_rows=0"), "against"),
    ],
)
def test_each_command_takes_the_name_and_writes_down_the_commit(
    hub: Any, run: Path, inter: Path, line: tuple[str, ...], key: str
) -> None:
    for folder, name in ((run, "hub:me/demo"), (inter, "hub:me/inter")):
        assert brainhive("push", folder.name, name).exit_code == 0

    made = RunFolder(done(*(str(run) if word == "RUN" else word for word in line)))

    repository = "me/inter" if "me/inter" in " ".join(line) else "me/demo"
    assert f"hub:{repository}@{commit_of(hub, repository)}" in str(made.recipe()[key])


def test_pictures_are_drawn_from_a_model_by_its_name(hub: Any, home: Path, prior_run: Path) -> None:
    """The prior comes from the hub, too."""
    brainhive("push", prior_run.name, "hub:me/prior", "--data-terms-checked", "--licence", "mit")
    trained = done(
        "train-align", *LINES, *QUICK[:2], "--prior", "hub:me/prior", "train.precision=fp32", "subjects=1"
    )
    message, _ = two_lines(brainhive("push", trained.name, "hub:me/drawn"), 1)
    assert "weights of the prior hub:me/prior, which are part of the model" in message
    confirmed = ("--data-terms-checked", "--licence", "mit")
    assert brainhive("push", trained.name, "hub:me/drawn", *confirmed).exit_code == 0

    few = ("items=1", "repeats=1", "metrics=pixcorr", "sheet_rows=0", "sources=brain")
    words = ("--prior", "hub:me/prior", *DRAWING[2:], *few)
    drawn = RunFolder(done("reconstruct", "--run", "hub:me/drawn", *words))

    assert drawn.recipe()["align_run"] == f"hub:me/drawn@{commit_of(hub, 'me/drawn')}"
    assert drawn.measurements().overall or drawn.measurements().scopes
    assert [*drawn.path.rglob("*.png")]


@pytest.fixture(scope="module")
def prior_run(home: Path) -> Path:
    """A prior of the demo's pictures, trained for one step."""
    tiny = (
        "prior.start_from=null",
        "prior.hidden_size=32",
        "validation_items=2",
        "sample_items=1",
        "sample_steps=1",
    )
    quick = ("train.steps=1", "train.batch_size=4", "train.precision=fp32", "run.workers=0", "lpips=false")
    drawing = ("generator.source=demo:generator", "resolution_px=64", "similarity=[demo-clip]")
    return done("train-prior", *LINES, *tiny, *quick, *drawing)


def test_a_prior_is_pushed_as_priors_are_read(hub: Any, prior_run: Path) -> None:
    confirmed = ("--data-terms-checked", "--licence", "cc-by-nc-4.0")
    shown = brainhive("push", prior_run.name, "hub:me/prior", *confirmed)

    assert shown.exit_code == 0, shown.stderr
    model = {path.relative_to(prior_run / "model").as_posix() for path in (prior_run / "model").rglob("*.*")}
    documents_too = {"README.md", "SHA256SUMS", "brainhive.json", "metrics.json", "recipe.yaml"}
    assert {*newest(hub, "me/prior")} == model | documents_too
    message, _ = two_lines(brainhive("eval-retrieval", "hub:me/prior"), 3)
    assert "is a run of train-prior, not of train-align" in message


def test_runs_of_the_hub_are_shown_and_compared(hub: Any, run: Path, home: Path) -> None:
    brainhive("push", run.name, "hub:me/demo")

    shown = brainhive("runs", "show", "hub:me/demo")
    compared = brainhive("compare", "hub:me/demo", run.name, "--to", str(home / "page.html"))

    assert shown.exit_code == 0 and f"hub:me/demo@{commit_of(hub)}" in shown.stdout, shown.stderr
    assert compared.exit_code == 0 and "not compared: demo has no values item by item" in compared.stderr
    assert api.open_run("hub:me/demo").member("sub-01_seed-1").cell.name == "sub-01_seed-1"


def test_an_interrupted_push_leaves_no_commit_and_the_same_again_is_complete(
    hub: Any, run: Path, impatient: None
) -> None:
    hub.fail["PUT", "_lfs"] = 99
    message, way = two_lines(brainhive("push", run.name, "hub:me/demo"), 3)
    files_after_failure = newest(hub)
    hub.fail.clear()
    again = brainhive("push", run.name, "hub:me/demo")

    assert (
        "the hub cannot be reached, or has stopped answering" in message
        and "the same command continues" in way
    )
    assert files_after_failure == {}
    assert again.exit_code == 0 and {*newest(hub)} == FILES


def test_who_may_not_write_gets_one_line_and_its_way_out(
    hub: Any, run: Path, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    message, way = two_lines(brainhive("push", run.name, "hub:other/demo"), 1)
    assert message == "no right to write to hub:other/demo" and "hf auth login" in way

    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    message, way = two_lines(brainhive("push", run.name, "hub:me/demo"), 3)
    assert message == "the hub does not accept the token of this machine" and "hf auth login" in way

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    hub.requests.clear()
    message, way = two_lines(brainhive("push", run.name, "hub:me/demo"), 3)
    assert message == "no token of the hub is on this machine" and "HF_TOKEN" in way and hub.requests == []


def test_a_hub_that_is_not_there_is_one_line(
    shared: Path, tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    with mini_hub.serving(shared, tmp_path / "cache", monkeypatch):
        pass
    message, _ = two_lines(brainhive("push", run.name, "hub:me/demo"), 3)
    assert message.startswith("the hub cannot be reached")


def test_a_tag_stays_what_it_is_and_another_one_has_the_files_of_the_new_model_alone(
    hub: Any, run: Path, inter: Path
) -> None:
    brainhive("push", run.name, "hub:me/demo@v1")
    mini_hub.client().upload_file(repo_id="me/demo", path_or_fileobj=b"x", path_in_repo="cover.png")
    (first,) = hub.repos["me/demo"].tags.values()

    message, way = two_lines(brainhive("push", inter.name, "hub:me/demo@v1"), 1)
    assert message == "hub:me/demo@v1 exists" and "hub:me/demo@TAG" in way

    assert brainhive("push", inter.name, "hub:me/demo@v2").exit_code == 0
    cells = {path.name for path in (inter / "cells").iterdir()}
    assert {name.split("/")[1] for name in newest(hub) if name.startswith("cells/")} == cells
    assert newest(hub)["cover.png"] == b"x"
    assert hub.repos["me/demo"].tags == {"v1": first, "v2": commit_of(hub)} and first != commit_of(hub)


def test_files_of_others_are_never_replaced(hub: Any, run: Path) -> None:
    api_of_hub = mini_hub.client()
    api_of_hub.create_repo("me/demo", private=True)
    api_of_hub.upload_file(repo_id="me/demo", path_or_fileobj=b"mine", path_in_repo="thesis.txt")

    message, way = two_lines(brainhive("push", run.name, "hub:me/demo@v1"), 1)

    assert message == "hub:me/demo exists with files of others (1: thesis.txt)" and way.startswith(
        "another name"
    )
    assert newest(hub) == {"thesis.txt": b"mine"}


def test_a_public_repository_needs_the_flag(hub: Any, run: Path) -> None:
    mini_hub.client().create_repo("me/demo", private=False)

    message, way = two_lines(brainhive("push", run.name, "hub:me/demo"), 1)
    assert message == "hub:me/demo is public on the hub" and "--public" in way and newest(hub) == {}
    assert brainhive("push", run.name, "hub:me/demo", "--public").exit_code == 0
    assert brainhive("push", run.name, "hub:me/open", "--public").exit_code == 0
    assert not hub.repos["me/open"].private


def test_the_card_holds_the_numbers_of_the_tests_and_where_they_came_from(hub: Any, run: Path) -> None:
    brainhive("push", run.name, "hub:me/demo", "--contact", "lab@example.org", "--citation", "A paper")

    card = ModelCard(newest(hub)["README.md"].decode())
    measured = RunFolder(done("eval-retrieval", str(run), "sheet_rows=0")).measurements().overall
    results = {result.metric_type: result for result in card.data.eval_results}

    assert {*results} == {"top1", "top5"}
    for name, result in results.items():
        assert result.metric_value == measured[name].value and result.dataset_split == "test"
        assert result.metric_args["pool"] == measured[name].pool
        assert result.metric_args["interval"] == [measured[name].low, measured[name].high]
    assert card.data.license == "apache-2.0" and card.data.library_name == "brainhive"
    assert "lab@example.org" in card.text and "A paper" in card.text
    assert "reads no thoughts" in card.text and "simulated by a program" in card.text
    assert 'api.open_model("hub:me/demo", cell="sub-01_seed-1")' in card.text


LIES: dict[str, tuple[Callable[[dict[str, bytes]], None], bool, str]] = {
    "a format of the future": (
        lambda files: files.update(
            {"brainhive.json": files["brainhive.json"].replace(b'"format": 1', b'"format": 9')}
        ),
        True,
        "is of format 9, this version reads 1",
    ),
    "another command": (
        lambda files: files.update(
            {"brainhive.json": files["brainhive.json"].replace(b"train-align", b"train-world")}
        ),
        True,
        "command: Input should be 'train-align' or 'train-prior'",
    ),
    "a changed document": (
        lambda files: files.update({"recipe.yaml": files["recipe.yaml"] + b"\n"}),
        False,
        "recipe.yaml differs from its digest",
    ),
    "a missing file": (
        lambda files: files.pop("cells/sub-01_seed-1/model/model.safetensors") and None,
        False,
        "has no cells/sub-01_seed-1/model/model.safetensors in the hub's cache",
    ),
    "a file that is in no list": (
        lambda files: files.update({"cells/x/model/config.json": b"{}"}),
        False,
        "SHA256SUMS does not list cells/x/model/config.json",
    ),
    "a list of nothing": (lambda files: files.update({"SHA256SUMS": b""}), False, "does not list"),
    "no list": (lambda files: files.pop("SHA256SUMS") and None, False, "has no SHA256SUMS"),
    "another width": (
        lambda files: _change_config(files, lambda config: config["heads"]["token"].update({"shape": [17]})),
        True,
        "is needed",
    ),
    "an unknown part": (
        lambda files: _change_config(files, lambda config: config["backbone"].update({"kind": "no-such"})),
        True,
        "no-such",
    ),
    "another version of the model": (
        lambda files: _change_config(files, lambda config: config.update({"format": 99})),
        True,
        "format",
    ),
}


def _change_config(files: dict[str, bytes], change: Callable[[dict[str, Any]], None]) -> None:
    name = "cells/sub-01_seed-1/model/config.json"
    config = json.loads(files[name])
    change(config)
    files[name] = json.dumps(config).encode()


def test_a_repository_that_lies_is_one_line(hub: Any, run: Path) -> None:
    brainhive("push", run.name, "hub:me/demo")
    sound = dict(newest(hub))
    for lie, (change, is_sealed_again, what) in LIES.items():
        files = dict(sound)
        change(files)
        if is_sealed_again:
            listed = sorted(files.keys() - {"README.md", "SHA256SUMS"})
            lines = [f"{mini_hub.sha256(files[name])}  {name}\n" for name in listed]
            files["SHA256SUMS"] = "".join(lines).encode()
        hub.repos["me/demo"].commit(lie, files, hub.repos["me/demo"].log[-1][3])

        shown = brainhive("eval-retrieval", "hub:me/demo", "sheet_rows=0")

        lines = [line for line in shown.stderr.splitlines() if line.startswith(("error: ", "  try: "))]
        assert shown.exit_code in (1, 2, 3) and len(lines) == 2 and what in lines[0], (lie, shown.stderr)
        assert "Traceback" not in shown.stderr and "unexpected" not in lines[0], lie


def test_a_model_folder_on_the_hub_is_a_model_whatever_else_lies_there(
    hub: Any, run: Path, home: Path
) -> None:
    model = run / "cells/sub-01_seed-1/model"
    client = mini_hub.client()
    client.create_repo("me/folder", private=True)
    client.upload_folder(repo_id="me/folder", folder_path=str(model))

    assert api.open_model("hub:me/folder").learned.subjects == (1,)
    started = done(
        "train-align", *LINES, *QUICK, "subjects=1", "train.start_from=hub:me/folder", "train.epochs=1"
    )
    assert started.is_dir()
    tested = RunFolder(done("eval-retrieval", "hub:me/folder", DATASET, "--subjects", "1", "sheet_rows=0"))
    own = RunFolder(done("eval-retrieval", str(model), DATASET, "--subjects", "1", "sheet_rows=0"))
    assert tested.measurements().overall == own.measurements().overall


def test_a_repository_of_something_else_is_no_model(hub: Any, run: Path) -> None:
    client = mini_hub.client()
    client.create_repo("me/text", private=True)
    client.upload_file(repo_id="me/text", path_or_fileobj=b"hello", path_in_repo="README.md")

    message, _ = two_lines(brainhive("eval-retrieval", "hub:me/text"), 3)

    assert message == "hub:me/text has no brainhive.json, and no config.json of a brain model"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("RUN",), "push takes a run and a repository"),
        (("RUN", "me/demo"), "push takes a run and a repository"),
        (("RUN", "hub:demo"), "names no repository of the hub"),
        (("RUN", "hub:me/../demo"), "names no repository of the hub"),
        (("RUN", "hub:me/demo@../x"), "names no repository of the hub"),
        (("RUN", "hub:me/demo@main"), "is no name of a tag"),
        (("RUN", f"hub:me/demo@{'0' * 40}"), "is no name of a tag"),
        (("RUN:full", "hub:me/demo"), "is no whole run of this machine"),
        (("hub:me/demo", "hub:me/copy"), "is no whole run of this machine"),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused_before_the_hub_is_asked(
    hub: Any, run: Path, words: tuple[str, ...], what: str
) -> None:
    message, _ = two_lines(brainhive("push", *(word.replace("RUN", run.name) for word in words)), 2)
    assert what in message and hub.requests == []


def test_a_test_of_a_model_is_no_model(hub: Any, run: Path) -> None:
    tested = done("eval-retrieval", str(run), "sheet_rows=0")
    message, way = two_lines(brainhive("push", tested.name, "hub:me/demo"), 2)
    assert "is a run of eval-retrieval; aligners and priors are shared" in message
    assert run.name in way and hub.requests == []


def test_a_damaged_run_is_not_pushed(hub: Any, run: Path, home: Path) -> None:
    copy = home / "runs/train-align/copied"
    shutil.copytree(run, copy)
    weights = copy / "cells/sub-01_seed-1/model/model.safetensors"
    state = load_file(weights)
    first = next(iter(state))
    state[first].view(-1)[0] = float("nan")
    save_file(state, weights)

    message, _ = two_lines(brainhive("push", "copied", "hub:me/demo"), 1)

    assert "not finite" in message and hub.requests == []
    (copy / "recipe.yaml").write_text("mode: [")
    two_lines(brainhive("push", "copied", "hub:me/demo"), 1)
    shutil.rmtree(copy)


def test_a_recipe_of_push_is_a_recipe_as_any_other(hub: Any, run: Path, home: Path) -> None:
    (home / "push.yaml").write_text(yaml.safe_dump({"contact": "the lab", "public": True}))
    assert brainhive("push", run.name, "hub:me/demo", "--recipe", "push.yaml").exit_code == 0
    assert b"Contact: the lab" in newest(hub)["README.md"] and not hub.repos["me/demo"].private


def test_variants_of_a_sweep_that_was_pushed_are_models_of_their_own(hub: Any, home: Path) -> None:
    swept = done("train-align", *LINES, *QUICK, "sweep.train.lr=1e-3,1e-4", "subjects=1")
    assert brainhive("push", swept.name, "hub:me/lr").exit_code == 0

    start = ("train-align", *LINES, *QUICK, "subjects=1")
    first, second = (done(*start, f"train.start_from=hub:me/lr:lr={lr}") for lr in ("1e-3", "1e-4"))
    message, _ = two_lines(brainhive(*start, "train.start_from=hub:me/lr"), 2)

    assert first != second and "could start from" in message
    pinned = f"hub:me/lr@{commit_of(hub, 'me/lr')}:lr=1e-3"
    assert RunFolder(first).recipe()["train"]["start_from"] == pinned
    message, way = two_lines(brainhive("eval-retrieval", "hub:me/lr:nope"), 2)
    assert "hub:me/lr@" in way and ":lr=1e-3" in way


def test_a_run_that_was_asked_for_again_can_be_pushed(hub: Any, run: Path) -> None:
    assert done("train-align", *LINES, *QUICK) == run and (run / "found.json").is_file()
    assert brainhive("push", run.name, "hub:me/demo").exit_code == 0


def test_a_card_that_the_hub_refuses_is_said_in_its_words(
    hub: Any, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = type(hub).answer

    def refuse(self: Any, method: str, target: str, body: bytes, headers: Any) -> Any:
        if "validate-yaml" in target:
            return 400, {}, {"errors": [{"message": '"license" must be one of [...]'}], "warnings": []}
        return answer(self, method, target, body, headers)

    monkeypatch.setattr(type(hub), "answer", refuse)
    message, _ = two_lines(brainhive("push", run.name, "hub:me/demo"), 1)
    assert message.startswith("the hub refuses hub:me/demo") and '"license" must be one of' in message


@pytest.mark.parametrize("change", ["shorter", "one bit"])
def test_damaged_weights_in_the_cache_are_noticed(hub: Any, run: Path, tmp_path: Path, change: str) -> None:
    brainhive("push", run.name, "hub:me/demo")
    api.open_model("hub:me/demo", cell="sub-01_seed-1")
    name = documents.digest_file(run / "cells/sub-01_seed-1/model/model.safetensors")
    (blob,) = tmp_path.glob(f"cache/*/blobs/{name}")
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content[:-100] if change == "shorter" else content)

    message, way = two_lines(brainhive("eval-retrieval", "hub:me/demo", "sheet_rows=0"), 1)

    assert (
        message.startswith("hub:me/demo@") and "differs from its digest" in message and "hf cache rm" in way
    )


def test_part_of_a_cache_names_the_line_that_fetches_the_rest(
    hub: Any, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brainhive("push", run.name, "hub:me/demo")
    mini_hub.client().hf_hub_download("me/demo", "brainhive.json")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    message, way = two_lines(brainhive("eval-retrieval", "hub:me/demo"), 3)

    assert "has no SHA256SUMS in the hub's cache" in message and "hf download me/demo" in way


def test_a_home_in_a_folder_called_snapshots_is_no_cache(tmp_path: Path) -> None:
    for name in ("snapshots/2026/home/runs/x", "models--x/snapshots/2026", "models--me--x/blobs/0123"):
        assert hub_names.name_snapshot(tmp_path / name) == "" == hub_names.revision(tmp_path / name)
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / f"snapshots/hf/models--me--x/snapshots/{commit}/vae"
    assert hub_names.name_snapshot(cached) == f"hub:me/x/vae@{commit}"


def test_small_files_travel_with_the_commit(hub: Any, run: Path) -> None:
    brainhive("push", run.name, "hub:me/demo")
    uploads = [path for method, path, _ in hub.requests if method == "PUT"]
    others = [path for method, path, _ in hub.requests if method != "PUT"]
    large = {documents.digest_file(run / name) for name in FILES if name.endswith(".safetensors")}
    assert len(uploads) == len(large) and len(others) <= 10


def test_of_a_prior_only_its_own_files_are_sent(hub: Any, prior_run: Path, home: Path) -> None:
    copy = home / "runs/train-prior/with-notes"
    shutil.copytree(prior_run, copy)
    model, confirmed = copy / "model", ("--data-terms-checked", "--licence", "cc-by-nc-4.0")
    (model / "notes").mkdir()
    for name in (
        "notes.json",
        ".hidden.json",
        "notes/config.json",
        ".notes.safetensors",
        "notes/x.safetensors",
    ):
        source = "fusion_encoder/config.json" if name.endswith("json") else "learned.safetensors"
        shutil.copy(model / source, model / name)
    (copy / "SHA256SUMS").unlink()

    check = json.loads(
        brainhive("push", "with-notes", "hub:me/prior", *confirmed, "--check", "--json").stdout
    )
    shown = brainhive("push", "with-notes", "hub:me/prior", *confirmed)

    shutil.rmtree(copy)
    _, files, *_ = check["tables"]
    sent = {name for name in newest(hub, "me/prior")}
    assert shown.exit_code == 0 and {row["file"] for row in files["rows"]} == sent, shown.stderr
    assert not [name for name in sent if "notes" in name or "hidden" in name]
