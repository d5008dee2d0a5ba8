"""The stimuli of the Natural Scenes Dataset: 73,000 squares of COCO, 1000 of them seen by all subjects."""

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from brainhive_cli import datasets
from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.datasets._pictures import Pictures
from brainhive_cli.stores import hdf5
from brainhive_cli.stores.damage import RAISED, described
from brainhive_cli.stores.ids import Names
from brainhive_cli.stores.mapping import numbers

STIMULI, INFO = "nsd_stimuli.hdf5", "nsd_stim_info_merged.csv"
SPLITS = ("train", "test")
SOURCE = (
    "sign the agreement of naturalscenesdataset.org, then fetch nsddata_stimuli/stimuli/nsd and "
    "nsddata/experiments/nsd into that folder"
)


class Config(parts.Config):
    """NSD's pictures, 425 × 425 pixels.

    `test` is the 1000 pictures that all subjects saw, `train` the others. A picture's id is its 73k id, as
    NSD's own file names have it (`nsd02951`, counted from 1). Each picture is a concept of its own.
    """

    root: str = Field("", description="folder of the data set; default: nsd below paths.data")

    def build(self, paths: Paths) -> Pictures:
        """Point at the data; nothing is read yet."""
        root = paths.dataset("nsd", self.root)
        return Pictures("nsd", SPLITS, partial(_images, root), paths.under_home("signals"))


TINY = Config()


@dataclass(frozen=True)
class Bricks:
    """Opens pictures of `imgBrick` [73000, 425, 425, 3], uint8; the file is open no longer than that takes.

    Attributes:
        rows: [N] row of each picture.
    """

    path: Path
    rows: NDArray[np.int64]

    def __call__(self, index: int) -> Image.Image:
        """Read a picture."""
        row = int(self.rows[index])
        try:
            with h5py.File(self.path, "r") as file:
                return Image.fromarray(numbers(file, "imgBrick", "u")[row])
        except RAISED as error:
            raise datasets.bad_picture(f"{_image_id(row)} in {self.path}", error) from error


def _images(root: Path, split: str) -> datasets.StimulusSet:
    datasets.check_split("nsd", split, SPLITS)
    path = _find(root, STIMULI)
    with hdf5.open_file(path, SOURCE, MissingData) as file:
        bricks = numbers(file, "imgBrick")
        if bricks.ndim != 4 or bricks.dtype != np.uint8:
            raise ValueError(f"imgBrick is {bricks.dtype} {list(bricks.shape)}, not bytes [N, H, W, 3]")
        is_test = np.zeros(len(bricks), bool)
    shared = _shared(root)
    if not shared or not 0 <= min(shared) <= max(shared) < len(is_test):
        raise BrainhiveError(
            f"{path} has {len(is_test)} pictures, but not those {len(shared)} that all subjects saw", SOURCE
        )
    is_test[shared] = True
    rows = np.flatnonzero(is_test == (split == "test"))
    image_ids = Names.of(map(_image_id, rows.tolist()))
    return datasets.StimulusSet("nsd", split, image_ids, image_ids, Bricks(path, rows))


def _image_id(row: int) -> str:
    return f"nsd{row + 1:05d}"


def _shared(root: Path) -> list[int]:
    """Read which rows all subjects saw."""
    path = _find(root, INFO)
    with described(path, SOURCE), path.open(newline="", encoding="utf-8") as file:
        return [int(row["nsdId"]) for row in csv.DictReader(file) if row["shared1000"] == "True"]


def _find(root: Path, name: str) -> Path:
    found = sorted(root.rglob(name))
    if not found:
        raise MissingData(f"nsd: no {root}/**/{name}", SOURCE)
    return found[0]
