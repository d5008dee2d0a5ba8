"""Tokens of all fusers on fixed embeddings, compared with recorded values."""

from typing import Any

import pytest
import torch
from torch import Tensor

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.models import (
    Adapter,
    ChannelMixing,
    FusionEncoder,
    ResidualMLP,
    build_residual_stack,
    fusers,
)
from tests.tools.network_digests import digest, disturb, gradient_norm, parameters

pytestmark = pytest.mark.usefixtures("doubles")
UNEQUAL, EQUAL = {"b": 4, "a": 6, "c": 5}, {"b": 6, "a": 6, "c": 6, "d": 6}
CASES: dict[str, tuple[Any, dict[str, int]]] = {
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


@pytest.mark.parametrize("case", CASES)
def test_tokens(recorded, case: str) -> None:
    config, dims = CASES[case]
    dim = config.token_dim(dims, 7)
    fuser: Any = fusers.build_fuser(config, dims, dim, subjects=3)
    numbers = {"made": parameters(fuser), "dim": dim, "signal": config.signal_width}
    disturb(fuser)
    embeddings = {key: torch.randn(5, width) for key, width in dims.items()}
    # in another order
    embeddings = {key: embeddings[key] for key in sorted(embeddings, reverse=True)}
    numbers["evaluated"] = digest(fuser.eval()(embeddings))
    torch.manual_seed(1)
    subjects = (torch.tensor([2, 0, 2, 1, 0]),) if config.takes_subjects else ()
    learned = fuser.train()(embeddings, *subjects)
    numbers["learned"] = digest(learned)
    if isinstance(learned, Tensor) and learned.requires_grad:
        numbers["gradient"] = gradient_norm(learned, fuser)
    if hasattr(fuser, "of_signal"):
        signal = torch.randn(3, config.signal_width or dim)
        numbers["signals"] = digest(fuser.of_signal(signal))
    recorded(6, **numbers)


def test_blocks(recorded) -> None:
    mixing, adapted = ChannelMixing(3, 4), torch.nn.Sequential(torch.nn.Linear(4, 5))
    encoder = FusionEncoder({"b": 4, "a": 6}, 5, 7, dropout=0.3, depth=2)
    stack = build_residual_stack(4, 6, 0.2, 3)
    adapter = Adapter({"0": (5, 4)}, 2, 3.0)
    numbers = {"made": [parameters(m) for m in (mixing, encoder, stack, adapter)]}
    for module in (mixing, encoder, stack, adapter, block := ResidualMLP(4, 6, 0.4)):
        disturb(module)
    signal, subject = torch.randn(5, 4, 6), torch.tensor([2, 0, 1, 1, 0])
    numbers["mixed"] = digest([mixing(signal, subject), mixing(signal, None)])
    numbers["plain"] = digest(adapted(signal.mT))
    adapter.attach(adapted)
    numbers["adapted"] = digest(adapted(signal.mT))
    # an adapter that is attached later takes the place of the first
    adapter.attach(adapted)
    numbers["again"] = digest(adapted(signal.mT))
    embeddings = {"a": torch.randn(3, 6), "b": torch.randn(3, 4)}
    torch.manual_seed(1)
    for mode in (True, False):
        for module in (encoder, stack, block):
            module.train(mode)
        found = [encoder(embeddings), stack(signal.mT), block(signal.mT)]
        numbers[f"training {mode}"] = digest(found)
    recorded(6, **numbers)


@pytest.mark.parametrize("kind", ["mean", "levels", "router"])
def test_embeddings_of_unequal_widths_have_no_common_one(kind: str) -> None:
    with pytest.raises(RecipeError) as caught:
        config = fusers.TINY[kind]
        fusers.build_fuser(config, UNEQUAL, config.token_dim(UNEQUAL, 7), 1)
    assert "6" in str(caught.value) and caught.value.hint
    with pytest.raises(RecipeError):
        fusers.build_fuser(fusers.LinearConfig(join="mean"), UNEQUAL, 7, 1)
