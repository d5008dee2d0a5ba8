"""Pictures that sampling starts from: blurry first guesses, decoded from signals or from any folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from brainhive_cli.alignment.cells import Cell
from brainhive_cli.alignment.model import Aligner
from brainhive_cli.alignment.trained import AlignRun
from brainhive_cli.alignment.trained_cell import Member
from brainhive_cli.core.decoded import Decoded
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.datasets import decode
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.fusers.concatenation import Concatenation
from brainhive_cli.reconstruction.conditions import DecodedSet
from brainhive_cli.reconstruction.folders import caveats_around, find_by_name

ANY_PX = 512
"""A size that every autoencoder has; the channels of its latents do not depend on it."""


class StartPictures(Protocol):
    """Gives the pictures that sampling starts from."""

    @property
    def caveats(self) -> list[str]:
        """What must be said of all that starts from these pictures."""
        ...

    def prepare(self, decoded_sets: Sequence[DecodedSet], launch: Launch) -> None:
        """Check that every item has something to start from, and create the stores that it is read from.

        Raises:
            MissingData: if an item has nothing to start from.
        """
        ...

    def pictures(self, decoded_set: DecodedSet, rows: Sequence[int], generator: Any) -> Tensor:
        """Give the pictures of some rows of a set, [B, 3, H, W] in 0..1."""
        ...


@dataclass(frozen=True)
class FromFolder:
    """Pictures of a folder, their central squares.

    Attributes:
        folder: As the user names it.
        files: Its pictures, by name.
        resolution_px: Side that they are brought to.
    """

    folder: str
    files: Mapping[str, Path]
    resolution_px: int

    @property
    def caveats(self) -> list[str]:
        """Those of the run that the folder lies in."""
        return caveats_around(self.folder)

    def prepare(self, decoded_sets: Sequence[DecodedSet], launch: Launch) -> None:
        """Find the picture of every item."""
        for decoded_set in decoded_sets:
            find_by_name(self.folder, self.files, decoded_set.origin_ids)

    def pictures(self, decoded_set: DecodedSet, rows: Sequence[int], generator: Any) -> Tensor:
        """Open the pictures of some rows; that of a shuffled signal is the other item's."""
        paths = find_by_name(self.folder, self.files, [decoded_set.origin_ids[row] for row in rows])
        return torch.stack([self._open(path) for path in paths])

    def _open(self, path: Path) -> Tensor:
        picture = TF.resize(decode(str(path), path), [self.resolution_px])
        return TF.pil_to_tensor(TF.center_crop(picture, [self.resolution_px])).float() / 255


@dataclass(frozen=True, eq=False)
class FromTokens:
    """Latents decoded from signals: the part of a token that predicts an autoencoder's embedding.

    A contrastive loss trains a token's direction and not its length, so it is scaled to the mean length of
    the training pictures' latents.

    Attributes:
        align: The run whose tokens are decoded.
        split: Whose signals.
    """

    align: AlignRun
    split: str

    @property
    def caveats(self) -> list[str]:
        """Those of the run whose tokens are decoded."""
        return self.align.caveats

    def prepare(self, decoded_sets: Sequence[DecodedSet], launch: Launch) -> None:
        """Find a cell of every subject, and create the signal stores that are missing."""
        subjects = set()
        for decoded_set in decoded_sets:
            if decoded_set.cell is not None and decoded_set.subject is not None:
                self._cell(decoded_set)
                subjects.add(decoded_set.subject)
        self.align.prepare_signals(launch, subjects)

    def pictures(self, decoded_set: DecodedSet, rows: Sequence[int], generator: Any) -> Tensor:
        """Decode the latents of some rows with the generator's autoencoder."""
        latents = torch.stack([self._latents(decoded_set)[decoded_set.origin_ids[row]] for row in rows])
        channels = generator.latent_shape(ANY_PX)[0]
        side = isqrt(latents.shape[1] // channels)
        if channels * side**2 != latents.shape[1]:
            raise BrainhiveError(
                f"{latents.shape[1]} values of {self.autoencoder.name} are no square latent of {channels} "
                "channels",
                "use the autoencoder of the generator's family",
            )
        images: Tensor = generator.decode(latents.view(-1, channels, side, side))
        return images

    @cached_property
    def autoencoder(self) -> EncoderConfig:
        """The encoder whose embeddings are latents."""
        encoders, _ = self.align.made_with[self.align.cells[0].variant]
        found = [config for config in encoders if config.kind.endswith("vae")]
        if len(found) != 1:
            raise BrainhiveError(
                f"{self.align.folder.path} was not trained on one VAE", "train-align --encoders vae"
            )
        return found[0]

    def _latents(self, decoded_set: DecodedSet) -> dict[str, Tensor]:
        """Give the latent of each item of a set, by image id; those of stimuli are the true ones."""
        if decoded_set.name not in self._cached:
            if decoded_set.cell is None:
                store = self.align.stores(self.split)[self.autoencoder.name]
                values = np.asarray(store.embedding[store.rows(decoded_set.image_ids)], np.float32)
                latents, ids = torch.from_numpy(values).flatten(1), decoded_set.image_ids
            else:
                latents, ids = self._decoded(decoded_set)
            self._cached[decoded_set.name] = dict(zip(ids, latents, strict=True))
        return self._cached[decoded_set.name]

    def _decoded(self, decoded_set: DecodedSet) -> tuple[Tensor, list[str]]:
        assert decoded_set.subject is not None and decoded_set.decoded is not None
        device = next(iter(decoded_set.decoded.tensors.values())).device
        member = Member.load(self.align, self._cell(decoded_set), device)
        decoded, rows = member.decoded(decoded_set.subject, self.split)
        latents = F.normalize(self._part(decoded, member.model), dim=1) * self._length
        store = self.align.stores(self.split)[self.autoencoder.name]
        return latents, [store.image_ids[row] for row in rows]

    def _cell(self, decoded_set: DecodedSet) -> Cell:
        """Take the cell of the same subject, and of the same seed if there is one."""
        assert decoded_set.cell is not None
        matching = [cell for cell in self.align.cells if decoded_set.subject in cell.tested_on]
        if not matching:
            raise MissingData(
                f"{self.align.folder.path} has no cell of subject {decoded_set.subject}",
                "train-align on that subject",
            )
        seed = decoded_set.cell.seed
        return next((cell for cell in matching if cell.seed == seed), matching[0])

    def _part(self, decoded: Decoded, model: Aligner) -> Tensor:
        """Find the predicted latents: a head of their own, or their part of a concatenated token."""
        keys, fuser = self.autoencoder.known_as, model.fuser
        for name, head in model.layout.heads.items():
            if head.target in keys:
                return decoded.tensors[name].flatten(1)
            if isinstance(fuser, Concatenation) and name in model.layout.fused:
                parts = decoded.tensors[name].split(list(fuser.dims.values()), dim=1)
                return next(part for key, part in zip(fuser.dims, parts, strict=True) if key in keys)
        raise BrainhiveError(
            f"{self.align.folder.path} predicts no latents", "train-align fuser.kind=concatenation"
        )

    @cached_property
    def _length(self) -> float:
        """The mean length of a latent of the training pictures."""
        store = self.align.stores("train")[self.autoencoder.name]
        return float(np.linalg.norm(store.embedding[store.done].reshape(store.done.sum(), -1), axis=1).mean())

    @cached_property
    def _cached(self) -> dict[str, dict[str, Tensor]]:
        return {}
