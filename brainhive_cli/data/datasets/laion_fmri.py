"""The pictures of LAION-fMRI, in train and test as one of the publisher's split files has them."""

from collections import defaultdict
from dataclasses import replace
from functools import partial
from io import BytesIO
from operator import getitem
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from pydantic import Field

from brainhive_cli.core import documents, parts
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.damage import reading
from brainhive_cli.core.inputs import Input
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import datasets
from brainhive_cli.data import published_data as published
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.ids import Names

NAME, SPLITS = "laion-fmri", ("train", "test")
SOURCE = published.fetch_line(NAME)
DEFAULT = ("shared", "random_0")
"""Pool and split whose stores have the plain name."""
# files of pictures, of their names and of captions, as the publisher calls them
PICTURES, METADATA = "task-images_stimuli.h5", "task-images_metadata.csv"
CAPTIONS = "task-images_desc-captions.csv"
SPLIT_FILES = "copy laion_fmri/splits/data of the publisher's package into that folder, as splits"


class Config(parts.Config):
    """LAION-fMRI's pictures, by the split files of its publisher, which lie in splits/POOL/NAME.json.

    A picture's id is the name of its file without the last suffix, and each picture is a concept of its own.
    Other splits than the default are data sets with stores of their own, as `laion-fmri-sub-01-tau`.
    """

    root: str = Field("", description="folder of the data set; default: laion-fmri below paths.data")
    pool: str = Field(
        DEFAULT[0],
        pattern=r"^(shared|pooled|sub-\d\d)$",
        description="shared: what all subjects saw; pooled: all pictures of all subjects, who may be trained "
        "together on either; sub-01 and so on: all pictures of that subject, for whom alone it is",
    )
    split: str = Field(
        DEFAULT[1],
        pattern=r"^\w+$",
        description="file of the pool: tau, cluster_k5_0 to cluster_k5_4, or, not of `pooled`, random_0 to "
        "random_4 or ood",
    )

    @property
    def name(self) -> str:
        """The name of stores of this split."""
        words = self.pool, self.split
        return NAME if words == DEFAULT else "-".join([NAME, *words])

    def read_split(self, root: Path) -> tuple[dict[str, str], Path]:
        """Read the split of each picture from the user's copy of the split files; return the file, too.

        Raises:
            MissingData: if it is not there, or is no split.
        """
        folder = f"splits/**/{self.pool}"
        split_names = sorted(path.stem for path in root.glob(f"{folder}/*.json"))
        way_out = SPLIT_FILES
        if split_names:
            way_out = f"dataset.split={split_names[-1]}, of {', '.join(split_names)}"
        path = published.find_file(root, f"{folder}/{self.split}.json", way_out)

        # the first variant of the split, in which each picture is once
        with reading(path, SPLIT_FILES):
            variant: Any = documents.read(path, hint=SPLIT_FILES)["variants"][0]
            labels = [(label, split) for split in SPLITS for label in variant[f"{split}_ids"]]
            split_of = {published.cut_ending(label): split for label, split in labels}
            if len(split_of) < len(labels):
                raise ValueError("it has a picture twice")
        return split_of, path

    def build(self, paths: Paths) -> datasets.Dataset:
        """Point at the data; nothing is read yet."""
        listed = partial(_images, paths.dataset(NAME, self.root), self)
        return datasets.Dataset(
            self.name,
            SPLITS,
            listed,
            pictures=NAME,
            published_sizes=published.PUBLISHED.get(self.name),
            files=lambda split, _: [Input.of(f"{self.name}: {split} pictures", partial(listed, split))],
        )


TINY = Config()


def _images(root: Path, config: Config, split: str) -> datasets.StimulusSet:
    """List the pictures of a split, with captions where their file is there."""
    datasets.check_split(config.name, split, SPLITS)
    split_of, _ = config.read_split(root)
    ids = Names.of(image_id for image_id, side in split_of.items() if side == split)

    # the row of each picture in the HDF5 file, by the table of names
    path, table = (published.find_file(root, name, SOURCE) for name in (PICTURES, METADATA))
    names = published.read_table(table, SOURCE, lambda row: published.cut_ending(row["image_name"]))
    with reading(table, SOURCE):
        row_of = {name: row for row, name in enumerate(names)}
        rows = np.array([row_of[image_id] for image_id in ids])  # [N]
    images = datasets.StimulusSet(config.name, split, ids, ids, partial(_read_picture, path, rows))
    if (captions := published.find_below(root, CAPTIONS)) is None:
        return replace(images, absent={"captions": f"get stimuli/{CAPTIONS}"})

    # captions of each picture in the order of their numbers
    texts = defaultdict(list)
    entries = published.read_table(
        captions,
        SOURCE,
        lambda row: (published.cut_ending(row["image_name"]), int(row["caption_idx"]), row["caption"]),
    )
    for name, _, text in sorted(entries):
        texts[name].append(text)
    lists = [texts[image_id] for image_id in ids]
    return replace(images, captions=partial(getitem, lists), captions_each=max(map(len, lists)))


def _read_picture(path: Path, rows: Int64, index: int) -> Image.Image:
    """Decode the file in a row of `images`; the HDF5 file is closed again afterwards."""
    name = f"row {rows[index]} of {path}"
    with datasets.decoding(name), h5py.File(path, "r") as file:
        content = hdf5.find_dataset(file, "images")[int(rows[index])]
        return datasets.decode(BytesIO(content.astype(np.uint8).tobytes()), name)
