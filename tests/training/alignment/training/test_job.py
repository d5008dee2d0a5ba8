"""Job of train-align."""

import numpy as np
import pytest

from brainhive_cli import api
from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.core.files.inputs import map_digests
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.training.alignment import Cell, Recipe
from brainhive_cli.training.alignment.training.job import (
    BaseRun,
    Job,
    find_base_model,
    find_base_run,
    inherit_keys,
)

TIMES_S = np.arange(20) / 100


def test_reading_a_recipe_or_naming_its_run_loads_no_weights(
    world, align_overrides, prior, monkeypatch
):
    def refused(*_, **__):
        raise AssertionError("weights were read, or looked for, which may ask the hub")

    for name in ("safetensors.torch.load_file", "torch.load"):
        monkeypatch.setattr(name, refused)
    recipe = Recipe.resolve(
        "train-align", None, {}, align_overrides + (f"prior={prior}",)
    )
    assert Job.resolve(recipe).describe_prior() is not None

    monkeypatch.setattr("brainhive_cli.core.files.hub.find_input", refused)
    job = Job.resolve(Recipe.resolve("train-align", None, {}, align_overrides))
    digests = map_digests(job.inputs())
    assert digests
    assert job.pin_versions()[1] == {}
    assert all(name.startswith("signals ") for name in digests)


@pytest.mark.parametrize(
    "other_fields",
    [{"channels": ("A", "B", "D")}, {"rate_hz": 50.0, "times_s": TIMES_S * 2}],
)
def test_a_check_compares_the_signals_of_all_who_train_together(home, other_fields):
    picture_names = ["cat", "dog"] * 10
    dataset = {"kind": "categories", "names": ["cat", "dog"]}
    axes = {"channels": ("A", "B", "C"), "times_s": TIMES_S, "unit": "µV"}
    for subject, extra_fields in ((1, {}), (2, other_fields)):
        signal = np.random.default_rng(subject).normal(size=(20, 3, 20))
        runs = np.arange(20) // 5
        api.store_trials(
            signal, picture_names, dataset, subject, run=runs, **axes | extra_fields
        )
    dataset["holdout"] = {"by": "runs", "folds": 4}
    fields = {"dataset": dataset, "mode": "joint"}
    job = Job.resolve(Recipe.resolve("train-align", None, fields, []))
    with pytest.raises(BrainhiveError, match="subjects 1 and 2 differ in their s"):
        job.check()


@pytest.mark.nightly
@pytest.mark.parametrize("mode", ["intra", "joint"])
def test_a_fold_goes_on_without_a_subject_who_has_no_run_for_it(
    home, run_command, mode, capsys
):
    dataset = {"kind": "categories", "names": ["cat", "dog"]}
    axes = {"channels": ("A", "B", "C"), "times_s": TIMES_S, "unit": "µV"}
    for subject, count in ((1, 4), (2, 3)):
        signal = np.random.default_rng(subject).normal(size=(5 * count, 3, 20))
        picture_names = (["cat", "dog"] * 10)[: len(signal)]
        runs = np.arange(len(signal)) // 5
        api.store_trials(signal, picture_names, dataset, subject, run=runs, **axes)
    dataset["holdout"] = {"by": "runs", "folds": 4}
    ridge = {"kind": "ridge", "alpha": "auto", "standardise": False}
    fields_of_recipe = {
        "dataset": dataset,
        "mode": mode,
        "seeds": [0],
        "backbone": ridge,
    }
    api.run("embed", dataset=dataset)
    trained = api.open_run(api.run("train-align", **fields_of_recipe).folder)
    warnings = " ".join(capsys.readouterr().err.split())
    assert "subject 2 has no trials in fold 4" in warnings
    tested_cells = [(cell.tested_on, cell.fold) for cell in trained.cells]
    assert ((2,), 4) not in tested_cells
    assert (
        len(tested_cells)
        == {
            "intra": 7,
            "joint": 4,
        }[mode]
    )
    assert mode == "intra" or tested_cells[-1] == ((1,), 4)
    evaluated = api.open_run(api.run("eval-retrieval", run=str(trained.path)).folder)
    assert evaluated.metrics()[0]["n"] > 0


AXES = {"channels": ("A", "B", "C"), "times_s": TIMES_S, "unit": "µV"}
ANIMALS = {"kind": "categories", "names": ["cat", "dog"]}
HELD_OUT = ANIMALS | {"holdout": {"by": "runs", "folds": 2}}


def store(subject, sessions=None, runs=2):
    """Store 12 trials of a person, with or without sessions."""
    signal = np.random.default_rng(subject).normal(size=(12, 3, 20))
    columns = {} if sessions is None else {"session": np.arange(12) * sessions // 12}
    run_numbers = np.arange(12) * runs // 12
    api.store_trials(
        signal,
        ["cat", "dog"] * 6,
        dict(ANIMALS),
        subject,
        run=run_numbers,
        **columns,
        **AXES,
    )


def job_of(**fields):
    recipe = Recipe.resolve(
        "train-align", None, {"dataset": HELD_OUT, "seeds": [1], **fields}, []
    )
    return Job.resolve(recipe)


def test_people_of_training_and_test_must_be_here(home):
    for subject in (1, 2):
        store(subject)

    def lacks_people(**fields):
        missing = filter(
            None, (input_row.error for input_row in job_of(**fields).inputs())
        )
        return any("embeddings" not in error.message for error in missing)

    assert not lacks_people()
    assert not lacks_people(subjects=[2])
    for fields in (
        {"subjects": [3]},
        {"mode": "inter", "subjects": [1], "trained_on": [2, 3]},
    ):
        assert lacks_people(**fields)


@pytest.mark.parametrize("n_kept", [None, 1, 3])
def test_a_person_has_as_many_sessions_as_are_learned_from(home, n_kept):
    store(1, n_kept)
    recipe = Recipe.resolve(
        "train-align",
        None,
        {"dataset": HELD_OUT, "mode": "finetune", "finetune": {"sessions": 2}},
        [],
    )
    job = Job(recipe, recipe.dataset.build(recipe.paths))
    cells = [Cell("sub-01_seed-1", (1,), (1,), 1)]
    if n_kept == 3:
        job._check_sessions(cells)
    else:
        with pytest.raises(RecipeError):
            job._check_sessions(cells)


def test_work_is_counted_in_epochs_of_each_person(home):
    for subject in (1, 2):
        store(subject)
    job = job_of(
        mode="joint",
        backbone="brain-mlp",
        train={"epochs": 3},
    )
    work = job.count_work()
    assert len(job.cells) == 2 == work.cells
    assert work.count == 2 * 2 * 3
    assert job.count_work(job.cells[:1]).count == 2 * 3


def test_a_ridge_is_counted_in_fits_because_it_has_no_epochs(home):
    for subject in (1, 2):
        store(subject)

    work = job_of(mode="intra", backbone="ridge", fuser="heads").count_work()

    assert (work.count, work.unit) == (work.cells, "fits")


def base_of(home, *cells, **fields):
    recipe = Recipe.resolve("train-align", None, {"dataset": HELD_OUT, **fields}, [])
    dataset = recipe.dataset.build(recipe.paths)
    return BaseRun(RunFolder(home / "run"), "run", recipe, dataset, list(cells))


def test_the_model_that_is_tuned_never_saw_the_person(home):
    other_cells = [Cell(f"other-{seed}", (1, 2), (3,), seed) for seed in (7, 8)]
    cell = Cell("known", (1, 3), (2,), 9)
    base = base_of(home, *other_cells, cell)
    for seed, name in ((7, "other-7"), (8, "other-8"), (9, "other-7")):
        base_model = find_base_model(base, Cell("tuned", (3,), (3,), seed))
        assert base_model == home / "run/cells" / name / "model"
    # none, and several of the same seed
    with pytest.raises(BrainhiveError):
        find_base_model(base, Cell("tuned", (1,), (1,), 7))
    with pytest.raises(BrainhiveError):
        find_base_model(
            base_of(home, *other_cells, Cell("third", (2,), (3,), 7)),
            Cell("tuned", (3,), (3,), 7),
        )


def test_a_tuned_model_keeps_the_keys_of_its_run(home, capsys):
    for subject in (1, 2, 3):
        store(subject)
    base = base_of(home, Cell("a", (1, 2), (1, 2), 1))

    def tune(**fields):
        mode = {"mode": "finetune", "dataset": HELD_OUT}
        return inherit_keys(
            Recipe.resolve("train-align", None, mode | fields, []), base
        )

    tuned_recipe = tune(backbone="nice", train={"epochs": 3})
    assert tuned_recipe.subjects == [3]
    assert tuned_recipe.finetune.run == "run"
    assert tuned_recipe.backbone == base.recipe.backbone
    assert tuned_recipe.train.epochs == 3
    assert "backbone" in capsys.readouterr().err
    assert tune(subjects=[3]).subjects == [3]
    assert capsys.readouterr().err == ""
    for subjects in ([1], [2, 3]):
        with pytest.raises(BrainhiveError):
            tune(subjects=subjects)
    with pytest.raises(RecipeError):
        tune(train={"prior_dropout": 0.1})
    # statistics of all sessions would see later ones
    assert tune(finetune={"sessions": 1}).finetune.sessions == 1
    base = base_of(home, *base.cells, signal={"normalise": "whiten"})
    assert tune().signal.normalise is not None
    with pytest.raises(RecipeError):
        tune(finetune={"sessions": 1})


def test_a_single_model_is_no_run_to_be_tuned(home, trained_run):
    model = next(trained_run.glob("cells/*/model"))
    fields = {"mode": "finetune", "finetune": {"run": str(model)}}
    with pytest.raises(RecipeError):
        find_base_run(Recipe.resolve("train-align", None, fields, []))
