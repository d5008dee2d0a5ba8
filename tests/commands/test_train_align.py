"""train-align: it learns, from what it may, and goes on where it was interrupted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trials import make_trials

from brainhive_cli import aligner
from brainhive_cli.commands import train_align
from brainhive_cli.core import console, parts
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.command_lines import next_command
from brainhive_cli.data.stores.target_store import TargetStore, path_of
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.data.trials import Trials
from brainhive_cli.models.encoders import resolve_all
from brainhive_cli.models.priors.fusion_prior import FusionPrior
from brainhive_cli.training.alignment import loop, training_data
from brainhive_cli.training.alignment.batches import Batches, CellData
from brainhive_cli.training.alignment.recipe import Train
from brainhive_cli.training.alignment.validation import held_out_of, select_held_out
from tests.resealed import resealed

ENCODER = "brainhive_cli-models-encoders-python-example"
DATASET = "demo-noise-0.3-40-concepts"
DEMO_CONFIG = parts.resolve("datasets", {"kind": "demo", "noise": 0.3, "subjects": 2, "concepts": 40})


def weights(run: Path, cell: str) -> dict[str, torch.Tensor]:
    return load_file(run / "cells" / cell / "model" / "model.safetensors")


def is_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def runs(tmp_path: Path) -> str:
    """An override that gives this test runs of its own."""
    return f"paths.runs={tmp_path / 'runs'}"


@pytest.fixture
def own(world: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the world with its first subject, to spoil."""
    shutil.copytree(world / "embeddings", tmp_path / "embeddings")
    below = f"signals/{DATASET}/default"
    (tmp_path / below).mkdir(parents=True)
    shutil.copy(world / below / "sub-01.h5", tmp_path / below)
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    return tmp_path


def test_it_learns_what_held_out_concepts_look_like(trained):
    cells = json.loads((trained / "metrics.json").read_text())["scopes"]

    assert list(cells) == ["sub-01_seed-1", "sub-02_seed-1"]
    for cell in cells.values():
        top1 = cell["top1"]
        assert top1["n"] == top1["pool"] == 60  # 10 of 40 concepts, 6 pictures each
        assert top1["chance"] == pytest.approx(1 / 60)
        assert top1["low"] > 3 * top1["chance"]
        assert (top1["split"], top1["seeds"]) == ("validation", [1])


def test_the_same_command_finds_its_run_and_again_makes_another_beside_it(trained, go, small, world):
    log = (trained / "log.jsonl").read_bytes()

    found = go("train-align", *small)
    anew = go("train-align", *small, f"paths.runs={world / 'runs'}", "subjects=1", again=True)
    beside = go("train-align", *small, f"paths.runs={world / 'runs'}", "subjects=1", again=True)

    assert found.folder == trained and (trained / "log.jsonl").read_bytes() == log
    assert beside.folder.name == f"{anew.folder.name}-2"
    assert is_same(weights(anew.folder, "sub-01_seed-1"), weights(beside.folder, "sub-01_seed-1"))


def test_a_cell_is_the_same_alone_and_beside_others(trained, go, small, runs):
    torch.manual_seed(99)  # whatever was drawn before must not matter
    alone = go("train-align", *small, runs, "subjects=2").folder

    assert is_same(weights(alone, "sub-02_seed-1"), weights(trained, "sub-02_seed-1"))
    assert not is_same(weights(trained, "sub-01_seed-1"), weights(trained, "sub-02_seed-1"))


def test_without_a_terminal_progress_of_all_cells_is_said_once(go, small, world, runs, monkeypatch, capsys):
    monkeypatch.setattr(console, "DELAY_S", -1.0)
    go("train-align", *small, runs, "train.epochs=1")

    lines = [line for line in capsys.readouterr().err.splitlines() if "of 2" in line]
    assert len(lines) == 1 and lines[0].startswith("training cells: 2 of 2 in 0:")


def test_cells_of_two_seeds_share_no_model(go, small, world, runs):
    run = go("train-align", *small, runs, "subjects=1", "seeds=1,2", "train.epochs=1").folder

    first, second = (weights(run, f"sub-01_seed-{seed}") for seed in (1, 2))
    assert not any(torch.equal(first[key], second[key]) for key in first if first[key].ndim > 1)


@pytest.mark.parametrize(
    ("mode", "cells"),
    [
        ("inter", {"sub-01_seed-1": [2], "sub-02_seed-1": [1]}),
        ("joint", {"all_seed-1": [1, 2]}),
    ],
)
def test_a_mode_decides_whom_a_cell_learns_from(go, small, world, runs, mode, cells):
    result = go("train-align", *small, runs, f"mode={mode}")

    for name, subjects in cells.items():
        config = json.loads((result.folder / "cells" / name / "model" / "config.json").read_text())
        assert config["spec"]["subjects"] == subjects
        top1 = result.metrics.scopes[name]["top1"]
        assert top1.n == 60 * len(subjects) and top1.pool == 60
        several = "; for these 2 subjects" if len(subjects) > 1 else ""
        assert top1.interval == f"Wilson over 10 concepts{several}"  # whose 60 pictures both saw
        assert top1.these_subjects == ((top1.low, top1.high) if several else None)
        assert top1.low > top1.chance
    assert list(result.metrics.scopes) == list(cells)


def test_too_few_concepts_to_hold_one_out_are_said_and_the_last_epoch_is_kept(go, small, world, runs):
    few = (*small, "subjects=1", "train.epochs=2", "train.validation=0.0001", runs)
    what = train_align.Recipe.resolve("train-align", None, {}, few)

    assert not describe_missing(train_align.inputs(what))
    result = go("train-align", *few)

    (table,) = result.tables
    assert (table.columns, table.rows) == (("cell", "epoch"), (("sub-01_seed-1", 2),))
    assert "last epoch kept; no validation: no training concept is held out (train.val" in table.title


def test_the_next_line_leads_to_a_step_that_has_what_it_needs(go, small, own):
    dataset, encoder = DEMO_CONFIG, small[1].partition("'")[2].partition("'")[0]
    paths, few = Paths(), (*small, "subjects=1", "train.epochs=1")
    train, test = (path_of(own / "embeddings", DATASET, split, ENCODER) for split in ("train", "test"))
    encoders = resolve_all([encoder])

    assert go("train-align", *few).hint.startswith("brainhive eval-retrieval --run ")
    test.rename(test.with_suffix(".away"))
    embed, _, evaluate = go("train-align", *few).hint.partition(" && ")
    assert embed.startswith("brainhive embed ") and embed.endswith(f" --encoders {encoder}")
    assert evaluate.startswith("brainhive eval-retrieval --run ")

    assert next_command(dataset, encoders, paths, "signal.name=a").startswith("brainhive train-align ")
    assert next_command(dataset, encoders, paths, "signal.name=a").endswith(f"{encoder} signal.name=a")
    assert next_command(dataset, [], paths).startswith("brainhive embed ")  # of encoders with known names
    shutil.copy(train, train.with_name("demo-clip.h5"))
    assert next_command(dataset, [], paths).endswith(" --encoders demo-clip")
    train.unlink()
    assert next_command(dataset, encoders, paths) == embed


def test_leaving_one_subject_out_needs_two(go, small, world, runs):
    with pytest.raises(BrainhiveError, match="there are none for sub-01"):
        go("train-align", *small, runs, "mode=inter", "subjects=1", "trained_on=1")


def test_validation_takes_whole_concepts_and_training_none_of_their_pictures(world):
    pictures = TargetStore.open(path_of(world / "embeddings", DATASET, "train", ENCODER))
    concepts = np.asarray(pictures.concepts)
    held_out = held_out_of(pictures.concepts, 0.1)
    trials = make_trials(1, np.zeros((len(concepts), 1, 1), np.float32), np.arange(len(concepts)), ("O1",))

    data = CellData([trials, trials], Targets({}), held_out, None)
    batches = Batches(data, Train(batch_size=128), Launch(0, 1, torch.device("cpu")))
    ((bank, rows),) = select_held_out(data, batches.averages)
    learned = [row for epoch in range(3) for rows in batches.epoch(7, epoch) for row in rows]

    trained_on = set(concepts[batches.samples.stimulus[learned].numpy()])
    validated = set(concepts[bank.stimulus[rows].numpy()])
    assert len(validated) == 4 and len(trained_on) == 36
    assert not validated & trained_on
    assert sorted(learned) == sorted(list(batches.rows) * 3)
    assert len(learned) // 3 + len(rows) == 2 * len(concepts)


@pytest.mark.parametrize(("spoilt", "changes"), [("held out", False), ("learned", True)])
def test_only_signals_of_training_concepts_move_the_weights(own, trained, go, small, spoilt, changes):
    pictures = TargetStore.open(path_of(own / "embeddings", DATASET, "train", ENCODER))
    held_out = held_out_of(pictures.concepts, 0.1)
    with resealed(own / "signals" / DATASET / "default" / "sub-01.h5") as file:
        signal = file["train/signal"][()]
        signal[held_out if spoilt == "held out" else ~held_out] *= -1
        file["train/signal"][...] = signal
    settings = (*small, "subjects=1", "train.epochs=2", "train.selection=last")

    spoiled = go("train-align", *settings).folder
    shutil.copy(trained.parents[2] / "signals" / DATASET / "default" / "sub-01.h5", file_of(own))
    sound = go("train-align", *settings, again=True).folder

    assert is_same(weights(spoiled, "sub-01_seed-1"), weights(sound, "sub-01_seed-1")) is not changes


def file_of(home: Path) -> Path:
    return home / "signals" / DATASET / "default" / "sub-01.h5"


def test_the_test_split_is_never_read(own, go, small, trained):
    with resealed(file_of(own)) as file:
        file["test/signal"][...] = np.nan  # which every reader refuses
    shutil.rmtree(own / "embeddings" / DATASET / "test")

    run = go("train-align", *small, "subjects=1").folder

    assert is_same(weights(run, "sub-01_seed-1"), weights(trained, "sub-01_seed-1"))
    with pytest.raises(MissingData, match="no test embeddings"):
        go("eval-retrieval")
    shutil.copytree(
        trained.parents[2] / "embeddings" / DATASET / "test", own / "embeddings" / DATASET / "test"
    )
    with pytest.raises(BrainhiveError, match="not finite"):
        go("eval-retrieval")


def interrupt(monkeypatch: pytest.MonkeyPatch, cell: str, epoch: int) -> None:
    """Press Ctrl-C as an epoch ends."""
    log = RunFolder.log

    def pressed(folder: RunFolder, **event: object) -> None:
        log(folder, **event)
        if (event["cell"], event["epoch"]) == (cell, epoch):
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "log", pressed)


def test_a_run_interrupted_between_cells_keeps_the_finished_ones(
    go, small, world, runs, trained, monkeypatch
):
    with monkeypatch.context() as pressed, pytest.raises(KeyboardInterrupt):
        interrupt(pressed, "sub-02_seed-1", 0)
        go("train-align", *small, runs)

    run = go("train-align", *small, runs).folder

    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [event["epoch"] for event in events if event["cell"] == "sub-01_seed-1"] == list(range(20))
    for cell in ("sub-01_seed-1", "sub-02_seed-1"):
        assert is_same(weights(run, cell), weights(trained, cell))


def test_a_cell_interrupted_in_the_middle_goes_on_from_its_checkpoint(
    go, small, world, runs, trained, monkeypatch
):
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)  # one an epoch
    with monkeypatch.context() as pressed, pytest.raises(KeyboardInterrupt):
        interrupt(pressed, "sub-01_seed-1", 5)
        go("train-align", *small, runs, "subjects=1")

    run = go("train-align", *small, runs, "subjects=1").folder

    epochs = [json.loads(line)["epoch"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert epochs == [*range(6), *range(5, 20)]
    assert is_same(weights(run, "sub-01_seed-1"), weights(trained, "sub-01_seed-1"))
    assert not list((run / "checkpoints").iterdir())


def test_with_a_prior_the_fuser_is_the_priors_and_stays_as_it_is(go, small, world, runs, prior):
    result = go("train-align", *small, runs, "subjects=1", f"prior={prior}")

    model = aligner.load(result.folder / "cells" / "sub-01_seed-1" / "model")
    theirs = FusionPrior.load(prior).fusion_encoder["vision_model"].state_dict()
    assert is_same(model.fuser.state_dict(), theirs)
    assert (model.layout.heads["token"].shape, model.layout.prior) == ((64,), str(prior))
    top1 = result.metrics.scopes["sub-01_seed-1"]["top1"]
    assert top1.low > top1.chance


def test_an_unknown_subject_is_named_with_the_known_ones(go, small, world, runs):
    with pytest.raises(MissingData, match="no subject 7") as caught:
        go("train-align", *small, runs, "subjects=1,7")
    assert "1, 2" in caught.value.hint


@pytest.mark.parametrize(
    "settings",
    [
        ("signal.repetitions=single", "train.epochs=8"),
        ("signal.repetitions=random", "signal.random_k=1", "train.augment.repetitions=1.0"),
        ("signal.normalise=whiten", "signal.channels=parietal,occipital"),
        ("train.ema=0.9", "train.augment.parts=[smooth]", "loss.kind=mixco"),
    ],
)
def test_what_is_varied_still_learns_and_is_evaluated_alike(go, small, world, tmp_path, runs, settings):
    result = go("train-align", *small, runs, "subjects=1", *settings)

    top1 = result.metrics.scopes["sub-01_seed-1"]["top1"]
    assert (top1.n, top1.pool) == (60, 60) and top1.low > top1.chance
    tested = go("eval-retrieval", runs).metrics.overall["top1"]
    assert tested.low > tested.chance


def test_a_normalisation_is_learned_from_training_signals_only(own, go, small):
    settings = (*small, "subjects=1", "signal.normalise=channel", "train.epochs=1")
    sound = go("train-align", *settings).folder
    with resealed(file_of(own)) as file:
        file["test/signal"][...] = 1e6 * file["test/signal"][...]

    spoiled = go("train-align", *settings, again=True).folder

    assert is_same(weights(spoiled, "sub-01_seed-1"), weights(sound, "sub-01_seed-1"))


def test_signals_on_disk_train_to_the_same_weights(own, go, small, trained, monkeypatch):
    monkeypatch.setattr(Trials, "averages", property(lambda trials: pytest.fail("all signals are in memory")))
    monkeypatch.setattr(training_data, "free_bytes", lambda device: 0)

    run = go("train-align", *small, "subjects=1", again=True).folder

    assert is_same(weights(run, "sub-01_seed-1"), weights(trained, "sub-01_seed-1"))


def test_signals_stay_on_disk_when_they_need_more_than_half_of_the_free_memory(
    go, small, own, monkeypatch, capsys
):
    needed = 4 * 240 * 17 * 250
    for free, is_mapped in ((2 * needed + 4, False), (2 * needed - 4, True)):
        monkeypatch.setattr(training_data, "free_bytes", lambda device, free=free: free)
        go("train-align", *small, "subjects=1", "train.epochs=1", again=True)
        assert ("so they stay on disk" in capsys.readouterr().err) is is_mapped


def test_the_test_split_selects_the_epoch_only_on_demand_and_that_is_written_down(go, small, world, runs):
    result = go("train-align", *small, runs, "subjects=1", "train.selection=test")

    assert result.metrics.facts.cells["sub-01_seed-1"].selected_on == "test"


def test_alternatives_take_further_stores_of_the_same_pictures_and_width(go, small, own):
    root = own / "embeddings" / DATASET / "train"
    shutil.copy(root / f"{ENCODER}.h5", root / "other.h5")
    with resealed(root / "other.h5") as file:
        file["embedding"][...] = -file["embedding"][...]
    jitter = f"train.embedding_alternatives={{{ENCODER}: [other]}}"

    varied = go("train-align", *small, "subjects=1", "train.epochs=1", jitter).folder
    plain = go("train-align", *small, "subjects=1", "train.epochs=1").folder

    assert not is_same(weights(varied, "sub-01_seed-1"), weights(plain, "sub-01_seed-1"))
    with pytest.raises(
        BrainhiveError, match=r"train\.embedding_alternatives names clip-h14, which is not fused"
    ):
        go("train-align", *small, "train.embedding_alternatives={clip-h14: [other]}")
    with pytest.raises(MissingData, match="no train embeddings of absent") as caught:
        go("train-align", *small, f"train.embedding_alternatives={{{ENCODER}: [absent]}}")
    assert caught.value.hint == f"name stores that are there: {ENCODER}, other"


def test_single_trials_cannot_be_mixed_over_repetitions(go, small, world, runs):
    with pytest.raises(RecipeError, match="single trials cannot be mixed"):
        go("train-align", *small, runs, "signal.repetitions=single", "train.augment.repetitions=1.0")
