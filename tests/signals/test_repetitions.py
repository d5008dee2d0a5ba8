"""Which repetitions a training sample is made of."""

import torch

from brainhive_cli.signals.repetitions import shuffle_repetitions


def test_each_draw_takes_so_many_of_those_that_are_there_each_once():
    signal = torch.arange(1.0, 6).expand(400, 5)[..., None, None].clone()  # the value names the repetition
    count = torch.tensor([5, 3, 2, 1]).repeat(100)
    signal[torch.arange(5) >= count[:, None]] = torch.nan

    taken, left = shuffle_repetitions(signal, count, 2, torch.Generator().manual_seed(0))

    assert taken.shape == (400, 2, 1, 1) and torch.equal(left, count.clamp(max=2))
    for number in (5, 3, 2):
        drawn = taken[count == number].flatten(1)
        assert drawn.isfinite().all() and (drawn[:, 0] != drawn[:, 1]).all()
        assert set(drawn.flatten().tolist()) == set(range(1, number + 1))  # all come up
    assert (taken[count == 1, 0] == 1).all()
