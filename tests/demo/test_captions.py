"""Captions of drawn pictures: five each, of what is shown and never of where in the picture it is."""

from dataclasses import replace

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import demo
from brainhive_cli.demo.pictures import CAPTIONS_EACH, captions, scenes

SHOWN = scenes("train")[0]


def test_each_picture_of_the_data_set_has_five_different_captions() -> None:
    images = demo.Config().build(Paths()).images("test")

    found = images.captions_of(3)

    assert found == captions(scenes("test")[3])
    assert len(found) == len(set(found)) == CAPTIONS_EACH == images.captions_each


def test_together_they_name_every_factor_and_not_all_name_each() -> None:
    found = captions(SHOWN)
    for word in (SHOWN.shape, SHOWN.colour, SHOWN.texture):
        assert any(word in caption for caption in found)
    assert not all(SHOWN.texture in caption for caption in found)
    assert not all(SHOWN.shape in caption for caption in found)


def test_they_do_not_tell_place_and_size() -> None:
    assert captions(replace(SHOWN, x=0.1, y=0.9, size=0.3)) == captions(SHOWN)


def test_an_orange_thing_has_its_article() -> None:
    assert "an orange" in captions(replace(SHOWN, colour="orange"))[1]
