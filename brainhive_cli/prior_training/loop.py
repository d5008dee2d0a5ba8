"""The training of a prior on a frozen diffusion model: its loop, and what a step computes."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from brainhive_cli import priors
from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.decoding import decoders
from brainhive_cli.data.device import to_device
from brainhive_cli.data.encoder_keys import match_prior
from brainhive_cli.data.views import crop_of_the_original
from brainhive_cli.generators import Objective
from brainhive_cli.prior_training import latents as _latents
from brainhive_cli.prior_training.examples import Batch, Pictures, batches
from brainhive_cli.prior_training.optimisation import Learner
from brainhive_cli.prior_training.recipe import Recipe

EMPTY_PROMPT = "empty_prompt.safetensors"
LEVELS = (0.2, 0.5, 0.8)
"""Shares of the noise schedule at which validation items are denoised."""
RECENT = 100
"""Steps that the logged loss is the mean of."""
WIDTH = 1024
"""D of an embedding that nothing is known of yet, in a plan."""


@dataclass(frozen=True)
class Training:
    """A prior attached to its generator, and the pictures that it learns from.

    Attributes:
        keys: The prior's key of each encoder, by the encoder's store name.
    """

    recipe: Recipe
    pictures: Pictures
    generator: Any
    prior: Any
    keys: dict[str, str]
    launch: Launch

    @classmethod
    def begin(cls, what: Recipe, pictures: Pictures, launch: Launch) -> Self:
        """Load the generator, and load or make the prior.

        Raises:
            BrainhiveError: if they, the embeddings and `resolution_px` do not fit each other.
        """
        generator = load(what.generator, what, launch)
        generator.prepare_training(what.train.gradient_checkpointing, what.train.compile)
        if what.cache_latents:
            pictures = replace(pictures, latents=_computed_latents(what, pictures, generator, launch))
        prior, keys = make_prior(what, pictures.targets.dims, generator)
        prior.attach(generator)
        prior.to(launch.device).train()
        return cls(what, pictures, generator, prior, keys, launch)

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss of the batch's pictures at noise of their own."""
        train = self.recipe.train
        kept, random = self.draw(batch)
        embeddings = self.embeddings(batch)
        with self.launch.autocast(train.precision):
            conditioning = self.prior.condition_on_embeddings(embeddings, kept)
        objective = Objective(min_snr_gamma=train.min_snr_gamma, noise_offset=train.noise_offset)
        latents, sizes = self.latents(batch), self.ids(batch)
        loss: Tensor = self.generator.loss(latents, conditioning, random, sizes, objective)
        return loss

    def draw(self, batch: Batch) -> tuple[Tensor, list[torch.Generator]]:
        """Draw which tokens are kept; seed, step and place in the step alone decide what is random of a row.

        Args:
            batch: B pictures of a step.

        Returns:
            Whether tokens are kept [B, 1], and each row's random numbers for the loss.
        """
        random = [self._random(batch.step, place) for place in batch.places]
        kept = torch.stack([torch.rand(1, generator=each) for each in random]) >= self.recipe.token_dropout
        return to_device(kept, self.launch.device), random

    def latents(self, batch: Batch) -> Tensor:
        """Give the latents [B, C, h, w] of pictures, encoding those that are not known.

        The posterior is sampled where the recipe says so and in a step alone: validation takes its mode.
        """
        image, random = batch.image.to(self.launch.device, non_blocking=True), None
        if image.dtype != torch.uint8:
            return image
        if self.recipe.posterior == "sample" and batch.places:
            random = [self._random(batch.step, place, 1) for place in batch.places]
        latents: Tensor = self.generator.encode(image.float() / 255, random)
        return latents

    def ids(self, batch: Batch) -> Tensor:
        """Give SDXL's six ids of pictures [B, 6], as the recipe takes the corner of their crops."""
        is_original = self.recipe.crop_ids == "original"
        sizes = crop_of_the_original(batch.sizes) if is_original else batch.sizes
        return sizes.to(self.launch.device, non_blocking=True)

    def _random(self, *place: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.recipe.seed, *place) >> 1)

    def embeddings(self, batch: Batch) -> dict[str, Tensor]:
        """Give the embeddings [B, D] of pictures by the prior's keys."""
        found = self.pictures.targets.gather(batch.rows, batch.views)
        return {self.keys[name]: rows for name, rows in found.items()}

    @torch.no_grad()
    def validate(self) -> list[float]:
        """Denoise the validation pictures at fixed noise and levels: the mean loss of each."""
        losses = []
        rows = [0] * len(LEVELS)
        for index in self.pictures.held[: self.recipe.validation_items]:
            batch = self.pictures.batch(index[None])
            conditioning = self.prior.condition_on_embeddings(self.embeddings(batch))[rows]
            latents, sizes = self.latents(batch)[rows], self.ids(batch)[rows]
            given = (latents, conditioning, self._random(int(index)), sizes)
            losses.append(self.generator.loss(*given, levels=torch.tensor(LEVELS)))
        return torch.stack(losses).tolist() if losses else []


def load(generator: Any, what: Recipe, launch: Launch) -> Any:
    """Load a generator whose U-Net computes in the training's precision, and whose VAE in float32.

    Raises:
        BrainhiveError: if it has no pictures of `resolution_px`.
    """
    return _prepared(generator.build(launch.device, _dtype(what)), what)


def outline(generator: Any, what: Recipe) -> Any:
    """Make of shapes alone what `load` would load."""
    return _prepared(generator.skeleton(_dtype(what)), what)


def _prepared(made: Any, what: Recipe) -> Any:
    made.check_size(what.resolution_px)
    made.use_float32_autoencoder()
    return made


def _dtype(what: Recipe) -> torch.dtype:
    return torch.bfloat16 if what.train.precision == "bf16" else torch.float32


def remember_prompt(generator: Any, folder: RunFolder, name: str, launch: Launch) -> None:
    """Embed the empty prompt once for a run: text encoders are loaded by one process, and never again."""
    file = folder.path / "checkpoints" / name
    if launch.is_main and not file.is_file():
        folder.replace(f"checkpoints/{name}", generator.save_empty_prompt)
    launch.barrier()
    generator.load_empty_prompt(file)


def train(
    training: Training,
    folder: RunFolder,
    learner: Learner,
    after_step: Callable[[int], None],
    track: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> list[float]:
    """Train to the last step, going on from the newest checkpoint; the loop is one screen.

    Args:
        training: What is trained on what.
        folder: Its run.
        learner: The parts that learn.
        after_step: Called after every step with the number of those done.
        track: Given what is logged.

    Returns:
        The validation losses before the first step.
    """
    what, launch, settings = training.recipe, training.launch, training.recipe.train
    remember_prompt(training.generator, folder, EMPTY_PROMPT, launch)
    size = settings.batch_size * settings.accumulate * launch.processes
    saved = learner.resume(folder) or {"at_start": training.validate(), "size": size}
    if saved["size"] != size:
        raise BrainhiveError(
            f"{folder.path} was begun with {saved['size']} pictures a step, and now has {size}",
            f"--processes {saved['size'] // (settings.batch_size * settings.accumulate)}, or --again",
        )
    losses: deque[Tensor] = deque(maxlen=RECENT * settings.accumulate)
    steps, workers = range(learner.step, settings.steps), decoders(what.run.workers, launch)
    with console.progress("train-prior", len(steps) * size) as bar:
        for batch in batches(training.pictures, steps, size, settings.accumulate, what.seed, workers, launch):
            share = len(batch.rows) * launch.processes / batch.count
            loss = training.loss(batch) * share
            loss.backward()
            losses.append(loss.detach())
            if not batch.is_last:
                continue
            launch.average_gradients(learner.parameters)
            learner.update()
            bar.advance(size, f"step {learner.step}")
            is_due = learner.step % settings.checkpoint_steps == 0 or learner.step == settings.steps
            if is_due and launch.is_main:
                mean = settings.accumulate * float(torch.stack([*losses]).mean())
                _require_finite(mean, learner)
                learner.save(folder, at_start=saved["at_start"], size=size)
                event = {"step": learner.step, "loss": mean}
                folder.log(**event)
                track(event)
            after_step(learner.step)
    at_start: list[float] = saved["at_start"]
    return at_start


def _require_finite(loss: float, learner: Learner) -> None:
    """Stop a training that has diverged: one loss or gradient that is not finite spoils all that follow."""
    norm = float(learner.norm)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise BrainhiveError(
            f"the training has diverged by step {learner.step}: loss {loss:g}, norm of the gradient {norm:g}",
            "a lower train.lr, or train.precision=fp32; the last checkpoint is from before",
        )


def _computed_latents(what: Recipe, pictures: Pictures, generator: Any, launch: Launch) -> _latents.Latents:
    rows = np.flatnonzero(pictures.targets.done)
    workers = decoders(what.run.workers, launch)
    return _latents.computed(
        pictures.images, rows, generator, pictures.view, what.paths, what.train.batch_size, workers, launch
    )


def make_prior(what: Recipe, dims: Mapping[str, int], generator: Any) -> tuple[Any, dict[str, str]]:
    """Load the prior that is gone on with, or make a new one.

    Args:
        recipe: The recipe.
        dims: D of each encoder's embedding, where it is known.
        generator: The diffusion model that it is for.

    Returns:
        The prior, and its key of each encoder.

    Raises:
        BrainhiveError: if its encoders or their widths are others.
    """
    if what.continue_from is not None:
        prior = priors.load(what.continue_from)
        keys = match_prior(what.continue_from, what.encoders)
        for name, found in dims.items():
            if found != (wide := prior.dims[keys[name]]):
                raise BrainhiveError(
                    f"the prior {what.continue_from} takes {name} of width {wide}, not {found}",
                    "embed with the encoder that the prior was trained on",
                )
        return prior, keys
    torch.manual_seed(what.seed)
    keys = {config.name: config.upstream or config.name for config in what.encoders}
    return what.prior.build({key: dims.get(name, WIDTH) for name, key in keys.items()}, generator), keys
