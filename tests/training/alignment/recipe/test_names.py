"""Names of training runs say how the runs differ."""

import pytest

from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.training.alignment.recipe import Recipe

FIELDS = {"dataset": "demo", "encoders": ["lite0", "vae"], "backbone": "nice"}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "demo-intra-nice-lite0+vae"),
        ({"mode": "inter", "backbone": "ridge"}, "demo-inter-ridge-lite0+vae"),
        (
            {"encoders": ["clip-h14", "synclr-b16", "lite0", "vae", "siglip2-alignet"]},
            "demo-intra-nice-clip-h14+synclr-b16+lite0+vae+1-more",
        ),
    ],
)
def test_the_name_of_a_run_says_what_differs(changes, name):
    recipe = Recipe.model_validate({**FIELDS, **changes})
    assert recipe.name_run(Paths()) == name
