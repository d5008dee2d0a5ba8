"""Decoded heads: their rows are taken, joined and counted together."""

import torch

from brainhive_cli.models.decoded import Decoded


def made() -> Decoded:
    return Decoded({"token": torch.arange(6.0).view(3, 2)}, {"caption": ["a", "b", "c"]})


def test_rows_of_all_heads_are_taken_together() -> None:
    last, chosen = made()[1:], made()[[2, 0]]

    assert last.tensors["token"].tolist() == [[2, 3], [4, 5]] and last.texts == {"caption": ["b", "c"]}
    assert chosen.tensors["token"].tolist() == [[4, 5], [0, 1]] and chosen.texts == {"caption": ["c", "a"]}
    assert (len(made()), len(last), len(Decoded({}))) == (3, 2, 0)


def test_parts_are_joined_in_their_order() -> None:
    whole = made()

    joined = Decoded.join([whole[:2], whole[2:]])

    assert torch.equal(joined.tensors["token"], whole.tensors["token"]) and joined.texts == whole.texts
