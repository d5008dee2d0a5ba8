"""The stimuli of the Natural Scenes Dataset: 73,000 squares of COCO, 1000 of them seen by all subjects."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.damage import RAISED, reading
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import files_called
from brainhive_cli.core.recipe import Numbers, Paths
from brainhive_cli.core.results import Need, need_files
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets import StimulusDataset
from brainhive_cli.data.published_data import PUBLISHED, fetch_line, name_nsd_picture
from brainhive_cli.data.stores import hdf5, pickles
from brainhive_cli.data.stores.hdf5 import open_numbers
from brainhive_cli.data.stores.ids import Names

STIMULI, INFO = "nsd_stimuli.hdf5", "nsd_stim_info_merged.csv"
BYTES = 73_000 * 425 * 425 * 3
"""Size of the pictures."""
CURATED = "COCO_73k_annots_curated.npy"
"""MindEye1's captions, [73000, 5] strings by 73k id; '' where there are fewer."""
CAPTIONS, OWN = 5, 9_000
"""Captions of a picture; training pictures of a subject, which nobody else saw."""
CAPTION_SOURCE = f"hf download pscotti/naturalscenesdataset {CURATED} --repo-type dataset --local-dir"
SPLITS = ("train", "test")
SOURCE = fetch_line("nsd")


class Config(parts.Config):
    """NSD's pictures, 425 × 425 pixels.

    `test` is the 1000 pictures that all subjects saw, `train` the others. A picture's id is its 73k id, as
    NSD's own file names have it (`nsd02951`, counted from 1). Each picture is a concept of its own.
    Captions are COCO's: those of COCO_73k_annots_curated.npy anywhere below the folder.
    """

    root: str = Field("", description="folder of the data set; default: nsd below paths.data")
    subjects: Numbers | None = Field(
        None,
        description="only what these subjects were shown, 10,000 pictures each, in stores of their own; "
        "default: all 73,000",
    )

    def build(self, paths: Paths) -> StimulusDataset:
        """Point at the data; nothing is read yet."""
        # subjects, each with stores of their own
        chosen = sorted(set(self.subjects or ()))
        if absent := [subject for subject in chosen if subject not in range(1, 9)]:
            raise RecipeError(f"nsd has no subject {absent[0]}", "it has 1 to 8")
        root, name = paths.dataset("nsd", self.root), "-".join(map(str, ["nsd", *chosen]))
        listed, published = partial(_images, root, name, chosen), PUBLISHED["nsd"]
        if chosen:  # whose training pictures are those of nobody else
            published = replace(published, stimuli={**published.stimuli, "train": OWN * len(chosen)})
        return StimulusDataset(
            name, SPLITS, listed, "nsd", published_sizes=published, files=partial(_files, root)
        )


TINY = Config()


def _files(root: Path, split: str, reads: str) -> list[Need]:
    """List the files of a split that hold `reads`."""
    if reads == "captions":
        return [need_files(files_called(CURATED, root), CURATED, root, f"{CAPTION_SOURCE} {root}")]
    sizes = {STIMULI: BYTES, INFO: None}
    return [need_files(files_called(name, root), name, root, SOURCE, size) for name, size in sizes.items()]


def _read_picture(path: Path, rows: NDArray[np.int64], index: int) -> Image.Image:
    """Read a picture of `imgBrick` [73000, 425, 425, 3]; the file is closed again afterwards."""
    row = int(rows[index])
    try:
        with h5py.File(path, "r") as file:
            return Image.fromarray(open_numbers(file, "imgBrick", "u")[row])
    except RAISED as error:
        raise datasets.bad_picture(f"{name_nsd_picture(row)} in {path}", error) from error


def _images(root: Path, name: str, subjects: Sequence[int], split: str) -> datasets.StimulusSet:
    """List the pictures of a split that the subjects were shown; captions where their file is there."""
    # the brick of pictures, which stays on disk
    datasets.check_split(name, split, SPLITS)
    path = _find(root, STIMULI)
    with hdf5.open_file(path, SOURCE, MissingData) as file:
        bricks = open_numbers(file, "imgBrick")
        if bricks.ndim != 4 or bricks.dtype != np.uint8:
            raise ValueError(f"imgBrick is {bricks.dtype} {list(bricks.shape)}, not bytes [N, H, W, 3]")
        count = len(bricks)

    # pictures that all subjects saw are the test
    shared, shown = _read_rows(root, subjects)
    if not shared or not 0 <= min(shown) <= max(shown) < count:
        problem = f"{path} has {count} pictures, but not those {len(shared)} that all subjects saw"
        raise BrainhiveError(problem, SOURCE)
    is_shared, is_shown = (np.isin(np.arange(count), rows) for rows in (shared, shown))
    rows = np.flatnonzero((is_shared == (split == "test")) & is_shown)  # [N] of imgBrick
    image_ids = Names.of(map(name_nsd_picture, rows.tolist()))
    images = datasets.StimulusSet(name, split, image_ids, image_ids, partial(_read_picture, path, rows))

    files = files_called(CURATED, root)
    if not files:
        return replace(images, absent={"captions": f"{CAPTION_SOURCE} {root}"})
    return replace(images, captions=partial(_list_captions, files[0], rows), captions_each=CAPTIONS)


def _list_captions(path: Path, rows: NDArray[np.int64], index: int) -> list[str]:
    """List the captions of a picture, in their order."""
    texts, row = _map_captions(path), int(rows[index])
    return [text for text in map(str, texts[row]) if text] if row < len(texts) else []


@cache
def _map_captions(path: Path) -> NDArray[Any]:
    """Map the captions [73000, 5], strings."""
    with reading(path, f"{CAPTION_SOURCE} {path.parent}"):
        texts = pickles.array(pickles.load(path))
        if texts.ndim != 2 or texts.dtype.kind not in "UO":
            raise ValueError(f"it holds {texts.dtype} {list(texts.shape)}, not strings [N, K]")
        return texts


def _read_rows(root: Path, subjects: Sequence[int]) -> tuple[list[int], list[int]]:
    """Read the rows that all subjects saw, and those that any of `subjects` saw: all without subjects."""
    path = _find(root, INFO)
    with reading(path, SOURCE), path.open(newline="", encoding="utf-8") as file:
        # a subject's column has the trial of the first repetition, 0 where there was none
        table = list(csv.DictReader(file))
        shown = [
            int(row["nsdId"])
            for row in table
            if not subjects or any(int(row[f"subject{subject}_rep0"]) for subject in subjects)
        ]
        return [int(row["nsdId"]) for row in table if row["shared1000"] == "True"], shown


def _find(root: Path, name: str) -> Path:
    for path in files_called(name, root):
        return path
    raise MissingData(f"nsd: no {root}/**/{name}", SOURCE)
