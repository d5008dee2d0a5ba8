"""Tokens of all fusers on fixed embeddings, compared with recorded values."""

import pytest
import torch
from torch import Tensor

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.models import fusers
from tests.tools.network_digests import disturb, gradient_norm, parameters
from tests.worlds.number_rows import weighted_means

pytestmark = pytest.mark.usefixtures("doubles")
UNEQUAL = {"b": 4, "a": 6, "c": 5}
EQUAL = {"b": 6, "a": 6, "c": 6, "d": 6}
CASES = {
    "branches": (fusers.TINY["branches"], UNEQUAL),
    "concatenation": (fusers.TINY["concatenation"], UNEQUAL),
    "concatenation mapped": (
        fusers.ConcatenationConfig(normalise=False, signal_dim=5),
        UNEQUAL,
    ),
    "fusion-encoder": (fusers.TINY["fusion-encoder"], UNEQUAL),
    "heads": (fusers.TINY["heads"], UNEQUAL),
    "levels": (fusers.TINY["levels"], EQUAL),
    "levels alone": (fusers.LevelsConfig(learned=0, hidden=3, dropout=0.2), EQUAL),
    "linear": (fusers.TINY["linear"], UNEQUAL),
    "linear mean": (fusers.LinearConfig(join="mean", signal_dim=5), EQUAL),
    "mean": (fusers.TINY["mean"], EQUAL),
    "router": (fusers.TINY["router"], EQUAL),
    "router of three": (
        fusers.RouterConfig(hidden=5, signal_dim=5),
        dict.fromkeys("abc", 6),
    ),
}


def test_tokens(recorded):
    rows = {}
    for case, (config, dims) in CASES.items():
        torch.manual_seed(0)
        dim = config.token_dim(dims, 7)
        fuser = fusers.build_fuser(config, dims, dim, subjects=3)
        row = parameters(fuser) + [dim, config.signal_width]
        disturb(fuser)
        embeddings = {key: torch.randn(5, width) for key, width in dims.items()}
        # in another order
        embeddings = {key: embeddings[key] for key in sorted(embeddings, reverse=True)}

        evaluated = fuser.eval()(embeddings)
        torch.manual_seed(1)  # for the dropout
        fuser.train()
        if config.takes_subjects:
            learned = fuser(embeddings, torch.tensor([2, 0, 2, 1, 0]))
        else:
            learned = fuser(embeddings)

        row += weighted_means([evaluated, learned])
        if isinstance(learned, Tensor) and learned.requires_grad:
            row += [gradient_norm(learned, fuser)]
        if hasattr(fuser, "of_signal"):
            signal = torch.randn(3, config.signal_width or dim)
            row += weighted_means(fuser.of_signal(signal))
        rows[case] = row
    recorded(6, **rows)


@pytest.mark.parametrize("kind", ["mean", "levels", "router"])
def test_embeddings_of_unequal_widths_have_no_common_one(kind):
    with pytest.raises(RecipeError) as caught:
        config = fusers.TINY[kind]
        fusers.build_fuser(config, UNEQUAL, config.token_dim(UNEQUAL, 7), 1)
    assert "6" in str(caught.value)
    assert caught.value.hint
    with pytest.raises(RecipeError):
        fusers.build_fuser(fusers.LinearConfig(join="mean"), UNEQUAL, 7, 1)
