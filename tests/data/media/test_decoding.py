"""Pictures are decoded once for all encoders, and with few file descriptors."""

import resource
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media import stimuli
from brainhive_cli.data.media.decoding import decode_batches
from brainhive_cli.data.media.pictures import BadPicture
from brainhive_cli.data.media.stimuli import StimulusSet

COUNT = 150
BAD = 7


def image_set(log: Path) -> StimulusSet:
    """Make pictures whose grey level is their row. Opening one is logged."""

    def opened(row: int) -> Image.Image:
        with log.open("a") as lines:
            lines.write(f"{row}\n")
        if row == BAD:
            raise BadPicture(f"picture {row}")
        return Image.new("RGB", (4, 4), (row, row, row))

    names = Names.of(map(str, range(COUNT)))
    return stimuli.StimulusSet("greys", "train", names, names, opened)


def corner(picture: Image.Image) -> Tensor:
    return torch.tensor(picture.getpixel((0, 0)))


VIEWS = {"plain": corner, "double": lambda picture: 2 * corner(picture)}


@pytest.mark.parametrize("workers", [0, 2])
def test_each_picture_is_decoded_once_for_all_encoders(tmp_path, workers):
    rows = np.arange(10, COUNT)
    wanted = {"plain": np.arange(COUNT) % 2 == 0, "double": np.arange(COUNT) % 3 == 0}
    rows = np.append(rows, BAD)
    wanted["plain"][BAD] = True

    n_read, problems = 0, []
    found: dict[str, dict[int, Tensor]] = {name: {} for name in VIEWS}
    for batch in decode_batches(
        rows, image_set(tmp_path / "log"), VIEWS, wanted, 8, workers
    ):
        n_read += batch.n_read
        problems += batch.problems
        for name, views in batch.views.items():
            found[name] |= {
                int(r): v.clone() for r, v in zip(batch.rows[name], views, strict=True)
            }

    opened = Counter((tmp_path / "log").read_text().split())
    assert opened == Counter(map(str, rows))
    assert (n_read, problems) == (len(rows), [f"picture {BAD}"])
    for name, factor in (("plain", 1), ("double", 2)):
        assert sorted(found[name]) == [row for row in rows[:-1] if wanted[name][row]]
        assert all(
            torch.equal(view, torch.full((3,), factor * row))
            for row, view in found[name].items()
        )


def test_many_pictures_take_few_file_descriptors(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = (
        len(list(Path("/proc/self/fd").iterdir()))
        if Path("/proc/self/fd").is_dir()
        else 100
    )
    wanted = {name: np.ones(COUNT, bool) for name in VIEWS}
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 40, before[1]))
    try:
        batches = list(
            decode_batches(
                np.arange(COUNT), image_set(tmp_path / "log"), VIEWS, wanted, 50, 1
            )
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert sum(len(batch.rows["plain"]) for batch in batches) == COUNT - 1
