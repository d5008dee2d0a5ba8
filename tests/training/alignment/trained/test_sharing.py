"""Files of a run that are shared, and the terms of the data behind them."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.core.results import CellFacts, Facts, Measurements, Metric
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.stores.training_history import TrainingHistory
from brainhive_cli.training.alignment.trained.sharing import (
    SharedRun,
    _refuse_unfit,
    cut_paths,
    find_terms,
    share_metrics,
)


def learned_from(stimuli, recordings, **fields):
    fields = {"has_all_subjects": True, **fields}
    return TrainingHistory(stimulus_kinds=stimuli, recording_kinds=recordings, **fields)


@pytest.mark.parametrize(
    ("stimuli", "recordings", "is_prior", "licence", "reasons"),
    [
        (("demo",), ("simulated",), False, "apache-2.0", 0),
        (("demo-films",), ("simulated",), True, "apache-2.0", 0),
        (("demo",), (), True, "apache-2.0", 0),
        (("things-eeg",), ("things-eeg",), False, "cc-by-4.0", 0),
        (("things-eeg",), ("things-prepared",), False, "cc-by-4.0", 0),
        (("demo", "things-eeg"), ("simulated", "things-eeg"), False, "cc-by-4.0", 0),
        # what binds most is the licence of the recordings
        (("demo",), ("things-eeg",), False, "cc-by-4.0", 0),
        (("things-meg",), ("things-meg",), False, "cc0-1.0", 0),
        # a licence of recordings is none of a prior's pictures
        (("things-eeg",), (), True, "", 1),
        (("nsd",), ("nsd",), False, "", 2),
        (("image-folder", "demo"), ("recording", "betas"), False, "", 2),
        (("demo",), ("unknown",), False, "", 1),
        (("demo",), ("unknown",), True, "apache-2.0", 0),
        (("demo",), (), False, "", 1),
        ((), ("simulated",), False, "", 1),
    ],
)
def test_the_licence_follows_from_all_data(
    stimuli,
    recordings,
    is_prior,
    licence,
    reasons,
):
    loaded_terms, unknown, terms = find_terms(
        learned_from(stimuli, recordings), is_prior
    )
    assert loaded_terms == licence
    assert len(list(filter(None, unknown.split(" and ")))) == reasons
    public = {"demo", "demo-films", "things-eeg", "things-meg", "nsd"}
    assert terms.keys() == public & set(stimuli)
    assert all(terms.values())


def test_priors_and_unlisted_subjects_leave_terms_unknown():
    learned = learned_from(("demo",), ("simulated",))
    assert find_terms(learned, False, ["hub:me/a", "b"])[0] == ""
    assert "hub:me/a, b" in find_terms(learned, False, ["hub:me/a", "b"])[1]
    assert find_terms(replace(learned, has_all_subjects=False), False)[0] == ""


def test_own_recordings_are_told_from_other_ones():
    reasons = {
        kinds: find_terms(learned_from(("demo",), kinds), False)[1]
        for kinds in (("nsd",), ("bold",), ("nsd", "recording"))
    }
    assert "own" not in reasons["nsd",]
    assert "own" in reasons["bold",]
    assert "bold" in reasons["bold",]
    assert "nsd, recording" in reasons["nsd", "recording"]


def test_shared_metrics_have_no_items_and_no_machine_facts(
    home,
):
    top1 = Metric("top1", 0.5, 10, 10, 0.1, 0.3, 0.7, [1], "", "test", "bootstrap")
    facts = Facts(
        command="train-align",
        mode="intra",
        dataset="demo",
        caveats=["simulated"],
        warnings=["read /home/jane/x.csv"],
        run="jane's",
        set_up={"model": "/home/jane/model"},
        cells={"a": CellFacts(took={"minutes": 3})},
    )
    missing = {"top5": "see /data/jane/list.txt"}
    measurements = Measurements(
        {"all": {"top1": top1}}, missing, facts, {"all": {"image_ids": ["x"]}}
    )

    shared = share_metrics(measurements)

    assert shared.scopes == measurements.scopes
    assert shared.items == {}
    assert shared.missing == {"top5": "see list.txt"}
    expected = Facts(
        command="train-align",
        mode="intra",
        dataset="demo",
        caveats=["simulated"],
        set_up={"model": "model"},
        cells={"a": CellFacts()},
    )
    assert shared.facts == expected
    assert facts.cells["a"].took == {"minutes": 3}


def test_paths_are_cut_to_their_last_part(home):
    inside = str(home / "data/own recordings/x.fif")
    for text, expected in (
        (inside, "data/own recordings/x.fif"),
        ("/home/jane/my data/x y.fif", "x y.fif"),
        ("from /home/jane/data/x.fif on", "from x.fif on"),
        ("from ~/data/x.fif on", "from x.fif on"),
        ("two: /a/b/c.csv, /d/e/", "two: c.csv, e"),
        (r"C:\Users\jane\x.fif", "x.fif"),
        (r"at \\server\jane\y.fif", "at y.fif"),
        ("data/x.fif", "data/x.fif"),
    ):
        assert cut_paths(text) == expected
        nested = {text: [text, (text, 1, None)]}
        assert cut_paths(nested) == {expected: [expected, [expected, 1, None]]}


def test_only_finite_weights_and_texts_without_paths_are_shared(
    tmp_path,
):
    file = tmp_path / "model.safetensors"
    weight = torch.ones(4)
    save_file({"weight": weight, "count": torch.tensor([3])}, file)
    _refuse_unfit("model", file)
    for value in (float("nan"), float("inf")):
        weight[2] = value
        save_file({"count": torch.tensor([3]), "weight": weight}, file)
        with pytest.raises(BrainhiveError):
            _refuse_unfit("model", file)

    text = tmp_path / "config.json"
    for content, is_fit in (("µV of data/x.fif", True), ("in /home/jane/x", False)):
        text.write_text(content)
        for content_form in (text, content.encode()):
            if is_fit:
                _refuse_unfit("config.json", content_form)
            else:
                with pytest.raises(BrainhiveError):
                    _refuse_unfit("config.json", content_form)


def test_a_shared_run_holds_its_models_and_no_places(trained_run):
    shared = SharedRun.from_run(RunFolder(trained_run))
    cells = ["sub-01_seed-1", "sub-02_seed-1"]
    assert shared.cells == cells
    models = {
        f"cells/{cell}/model/{name}"
        for cell in cells
        for name in ("config.json", "learned.safetensors", "model.safetensors")
    }
    other_files = {"recipe.yaml", "metrics.json", "embeddings.json"}
    assert shared.files.keys() == models | other_files
    assert shared.recipe.keys() == RunFolder(trained_run).recipe().keys() - {
        "paths",
        "run",
    }
    assert shared.layout is not None
    assert shared.layout.spec.subjects == (1,)
    assert shared.learned.subjects == (1, 2)
    assert (shared.licence, shared.unknown_terms) == ("apache-2.0", "")
    assert shared.terms.keys() == {"demo"}

    files = shared.pack("# A model")
    assert files["README.md"] == b"# A model"
    manifest = json.loads(files["brainhive.json"])  # type: ignore[arg-type]
    assert (manifest["command"], manifest["run"]) == ("train-align", trained_run.name)
    assert manifest["brainhive"]
    lines = files["SHA256SUMS"].decode().splitlines()  # type: ignore[union-attr]
    names = [line.split("  ")[1] for line in lines]
    assert names == sorted(files.keys() - {"README.md", "SHA256SUMS"})
    for line in lines:
        digest, name = line.split("  ")
        content = files[name]
        content = content if isinstance(content, bytes) else content.read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest


def test_runs_of_other_commands_are_not_shared(tmp_path):
    run_folder = RunFolder(tmp_path / "runs/eval-retrieval/demo-1")
    run_folder.write_json("metrics.json", Measurements().as_dict())
    with pytest.raises(RecipeError):
        SharedRun.from_run(run_folder)
