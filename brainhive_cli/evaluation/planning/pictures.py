"""Pictures that a planned study can show, with their concepts and embeddings."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Self

import numpy as np

from brainhive_cli.core.base import (
    BrainhiveError,
    Float32,
    MissingData,
    console,
    write_cell,
)
from brainhive_cli.core.files import Input, locate, show_value
from brainhive_cli.core.recipes import Paths
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.media import COPIES, confirm_near_copy, decode, find_candidates
from brainhive_cli.data.stores import TargetStore
from brainhive_cli.data.targets import Job as EmbedJob, Recipe as EmbedRecipe


@dataclass(frozen=True)
class PictureFolder:
    """Folder of pictures, with a subfolder for each concept.

    Attributes:
        reference: Folder, as the user has named it.
        job: Work of embedding all its splits with an encoder.
    """

    reference: str
    job: EmbedJob

    @classmethod
    def open(cls, reference: str, encoder: str, paths: Paths) -> Self:
        """Open a folder.

        Args:
            reference: Folder, as the user has named it.
            encoder: Name of the encoder of the pictures.
            paths: Folders of the project.

        Raises:
            MissingData: if there is no such folder, or if it has no pictures.
            BrainhiveError: if a picture has a name that a table cannot hold.
        """
        if not locate(reference).is_dir():
            raise MissingData(
                f"no folder {reference!r} of pictures",
                "--pictures FOLDER  # with a sub-folder for each concept",
            )
        fields = {
            "dataset": {"kind": "image-folder", "root": reference},
            "encoders": [encoder],
            "paths": paths,
        }
        job = EmbedJob.resolve(EmbedRecipe.model_validate(fields))
        if job.listing_error is not None:
            raise job.listing_error
        folder = cls(reference, job)

        # the tables of the study name each picture by its path
        for name in folder.concept_of:
            if write_cell(f"train/{name}") != f"train/{name}":
                raise BrainhiveError(
                    f"no table can name the picture {show_value(name)} of {reference}",
                    "rename it with letters, digits, hyphens and underscores",
                )
        return folder

    @property
    def root(self) -> Path:
        """Path of the folder."""
        return locate(self.reference)

    @cached_property
    def concept_of(self) -> dict[str, str]:
        """Concept of each picture, by its path below the folder."""
        concepts = {}
        for store in self.job.stores:
            images = store.images
            assert images.file_of is not None
            for row, concept in enumerate(images.concepts):
                file = os.path.relpath(images.file_of(row), self.root)
                concepts[Path(file).as_posix()] = concept
        return concepts

    def inputs(self) -> list[Input]:
        """List the pictures and the encoder, with a digest of finished embeddings."""
        is_due = any(map(self.job.is_due, self.job.stores))
        digest = "" if is_due else "-".join(store.digest for store in self.stores)
        return [*self.job.inputs(), Input(self.reference, digest=digest)]

    def embed(self, launch: Launch) -> None:
        """Embed the pictures that have no embeddings yet.

        Args:
            launch: Processes and device.

        Raises:
            BrainhiveError: if a picture cannot be decoded.
        """
        job = EmbedJob.resolve(self.job.recipe, launch)
        networks = job.find_due_networks()
        n_pictures = sum(len(store.images) for store in job.stores)
        with console.progress("embedding the pictures", n_pictures) as bar:
            for stores in job.divide_into_cells(networks).values():
                problems = job.fill_stores(stores, networks, launch, bar)
                if problems:
                    raise BrainhiveError(
                        f"{len(problems)} pictures cannot be decoded: {problems[0]}",
                        "replace or remove them",
                    )

    @cached_property
    def stores(self) -> list[TargetStore]:
        """Stores with the embeddings of each split."""
        return [TargetStore.open(store.path) for store in self.job.stores]

    def read_embeddings(self) -> Float32:
        """Read the embeddings [N, D] in the order of `concept_of`."""
        blocks = []
        for store in self.stores:
            blocks.append(store.read_flat(np.arange(len(store.done))).numpy())
        return np.concatenate(blocks)

    def find_copies(self, train: Sequence[str], test: Sequence[str]) -> list[str]:
        """List the test pictures that are near-copies of a training picture.

        Args:
            train: Paths of the training pictures below the folder.
            test: Paths of the test pictures.
        """
        hashes = np.concatenate([store.pixels for store in self.stores])
        pixels = dict(zip(self.concept_of, hashes, strict=True))
        train_pixels = np.stack([pixels[name] for name in train])
        test_pixels = np.stack([pixels[name] for name in test])
        # each row is a digest of the pixels and a perceptual hash
        is_copy = np.isin(test_pixels[:, 0], train_pixels[:, 0])
        for test_row, train_row, _ in find_candidates(
            test_pixels[:, 1:], train_pixels[:, 1:]
        ):
            pair = []
            for name in (test[test_row], train[train_row]):
                pair.append(decode(str(self.root / name), name))
            is_copy[test_row] |= confirm_near_copy(*pair) in COPIES
        return list(compress(test, is_copy))
