"""The stimuli of the Natural Scenes Dataset: 73,000 squares of COCO, 1000 of them seen by all subjects."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Array, Int64
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import files_called
from brainhive_cli.core.inputs import Input
from brainhive_cli.core.recipe import Numbers, Paths
from brainhive_cli.data.datasets import Dataset, StimulusSet, check_split, decoding
from brainhive_cli.data.published_data import PUBLISHED, fetch_line, name_nsd_picture, read_table
from brainhive_cli.data.stores import hdf5, pickles
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

    def build(self, paths: Paths) -> Dataset:
        """Point at the data; nothing is read yet."""
        # subjects, each with stores of their own
        chosen = sorted(set(self.subjects or ()))
        if absent := [subject for subject in chosen if subject not in range(1, 9)]:
            raise RecipeError(f"nsd has no subject {absent[0]}", "it has 1 to 8")
        root, name = paths.dataset("nsd", self.root), "-".join(map(str, ["nsd", *chosen]))
        listed, published = partial(_images, root, name, chosen), PUBLISHED["nsd"]
        if chosen:  # whose training pictures are those of nobody else
            published = replace(published, stimuli={**published.stimuli, "train": OWN * len(chosen)})
        return Dataset(name, SPLITS, listed, "nsd", published_sizes=published, files=partial(_files, root))


TINY = Config()


def _files(root: Path, split: str, reads: str) -> list[Input]:
    """List the files of a split that hold `reads`."""
    if reads == "captions":
        return [Input.of_file(files_called(CURATED, root), root / CURATED, f"{CAPTION_SOURCE} {root}")]
    sizes = {STIMULI: BYTES, INFO: None}
    return [
        Input.of_file(files_called(name, root), root / name, SOURCE, size) for name, size in sizes.items()
    ]


def _read_picture(path: Path, rows: Int64, index: int) -> Image.Image:
    """Read a picture of `imgBrick` [73000, 425, 425, 3]; the file is closed again afterwards."""
    row = int(rows[index])
    with decoding(f"{name_nsd_picture(row)} in {path}"), h5py.File(path, "r") as file:
        return Image.fromarray(hdf5.open_numbers(file, "imgBrick", "u")[row])


def _images(root: Path, name: str, subjects: Sequence[int], split: str) -> StimulusSet:
    """List the pictures of a split that the subjects were shown; captions where their file is there."""
    # the brick of pictures, which stays on disk
    check_split(name, split, SPLITS)
    path = _find(root, STIMULI)
    with hdf5.open_file(path, SOURCE, MissingData) as file:
        bricks = hdf5.open_numbers(file, "imgBrick")
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
    images = StimulusSet(name, split, image_ids, image_ids, partial(_read_picture, path, rows))

    files = files_called(CURATED, root)
    if not files:
        return replace(images, absent={"captions": f"{CAPTION_SOURCE} {root}"})
    return replace(images, captions=partial(_list_captions, files[0], rows), captions_each=CAPTIONS)


def _list_captions(path: Path, rows: Int64, index: int) -> list[str]:
    """List the captions of a picture, in their order."""
    texts, row = _map_captions(path), int(rows[index])
    return [text for text in map(str, texts[row]) if text] if row < len(texts) else []


@cache
def _map_captions(path: Path) -> Array:
    """Map the captions [73000, 5], strings."""
    with reading(path, f"{CAPTION_SOURCE} {path.parent}"):
        texts = pickles.array(pickles.load(path))
        if texts.ndim != 2 or texts.dtype.kind not in "UO":
            raise ValueError(f"it holds {texts.dtype} {list(texts.shape)}, not strings [N, K]")
        return texts


def _read_rows(root: Path, subjects: Sequence[int]) -> tuple[list[int], list[int]]:
    """Read the rows that all subjects saw, and those that any of `subjects` saw: all without subjects."""

    def read_row(row: dict[str, str]) -> tuple[int, bool, bool]:
        # a subject's column has the trial of the first repetition, 0 where there was none
        is_shown = not subjects or any(int(row[f"subject{subject}_rep0"]) for subject in subjects)
        return int(row["nsdId"]), row["shared1000"] == "True", is_shown

    table = read_table(_find(root, INFO), SOURCE, read_row)
    shared = [row for row, is_shared, _ in table if is_shared]
    return shared, [row for row, _, is_shown in table if is_shown]


def _find(root: Path, name: str) -> Path:
    for path in files_called(name, root):
        return path
    raise MissingData(f"nsd: no {root}/**/{name}", SOURCE)
