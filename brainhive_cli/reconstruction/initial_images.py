"""Pictures that drawing starts from: blurry first guesses, decoded from VAE tokens or of any folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from brainhive_cli.alignment.cells import Cell
from brainhive_cli.alignment.trained import AlignRun, find, refuse_sweep
from brainhive_cli.alignment.trained_cell import Member
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths, Section
from brainhive_cli.datasets import decode
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.fusers.concatenation import Concatenation
from brainhive_cli.reconstruction.conditions import TokenSet
from brainhive_cli.reconstruction.folders import caveats_around, find_by_name, pictures_in


class Start(Section):
    """What drawing starts from, beside noise."""

    folder: str | None = Field(None, description="pictures named by image id or file stem")
    align_run: str | None = Field(
        None, description="an align run with fuser.kind=concatenation over a VAE: its tokens are decoded"
    )
    strength: float = Field(
        0.75, gt=0, le=1, description="share of the denoising steps that are done; 1 starts from noise alone"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.folder and self.align_run:
            raise ValueError("give folder or align_run, not both")
        is_usual = self.strength == type(self).model_fields["strength"].default
        if not (is_usual or self.folder or self.align_run):
            raise ValueError("strength has no effect without folder or align_run")
        return self


class Initial(Protocol):
    """Gives the pictures that drawing starts from."""

    @property
    def strength(self) -> float:
        """The share of the denoising steps that are done."""
        ...

    @property
    def caveats(self) -> list[str]:
        """What must be said of all that begins from these pictures."""
        ...

    def prepare(self, takes: Sequence[TokenSet], launch: Launch) -> None:
        """Check that every item has something to start from, and create the stores that it is read from.

        Raises:
            MissingData: if an item has nothing to start from.
        """
        ...

    def pictures(self, take: TokenSet, chosen: Sequence[int], generator: Any) -> Tensor:
        """Give the pictures of the chosen items of a take, [B, 3, H, W] in 0..1."""
        ...


def initial_of(start: Start, split: str, resolution_px: int, paths: Paths) -> Initial | None:
    """Open what drawing starts from; None for noise alone.

    Raises:
        MissingData: if the folder or run is not there.
        BrainhiveError: if the run's tokens hold no latents.
    """
    if start.folder:
        return FromFolder(start.folder, pictures_in(start.folder), resolution_px, start.strength)
    if start.align_run:
        found = find(start.align_run, paths)
        refuse_sweep(found)
        return FromTokens(found, split, start.strength)
    return None


@dataclass(frozen=True)
class FromFolder:
    """Pictures of a folder, their central squares."""

    folder: str
    files: Mapping[str, Path]
    resolution_px: int
    strength: float

    @property
    def caveats(self) -> list[str]:
        """Those of the run that the folder lies in."""
        return caveats_around(self.folder)

    def prepare(self, takes: Sequence[TokenSet], launch: Launch) -> None:
        """Find the picture of every item; there are no stores to create."""
        for take in takes:
            find_by_name(self.folder, self.files, take.made_of)

    def pictures(self, take: TokenSet, chosen: Sequence[int], generator: Any) -> Tensor:
        """Open the chosen items' pictures; a shuffled signal's is the other item's."""
        paths = find_by_name(self.folder, self.files, [take.made_of[n] for n in chosen])
        return torch.stack([self._open(path) for path in paths])

    def _open(self, path: Path) -> Tensor:
        picture = TF.resize(decode(str(path), path), [self.resolution_px])
        return TF.pil_to_tensor(TF.center_crop(picture, [self.resolution_px])).float() / 255


@dataclass(frozen=True, eq=False)
class FromTokens:
    """Latents decoded from signals: the part of a token that a VAE's embedding is the target of.

    A contrastive loss teaches a token's direction and not its length, so it is given the usual latent's.
    """

    align: AlignRun
    split: str
    strength: float

    @property
    def caveats(self) -> list[str]:
        """Those of the run whose tokens are decoded."""
        return self.align.caveats

    def prepare(self, takes: Sequence[TokenSet], launch: Launch) -> None:
        """Find a cell of every subject, and create the signal stores that are missing."""
        for take in takes:
            if take.cell is not None:
                self._cell(take)
        subjects = {take.subject for take in takes if take.cell is not None and take.subject is not None}
        self.align.prepare_signals(launch, subjects)

    def pictures(self, take: TokenSet, chosen: Sequence[int], generator: Any) -> Tensor:
        """Decode the chosen items' latents with the generator's VAE."""
        latents = torch.stack([self._latents(take)[take.made_of[n]] for n in chosen])
        channels = generator.latent_shape(512)[0]
        side = isqrt(latents.shape[1] // channels)
        if channels * side**2 != latents.shape[1]:
            raise BrainhiveError(
                f"{latents.shape[1]} values of {self.vae.name} are no square latent of {channels} channels",
                "use the VAE of the generator's family",
            )
        images: Tensor = generator.decode(latents.view(len(chosen), channels, side, side))
        return images

    @cached_property
    def vae(self) -> EncoderConfig:
        """The encoder whose embeddings are latents."""
        encoders, _ = self.align.made_with[self.align.cells[0].variant]
        found = [config for config in encoders if config.kind.endswith("vae")]
        if len(found) != 1:
            raise BrainhiveError(
                f"{self.align.folder.path} has no one VAE among its encoders", "train-align --encoders vae"
            )
        return found[0]

    def _latents(self, take: TokenSet) -> dict[str, Tensor]:
        """Make the latent of each item of a take, by image id; those of images are the true ones."""
        if take.name not in self._made:
            store = self.align.stores(self.split)[self.vae.name]
            if take.cell is None:
                values = np.asarray(store.embedding[store.rows(take.image_ids)], np.float32)
                self._made[take.name] = dict(zip(take.image_ids, torch.from_numpy(values), strict=True))
            else:
                assert take.subject is not None
                member = Member.load(self.align, self._cell(take), take.tokens.device)
                tokens, rows = member.tokens(take.subject, self.split)
                latents = F.normalize(self._part(tokens, member.model), dim=1) * self._length
                ids = [store.image_ids[row] for row in rows]
                self._made[take.name] = dict(zip(ids, latents, strict=True))
        return self._made[take.name]

    def _cell(self, take: TokenSet) -> Cell:
        """Take the cell of the same subject, and of the same seed if there is one."""
        assert take.cell is not None
        fitting = [cell for cell in self.align.cells if take.subject in cell.tested_on]
        if not fitting:
            raise MissingData(
                f"{self.align.folder.path} has no cell of subject {take.subject}",
                "train-align on that subject",
            )
        seed = take.cell.seed
        return next((cell for cell in fitting if cell.seed == seed), fitting[0])

    def _part(self, tokens: Tensor, model: Any) -> Tensor:
        heads, fuser, dims = model.layout.heads, model.fuser, {}
        if isinstance(fuser, Concatenation):
            dims = fuser.dims
        elif fuser is None:
            dims = {heads[name].target: heads[name].width for name in model.layout.compared}
        key = next((key for key in self.vae.known_as if key in dims), None)
        if key is None:
            raise BrainhiveError(
                f"the tokens of {self.align.folder.path} hold no latents",
                "train-align fuser.kind=concatenation",
            )
        return tokens.split(list(dims.values()), dim=1)[list(dims).index(key)]

    @cached_property
    def _length(self) -> float:
        """The usual length of a latent, of the pictures that were learnt from."""
        store = self.align.stores("train")[self.vae.name]
        return float(np.linalg.norm(store.embedding[store.done], axis=1).mean())

    @cached_property
    def _made(self) -> dict[str, dict[str, Tensor]]:
        return {}
