"""The job of train-align: the recipe is resolved once, and does not travel through the package."""

import importlib
import sys
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import brainhive_cli
from brainhive_cli.commands import train_align
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Section
from brainhive_cli.training.alignment.job import Job
from brainhive_cli.training.alignment.recipe import Recipe

PACKAGE = Path(brainhive_cli.__file__).parent


def entered(recipe: Recipe, kind: type) -> set[str]:
    """Check and run a recipe; list the files of the package in which a call has an argument of a kind."""
    found: dict[str, set[str]] = defaultdict(set)

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(PACKAGE)):
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if any(isinstance(frame.f_locals.get(name), kind) for name in names):
                found[str(Path(code.co_filename).relative_to(PACKAGE))].add(code.co_name)

    sys.setprofile(watch)
    try:
        train_align.inputs(recipe)
        train_align.run(recipe, Launch(0, 1, torch.device("cpu")))
    finally:
        sys.setprofile(None)
    return set(found)


@pytest.mark.parametrize(("kind", "most"), [(Recipe, 8), (Section, 22)])
def test_the_recipe_and_its_sections_enter_few_files(world, small, runs, kind, most):
    overrides = (*small, "subjects=1", "train.epochs=1", runs)
    recipe = Recipe.resolve("train-align", None, {}, overrides)

    files = entered(recipe, kind)

    assert "commands/train_align.py" in files and len(files) <= most, sorted(files)


def test_the_variants_of_a_sweep_are_validated_once(world, small, monkeypatch):
    recipe = Recipe.resolve("train-align", None, {}, (*small, "sweep.train.lr=1e-3,2e-3"))
    sweep, validated = importlib.import_module("brainhive_cli.core.sweep"), []
    validate = sweep.validate
    monkeypatch.setattr(sweep, "validate", lambda *given: validated.append(given) or validate(*given))
    job = Job.resolve(recipe)

    cells, stores = job.list_cells(), job.open_stores()
    job.check()

    assert len(validated) == len(job.variants) == 2 and cells and stores and job.inputs()


def test_reading_a_recipe_loads_no_weights(world, small, prior, monkeypatch):
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were read")

    for name in ("safetensors.torch.load_file", "torch.load"):
        monkeypatch.setattr(name, refused)

    recipe = Recipe.resolve("train-align", None, {}, (*small, f"prior={prior}"))

    assert Job.resolve(recipe).describe_priors().keys() == {str(prior)}


def test_what_names_a_run_is_read_whole_or_not_at_all(world, small, monkeypatch):
    def damaged(*_: Any) -> None:
        raise BrainhiveError("a store is damaged", "embed again")

    job = Job.resolve(Recipe.resolve("train-align", None, {}, small))
    monkeypatch.setattr(importlib.import_module(Job.__module__), "store_inputs", damaged)

    assert "a store is damaged" in describe_missing(job.inputs())[0]
    with pytest.raises(BrainhiveError, match="a store is damaged"):
        job.digests()


def test_what_names_a_run_looks_for_no_weights(world, small, monkeypatch):
    def refused(*_: Any) -> None:
        raise AssertionError("weights were looked for, which may ask the hub")

    job = Job.resolve(Recipe.resolve("train-align", None, {}, small))
    monkeypatch.setattr(importlib.import_module(Job.__module__), "list_start_inputs", refused)

    digests = job.digests()
    assert digests and all(name.startswith("signals ") for name in digests)
