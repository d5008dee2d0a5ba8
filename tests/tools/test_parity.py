"""Whole trainings beside the authors' code, on planted data."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from scipy.stats import ttest_ind

from brainhive_cli.core.runs.result import Result
from tools.parity import comparison, planted, trainings

# its tiny diffusion model was trained by a script that is not there
WITHOUT_A_ROW = {"fusion_prior_training"}
LOSS_TOLERANCE = 0.06
"""Share of the authors' mean loss: their seeds lie within .05 of it in every epoch, and
theirs is computed in bf16.
"""


@pytest.fixture
def home(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the trainings, which change the working directory and variables."""
    monkeypatch.setattr(planted, "GOLDEN", golden)
    monkeypatch.setenv("BRAINHIVE_HOME", os.fspath(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_every_golden_training_has_a_row(golden):
    names = {path.stem for path in (golden / "trainings").glob("*.json")}
    files = {
        method.golden or name
        for name, method in trainings.METHODS.items()
        if (golden / "trainings" / f"{method.golden or name}.json").is_file()
    }
    assert files == names - WITHOUT_A_ROW


@pytest.mark.parametrize(
    "name", [name for name in trainings.METHODS if trainings.golden_path(name).exists()]
)
def test_recipes_have_the_settings_of_the_authors_training(name, home, monkeypatch):
    """Golden values: the settings of each training, and its learning rates where the
    authors change them on the way.
    """
    resolved: list[Any] = []

    def resolve(module: Any, *arguments: Any) -> Any:
        command, recipe, overrides = arguments
        resolved.append(module.Recipe.resolve(command, recipe, {}, overrides))
        return Result(folder=home)

    monkeypatch.setattr(trainings, "run", resolve)
    home.mkdir()
    figures = trainings.read_method_figures(name)
    settings = {**figures.settings, "run": os.fspath(home)}

    trainings.train_recipe(home, name, settings, [0])

    (recipe,) = resolved
    train = recipe.train
    compared = ("epochs", "batch_size", "weight_decay", "warmup_steps", "betas")
    for key in settings.keys() & compared:
        assert getattr(train, key) == pytest.approx(settings[key]), key
    if "lr" in settings:
        stage = train.stages[0] if train.stages else train
        rates = [entry.get("lr", settings["lr"]) for entry in figures.reference]
        # AlignVis' follow the validation loss: medians of its seeds differ by 3 %
        assert stage.lr == pytest.approx(np.median(rates), rel=0.05)
    if "temperature" in settings:
        scale = recipe.loss.build().scale(epoch=0).item()
        assert 1 / scale == pytest.approx(settings["temperature"], rel=1e-3)
    if "alpha" in settings:
        assert recipe.backbone.alpha == settings["alpha"]


@pytest.mark.nightly
def test_brain_diffusers_ridge_is_the_authors(golden, home):
    """Nothing is random. Z-scores divide by N here and by N - 1 there, which changes
    signals by 1e-3.
    """
    figures = trainings.read_method_figures("brain-diffuser")

    trained = trainings.train("brain-diffuser", figures, home, [0])

    (ours,), (theirs,) = trained.figures, figures.reference
    assert (ours["top1"], ours["top5"]) == (theirs["top1"], theirs["top5"])
    (path,) = trained.folder.glob("cells/*/model/model.safetensors")
    with safe_open(path, "pt") as file:
        (name,) = (key for key in file.keys() if ".weight." in key)  # noqa: SIM118
        weight = file.get_tensor(name)  # [V, outputs]
    first_ref_weight_first = figures.settings["ref_weight_first"]
    total = figures.settings["ref_weight_sum_abs"]
    assert weight.abs().sum().item() == pytest.approx(total, rel=1e-3)
    assert weight[: len(first_ref_weight_first), 0].tolist() == pytest.approx(
        first_ref_weight_first, rel=2e-3
    )


@pytest.mark.nightly
def test_brainhive_trains_as_the_authors(home):
    figures = trainings.read_method_figures("brainhive")

    trained = trainings.train("brainhive", figures, home, [1])

    theirs = np.mean([entry["loss"] for entry in figures.reference], 0)
    (ours,) = trained.figures
    assert ours["loss"] == pytest.approx(theirs, rel=LOSS_TOLERANCE)
    top1 = [entry["top1"] for entry in figures.reference]
    assert ours["top1"] == pytest.approx(np.mean(top1), abs=4 * np.std(top1, ddof=1))


def test_intervals_of_few_seeds_hold_the_difference():
    """Simulated: four seeds against five, of spreads that differ three times."""
    random = np.random.default_rng(0)
    ours = random.normal(0.25, 0.02, (4000, 4))
    theirs = random.normal(0.2, 0.06, (4000, 5))
    test = ttest_ind(ours, theirs, axis=1, equal_var=False)
    interval = test.confidence_interval(comparison.LEVEL)
    covered = (interval.low < 0.05) & (interval.high > 0.05)
    assert 0.935 < covered.mean() < 0.975

    compared = comparison.compare_means(ours[0], theirs[0])
    assert compared["interval"] == pytest.approx([interval.low[0], interval.high[0]])
    assert compared["difference"] == pytest.approx(ours[0].mean() - theirs[0].mean())


def test_curves_are_compared_where_all_seeds_have_epochs():
    curves = comparison.compare_curves([[5, 2, 1], [7, 4, 9]], [[6, 1], [8, 1]])
    assert curves == {"largest": 2.0, "epoch": 2, "ours": 3.0, "authors": 1.0}


def test_a_table_has_a_row_for_each_method():
    values = {"mean": 0.25, "sd": 0.02, "n": 3}
    top1 = {"ours": values, "authors": values, "difference": 0.0}
    row: dict[str, Any] = {
        "method": "nice",
        "seeds": {"ours": 3, "authors": 4},
        "top1": {**top1, "interval": [-0.1, 0.1]},
        "top5": top1,
        "seconds": 12.3,
    }
    *_, last_line = comparison.table([row]).splitlines()
    assert last_line == (
        "| nice | 4; 3 | 0.250 ± 0.020; 0.250 | 0.250 ± 0.020; 0.250 "
        "| +0.000 [-0.100, +0.100] | – | 12 |"
    )
    del row["top1"], row["top5"]
    assert comparison.table([row]).splitlines()[-1].count("–") == 4


def test_settings_fill_in_the_keys_of_a_method():
    keys = {"train": {"epochs": "$epochs"}, "overrides": ["train.lr=$lr", 3]}
    filled = trainings.fill_in(keys, {"epochs": 20, "lr": 0.1})
    assert filled == {"train": {"epochs": 20}, "overrides": ["train.lr=0.1", 3]}
