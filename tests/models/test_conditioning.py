"""The conditioning of a generator, row by row."""

import pytest
import torch

from brainhive_cli.models.heads import Conditioning, Decoded


@pytest.mark.parametrize("rows", [slice(1, 3), [1, 2]])
def test_rows_are_taken_of_every_condition(rows):
    tokens, start = torch.randn(4, 2, 8), torch.randn(4, 4, 2, 2)
    given = Conditioning(tokens, texts=list("abcd"), start=start, decoded=Decoded({"token": tokens}))

    some = given[rows]

    assert (len(given), len(some)) == (4, 2)
    assert torch.equal(some.embeddings, tokens[1:3]) and torch.equal(some.start, start[1:3])
    assert some.texts == ["b", "c"] and some.images is None and some.masks is None
    assert torch.equal(some.decoded.tensors["token"], tokens[1:3])


def test_no_condition_has_no_rows():
    assert len(Conditioning()) == 0 and len(Conditioning()[:2]) == 0
