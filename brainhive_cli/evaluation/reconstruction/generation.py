"""Media generated from decoded heads into the run's folder, each once, from noise that its item decides."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import isqrt
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core import console, foreign_code
from brainhive_cli.core.arrays import UInt8
from brainhive_cli.core.device_memory import keep_freed_memory
from brainhive_cli.core.errors import BrainhiveError, MissingData, raise_if_asked_to_stop
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.datasets import decode
from brainhive_cli.data.media import media_files
from brainhive_cli.evaluation.reconstruction.conditions import DecodedSet, Reranker
from brainhive_cli.evaluation.reconstruction.folders import find_by_name, list_media, read_caveats_around
from brainhive_cli.evaluation.reconstruction.recipe import Output, Recipe
from brainhive_cli.models.conditioning import Conditioning
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.generators import Media, Sampling
from brainhive_cli.models.heads import PREFIX, Decoded, Heads, refuse_other_target
from brainhive_cli.models.priors import Prior
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import TrainedModel, TrainedRun, open_model, refuse_sweep

ANY_PX = 512
"""A size that every autoencoder has; the channels of its latents do not depend on it."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CONCATENATION = "concatenation"
"""The kind of fuser whose tokens have a part for each encoder, in the order of the layout's `dims`."""
WRITERS = 4
"""Threads that write files while the next media are generated."""
Task = tuple[int, int]
"""Row of an item, and number of the repeat."""


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
        """Caveats of the run that the folder lies in."""
        return read_caveats_around(self.folder)

    def prepare(self, decoded_sets: Sequence[DecodedSet], launch: Launch) -> None:
        """Find the picture of every item, and raise MissingData if one has none."""
        for decoded_set in decoded_sets:
            find_by_name(self.folder, self.files, decoded_set.origin_ids)

    def pictures(self, decoded_set: DecodedSet, rows: Sequence[int], generator: Any) -> Tensor:
        """Open the pictures [B, 3, H, W] in 0..1 of some rows; a shuffled row has that of its signal."""
        # the picture of the signal's item: a shuffled row must not start from the true one
        paths = find_by_name(self.folder, self.files, [decoded_set.origin_ids[row] for row in rows])
        squares = [media_files.crop_square(decode(str(path), path), self.resolution_px) for path in paths]
        return torch.stack([media_files.to_media(square) for square in squares])


@dataclass(frozen=True, eq=False)
class FromTokens:
    """Latents decoded from signals: the part of a token that predicts an autoencoder's embedding.

    A contrastive loss trains a token's direction and not its length, so it is scaled to the mean length of
    the training pictures' latents.

    Attributes:
        align: The run whose tokens are decoded.
        split: Whose signals.
        autoencoder: The encoder whose embeddings are latents.
    """

    align: TrainedRun
    split: str
    autoencoder: EncoderConfig
    _latents: dict[str, dict[str, Tensor]] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, align: TrainedRun, split: str) -> Self:
        """Find the autoencoder that a run was trained on; BrainhiveError if there is not one."""
        # with several autoencoders it would be unclear which latents are decoded
        autoencoders = [config for config in align.models[0].encoders if config.encodes_latents]
        if len(autoencoders) != 1:
            raise BrainhiveError(
                f"{align.folder.path} was not trained on one VAE", "train-align --encoders vae"
            )
        return cls(align, split, autoencoders[0])

    @property
    def caveats(self) -> list[str]:
        """Caveats of the run whose tokens are decoded."""
        return self.align.caveats(self.split)

    def prepare(self, decoded_sets: Sequence[DecodedSet], launch: Launch) -> None:
        """Create the missing signal stores, and raise MissingData if a subject has no cell."""
        subjects = set()
        for decoded_set in decoded_sets:
            if decoded_set.cell is not None and decoded_set.subject is not None:
                # a missing cell is an error before anything is generated
                self._cell(decoded_set.subject, decoded_set.cell.seed)
                subjects.add(decoded_set.subject)
        self.align.prepare_signals(launch, subjects)

    def pictures(self, decoded_set: DecodedSet, rows: Sequence[int], generator: Any) -> Tensor:
        """Decode the latents of some rows with the generator's autoencoder, [B, 3, H, W] in 0..1."""
        # latents of the whole set are decoded once; those of some rows are taken
        if decoded_set.name not in self._latents:
            self._latents[decoded_set.name] = self._decode_latents(decoded_set)
        latent_of = self._latents[decoded_set.name]
        latents = torch.stack([latent_of[decoded_set.origin_ids[row]] for row in rows])  # [B, D]

        # they must be squares of the generator's channels
        channels = generator.latent_shape(ANY_PX)[0]
        side = isqrt(latents.shape[1] // channels)
        if channels * side**2 != latents.shape[1]:
            raise BrainhiveError(
                f"{latents.shape[1]} values of {self.autoencoder.name} are no square latent of {channels} "
                "channels",
                "use the autoencoder of the generator's family",
            )
        return generator.decode(latents.view(-1, channels, side, side))

    def _decode_latents(self, decoded_set: DecodedSet) -> dict[str, Tensor]:
        """Decode the latent of each item by its image id; those of stimuli are the true ones."""
        # embeddings of the stimuli, where no signal was decoded
        store = self.align.stores(self.split)[self.autoencoder.name]
        if decoded_set.decoded is None or decoded_set.cell is None or decoded_set.subject is None:
            values = np.asarray(store.embedding[store.rows(decoded_set.image_ids)], np.float32)
            return dict(zip(decoded_set.image_ids, torch.from_numpy(values).flatten(1), strict=True))

        # directions from the signals, and the mean length of a latent of the training pictures
        device = next(iter(decoded_set.decoded.tensors.values())).device
        member = TrainedModel(self.align, self._cell(decoded_set.subject, decoded_set.cell.seed), device)
        decoded, rows = member.decoded(decoded_set.subject, self.split)
        latents = F.normalize(self._select_latents(decoded.tensors, member.module)) * self._mean_length
        return dict(zip([store.image_ids[row] for row in rows], latents, strict=True))

    def _cell(self, subject: int, seed: int) -> Cell:
        """Choose the cell of the same subject, and of the same seed if there is one."""
        matching = [cell for cell in self.align.cells if subject in cell.tested_on]
        if not matching:
            raise MissingData(
                f"{self.align.folder.path} has no cell of subject {subject}", "train-align on that subject"
            )
        return next((cell for cell in matching if cell.seed == seed), matching[0])

    def _select_latents(self, decoded: Mapping[str, Tensor], model: Aligner) -> Tensor:
        """Select the predicted latents [N, D]: a head of their own, or their part of a concatenated token."""
        keys, layout = self.autoencoder.known_as, model.layout
        # latents are predicted by a head alone, or as a part of the fused token
        for name, head in layout.heads.items():
            if head.target in keys:
                return decoded[name].flatten(1)
            if layout.fuser.get("kind") == CONCATENATION and name in layout.fused:
                # [N, D] holds the encoders' parts in the order of the layout
                parts = decoded[name].split(list(layout.dims.values()), 1)
                return next(part for key, part in zip(layout.dims, parts, strict=True) if key in keys)
        raise BrainhiveError(
            f"{self.align.folder.path} predicts no latents", f"train-align fuser.kind={CONCATENATION}"
        )

    @cached_property
    def _mean_length(self) -> float:
        """Mean length of a latent of the training pictures."""
        # tested pictures have no part in the length
        store = self.align.stores("train")[self.autoencoder.name]
        return float(np.linalg.norm(store.embedding[store.done].reshape(store.done.sum(), -1), axis=1).mean())


StartPictures = FromFolder | FromTokens


def find_start_pictures(recipe: Recipe) -> StartPictures | None:
    """Find the pictures that sampling starts from; None for noise alone, or what the prior gives."""
    initial = recipe.initial
    # a folder goes before decoded latents; the recipe refuses both
    if initial.folder:
        return FromFolder(initial.folder, list_media(initial.folder), recipe.resolution_px)
    if initial.align_run:
        align = open_model(initial.align_run, recipe.paths)
        refuse_sweep(align)
        return FromTokens.of(align, recipe.split)
    return None


@dataclass(frozen=True, eq=False)
class Sampler:
    """Prior and generator; the generator is loaded for the first batch.

    Attributes:
        build: Loads the generator onto a device, in a dtype.
        prior: On `device`.
        output: Size, precision and memory.
        sampling: Steps, guidance, prompts.
        device: Where media are generated.
        heads: Those of the brain model, so that latents of another autoencoder are refused.
    """

    build: Callable[[torch.device, torch.dtype], Any]
    prior: Prior
    output: Output
    sampling: Sampling
    device: torch.device
    heads: Heads = field(default_factory=dict)

    @cached_property
    @console.progress("loading the generator")
    def generator(self) -> Any:
        """Generator with the prior attached."""
        # a CPU computes in float32 what a GPU computes in half precision
        output, on_cpu = self.output, self.device.type == "cpu"
        is_offloaded = output.offload and not on_cpu
        precision = "fp32" if on_cpu and output.precision == "fp16" else output.precision
        generator = self.build(torch.device("cpu") if is_offloaded else self.device, DTYPES[precision])

        # memory of each step is kept for the next; that of the weights, which are loaded already, is returned
        generator.spare_memory(self.device if is_offloaded else None, output.tiling)
        self.prior.attach(generator)
        keep_freed_memory()
        return generator

    @torch.inference_mode()
    def sample(
        self,
        decoded: Decoded | None,
        seeds: Sequence[int],
        start: Tensor | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Media:
        """Generate one picture or clip for each row of decoded heads and its seed.

        Args:
            decoded: Heads of B rows; None for the prior's unconditional ones.
            seeds: [B], of the noise.
            start: Pictures to start from, [B, 3, H, W] in 0..1.
            on_step: Called with the number of each step done.

        Raises:
            BrainhiveError: if sampling would start from decoded latents of another autoencoder, or what prior
                or generator give has not a row for each seed.
        """
        # conditions from the prior, one row a seed
        prior, count = self.prior, len(seeds)
        conditioning = prior.null(count, seeds) if decoded is None else prior.condition(decoded, seeds)
        is_conditioning = isinstance(conditioning, Conditioning)
        if not is_conditioning or len(conditioning) not in (0, count):
            seen = f"{len(conditioning)} rows" if is_conditioning else type(conditioning).__name__
            name = foreign_code.name_of(prior, "the prior")
            raise BrainhiveError(f"{name} gives {seen} for {count} signals", "return Conditioning of B rows")

        # without guidance the unconditional prediction is not used
        null = prior.null(count, seeds) if self.sampling.guidance > 1 else None

        # decoded latents to start from must be those of the generator's autoencoder; a chain has several
        starts = start is None and conditioning.start is not None
        if start is not None:
            conditioning = replace(conditioning, start=start)
        for name, head in self.heads.items():
            if hasattr(self.generator, "latent_spaces"):
                spaces = self.generator.latent_spaces(name, starts)
            else:
                spaces = [self.generator.latent_space] if starts else []
            if spaces and head.digest.startswith(PREFIX) and head.digest not in spaces:
                refuse_other_target(name, head, spaces[0], "the generator")

        # generate, and check what a stranger's generator returns
        media: Media = self.generator.generate(
            conditioning, seeds, self.output.resolution_px, self.sampling, null=null, on_step=on_step
        )
        is_tensor = isinstance(media, Tensor)
        if not is_tensor or media.ndim not in (4, 5) or (len(media), media.shape[-3]) != (count, 3):
            seen = str([*media.shape]) if is_tensor else type(media).__name__
            name = foreign_code.name_of(self.generator, "the generator")
            raise BrainhiveError(
                f"{name} gives {seen} for {count} seeds", "return [B, 3, H, W], or [B, F, 3, H, W] of clips"
            )
        return media


def generate(
    sampler: Sampler,
    decoded_set: DecodedSet,
    folder: RunFolder,
    launch: Launch,
    repeats: int,
    seed: int,
    *,
    start: StartPictures | None = None,
    count: int = 1,
    reranker: Reranker | None = None,
    rate_hz: float | None = None,
) -> None:
    """Generate this process's share of what is not there yet of a set; files are written meanwhile.

    Args:
        sampler: Prior and generator.
        decoded_set: What the media are generated from.
        folder: The run.
        launch: The processes that share the set.
        repeats: Media kept for each item.
        seed: Seed of the noise.
        start: Pictures to start from; None for noise alone.
        count: Candidates, which are generated for each medium that is kept.
        reranker: Chooses which of them is kept, if there are several.
        rate_hz: Frames a second of clips: those of the stimuli.
    """
    # nothing is there to choose by where nothing was decoded; pictures to start from would tell of the brain
    ids, decoded, width = decoded_set.image_ids, decoded_set.decoded, sampler.output.batch_size
    size = max(1, width // count)
    if decoded is None:
        count = 1
    if decoded_set.source == "zeroed":
        start = None

    def sample(candidates: Sequence[tuple[int, int, int]]) -> UInt8:
        """Generate the media of candidates (row, repeat, number of the candidate) at once."""
        rows = [row for row, _, _ in candidates]
        # without heads the prior is unconditional; without a start sampling begins at noise
        media = sampler.sample(
            None if decoded is None else decoded[rows],
            [seed_of(seed, ids[row], repeat, n) for row, repeat, n in candidates],
            None if start is None else start.pictures(decoded_set, rows, sampler.generator),
            on_step=lambda step: bar.advance(0, f"step {step} of {sampler.sampling.steps}"),
        )
        return media_files.to_bytes(media)

    # this process's share of the files that are not there yet
    tasks = launch.shard([(row, repeat) for row in range(len(ids)) for repeat in range(repeats)])
    files = {task: decoded_set.file(ids[task[0]], task[1]) for task in tasks}
    todo = [task for task, file in files.items() if not (folder.path / file).is_file()]

    # files of one batch are written while the next is generated
    writing: list[Future[Path]] = []
    with (
        ThreadPoolExecutor(WRITERS) as writers,
        console.progress(f"generating {decoded_set.name}", len(todo)) as bar,
    ):
        for first in range(0, len(todo), size):
            raise_if_asked_to_stop()  # what is written is kept
            batch = todo[first : first + size]

            # all candidates of all tasks
            candidates = [(row, repeat, n) for row, repeat in batch for n in range(count)]
            chunks = [candidates[at : at + width] for at in range(0, len(candidates), width)]
            # [B, H, W, 3], or [B, F, H, W, 3] of clips
            media = np.concatenate([sample(chunk) for chunk in chunks])

            # the one of each task that is most similar to its decoded head
            if reranker is not None and decoded is not None:
                heads = decoded[[row for row, _, _ in candidates]]
                best = reranker.similarity(media, heads).view(len(batch), count).argmax(1).cpu().numpy()
                media = media[np.arange(len(batch)) * count + best]
            for future in writing:  # so that no more than one batch waits
                future.result()
            writing = []
            for task, pixels in zip(batch, media, strict=True):
                save = partial(media_files.save, pixels, rate_hz=rate_hz)
                writing.append(writers.submit(folder.replace, files[task], save))
            bar.advance(len(batch))
        for future in writing:
            future.result()


def seed_of(seed: int, image_id: str, repeat: int, candidate: int = 0) -> int:
    """Derive the seed of a picture's noise from the item and the repeat, and nothing else."""
    # the same noise for each source and batch size: differences are not of the noise
    name = f"{seed}/{image_id}/{repeat}" + (f"/{candidate}" if candidate else "")
    return zlib.crc32(name.encode())
