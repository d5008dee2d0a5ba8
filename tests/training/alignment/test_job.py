"""The job of train-align: the recipe is resolved once, and does not travel through the
package.
"""

import importlib
from typing import Any

import numpy as np
import pytest

from brainhive_cli import api
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.training.alignment.job import Job
from brainhive_cli.training.alignment.recipe import Recipe

TIMES_S = np.arange(20) / 100


def test_reading_a_recipe_loads_no_weights_and_what_names_a_run_looks_for_none(
    world, small, prior, monkeypatch
):
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were read, or looked for, which may ask the hub")

    for name in ("safetensors.torch.load_file", "torch.load"):
        monkeypatch.setattr(name, refused)
    recipe = Recipe.resolve("train-align", None, {}, (*small, f"prior={prior}"))
    assert Job.resolve(recipe).describe_priors().keys() == {str(prior)}

    monkeypatch.setattr(
        importlib.import_module(Job.__module__), "list_start_inputs", refused
    )
    digests = Job.resolve(Recipe.resolve("train-align", None, {}, small)).digests()
    assert digests and all(name.startswith("signals ") for name in digests)


@pytest.mark.parametrize(
    "other", [{"channels": ("A", "B", "D")}, {"rate_hz": 50.0, "times_s": TIMES_S * 2}]
)
def test_a_check_compares_the_signals_of_all_who_train_together(home, other):
    shown = ["cat", "dog"] * 10
    dataset = {"kind": "categories", "names": ["cat", "dog"]}
    axes = {"channels": ("A", "B", "C"), "times_s": TIMES_S, "unit": "µV"}
    for subject, more in ((1, {}), (2, other)):
        signal = np.random.default_rng(subject).normal(size=(20, 3, 20))
        runs = np.arange(20) // 5
        api.store_trials(signal, shown, dataset, subject, run=runs, **axes | more)
    dataset["holdout"] = {"by": "runs", "folds": 4}
    fields = {"dataset": dataset, "mode": "joint"}
    job = Job.resolve(Recipe.resolve("train-align", None, fields, []))
    with pytest.raises(BrainhiveError, match="subjects 1 and 2 differ in their s"):
        job.check()


@pytest.mark.nightly
@pytest.mark.parametrize("mode", ["intra", "joint"])
def test_a_fold_goes_on_without_a_subject_who_has_no_run_for_it(home, go, mode, capsys):
    dataset = {"kind": "categories", "names": ["cat", "dog"]}
    axes = {"channels": ("A", "B", "C"), "times_s": TIMES_S, "unit": "µV"}
    for subject, count in ((1, 4), (2, 3)):
        signal = np.random.default_rng(subject).normal(size=(5 * count, 3, 20))
        shown = (["cat", "dog"] * 10)[: len(signal)]
        runs = np.arange(len(signal)) // 5
        api.store_trials(signal, shown, dataset, subject, run=runs, **axes)
    dataset["holdout"] = {"by": "runs", "folds": 4}
    ridge = {"kind": "ridge", "alpha": "auto", "standardise": False}
    chosen = {"dataset": dataset, "mode": mode, "seeds": [0], "backbone": ridge}
    api.run("embed", dataset=dataset)
    trained = api.open_run(api.run("train-align", **chosen).folder)
    assert "subject 2 has none in fold 4" in " ".join(capsys.readouterr().err.split())
    tested = [(cell.tested_on, cell.fold) for cell in trained.cells]
    assert ((2,), 4) not in tested and len(tested) == {"intra": 7, "joint": 4}[mode]
    assert mode == "intra" or tested[-1] == ((1,), 4)
    evaluated = api.open_run(api.run("eval-retrieval", run=str(trained.path)).folder)
    assert evaluated.metrics()[0]["n"] > 0
