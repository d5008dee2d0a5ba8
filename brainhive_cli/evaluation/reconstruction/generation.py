"""Generation of media from the heads of brain signals or stimuli."""

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from brainhive_cli.core.base import (
    Int64,
    RecipeError,
    UInt8,
    console,
    keep_freed_memory,
    raise_if_asked_to_stop,
)
from brainhive_cli.core.files import resolve_below
from brainhive_cli.core.runs import Launch, RunFolder
from brainhive_cli.data.media import media_files
from brainhive_cli.data.targets import Targets, group_encoders, match_keys
from brainhive_cli.evaluation.reconstruction.recipe import Recipe, SourceName
from brainhive_cli.models import (
    LATENT_SPACE_PREFIX,
    TOKEN_HEAD,
    Decoded,
    Heads,
    flatten_vectors,
    refuse_other_target,
)
from brainhive_cli.models.backbones import Tensors
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.generators import GeneratedMedia, Sampling, require_finite
from brainhive_cli.models.priors import Prior
from brainhive_cli.training.alignment import Cell
from brainhive_cli.training.alignment.trained import TestSet, TrainedModel

MAX_VALUES_PER_BLOCK = 1 << 26
"""Largest number of values in all embeddings of a block. They take 256 MiB in float32,
as 259 pictures with embeddings of 257 × 768 and 77 × 768 values do.
"""
TRAIN = "train"
"""Split whose embeddings are averaged, and whose pictures are baselines."""
CELL_INDEPENDENT_SOURCES = ("images", "zeroed", "mean_embedding")
"""Sources without a brain model. Their media are generated once for all cells."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Candidate = tuple[int, int, int]
"""Row of the item, number of the repeat and number of the candidate, from 0."""
Rerank = Callable[[UInt8, Decoded], Tensor]
"""Function that scores pictures [B, H, W, 3] by the heads of B rows. It returns cosine
similarities [B].
"""


def generate_set(
    sampler: "Sampler",
    decoded_set: "DecodedSet",
    folder: RunFolder,
    launch: Launch,
    repeats: int,
    seed: int,
    *,
    n_candidates: int = 1,
    rerank: Rerank | None = None,
    rate_hz: float | None = None,
) -> None:
    """Generate the media of a set whose files do not exist yet.

    The processes share the files. Each batch has these steps: sample all candidates,
    keep the best candidate of each file, and write the files in other threads.

    Args:
        sampler: Prior and generator.
        decoded_set: Heads from which the media are generated.
        folder: Folder of the run.
        launch: Processes that share the set.
        repeats: Number of media per item.
        seed: Seed of the noise.
        n_candidates: Number of candidates per file.
        rerank: Function that compares candidates with decoded heads. Required for more
            than a single candidate.
        rate_hz: Frames per second of clips.
    """
    image_ids = decoded_set.image_ids
    decoded = decoded_set.decoded
    batch_size = sampler.recipe.batch_size
    files_per_batch = max(1, batch_size // n_candidates)
    # without heads no candidate is better than another
    if decoded is None:
        n_candidates = 1

    # items and repeats of this process whose files do not exist yet
    all_tasks = list(product(range(len(image_ids)), range(repeats)))
    file_of_task = {}
    for row, repeat in launch.shard(all_tasks):
        file = decoded_set.name_file(image_ids[row], repeat)
        if not (folder.path / file).is_file():
            file_of_task[row, repeat] = file
    tasks = list(file_of_task)

    writes: list[Future[Path]] = []
    with (
        # Number of threads that write files while the next media are generated.
        ThreadPoolExecutor(4) as writers,
        console.progress(f"generating {decoded_set.name}", len(tasks)) as bar,
    ):
        for start in range(0, len(tasks), files_per_batch):
            raise_if_asked_to_stop()  # files that are written are kept
            batch = tasks[start : start + files_per_batch]

            # sample all candidates
            candidates: list[Candidate] = []
            for row, repeat in batch:
                for number in range(n_candidates):
                    candidates.append((row, repeat, number))
            samples = []
            for first in range(0, len(candidates), batch_size):
                chunk = candidates[first : first + batch_size]
                samples.append(_sample(sampler, decoded_set, chunk, seed, bar))
            media = np.concatenate(samples)  # [B, H, W, 3], or [B, F, H, W, 3] of clips

            # keep the candidate that is most similar to its decoded head
            if rerank is not None and decoded is not None:
                heads = decoded[[row for row, _, _ in candidates]]
                similarities = rerank(media, heads).view(len(batch), n_candidates)
                best = similarities.argmax(1).cpu().numpy()
                media = media[np.arange(len(batch)) * n_candidates + best]

            # write the files while the next batch is generated, but wait for the files
            # of the batch before
            for future in writes:
                future.result()
            writes = []
            for task, pixels in zip(batch, media, strict=True):
                save = partial(media_files.save, pixels, rate_hz=rate_hz)
                writes.append(writers.submit(folder.replace, file_of_task[task], save))
            bar.advance(len(batch))
        for future in writes:
            future.result()


def _sample(
    sampler: "Sampler",
    decoded_set: "DecodedSet",
    candidates: Sequence[Candidate],
    seed: int,
    bar: console.Bar,
) -> UInt8:
    """Generate a batch of candidates as uint8 [B, H, W, 3] or clips [B, F, H, W, 3]."""
    rows = []
    image_ids = []
    seeds = []
    for row, repeat, number in candidates:
        image_id = decoded_set.image_ids[row]
        rows.append(row)
        image_ids.append(image_id)
        seeds.append(derive_noise_seed(seed, image_id, repeat, number))

    def show_step(step: int) -> None:
        bar.advance(0, f"step {step} of {sampler.sampling.steps}")

    decoded = decoded_set.decoded
    media = sampler.sample(
        None if decoded is None else decoded[rows],
        seeds,
        on_step=show_step,
        items=image_ids,
    )
    return media_files.to_bytes(media)


def derive_noise_seed(seed: int, image_id: str, repeat: int, candidate: int = 0) -> int:
    """Derive the seed of the noise for a picture.

    The seed depends neither on the source nor on the batch size, so media of several
    sources start from the same noise.
    """
    name = f"{seed}/{image_id}/{repeat}"
    if candidate:
        name += f"/{candidate}"
    return zlib.crc32(name.encode())


@runtime_checkable
class HasLatentSpaces(Protocol):
    """Generator that starts from the latents of several autoencoders."""

    def latent_spaces(self, head: str, starts: bool, /) -> Sequence[str]:
        """List the autoencoders whose latents a head may hold."""
        ...


@dataclass(frozen=True, eq=False)
class Sampler:
    """Prior and generator. The generator is loaded for the first batch.

    Attributes:
        build_generator: Loads the generator onto a device, in a dtype.
        prior: Prior on `device`.
        recipe: Recipe with size, precision and use of memory.
        sampling: Steps, guidance and prompts.
        device: Device that generates.
        heads: Heads of the brain model, to check the autoencoder of decoded latents.
    """

    build_generator: Callable[[torch.device, torch.dtype], Any]
    prior: Prior
    recipe: Recipe
    sampling: Sampling
    device: torch.device
    heads: Heads = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """Name of the generator's dtype. A CPU uses fp32 instead of fp16."""
        if self.device.type == "cpu" and self.recipe.precision == "fp16":
            return "fp32"
        return self.recipe.precision

    @cached_property
    @console.progress("loading the generator")
    def generator(self) -> Any:
        """Generator with the prior attached."""
        is_offloaded = self.recipe.offload and self.device.type != "cpu"
        device = torch.device("cpu") if is_offloaded else self.device
        generator = self.build_generator(device, DTYPES[self.precision])
        offload_device = self.device if is_offloaded else None
        generator.spare_memory(offload_device, self.recipe.tiling)
        self.prior.attach(generator)
        # the steps reuse freed memory instead of returning it to the system
        keep_freed_memory()
        return generator

    @torch.inference_mode()
    def sample(
        self,
        decoded: Decoded | None,
        seeds: Sequence[int],
        on_step: Callable[[int], None] | None = None,
        items: Sequence[str] = (),
    ) -> GeneratedMedia:
        """Generate a picture or clip for each seed and row of decoded heads.

        Args:
            decoded: Heads of B rows, or None to generate without a condition.
            seeds: Seeds [B] of the noise.
            on_step: Function that is called with the number of each finished step.
            items: Names [B] for error messages.

        Raises:
            BrainhiveError: if sampling would start from latents of another autoencoder,
                or a generated value is not finite.
        """
        # conditions from the prior, and unconditional conditions for guidance
        if decoded is None:
            conditioning = self.prior.null(len(seeds), seeds)
        else:
            conditioning = self.prior.condition(decoded, seeds)
        null = None
        if self.sampling.guidance > 1:
            null = self.prior.null(len(seeds), seeds)

        self._require_latent_spaces(starts=conditioning.start is not None)
        media: GeneratedMedia = self.generator.generate(
            conditioning,
            seeds,
            self.recipe.resolution_px,
            self.sampling,
            null=null,
            on_step=on_step,
        )
        advice = "precision: fp32 in the recipe of reconstruct"
        require_finite(media, seeds, items, self.precision, advice)
        return media

    def _require_latent_spaces(self, starts: bool) -> None:
        """Raise an error if a head predicts latents of another autoencoder.

        Args:
            starts: True if sampling starts from predicted latents.
        """
        for name, head in self.heads.items():
            if isinstance(self.generator, HasLatentSpaces):
                spaces = list(self.generator.latent_spaces(name, starts))
            else:
                spaces = [self.generator.latent_space] if starts else []
            if (
                spaces
                and head.digest.startswith(LATENT_SPACE_PREFIX)
                and head.digest not in spaces
            ):
                refuse_other_target(name, head, spaces[0], "the generator")


def get_token_vectors(heads: Tensors) -> Tensor:
    """Return the vectors [B, D] of the head `token`, by which rows are compared."""
    return flatten_vectors(heads[TOKEN_HEAD])


@dataclass(frozen=True)
class StimulusHeads:
    """Heads of stimuli, as an ideal brain model would decode them.

    They are the output of the prior's fuser. Without a fuser, they are the targets of
    the brain model.

    Attributes:
        tests: Test set, whose stimuli are embedded.
        encoders: Encoders of the embeddings.
        encoder_keys: Key of the embeddings, by the name of the encoder.
        compute_heads: Computes heads by name from embeddings [B, …] by key.
        device: Device on which heads are computed.
        compute_vectors: Computes the vectors [B, D] by which heads are compared.
        vector_keys: Keys of the embeddings from which the vectors are computed. None
            for all keys.
    """

    tests: TestSet
    encoders: Sequence[EncoderConfig]
    encoder_keys: Mapping[str, str]
    compute_heads: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    device: torch.device
    compute_vectors: Callable[[Tensors], Tensor] = get_token_vectors
    vector_keys: Collection[str] | None = None

    @classmethod
    def from_prior(cls, tests: TestSet, trained: TrainedModel, prior: Prior) -> Self:
        """Compute heads with the prior's fuser, or else as the brain model's targets.

        Args:
            tests: Test set, whose stimuli are embedded.
            trained: Brain model, on the device.
            prior: Prior.

        Raises:
            BrainhiveError: if the prior fuses embeddings of other encoders.
        """
        encoders = trained.encoders
        device = torch.device(trained.device)
        fuser = prior.fuser
        if fuser is not None:
            # keys by which the prior was trained
            encoder_keys = match_keys(encoders, prior.dims, "the prior")

            def fuse(embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
                return {TOKEN_HEAD: fuser(embeddings)}

            return cls(tests, encoders, encoder_keys, fuse, device)

        model = trained.module
        return cls(
            tests,
            encoders,
            model.layout.encoders,
            model.compute_targets,
            device,
            compute_vectors=model.join_heads,
            vector_keys=model.layout.compared_keys,
        )

    def iterate_heads(
        self, split: str, rows: Int64, keys: Collection[str] | None = None
    ) -> Iterator[Decoded]:
        """Yield the heads of stimuli in blocks that fit in memory.

        There is at least a single block, which may have no rows.

        Args:
            split: Split of the stimuli.
            rows: Row numbers [N] in the target stores of the split.
            keys: Keys of the embeddings to compute from, or None for all keys.
        """
        targets = Targets.from_stores(
            self.tests.open_stores(split),
            Launch(0, 1, self.device),
            self.encoder_keys,
            on_device=False,
        )
        sources = {
            key: source
            for key, source in targets.sources.items()
            if keys is None or key in keys
        }
        values_per_stimulus = sum(prod(source.shape) for source in sources.values())
        max_rows = min(
            # Largest number of stimuli whose heads are computed at once.
            8192,
            MAX_VALUES_PER_BLOCK // values_per_stimulus,
        )
        block_size = max(1, max_rows)
        n_blocks = -(-len(rows) // block_size)  # rounded up
        for block in np.array_split(rows, max(1, n_blocks)):
            embeddings = dict(Targets(sources).gather(block))
            with torch.inference_mode():
                heads = Decoded(self.compute_heads(embeddings))
            yield heads

    def average_heads(self, split: str) -> Decoded:
        """Average the heads of all embedded stimuli of a split to a single row."""
        stores = self.tests.open_stores(split)
        is_embedded = np.all([store.done for store in stores.values()], 0)
        rows = np.flatnonzero(is_embedded)
        # sums are float64, because float32 loses digits over thousands of stimuli
        sums: dict[str, Tensor] = {}
        for block in self.iterate_heads(split, rows):
            for name, head in block.tensors.items():
                block_sum = head.double().sum(0, keepdim=True)  # [1, …]
                sums[name] = sums[name] + block_sum if name in sums else block_sum
        means = {name: (total / len(rows)).float() for name, total in sums.items()}
        return Decoded(means)

    def build_reranker(self, launch: Launch) -> Rerank:
        """Make a function that scores pictures, to keep an item's best candidate.

        The score is the cosine similarity of a picture's embedding and the head decoded
        from the brain. The stimulus is not used. Clips raise a RecipeError.
        """
        # load only encoders that the vectors are computed from
        encoders = []
        for config in self.encoders:
            key = self.encoder_keys[config.name]
            if self.vector_keys is None or key in self.vector_keys:
                encoders.append(config)
        groups = group_encoders(encoders, "fp32", launch)

        @torch.inference_mode()
        def compare_pictures(pixels: UInt8, decoded: Decoded) -> Tensor:
            if pixels.ndim != 4:
                raise RecipeError(
                    "best_of compares pictures, and the generator makes clips",
                    "best_of=1",
                )
            pictures = list(map(Image.fromarray, pixels))
            embeddings: dict[str, Tensor] = {}
            for group in groups:
                views = group.encoder.preprocess_all(pictures)
                for name, values in group.encode(views).items():
                    embeddings[self.encoder_keys[name]] = values

            vectors = self.compute_vectors(self.compute_heads(embeddings))  # [B, D]
            decoded_vectors = self.compute_vectors(decoded.tensors)
            return F.cosine_similarity(vectors, decoded_vectors.to(vectors.device))

        return compare_pictures


@dataclass(frozen=True)
class DecodedSet:
    """Decoded heads from a single source, a row for each item.

    Attributes:
        source: Source of the heads.
        cell: Brain model that decoded them, or None for `CELL_INDEPENDENT_SOURCES`.
        subject: Subject of the signals, or None without signals.
        image_ids: Image ids [N] of the items.
        decoded: Heads of N rows, or None for `zeroed`, which has no condition.
    """

    source: SourceName
    cell: Cell | None
    subject: int | None
    image_ids: list[str]
    decoded: Decoded | None

    @property
    def name(self) -> str:
        """Name of the folder of its media below `samples`.

        Examples: `CELL/sub-01` for the brain, `shuffled/CELL/sub-01`, `images`.
        """
        if self.cell is None:
            return self.source
        folder = f"{self.cell.name}/sub-{self.subject:02d}"
        return folder if self.source == "brain" else f"{self.source}/{folder}"

    def name_file(self, image_id: str, repeat: int) -> str:
        """Return the path of a picture, relative to the folder of the run."""
        folder = resolve_below(
            Path("samples", self.name), image_id, source="the stimulus id"
        )
        return f"{folder.as_posix()}/{repeat:02d}.png"

    def take_first(self, n_items: int | None) -> "DecodedSet":
        """Keep the first items, or all items for None."""
        decoded = None if self.decoded is None else self.decoded[:n_items]
        return replace(self, image_ids=self.image_ids[:n_items], decoded=decoded)

    def shuffle_signals(self) -> "DecodedSet":
        """Give every item the heads of another item, to measure the chance level.

        The order depends only on the seed of the cell and the subject.

        Raises:
            RecipeError: if there is only a single item.
        """
        if len(self.image_ids) < 2:
            raise RecipeError(
                "one signal cannot be shuffled", "leave `shuffled` out of sources"
            )
        assert self.cell is not None
        assert self.subject is not None
        assert self.decoded is not None
        order = draw_derangement(len(self.image_ids), (self.cell.seed, self.subject))
        return replace(self, source="shuffled", decoded=self.decoded[order.tolist()])


def draw_derangement(n_items: int, seed: int | tuple[int, ...]) -> Int64:
    """Draw a permutation [N] that leaves no index in its place."""
    order = np.random.default_rng(seed).permutation(n_items)
    # each index gets its predecessor in a random order
    derangement = np.empty_like(order)
    derangement[order] = np.roll(order, 1)
    return derangement


def decode_signals(tests: TestSet, model: TrainedModel, subject: int) -> DecodedSet:
    """Decode all test signals of a subject."""
    trials = tests.open_person(model, subject).trials
    image_ids = list(tests.open_pictures(tests.split).image_ids[trials.stimulus])
    decoded = model.decode(trials, image_ids)
    return DecodedSet("brain", model.cell, subject, image_ids, decoded)


def make_decoded_sets(
    sources: Sequence[SourceName],
    brain_sets: Sequence[DecodedSet],
    stimulus_heads: StimulusHeads,
    split: str,
    n_items: int | None,
) -> list[DecodedSet]:
    """Collect the heads (predicted embeddings) from which the media are generated.

    `brain` has decoded heads, `shuffled` the heads of other items, `images` the heads
    of the stimuli, `mean_embedding` the mean training head, and `zeroed` none.

    Args:
        sources: Sources, in the order of the result. Baselines are skipped.
        brain_sets: Decoded heads of each model and subject.
        stimulus_heads: Computes heads of stimuli.
        split: Split of the items.
        n_items: Number of items from the start of the split, or None for all.
    """
    first_sets = [decoded_set.take_first(n_items) for decoded_set in brain_sets]
    unique_ids: dict[str, None] = {}
    for decoded_set in first_sets:
        unique_ids |= dict.fromkeys(decoded_set.image_ids)
    image_ids = list(unique_ids)

    sets = []
    for source in dict.fromkeys(sources):
        decoded: Decoded | None
        if source == "brain":
            sets += first_sets
            continue
        elif source == "shuffled":
            for decoded_set in brain_sets:
                sets.append(decoded_set.shuffle_signals().take_first(n_items))
            continue
        elif source == "images":
            pictures = stimulus_heads.tests.open_pictures(split)
            rows = pictures.find_rows(image_ids)
            decoded = Decoded.join(list(stimulus_heads.iterate_heads(split, rows)))
        elif source == "zeroed":
            decoded = None
        elif source == "mean_embedding":
            means = stimulus_heads.average_heads(TRAIN).tensors
            repeated = {}
            for name, head in means.items():
                repeated[name] = head.expand(len(image_ids), *head.shape[1:])
            decoded = Decoded(repeated)
        else:
            continue
        sets.append(DecodedSet(source, None, None, image_ids, decoded))
    return sets
