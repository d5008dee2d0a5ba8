"""The training of a prior on a frozen diffusion model: what learns, its loop, and what
a step computes.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Self

import torch
from torch import Tensor, nn

from brainhive_cli.core import console, weights
from brainhive_cli.core.device_memory import copy_to_device
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    RecipeError,
    is_asked_to_stop,
    raise_if_asked_to_stop,
)
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.media.decoding import count_decoders
from brainhive_cli.data.media.views import PictureBatch, use_crop_of_original
from brainhive_cli.data.targets.encoder_keys import match_prior_keys
from brainhive_cli.models import priors
from brainhive_cli.models.adamw import AdamW
from brainhive_cli.models.blocks import order_embeddings
from brainhive_cli.training.prior.examples import PriorExamples, batches, encode_latents
from brainhive_cli.training.prior.recipe import PriorTrain, Recipe

USUAL_WIDTH = 1024
"""D that is taken of an embedding of which nothing is known yet."""
LAST = "last"
"""The newest checkpoint, and the samples of the finished prior."""
GRAD_NORM = 1.0
"""Largest norm of the gradient: BrainHiVE's."""
RECENT = 100
"""Steps whose mean loss is logged."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@console.progress("loading the generator")
def load_generator(config: Any, recipe: Recipe, device: torch.device | str) -> Any:
    """Load a generator (or sampler) that denoises in the training's precision, and
    encodes in float32.

    Args:
        config: The part.
        recipe: What is trained.
        device: Where it lies; "meta" for its shapes alone.

    Raises:
        BrainhiveError: if it has no pictures of `resolution_px`, or cannot be trained
            on.
    """
    generator = config.build(device, DTYPES[recipe.train.precision])
    generator.check_size(recipe.resolution_px)
    if not hasattr(generator, "prepare_training"):
        raise RecipeError(
            "no prior can be trained on this generator",
            "name a single diffusion model of the default kind",
        )
    generator.use_float32_autoencoder()
    return generator


def require_fit(recipe: Recipe, dims: Mapping[str, int] | None = None) -> None:
    """Put generator, prior and sampler together by their shapes alone, as far as they
    are here.

    Args:
        recipe: The recipe.
        dims: D of each embedding. None where an encoder that says it is not here.

    Raises:
        BrainhiveError: if generator, sampler, prior and embeddings do not fit each
            other.
    """
    # the networks by their shapes, trained and for samples
    generator = load_generator(recipe.generator, recipe, "meta")
    widths = dims or {config.name: USUAL_WIDTH for config in recipe.encoders}
    with torch.device("meta"):
        made, keys = make_prior(recipe, widths, generator)
        prior = made.to("meta", torch.float32)
    if dims is not None:
        embeddings = {keys[name]: torch.empty(0, dim) for name, dim in dims.items()}
        order_embeddings(embeddings, prior.dims)
    trainable(prior, recipe.freeze)
    prior.attach(generator)
    if recipe.sampler is not None and (recipe.sample_items or recipe.fid_items):
        prior.attach(load_generator(recipe.sampler, recipe, "meta"))


@console.progress("embedding the empty prompt")
def embed_empty_prompt(
    generator: Any, folder: RunFolder, name: str, launch: Launch
) -> None:
    """Embed the empty prompt once a run: text encoders are loaded by one process, and
    never again.
    """
    file = folder.path / "checkpoints" / name

    def load() -> None:
        try:
            generator.load_empty_prompt(file)
        except MissingData:  # or damaged
            folder.replace(f"checkpoints/{name}", generator.save_empty_prompt)
            generator.load_empty_prompt(file)

    launch.run_main_first(load)


def make_prior(
    recipe: Recipe, dims: Mapping[str, int], generator: Any
) -> tuple[Any, dict[str, str]]:
    """Load the prior whose training is continued, or make a new one for a generator.

    Args:
        recipe: The recipe.
        dims: D of each encoder's embedding.
        generator: The diffusion model.

    Returns:
        The prior, and its key of each encoder.

    Raises:
        BrainhiveError: if it was made with other encoders, or cannot be trained.
    """
    # a new prior is drawn by the seed, another one is loaded
    source = recipe.continue_from
    if source is None:
        torch.manual_seed(recipe.seed)
        keys = {
            config.name: config.upstream or config.name for config in recipe.encoders
        }
        widths = {key: dims[name] for name, key in keys.items()}
        prior = recipe.prior.build(widths, generator)
    else:
        prior = priors.load(source)

    # some priors can only be used
    if not hasattr(prior, "condition_on_embeddings"):
        raise RecipeError(
            f"a prior of kind {prior.kind} cannot be trained", f"prior={priors.DEFAULT}"
        )
    if source is None:
        return prior, keys

    # a loaded prior fixes its encoders
    return prior, match_prior_keys(source, recipe.encoders)


class PriorLearner:
    """The parts of a prior (on its device) that are not `frozen`, their optimiser and
    step.
    """

    def __init__(self, prior: Any, frozen: Sequence[str], train: PriorTrain) -> None:
        # parameters that learn, and the settings of the optimiser
        self.prior = prior
        self.parameters = trainable(prior, frozen)
        self.optimizer = AdamW(
            self.parameters, train.lr, weight_decay=train.weight_decay, fused=True
        )

        # progress, and losses of the last steps
        self.step = 0
        self.norm = torch.tensor(0.0)
        # of backward passes
        self.losses: deque[torch.Tensor] = deque(maxlen=RECENT * train.accumulate)

    def update(self) -> None:
        """Take one step along the gradients, keep their norm, and set them to None."""
        self.norm = nn.utils.clip_grad_norm_(self.parameters, GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def save(self, folder: RunFolder, **further: Any) -> None:
        """Write a checkpoint, together with other values to restore."""
        content = {
            "step": self.step,
            "prior": self.prior.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": torch.stack([*self.losses]).tolist() if self.losses else [],
            "others": further,
        }
        weights.Checkpoint(folder.checkpoint_path(LAST)).save(content)

    def resume(self, folder: RunFolder, launch: Launch) -> dict[str, Any] | None:
        """Restore the newest checkpoint, if there is one; return the other values that
        were saved.
        """
        checkpoint = weights.Checkpoint(folder.checkpoint_path(LAST))
        saved = checkpoint.load(launch, self.parameters[0].device)
        if saved is None:
            return None

        # a checkpoint that does not fit ends in a message with the way out
        with weights.reading(checkpoint.path, weights.RETRAIN_HINT, BrainhiveError):
            # so that the device holds nothing twice
            self.prior.load_state_dict(saved.pop("prior"))
            self.optimizer.load_state_dict(saved.pop("optimizer"))
            # so that the next mean is of as many steps as without an interruption
            losses = saved["losses"]
            self.losses.extend(torch.tensor(losses, device=self.parameters[0].device))
            self.step = int(saved["step"])
            return dict(saved["others"])


def trainable(prior: Any, frozen: Sequence[str]) -> list[nn.Parameter]:
    """Freeze child modules of a prior by name, and list the parameters of the others.

    Raises:
        BrainhiveError: if a name is unknown, or nothing is left to train.
    """
    # a known part must remain to be trained
    known = [name for name, _ in prior.named_children()]
    if set(frozen) - set(known) or set(frozen) == set(known):
        raise BrainhiveError(
            f"freeze: {', '.join(frozen) or 'nothing'} leaves nothing known to train",
            f"parts: {', '.join(known)}",
        )
    for part in frozen:
        prior.get_submodule(part).requires_grad_(False)
    return [parameter for parameter in prior.parameters() if parameter.requires_grad]


EMPTY_PROMPT = "empty_prompt.safetensors"
LEVELS = (0.2, 0.5, 0.8)
"""Shares of the noise schedule at which validation items are denoised."""


@dataclass(frozen=True)
class Training:
    """A prior attached to its generator, and the pictures that it learns from."""

    recipe: Recipe
    pictures: PriorExamples  # with their latents if these were computed before
    generator: Any  # the frozen diffusion model
    prior: Any
    keys: dict[str, str]  # the prior's, by the encoder's store name
    launch: Launch

    @classmethod
    def begin(cls, recipe: Recipe, pictures: PriorExamples, launch: Launch) -> Self:
        """Load the generator, and load or make the prior; BrainhiveError if they do not
        fit each other.
        """
        # frozen diffusion model, and latents of all pictures where they are cached
        generator = load_generator(recipe.generator, recipe, launch.device)
        generator.prepare_training(
            recipe.train.gradient_checkpointing, recipe.train.compile
        )
        if recipe.cache_latents:
            pictures = encode_latents(pictures, generator, recipe, launch)

        # the prior, attached to the diffusion model and ready to learn
        prior, keys = make_prior(recipe, pictures.targets.dims, generator)
        prior.attach(generator)
        prior.to(launch.device, DTYPES[recipe.train.weights]).train()
        return cls(recipe, pictures, generator, prior, keys, launch)

    def loss(self, batch: PictureBatch) -> Tensor:
        """Mean loss of the batch's pictures at noise of their own."""
        is_kept, random = self.draw(batch)
        embeddings = self.embeddings(batch)
        # the diffusion model already computes in this precision
        with self.launch.autocast(self.recipe.train.precision):
            conditioning = self.prior.condition_on_embeddings(embeddings, is_kept)
        return self.generator.loss(
            self.latents(batch), conditioning, random, self.ids(batch)
        )

    def draw(self, batch: PictureBatch) -> tuple[Tensor, list[torch.Generator]]:
        """Draw which tokens are kept, [B, 1], with each row's random number generator
        for the loss.

        All randomness of a row depends on seed, step and position alone.
        """
        random = [self._random(batch.step, number) for number in self.numbers(batch)]
        drawn = torch.stack(
            [torch.rand(1, generator=generator) for generator in random]
        )
        return copy_to_device(
            drawn >= self.recipe.token_dropout, self.launch.device
        ), random

    def numbers(self, batch: PictureBatch) -> Sequence[int]:
        """Number the rows of a batch for their randomness: by their positions in the
        step, or with `equal_noise` in the share of the process.
        """
        train = self.recipe.train
        if not train.equal_noise:
            return batch.positions
        share = train.batch_size * train.accumulate
        return [position % share for position in batch.positions]

    def latents(self, batch: PictureBatch) -> Tensor:
        """Return the latents [B, C, h, w] of pictures, encoded now where they were not
        computed before.

        The posterior is sampled where the recipe says so, and only in training:
        validation takes its mode.
        """
        image, random = batch.image.to(self.launch.device, non_blocking=True), None
        # pictures are bytes, latents computed before are floats
        if image.dtype != torch.uint8:
            return image
        if self.recipe.posterior == "sample" and batch.positions:
            random = [
                self._random(batch.step, number, 1) for number in self.numbers(batch)
            ]
        return self.generator.encode(image.float() / 255, random)

    def ids(self, batch: PictureBatch) -> Tensor:
        """Return the size and crop ids of pictures [B, 6], the crop's corner as
        `crop_ids` says.
        """
        is_original = self.recipe.crop_ids == "original"
        sizes = use_crop_of_original(batch.sizes) if is_original else batch.sizes
        return sizes.to(self.launch.device, non_blocking=True)

    def _random(self, *position: int) -> torch.Generator:
        return torch.Generator().manual_seed(
            derive_seed(self.recipe.seed, *position) >> 1
        )

    def embeddings(self, batch: PictureBatch) -> dict[str, Tensor]:
        """Return the embeddings [B, D] of pictures by the prior's keys, in the dtype of
        its weights.
        """
        encoder_embeddings = self.pictures.targets.gather(batch.rows, batch.views)
        return {
            self.keys[name]: embeddings.to(DTYPES[self.recipe.train.weights])
            for name, embeddings in encoder_embeddings.items()
        }

    @torch.no_grad()
    def validate(self) -> list[float]:
        """Denoise the validation pictures at fixed noise and levels: the mean loss of
        each.
        """
        losses, rows = [], [0] * len(LEVELS)
        chosen = self.pictures.held[: self.recipe.validation_items]
        with console.progress("validating", len(chosen)) as bar:
            for index in chosen:
                batch = PictureBatch(*self.pictures.read([int(index)]))
                # one row for each noise level
                conditioning = self.prior.condition_on_embeddings(
                    self.embeddings(batch)
                )[rows]
                latents, sizes = self.latents(batch)[rows], self.ids(batch)[rows]
                # noise by picture, so that validations of different steps compare
                losses.append(
                    self.generator.loss(
                        latents,
                        conditioning,
                        self._random(int(index)),
                        sizes,
                        levels=torch.tensor(LEVELS),
                    )
                )
                bar.advance()
        return torch.stack(losses).tolist() if losses else []


def train(
    training: Training,
    folder: RunFolder,
    learner: PriorLearner,
    after_step: Callable[[int], None],
    track: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> list[float]:
    """Train to the last step, from the newest checkpoint if there is one.

    A checkpoint is written after all that its step logs and draws, and what later steps
    have logged is forgotten when training continues from it: an interruption leaves no
    trace.

    Args:
        training: What is trained on what.
        folder: Its run.
        learner: The parts that are trained.
        after_step: Called in the main process after every step, with the number of
            those done.
        track: Called with what is logged.

    Returns:
        The validation losses before the first step.
    """
    recipe, launch, settings = training.recipe, training.launch, training.recipe.train
    embed_empty_prompt(training.generator, folder, EMPTY_PROMPT, launch)
    # pictures a step, which must not change when a training continues
    size = settings.batch_size * settings.accumulate * launch.processes
    saved = learner.resume(folder, launch) or {
        "at_start": training.validate(),
        "size": size,
    }
    if saved["size"] != size:
        raise BrainhiveError(
            f"{folder.path} was started with {saved['size']} pictures a step, and "
            f"now has {size}",
            "--processes "
            f"{saved['size'] // (settings.batch_size * settings.accumulate)}, or "
            "--again",
        )

    # steps behind the checkpoint are done, and logged, again
    launch.run_on_main(partial(folder.forget_events_after, learner.step))

    # pictures of the remaining steps, in the same order as without an interruption
    steps = range(learner.step, settings.steps)
    workers = count_decoders(recipe.run.workers, launch)
    passes = settings.accumulate
    count = training.pictures.count_in_step(size, passes, launch.processes)
    examples = batches(
        training.pictures, steps, count, passes, recipe.seed, workers, launch
    )
    with console.progress("training the prior", len(steps) * size) as bar:
        for _ in steps:
            # gradients of the mean loss over the pictures of all passes and processes
            for batch in islice(examples, passes):
                loss = training.loss(batch) * (
                    len(batch.rows) * launch.processes / count
                )
                loss.backward()
                learner.losses.append(loss.detach())
            launch.average_gradients(learner.parameters)
            learner.update()
            bar.advance(size, f"step {learner.step}")

            # the main process alone logs, samples and saves
            if not launch.is_main:
                continue

            # log the mean loss of the last steps; one that is not finite spoils all
            # that follows
            is_due = (
                learner.step % settings.checkpoint_steps == 0
                or learner.step == settings.steps
            )
            if is_due:
                mean = passes * float(torch.stack([*learner.losses]).mean())
                norm = float(learner.norm)
                if not (math.isfinite(mean) and math.isfinite(norm)):
                    raise BrainhiveError(
                        f"the training has diverged by step {learner.step}: loss "
                        f"{mean:g}, norm of the gradient {norm:g}",
                        "a lower train.lr, or train.precision=fp32; the last "
                        "checkpoint is from before",
                    )
                event = {"step": learner.step, "loss": mean}
                folder.log(**event)
                track(event)

            # samples, then the checkpoint
            after_step(learner.step)
            if is_due or is_asked_to_stop():
                learner.save(folder, at_start=saved["at_start"], size=size)
            raise_if_asked_to_stop()
    return saved["at_start"]
