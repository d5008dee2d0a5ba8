"""Baselines that are not drawn: the training picture nearest to each brain token, and the mean of all."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from brainhive_cli.alignment.trained import AlignRun
from brainhive_cli.core import console
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.views import to_pictures
from brainhive_cli.datasets import BadPicture, ImageSet
from brainhive_cli.metrics.image import prepare
from brainhive_cli.metrics.retrieval import nearest
from brainhive_cli.priors.fusion_prior import FusionPrior
from brainhive_cli.reconstruction.conditions import Source, TokenSet, fused
from brainhive_cli.reconstruction.generated import GeneratedSet
from brainhive_cli.stores.hdf5 import match_ids

BASELINES: tuple[Source, ...] = ("nearest", "mean")
MEAN_OF = 2000
"""Training pictures that are averaged at most, evenly spaced: all others would change the mean by about one
level of 255 (a pixel's standard deviation of 60 over the root of 2000)."""
AT_ONCE = 64
"""Pictures that are decoded ahead."""
TRAIN = "train"


@dataclass(frozen=True)
class Baselines:
    """Makes pictures of the training set stand in the place of reconstructions.

    Attributes:
        align: The run whose data set and embeddings are used.
        prior: Fuses the embeddings of the training pictures.
        split: Whose items are reconstructed.
        resolution_px: Side of the pictures that are kept: that of the drawn ones.
        protocol: How pictures are sized for metrics; the mean is taken at that size.
    """

    align: AlignRun
    prior: FusionPrior
    split: str
    resolution_px: int
    protocol: str

    def make(
        self,
        sources: Sequence[Source],
        brain: Sequence[TokenSet],
        trained: str,
        folder: RunFolder,
        launch: Launch,
    ) -> tuple[list[GeneratedSet], dict[str, str]]:
        """Make the baselines asked for; one that lacks its training pictures is passed over.

        Args:
            sources: Of which `nearest` and `mean` are made.
            brain: The tokens of each cell and subject, for the items wanted.
            trained: What a reader must know of the brain encoders.
            folder: The run; pictures that are there already are kept.
            launch: The main process makes them, every process gets the answer.

        Returns:
            The pictures, and for each baseline that is missing the reason with the way to get it.
        """
        made: list[GeneratedSet] = []
        missing: dict[str, str] = {}
        for source in [each for each in BASELINES if each in sources and launch.is_main]:
            try:
                is_of_brain = source == "nearest"
                made += self._nearest(brain, trained, folder) if is_of_brain else self._mean(brain, folder)
            except (MissingData, BadPicture) as error:
                missing[source] = error.in_one_line
        found: tuple[list[GeneratedSet], dict[str, str]] = launch.gather((made, missing))[0]
        return found

    def is_here(self, source: str) -> bool:
        """Whether the training pictures that a baseline needs can be listed."""
        try:
            return bool(self._images) and (source != "nearest" or bool(self.align.stores(TRAIN)))
        except MissingData:
            return False

    @cached_property
    def _images(self) -> ImageSet:
        if self.split == TRAIN:
            raise MissingData("the items are training pictures themselves", "draw another split")
        return self.align.dataset.images(TRAIN)

    def _nearest(self, brain: Sequence[TokenSet], trained: str, folder: RunFolder) -> list[GeneratedSet]:
        images, stores = self._images, self.align.stores(TRAIN)
        rows = np.flatnonzero(np.all([store.done for store in stores.values()], axis=0))
        ids = [next(iter(stores.values())).image_ids[row] for row in rows]
        places = match_ids(ids, images.image_ids, f"{images.dataset} {TRAIN}")
        tokens = fused(self.align, self.prior, TRAIN, rows)
        made = []
        for take in brain:
            chosen = places[nearest(take.tokens, tokens).numpy()]
            name = f"nearest/{take.name}"
            below = folder.path / "baselines" / name
            files = {image_id: below / f"{image_id}.png" for image_id in take.image_ids}
            self._keep(dict(zip(files.values(), chosen.tolist(), strict=True)), folder)
            how = f"the nearest of {len(ids)} training pictures by brain token, {trained}"
            assert take.cell is not None
            made.append(_drawn("nearest", name, files, how, (take.cell.seed,), take.subject))
        return made

    def _keep(self, chosen: dict[Path, int], folder: RunFolder) -> None:
        """Write training pictures as PNG, their central squares, at the size of drawn ones."""

        def write(file: Path, row: int) -> None:
            picture = TF.center_crop(TF.resize(images.open(row), [side]), [side])
            folder.replace(file.relative_to(folder.path).as_posix(), picture.save)

        images, side = self._images, self.resolution_px
        todo = {file: row for file, row in chosen.items() if not file.is_file()}
        with ThreadPoolExecutor() as writers:
            list(writers.map(write, todo, todo.values()))

    def _mean(self, brain: Sequence[TokenSet], folder: RunFolder) -> list[GeneratedSet]:
        count = min(len(self._images), MEAN_OF)
        file = folder.path / "baselines/mean.png"
        if not file.is_file():
            rows = np.linspace(0, len(self._images) - 1, count).round().astype(int)
            folder.replace("baselines/mean.png", self._average(rows).save)
        ids = dict.fromkeys(image_id for take in brain for image_id in take.image_ids)
        how = f"the mean of {count} training pictures"
        return [_drawn("mean", "mean", dict.fromkeys(ids, file), how)]

    def _average(self, rows: NDArray[np.int64]) -> Image.Image:
        """Average training pictures at the protocol's size."""
        total = torch.zeros(())
        with console.progress("mean training picture", len(rows)) as bar:
            # resizing is linear: a sum of pictures of one size is resized as one of them
            for _, alike in groupby(_opened(self._images, rows), key=lambda picture: picture.size):
                together = torch.zeros(())
                for picture in alike:
                    together = together + TF.pil_to_tensor(picture).double()
                    bar.advance(1)
                total = total + prepare(together[None] / 255, self.protocol)
        return to_pictures(total / len(rows))[0]


def _opened(images: ImageSet, rows: NDArray[np.int64]) -> Iterator[Image.Image]:
    """Decode pictures ahead of their use."""
    with ThreadPoolExecutor() as readers:
        for start in range(0, len(rows), AT_ONCE):
            yield from readers.map(images.open, rows[start : start + AT_ONCE].tolist())


def _drawn(
    source: str,
    name: str,
    files: dict[str, Path],
    made: str,
    seeds: tuple[int, ...] = (),
    subject: int | None = None,
) -> GeneratedSet:
    """One picture an item."""
    return GeneratedSet(
        source, name, seeds, {image_id: [file] for image_id, file in files.items()}, subject, made
    )
