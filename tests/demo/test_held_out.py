"""The data set that settings of the demo are chosen on: nothing of the demo's test pictures is in it."""

import numpy as np

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import demo
from brainhive_cli.training.alignment.validation import held_out_of
from tools.demo_world import held_out


def test_it_tests_what_train_align_holds_out_and_trains_on_the_rest() -> None:
    shipped = demo.Config().build(Paths()).images("train")
    train, test = (held_out.Config().build(Paths()).images(split) for split in demo.SPLITS)

    is_held = held_out_of(list(shipped.concepts), 0.1)
    assert set(test.image_ids) == {
        name for name, held in zip(shipped.image_ids, is_held, strict=True) if held
    }
    assert {*train.image_ids, *test.image_ids} == {*shipped.image_ids} and len(train) == 864
    assert not {*train.concepts} & {*test.concepts}
    assert {*list(test.concepts)[:40]} == {*test.concepts}


def test_its_signals_are_no_trials_of_the_demos_test_pictures() -> None:
    tested = demo.Config(space="voxels").build(Paths()).recording(1, "test")
    chosen_on = held_out.Config().build(Paths()).recording(1, "test")

    assert chosen_on.signal.shape[1:] == tested.signal.shape[1:]
    noise = [recording.signal[:96, 0] - recording.signal[:96, 1] for recording in (tested, chosen_on)]
    assert abs(np.corrcoef(*(some.ravel() for some in noise))[0, 1]) < 0.1
