"""lda decides between categories, and takes no other targets for them."""

import pytest
import torch
from layouts import spec_of

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.backbones.lda import Config
from brainhive_cli.models.heads import Head


def test_embeddings_of_pictures_are_no_labels():
    numbers = torch.arange(24) % 3
    signal = torch.randn(24, 4, 5, generator=torch.Generator().manual_seed(0))
    signal[torch.arange(24), numbers] += 4
    model = Config().build(spec_of(("a", "b", "c", "d"), 5), {"given": Head((3,))})
    labels = torch.eye(3)[numbers]

    model.fit(
        1,
        signal,
        lambda rows: {"given": labels[rows]},
        torch.zeros(24, dtype=torch.bool),
    )
    scores = model(signal, torch.zeros(24, dtype=torch.long))["given"]
    assert (scores.argmax(1) == numbers).float().mean() > 0.9
    with pytest.raises(RecipeError, match="given is no label"):
        model.fit(
            1,
            signal,
            lambda rows: {"given": labels[rows] + 0.1},
            torch.zeros(24, dtype=torch.bool),
        )
