"""Pictures are decoded once for all encoders, and with few file descriptors."""

import multiprocessing
import os
import pickle
import resource
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media import BadPicture, decode_batches, stimuli
from brainhive_cli.data.media.decoding import SHARED_MEMORY, SentBatch, read_batches

COUNT = 150
BAD = 7


def image_set(log):
    """Make pictures whose grey level is their row. Opening one is logged."""

    def open_picture(row):
        with log.open("a") as lines:
            lines.write(f"{row}\n")
        if row == BAD:
            raise BadPicture(f"picture {row}")
        return Image.new("RGB", (4, 4), (row, row, row))

    names = Names.of(map(str, range(COUNT)))
    return stimuli.StimulusSet("greys", "train", names, names, open_picture)


def corner(picture):
    return torch.tensor(picture.getpixel((0, 0)))


VIEWS = {"plain": corner, "double": lambda picture: 2 * corner(picture)}


@pytest.mark.parametrize("workers", [0, 2])
def test_each_picture_is_decoded_once_for_all_encoders(tmp_path, workers):
    rows = np.arange(10, COUNT)
    requested_rows = {
        "plain": np.arange(COUNT) % 2 == 0,
        "double": np.arange(COUNT) % 3 == 0,
    }
    rows = np.append(rows, BAD)
    requested_rows["plain"][BAD] = True

    n_read, problems = 0, []
    decoded = {name: {} for name in VIEWS}
    for batch in decode_batches(
        rows, image_set(tmp_path / "log"), VIEWS, requested_rows, 8, workers
    ):
        n_read += batch.n_read
        problems += batch.problems
        for name, views in batch.views.items():
            decoded[name] |= {
                int(r): v.clone() for r, v in zip(batch.rows[name], views, strict=True)
            }

    counts = Counter((tmp_path / "log").read_text().split())
    assert counts == Counter(map(str, rows))
    assert (n_read, problems) == (len(rows), [f"picture {BAD}"])
    for name, factor in (("plain", 1), ("double", 2)):
        assert sorted(decoded[name]) == [
            row for row in rows[:-1] if requested_rows[name][row]
        ]
        assert all(
            torch.equal(view, torch.full((3,), factor * row))
            for row, view in decoded[name].items()
        )


def test_many_pictures_take_few_file_descriptors(tmp_path):
    initial_getrlimit = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = (
        len(list(Path("/proc/self/fd").iterdir()))
        if Path("/proc/self/fd").is_dir()
        else 100
    )
    ones_by_name = {name: np.ones(COUNT, bool) for name in VIEWS}
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 40, initial_getrlimit[1]))
    try:
        batches = list(
            decode_batches(
                np.arange(COUNT),
                image_set(tmp_path / "log"),
                VIEWS,
                ones_by_name,
                50,
                1,
            )
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, initial_getrlimit)

    assert sum(len(batch.rows["plain"]) for batch in batches) == COUNT - 1


@pytest.fixture
def little_memory():
    """Refuse shared memory of more than 1 kB, as a full /dev/shm does."""
    initial_getrlimit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, initial_getrlimit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, initial_getrlimit)
    # torch leaves the file whose space was refused
    for file in Path(SHARED_MEMORY).glob(f"torch_{os.getpid()}_*"):
        file.unlink()


@pytest.fixture
def long_folder(tmp_path, monkeypatch):
    """Use a temporary folder whose path is too long for a socket."""
    settings = multiprocessing.current_process()._config
    monkeypatch.setitem(settings, "tempdir", str(tmp_path / ("x" * 150)))


@pytest.mark.parametrize("obstacle", [None, "little_memory", "long_folder"])
def test_tensors_are_copied_if_they_cannot_be_shared(request, obstacle):
    if obstacle:
        request.getfixturevalue(obstacle)
    batch = torch.arange(6000.0).reshape(2, 3, -1), {"masks": torch.ones(3) > 0}

    views, masks = pickle.loads(pickle.dumps(SentBatch(batch)))

    assert views.is_shared() == (obstacle is None)
    assert torch.equal(views, batch[0])
    assert torch.equal(masks["masks"], batch[1]["masks"])


def test_a_batch_that_cannot_be_pickled_ends_with_an_error():
    def read_rows(rows):
        return lambda: rows

    with pytest.raises(Exception, match="pickle"):
        list(read_batches(read_rows, 4, [[0, 1], [2, 3]], workers=1, pinned=False))
