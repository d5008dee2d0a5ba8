"""The conditioning of a generator, row by row."""

import torch

from brainhive_cli.models.heads import Conditioning, Decoded


def test_rows_are_taken_of_every_condition():
    tokens, start = torch.randn(4, 2, 8), torch.randn(4, 4, 2, 2)
    given = Conditioning(tokens, texts=list("abcd"), start=start, decoded=Decoded({"token": tokens}))

    some = given[[1, 2]]

    assert (len(given), len(some), len(Conditioning()), len(given[1:])) == (4, 2, 0, 3)
    assert torch.equal(some.embeddings, tokens[1:3]) and torch.equal(some.start, start[1:3])
    assert some.texts == ["b", "c"] and some.images is None and some.masks is None
    assert torch.equal(some.decoded.tensors["token"], tokens[1:3])
