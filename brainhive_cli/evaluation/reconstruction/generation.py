"""Media generated from heads of signals or stimuli, each file once, from noise that its
item decides.
"""

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Int64, UInt8
from brainhive_cli.core.device_memory import keep_freed_memory
from brainhive_cli.core.errors import (
    RecipeError,
    raise_if_asked_to_stop,
)
from brainhive_cli.core.files import resolve_below
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.media import media_files
from brainhive_cli.data.targets.encoder_groups import group_encoders
from brainhive_cli.data.targets.encoder_keys import match_keys
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.evaluation.reconstruction.recipe import Recipe, SourceName
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.generators import GeneratedMedia, Sampling, require_finite
from brainhive_cli.models.heads import (
    LATENT_SPACE_PREFIX,
    TOKEN_HEAD,
    Decoded,
    Heads,
    flatten_vectors,
    refuse_other_target,
)
from brainhive_cli.models.priors import Prior
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.trained.model import TrainedModel
from brainhive_cli.training.alignment.trained.run import TrainedRun

MAX_STIMULI_PER_BLOCK = 8192
"""Stimuli whose heads are computed at once, at most."""
MAX_VALUES_PER_BLOCK = 1 << 26
"""Numbers of all their embeddings at most: 256 MiB in float32, 259 pictures of 257 ×
768 + 77 × 768.
"""
Tensors = Mapping[str, Tensor]
TRAIN = "train"
"""The split whose embeddings are averaged, and whose pictures are baselines."""
CELL_INDEPENDENT_SOURCES = ("images", "zeroed", "mean_embedding")
"""Sources without a brain model: they are generated once for all cells."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
N_WRITERS = 4
"""Threads that write files while the next media are generated."""


@dataclass(frozen=True)
class StimulusHeads:
    """Heads of stimuli, from the prior's fuser; where it has none, the targets of the
    brain model's heads.

    Attributes:
        align: The run whose stimuli are embedded.
        encoders: Those that embedded them.
        encoder_keys: The key of each encoder's embeddings, by its name.
        compute_heads: Embeddings [B, …] by key to heads [B, …] by name.
        device: Where heads are computed.
        compute_vectors: Heads to the vectors [B, D] by which rows are compared;
            default: the token.
        vector_keys: Keys of the embeddings that these vectors are made from; None for
            all.
    """

    align: TrainedRun
    encoders: Sequence[EncoderConfig]
    encoder_keys: Mapping[str, str]
    compute_heads: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    device: torch.device
    compute_vectors: Callable[[Tensors], Tensor] = lambda heads: flatten_vectors(
        heads[TOKEN_HEAD]
    )
    vector_keys: Collection[str] | None = None

    @classmethod
    def from_prior(cls, align: TrainedRun, prior: Prior, device: torch.device) -> Self:
        """Choose the function that computes the heads.

        Raises:
            BrainhiveError: if the prior fuses embeddings of other encoders; it names
                both.
        """
        # the fuser takes embeddings by the names that the prior was trained with
        encoders = align.models[0].encoders
        if (fuser := prior.fuser) is not None:
            keys = match_keys(encoders, prior.dims, "the prior")
            return cls(
                align,
                encoders,
                keys,
                lambda embeddings: {TOKEN_HEAD: fuser(embeddings)},
                device,
            )

        # without a fuser, heads are the targets of the brain model
        model = TrainedModel(align, align.cells[0], device).module
        layout = model.layout
        return cls(
            align,
            encoders,
            layout.encoders,
            model.compute_targets,
            device,
            model.join_heads,
            layout.compared_keys,
        )

    def iterate_heads(
        self, split: str, rows: Int64, keys: Collection[str] | None = None
    ) -> Iterator[Decoded]:
        """Compute the heads of rows of a split's stores, block by block.

        Args:
            split: Part of the data set.
            rows: Of its stores, [N].
            keys: Keys of the embeddings that the heads are computed from; None for all.
        """
        # embeddings of these keys, and the rows that fit in memory
        opened = Targets.from_stores(
            self.align.stores(split),
            Launch(0, 1, self.device),
            self.encoder_keys,
            on_device=False,
        )
        sources = {
            key: source
            for key, source in opened.sources.items()
            if keys is None or key in keys
        }
        # numbers of one stimulus in all embeddings
        width = sum(prod(source.shape) for source in sources.values())
        batch_size = max(1, min(MAX_STIMULI_PER_BLOCK, MAX_VALUES_PER_BLOCK // width))

        # at least one block, also of no rows
        for batch in np.array_split(rows, max(1, -(-len(rows) // batch_size))):
            embeddings = dict(Targets(sources).gather(batch))
            with torch.inference_mode():
                heads = Decoded(self.compute_heads(embeddings))
            yield heads

    def average_heads(self, split: str) -> Decoded:
        """Average the heads of all stimuli of a split: one row."""
        # sums in float64: float32 would lose digits over many thousands of stimuli
        rows = np.flatnonzero(
            np.all([store.done for store in self.align.stores(split).values()], 0)
        )
        totals: dict[str, Tensor] = {}
        for block in self.iterate_heads(split, rows):
            for name, head in block.tensors.items():
                total = head.double().sum(0, keepdim=True)  # [1, …]
                totals[name] = totals[name] + total if name in totals else total
        return Decoded(
            {name: (total / len(rows)).float() for name, total in totals.items()}
        )

    def build_reranker(self, launch: Launch) -> Callable[[UInt8, Decoded], Tensor]:
        """Load the encoders, and compare generated pictures with decoded heads; it
        never sees the stimulus.

        Returns:
            From pictures [B, H, W, 3] and heads of B rows to their cosine [B];
            RecipeError of clips.
        """
        # encoders that the comparison does not use are not loaded
        compared = self.vector_keys
        keys = self.encoder_keys
        encoders = [
            config
            for config in self.encoders
            if compared is None or keys[config.name] in compared
        ]
        groups = group_encoders(encoders, "fp32", launch)

        @torch.inference_mode()
        def compare_pictures(pixels: UInt8, decoded: Decoded) -> Tensor:
            if pixels.ndim != 4:
                raise RecipeError(
                    "best_of compares pictures, and the generator makes clips",
                    "best_of=1",
                )
            pictures = [Image.fromarray(picture) for picture in pixels]
            embeddings: dict[str, Tensor] = {}
            for group in groups:
                views = group.encoder.preprocess_all(pictures)
                embeddings |= {
                    keys[name]: values for name, values in group.encode(views).items()
                }

            # vectors [B, D] of generated pictures and of decoded heads
            generated = self.compute_vectors(self.compute_heads(embeddings))
            return F.cosine_similarity(
                generated, self.compute_vectors(decoded.tensors).to(generated.device)
            )

        return compare_pictures


@dataclass(frozen=True)
class DecodedSet:
    """The decoded heads of one source, one row for each item.

    Attributes:
        source: Where they come from.
        cell: Whose brain model decoded them; None for those `CELL_INDEPENDENT`.
        subject: Whose signals; None where there are none.
        image_ids: The items, [N].
        decoded: Heads of N rows; None for `zeroed`, which conditions on nothing.
    """

    source: SourceName
    cell: Cell | None
    subject: int | None
    image_ids: list[str]
    decoded: Decoded | None

    @property
    def name(self) -> str:
        """The folder of its pictures below `samples`."""
        # sources without a brain model have no folder for each cell
        cell = f"{self.cell.name}/sub-{self.subject:02d}" if self.cell else ""
        return cell if self.source == "brain" else f"{self.source}/{cell}".rstrip("/")

    def name_file(self, image_id: str, repeat: int) -> str:
        """The path of a picture below the run's folder."""
        folder = resolve_below(
            Path("samples", self.name), image_id, source="the stimulus id"
        )
        return f"{folder.as_posix()}/{repeat:02d}.png"

    def take_first(self, items: int | None) -> "DecodedSet":
        """Keep the first items; all when None."""
        decoded = None if self.decoded is None else self.decoded[:items]
        return replace(self, image_ids=self.image_ids[:items], decoded=decoded)

    def shuffle_signals(self) -> "DecodedSet":
        """Give every item another item's signal, each signal once.

        Raises:
            RecipeError: if there is only one.
        """
        if len(self.image_ids) < 2:
            raise RecipeError(
                "one signal cannot be shuffled", "leave `shuffled` out of sources"
            )
        assert (
            self.cell is not None
            and self.subject is not None
            and self.decoded is not None
        )
        # seed and subject decide the order, which is the same in every run
        rows = draw_derangement(
            len(self.image_ids), (self.cell.seed, self.subject)
        ).tolist()
        return replace(self, source="shuffled", decoded=self.decoded[rows])


def draw_derangement(count: int, seed: int | tuple[int, ...]) -> Int64:
    """Draw a permutation [N] without fixed points: the neighbour of each index in a
    random order.
    """
    order = np.random.default_rng(seed).permutation(count)

    # each index gets its predecessor in the order, so none gets itself
    neighbours = np.empty_like(order)
    neighbours[order] = np.roll(order, 1)
    return neighbours


def decode_signals(model: TrainedModel, subject: int, split: str) -> DecodedSet:
    """Decode all signals of a subject in a split, by a brain model."""
    # heads in the order of the signals, whose rows say which stimuli these showed
    decoded, rows = model.decoded(subject, split)
    image_ids = model.pictures(split).image_ids
    return DecodedSet(
        "brain", model.cell, subject, [image_ids[row] for row in rows], decoded
    )


def make_decoded_sets(
    sources: Sequence[SourceName],
    brain: Sequence[DecodedSet],
    heads: StimulusHeads,
    split: str,
    items: int | None,
) -> list[DecodedSet]:
    """Collect the set of each source that media are generated from, of the same items.

    Args:
        sources: In order.
        brain: The decoded heads of all signals.
        heads: Computes heads of the stimuli.
        split: Whose items.
        items: How many of them, from the start; all when None.
    """
    sets: dict[SourceName, list[DecodedSet]] = {
        "brain": [decoded_set.take_first(items) for decoded_set in brain]
    }
    ids = list(
        dict.fromkeys(
            image_id
            for decoded_set in sets["brain"]
            for image_id in decoded_set.image_ids
        )
    )

    # heads of other items
    if "shuffled" in sources:
        sets["shuffled"] = [
            decoded_set.shuffle_signals().take_first(items) for decoded_set in brain
        ]

    # heads without a brain model: the stimuli's, none at all, and the mean of the
    # training split
    without_cell: dict[SourceName, Decoded | None] = {}
    if "images" in sources:
        # stores of a split have the same rows
        rows = next(iter(heads.align.stores(split).values())).find_rows(ids)
        without_cell["images"] = Decoded.join([*heads.iterate_heads(split, rows)])
    if "zeroed" in sources:
        without_cell["zeroed"] = None
    if "mean_embedding" in sources:
        # one row, repeated for every item
        means = heads.average_heads(TRAIN).tensors
        repeated = {
            name: head.expand(len(ids), *head.shape[1:]) for name, head in means.items()
        }
        without_cell["mean_embedding"] = Decoded(repeated)
    for source, decoded in without_cell.items():
        sets[source] = [DecodedSet(source, None, None, ids, decoded)]
    return [
        decoded_set
        for source in dict.fromkeys(sources)
        for decoded_set in sets.get(source, [])
    ]


@dataclass(frozen=True, eq=False)
class Sampler:
    """Prior and generator; the generator is loaded for the first batch.

    Attributes:
        build_generator: Loads the generator onto a device, in a dtype.
        prior: On `device`.
        recipe: Size, precision and memory.
        sampling: Steps, guidance, prompts.
        device: Where media are generated.
        heads: Those of the brain model, so that latents of another autoencoder are
            refused.
    """

    build_generator: Callable[[torch.device, torch.dtype], Any]
    prior: Prior
    recipe: Recipe
    sampling: Sampling
    device: torch.device
    heads: Heads = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """The dtype of the generator: a CPU takes fp32 for fp16."""
        has_half = self.device.type != "cpu" or self.recipe.precision != "fp16"
        return self.recipe.precision if has_half else "fp32"

    @cached_property
    @console.progress("loading the generator")
    def generator(self) -> Any:
        """Generator with the prior attached."""
        output = self.recipe
        is_offloaded = output.offload and self.device.type != "cpu"
        generator = self.build_generator(
            torch.device("cpu") if is_offloaded else self.device, DTYPES[self.precision]
        )

        # memory of each step is kept for the next; that of the weights, which are
        # loaded already, is returned
        generator.spare_memory(self.device if is_offloaded else None, output.tiling)
        self.prior.attach(generator)
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
        """Generate one picture or clip for each row of decoded heads and its seed.

        Args:
            decoded: Heads of B rows; None for the prior's unconditional ones.
            seeds: [B], of the noise.
            items: [B] names, for errors.
            on_step: Called with the number of each step done.

        Raises:
            BrainhiveError: if sampling would start from decoded latents of another
                autoencoder, or what is generated is not finite.
        """
        # conditions from the prior, one row a seed
        prior, count = self.prior, len(seeds)
        conditioning = (
            prior.null(count, seeds)
            if decoded is None
            else prior.condition(decoded, seeds)
        )

        # without guidance the unconditional prediction is not used
        null = prior.null(count, seeds) if self.sampling.guidance > 1 else None

        # decoded latents to start from must be those of the generator's autoencoder; a
        # chain has several
        starts = conditioning.start is not None
        for name, head in self.heads.items():
            if hasattr(self.generator, "latent_spaces"):
                spaces = self.generator.latent_spaces(name, starts)
            else:
                spaces = [self.generator.latent_space] if starts else []
            if (
                spaces
                and head.digest.startswith(LATENT_SPACE_PREFIX)
                and head.digest not in spaces
            ):
                refuse_other_target(name, head, spaces[0], "the generator")

        media: GeneratedMedia = self.generator.generate(
            conditioning,
            seeds,
            self.recipe.resolution_px,
            self.sampling,
            null=null,
            on_step=on_step,
        )

        way = "precision: fp32 in the recipe of reconstruct"
        require_finite(media, seeds, items, self.precision, way)
        return media


def generate_set(
    sampler: Sampler,
    decoded_set: DecodedSet,
    folder: RunFolder,
    launch: Launch,
    repeats: int,
    seed: int,
    *,
    count: int = 1,
    rerank: Callable[[UInt8, Decoded], Tensor] | None = None,
    rate_hz: float | None = None,
) -> None:
    """Generate this process's share of what is not there yet of a set; files are
    written meanwhile.

    Args:
        sampler: Prior and generator.
        decoded_set: What the media are generated from.
        folder: The run.
        launch: The processes that share the set.
        repeats: Media kept for each item.
        seed: Seed of the noise.
        count: Candidates, which are generated for each medium that is kept.
        rerank: Compares candidates with decoded heads, to choose one of several; see
            `build_reranker`.
        rate_hz: Frames a second of clips: those of the stimuli.
    """
    # nothing is there to choose by where nothing was decoded
    ids = decoded_set.image_ids
    decoded = decoded_set.decoded
    width = sampler.recipe.batch_size
    size = max(1, width // count)
    if decoded is None:
        count = 1

    def sample(candidates: Sequence[tuple[int, int, int]]) -> UInt8:
        """Generate the media of candidates (row, repeat, number of the candidate) at
        once.
        """
        rows = [row for row, _, _ in candidates]
        # without heads the prior is unconditional
        media = sampler.sample(
            None if decoded is None else decoded[rows],
            [
                derive_noise_seed(seed, ids[row], repeat, n)
                for row, repeat, n in candidates
            ],
            on_step=lambda step: bar.advance(
                0, f"step {step} of {sampler.sampling.steps}"
            ),
            items=[ids[row] for row in rows],
        )
        return media_files.to_bytes(media)

    # this process's share of the files that are not there yet
    tasks = launch.shard(
        [(row, repeat) for row in range(len(ids)) for repeat in range(repeats)]
    )
    files = {task: decoded_set.name_file(ids[task[0]], task[1]) for task in tasks}
    todo = [task for task, file in files.items() if not (folder.path / file).is_file()]

    # files of one batch are written while the next is generated
    writing: list[Future[Path]] = []
    with (
        ThreadPoolExecutor(N_WRITERS) as writers,
        console.progress(f"generating {decoded_set.name}", len(todo)) as bar,
    ):
        for first in range(0, len(todo), size):
            raise_if_asked_to_stop()  # what is written is kept
            batch = todo[first : first + size]

            # all candidates of all tasks
            candidates = [
                (row, repeat, n) for row, repeat in batch for n in range(count)
            ]
            chunks = [
                candidates[at : at + width] for at in range(0, len(candidates), width)
            ]
            # [B, H, W, 3], or [B, F, H, W, 3] of clips
            media = np.concatenate([sample(chunk) for chunk in chunks])

            # the one of each task that is most similar to its decoded head
            if rerank is not None and decoded is not None:
                heads = decoded[[row for row, _, _ in candidates]]
                best = (
                    rerank(media, heads).view(len(batch), count).argmax(1).cpu().numpy()
                )
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


def derive_noise_seed(seed: int, image_id: str, repeat: int, candidate: int = 0) -> int:
    """Derive the seed of a picture's noise from the item and the repeat, and nothing
    else.
    """
    # the same noise for each source and batch size: differences are not of the noise
    name = f"{seed}/{image_id}/{repeat}" + (f"/{candidate}" if candidate else "")
    return zlib.crc32(name.encode())
