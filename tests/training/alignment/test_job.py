"""The job of train-align: the recipe is resolved once, and does not travel through the
package.
"""

import importlib
from typing import Any

from brainhive_cli.training.alignment.job import Job
from brainhive_cli.training.alignment.recipe import Recipe


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
