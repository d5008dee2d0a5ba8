"""Tests of the photographs and their pieces."""

from itertools import combinations

from PIL import Image

from brainhive_cli.demo import photographs


def test_pieces_are_inside_of_photographs_and_never_overlap():
    boxes = []
    for objects in photographs.PIECES.values():
        for object_name, (
            name,
            left_px,
            top,
            side_px,
            columns,
            rows,
        ) in objects.items():
            right_px, bottom = left_px + side_px * columns, top + side_px * rows
            boxes.append((object_name, name, left_px, top, right_px, bottom))
            if name not in photographs.LIBRARY_PHOTOGRAPHS:
                with Image.open(photographs.FOLDER / f"{name}.jpg") as photograph:
                    assert right_px <= photograph.width
                    assert bottom <= photograph.height
    for first_box, second in combinations(boxes, 2):
        if first_box[1] == second[1]:
            width = min(first_box[4], second[4]) - max(first_box[2], second[2])
            height = min(first_box[5], second[5]) - max(first_box[3], second[3])
            assert min(width, height) <= 0, (first_box[0], second[0])


def test_test_things_are_no_training_things():
    train = photographs.PIECES["train"].keys()
    test = photographs.PIECES["test"].keys()
    assert not train & test
    assert len(test) == 12

    pictures = photographs.cut_pictures("test")
    assert [name.split("/")[1] for name in pictures] == list(test)
    assert {picture.size for picture in pictures.values()} == {(128, 128)}
    assert len({picture.tobytes() for picture in pictures.values()}) == len(pictures)


def test_the_terms_of_each_photograph_are_stated():
    text = (photographs.FOLDER / "README").read_text()
    for objects in photographs.PIECES.values():
        for name, *_ in objects.values():
            assert name in text
