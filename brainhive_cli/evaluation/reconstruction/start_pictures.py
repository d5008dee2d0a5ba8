"""Pictures that sampling starts from: blurry first guesses, decoded from signals or from any folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.datasets import decode
from brainhive_cli.evaluation.reconstruction.conditions import DecodedSet
from brainhive_cli.evaluation.reconstruction.folders import caveats_around, find_by_name
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.fusers.concatenation import Concatenation
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.trained import AlignRun
from brainhive_cli.training.alignment.trained_cell import TrainedCell

ANY_PX = 512
"""A size that every autoencoder has; the channels of its latents do not depend on it."""


@dataclass(frozen=True)
class FromFolder:
    """Pictures of a folder, their central squares.

    Attributes:
        folder: As the user names it.
        files: Its pictures, by name.
        resolution_px: Side that they are resized to.
    """

    folder: str
    files: Mapping[str, Path]
    resolution_px: int

    @property
    def caveats(self) -> list[str]:
        """Those of the run that the folder lies in."""
        return caveats_around(self.folder)

    def prepare(self, decoded_sets: Sequence[DecodedSet], launch: Launch) -> None:
        """Find the picture of every item, and raise MissingData if one has none."""
        for decoded_set in decoded_sets:
            find_by_name(self.folder, self.files, decoded_set.origin_ids)

    def pictures(self, decoded_set: DecodedSet, rows: Sequence[int], generator: Any) -> Tensor:
        """Open the pictures [B, 3, H, W] in 0..1 of some rows; a shuffled row has that of its signal."""
        paths = find_by_name(self.folder, self.files, [decoded_set.origin_ids[row] for row in rows])
        resized = [TF.resize(decode(str(path), path), [self.resolution_px]) for path in paths]
        squares = [TF.center_crop(picture, [self.resolution_px]) for picture in resized]
        return torch.stack([TF.pil_to_tensor(square).float() / 255 for square in squares])


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
    _latents: dict[str, dict[str, Tensor]] = field(default_factory=dict, init=False)

    @property
    def caveats(self) -> list[str]:
        """Those of the run whose tokens are decoded."""
        return self.align.caveats(self.split)

    def prepare(self, decoded_sets: Sequence[DecodedSet], launch: Launch) -> None:
        """Create the missing signal stores, and raise MissingData if a subject has no cell."""
        of_cells = [each for each in decoded_sets if each.cell is not None]
        for decoded_set in of_cells:
            self._cell(decoded_set)
        self.align.prepare_signals(launch, {each.subject for each in of_cells if each.subject is not None})

    def pictures(self, decoded_set: DecodedSet, rows: Sequence[int], generator: Any) -> Tensor:
        """Decode the latents of some rows with the generator's autoencoder, [B, 3, H, W] in 0..1."""
        if decoded_set.name not in self._latents:
            self._latents[decoded_set.name] = self._latents_of(decoded_set)
        by_id = self._latents[decoded_set.name]
        latents = torch.stack([by_id[decoded_set.origin_ids[row]] for row in rows])
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
        encoders, _ = self.align.training_settings[self.align.cells[0].variant]
        found = [config for config in encoders if config.encodes_latents]
        if len(found) != 1:
            raise BrainhiveError(
                f"{self.align.folder.path} was not trained on one VAE", "train-align --encoders vae"
            )
        return found[0]

    def _latents_of(self, decoded_set: DecodedSet) -> dict[str, Tensor]:
        """Make the latent of each item by its image id; those of stimuli are the true ones."""
        store = self.align.stores(self.split)[self.autoencoder.name]
        if decoded_set.decoded is None or decoded_set.subject is None:
            values = np.asarray(store.embedding[store.rows(decoded_set.image_ids)], np.float32)
            return dict(zip(decoded_set.image_ids, torch.from_numpy(values).flatten(1), strict=True))
        device = next(iter(decoded_set.decoded.tensors.values())).device
        member = TrainedCell.load(self.align, self._cell(decoded_set), device)
        decoded, rows = member.decoded(decoded_set.subject, self.split)
        latents = F.normalize(self._predicted(decoded.tensors, member), dim=1) * self._length
        return dict(zip([store.image_ids[row] for row in rows], latents, strict=True))

    def _cell(self, decoded_set: DecodedSet) -> Cell:
        """Choose the cell of the same subject, and of the same seed if there is one."""
        assert decoded_set.cell is not None
        matching = [cell for cell in self.align.cells if decoded_set.subject in cell.tested_on]
        if not matching:
            raise MissingData(
                f"{self.align.folder.path} has no cell of subject {decoded_set.subject}",
                "train-align on that subject",
            )
        seed = decoded_set.cell.seed
        return next((cell for cell in matching if cell.seed == seed), matching[0])

    def _predicted(self, decoded: Mapping[str, Tensor], member: TrainedCell) -> Tensor:
        """Find the predicted latents [N, D]: a head of their own, or their part of a concatenated token."""
        keys, fuser, layout = self.autoencoder.known_as, member.model.fuser, member.model.layout
        for name, head in layout.heads.items():
            if head.target in keys:
                return decoded[name].flatten(1)
            if isinstance(fuser, Concatenation) and name in layout.fused:
                parts = decoded[name].split(list(fuser.dims.values()), dim=1)
                return next(part for key, part in zip(fuser.dims, parts, strict=True) if key in keys)
        raise BrainhiveError(
            f"{self.align.folder.path} predicts no latents", "train-align fuser.kind=concatenation"
        )

    @cached_property
    def _length(self) -> float:
        """The mean length of a latent of the training pictures."""
        store = self.align.stores("train")[self.autoencoder.name]
        return float(np.linalg.norm(store.embedding[store.done].reshape(store.done.sum(), -1), axis=1).mean())


StartPictures = FromFolder | FromTokens
