"""Tests of the photographs and their pieces."""

from itertools import combinations

from PIL import Image

from brainhive_cli.demo import photographs


def test_pieces_are_inside_of_photographs_and_never_overlap() -> None:
    boxes = []
    for things in photographs.PIECES.values():
        for thing, (name, left, top, side, columns, rows) in things.items():
            right, bottom = left + side * columns, top + side * rows
            boxes.append((thing, name, left, top, right, bottom))
            if name not in photographs.LIBRARY_PHOTOGRAPHS:
                with Image.open(photographs.FOLDER / f"{name}.jpg") as photograph:
                    assert right <= photograph.width and bottom <= photograph.height
    for first, second in combinations(boxes, 2):
        if first[1] == second[1]:
            width = min(first[4], second[4]) - max(first[2], second[2])
            height = min(first[5], second[5]) - max(first[3], second[3])
            assert min(width, height) <= 0, (first[0], second[0])


def test_test_things_are_no_training_things() -> None:
    train = photographs.PIECES["train"].keys()
    test = photographs.PIECES["test"].keys()
    assert not train & test and len(test) == 12

    pictures = photographs.cut_pictures("test")
    assert [name.split("/")[1] for name in pictures] == list(test)
    assert {picture.size for picture in pictures.values()} == {(128, 128)}
    assert len({picture.tobytes() for picture in pictures.values()}) == len(pictures)


def test_the_terms_of_each_photograph_are_stated() -> None:
    text = (photographs.FOLDER / "README").read_text()
    for things in photographs.PIECES.values():
        for name, *_ in things.values():
            assert name in text
