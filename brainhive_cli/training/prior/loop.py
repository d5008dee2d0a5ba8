"""Training of a prior on a frozen diffusion model."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Self

import torch
from torch import Tensor, nn

from brainhive_cli.core.base import (
    BrainhiveError,
    MissingData,
    RecipeError,
    console,
    copy_to_device,
    derive_seed,
    is_asked_to_stop,
    raise_if_asked_to_stop,
)
from brainhive_cli.core.runs import Launch, RunFolder, weights
from brainhive_cli.data.media import PictureBatch, count_decoders, use_crop_of_original
from brainhive_cli.data.targets import match_prior_keys
from brainhive_cli.models import AdamW, order_embeddings, priors
from brainhive_cli.training.prior.examples import (
    PriorExamples,
    encode_latents,
    load_examples,
)
from brainhive_cli.training.prior.recipe import PriorTrain, Recipe

LAST = "last"
"""Name of the newest checkpoint, and of the samples of the finished prior."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train(
    training: Training,
    folder: RunFolder,
    learner: PriorLearner,
    after_step: Callable[[int], None],
    track: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> list[float]:
    """Train a prior to the last step.

    1. Resume from the newest checkpoint, or validate before the first step.
    2. Set up the pictures of the remaining steps.
    3. In each step, compute the gradients of all passes, and update the weights.
    4. Log the loss, call `after_step`, and write a checkpoint.

    Events of the log after the checkpoint are deleted before they are written again.

    Args:
        training: Prior, diffusion model and pictures.
        folder: Folder of the run.
        learner: Optimizer of the prior.
        after_step: Function that the main process calls with the number of finished
            steps.
        track: Function that the main process calls with each logged event.

    Returns:
        The validation losses before the first step.

    Raises:
        BrainhiveError: if the number of pictures in a step has changed since the
            checkpoint, or if the loss or gradient is not finite.
    """
    recipe = training.recipe
    launch = training.launch
    settings = recipe.train
    passes = settings.accumulate
    embed_empty_prompt(training.generator, folder, "empty_prompt.safetensors", launch)

    # resume, with as many pictures in a step as before
    size = settings.batch_size * passes * launch.processes
    saved = learner.resume(folder, launch)
    if saved is None:
        saved = {"at_start": training.validate(), "size": size}
    if saved["size"] != size:
        n_processes = saved["size"] // (settings.batch_size * passes)
        raise BrainhiveError(
            f"{folder.path} was started with {saved['size']} pictures a step, and now "
            f"has {size}",
            f"add --processes {n_processes}, or --again",
        )
    launch.run_on_main(partial(folder.forget_events_after, learner.step))

    # set up the pictures of the remaining steps
    steps = range(learner.step, settings.steps)
    n_pictures = training.pictures.count_in_step(size, passes, launch.processes)
    batches = load_examples(
        training.pictures,
        steps,
        n_pictures,
        passes,
        recipe.seed,
        count_decoders(recipe.run.workers, launch),
        launch,
    )
    with console.progress("training the prior", len(steps) * size) as bar:
        for _ in steps:
            # the gradient is of the mean loss over the pictures of all processes
            for batch in islice(batches, passes):
                share = len(batch.rows) * launch.processes / n_pictures
                loss = training.compute_loss(batch) * share
                loss.backward()
                learner.recent_losses.append(loss.detach())
            launch.average_gradients(learner.parameters)
            learner.update()
            bar.advance(size, f"step {learner.step}")
            if not launch.is_main:
                continue

            # log the mean loss, call after_step, and write a checkpoint
            is_due = (
                learner.step % settings.checkpoint_steps == 0
                or learner.step == settings.steps
            )
            if is_due:
                mean_loss = learner.compute_mean_loss(passes)
                event = {"step": learner.step, "loss": mean_loss}
                folder.log(**event)
                track(event)
            after_step(learner.step)
            if is_due or is_asked_to_stop():
                learner.save(folder, at_start=saved["at_start"], size=size)
            raise_if_asked_to_stop()
    return saved["at_start"]


@dataclass(frozen=True)
class Training:
    """A prior, its frozen diffusion model, and the pictures of the training.

    Attributes:
        recipe: Settings of the training.
        pictures: Pictures with embeddings, and latents if they are cached.
        generator: The frozen diffusion model.
        prior: The prior, attached to the diffusion model.
        keys: The prior's key of each encoder, by the encoder's store name.
        launch: Processes of the training.
    """

    recipe: Recipe
    pictures: PriorExamples
    generator: Any
    prior: Any
    keys: dict[str, str]
    launch: Launch

    @classmethod
    def begin(cls, recipe: Recipe, pictures: PriorExamples, launch: Launch) -> Self:
        """Load the diffusion model, and load or make the prior.

        Latents of all pictures are computed if `recipe.cache_latents` is set.

        Raises:
            BrainhiveError: if diffusion model, prior and embeddings do not fit.
        """
        generator = load_generator(recipe.generator, recipe, launch.device)
        generator.prepare_training(
            recipe.train.gradient_checkpointing, recipe.train.compile
        )
        if recipe.cache_latents:
            pictures = encode_latents(pictures, generator, recipe, launch)
        prior, keys = make_prior(recipe, pictures.targets.dims, generator)
        prior.attach(generator)
        prior.to(launch.device, DTYPES[recipe.train.weights]).train()
        return cls(recipe, pictures, generator, prior, keys, launch)

    def compute_loss(self, batch: PictureBatch) -> Tensor:
        """Compute the mean loss of a batch, with different noise for each picture."""
        is_kept, generators = self.draw_dropout(batch)
        embeddings = self.gather_embeddings(batch)
        # the diffusion model has this precision already
        with self.launch.autocast(self.recipe.train.precision):
            conditioning = self.prior.condition_on_embeddings(embeddings, is_kept)
        return self.generator.loss(
            self.get_latents(batch), conditioning, generators, self.get_size_ids(batch)
        )

    def draw_dropout(self, batch: PictureBatch) -> tuple[Tensor, list[torch.Generator]]:
        """Draw the pictures whose tokens are kept. Other tokens are set to 0.

        Returns:
            True [B, 1] for pictures whose tokens are kept, and the random number
            generators [B] of the pictures, seeded by seed, step and position only.
        """
        generators = []
        draws = []
        for number in self.number_rows(batch):
            generator = self._make_generator(batch.step, number)
            generators.append(generator)
            draws.append(torch.rand(1, generator=generator))
        is_kept = torch.stack(draws) >= self.recipe.token_dropout
        return copy_to_device(is_kept, self.launch.device), generators

    def number_rows(self, batch: PictureBatch) -> Sequence[int]:
        """Number the rows [B] of a batch, for their random numbers.

        They are positions in the step, or in the process with `train.equal_noise`.
        """
        settings = self.recipe.train
        if not settings.equal_noise:
            return batch.positions
        share = settings.batch_size * settings.accumulate
        return [position % share for position in batch.positions]

    def get_latents(self, batch: PictureBatch) -> Tensor:
        """Return the latents [B, C, h, w] of a batch, and encode them if necessary.

        If `recipe.posterior` is "sample", training samples the posterior. Validation
        uses its mode.
        """
        image = batch.image.to(self.launch.device, non_blocking=True)
        # pictures are bytes, and cached latents are floats
        if image.dtype != torch.uint8:
            return image
        generators = None
        if self.recipe.posterior == "sample" and batch.positions:
            generators = []
            for number in self.number_rows(batch):
                generators.append(self._make_generator(batch.step, number, 1))
        return self.generator.encode(image.float() / 255, generators)

    def get_size_ids(self, batch: PictureBatch) -> Tensor:
        """Return the size ids [B, 6]: original size, `crop_ids` corner and new size."""
        sizes = batch.sizes
        if self.recipe.crop_ids == "original":
            sizes = use_crop_of_original(sizes)
        return sizes.to(self.launch.device, non_blocking=True)

    def _make_generator(self, *position: int) -> torch.Generator:
        """Make the random number generator of a position, such as step and row."""
        seed = derive_seed(self.recipe.seed, *position) >> 1
        return torch.Generator().manual_seed(seed)

    def gather_embeddings(self, batch: PictureBatch) -> dict[str, Tensor]:
        """Return the embeddings [B, D] by the prior's key, in the prior's dtype."""
        dtype = DTYPES[self.recipe.train.weights]
        encoder_embeddings = self.pictures.targets.gather(batch.rows, batch.views)
        return {
            self.keys[name]: embeddings.to(dtype)
            for name, embeddings in encoder_embeddings.items()
        }

    @torch.no_grad()
    def validate(self) -> list[float]:
        """Compute the loss of each held-out picture, with fixed noise at `levels`."""
        losses = []
        # Shares of the noise schedule at which validation pictures are denoised.
        levels = (0.2, 0.5, 0.8)
        rows = [0] * len(levels)  # a row for each level
        held_out_rows = self.pictures.held_out_rows[: self.recipe.validation_items]
        with console.progress("validating", len(held_out_rows)) as bar:
            for index in held_out_rows:
                batch = PictureBatch(*self.pictures.read([int(index)]))
                embeddings = self.gather_embeddings(batch)
                conditioning = self.prior.condition_on_embeddings(embeddings)
                # the same noise in each validation
                loss = self.generator.loss(
                    self.get_latents(batch)[rows],
                    conditioning[rows],
                    self._make_generator(int(index)),
                    self.get_size_ids(batch)[rows],
                    levels=torch.tensor(levels),
                )
                losses.append(loss)
                bar.advance()
        return torch.stack(losses).tolist() if losses else []


class PriorLearner:
    """Optimizer of a prior, and the progress of its training.

    Args:
        prior: The prior, on its device.
        frozen: Names of child modules that do not learn.
        train: Settings of the training.

    Attributes:
        step: Number of finished steps.
        grad_norm: Norm of the newest gradient.
        recent_losses: Losses of the backward passes of the newest steps.
    """

    def __init__(self, prior: Any, frozen: Sequence[str], train: PriorTrain) -> None:
        self.prior = prior
        self.parameters = freeze_modules(prior, frozen)
        self.optimizer = AdamW(
            self.parameters, train.lr, weight_decay=train.weight_decay, fused=True
        )
        self.step = 0
        self.grad_norm = torch.tensor(0.0)
        # Number of steps whose mean loss is logged.
        max_passes = 100 * train.accumulate
        self.recent_losses: deque[Tensor] = deque(maxlen=max_passes)

    def update(self) -> None:
        """Update the weights with the gradients, and delete the gradients."""
        # Largest norm of the gradient, as in BrainHiVE.
        self.grad_norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def compute_mean_loss(self, passes: int) -> float:
        """Compute the mean loss of the newest steps.

        Args:
            passes: Backward passes of a step.

        Raises:
            BrainhiveError: if the loss or the gradient is not finite.
        """
        # the loss of a step is the sum over its passes
        mean = passes * float(torch.stack(list(self.recent_losses)).mean())
        norm = float(self.grad_norm)
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise BrainhiveError(
                f"the training has diverged by step {self.step}: loss {mean:g}, norm "
                f"of the gradient {norm:g}",
                "set a lower train.lr, or train.precision=fp32 (the last checkpoint is "
                "older than this)",
            )
        return mean

    def save(self, folder: RunFolder, **others: Any) -> None:
        """Write a checkpoint.

        Args:
            folder: Folder of the run.
            others: Further values that `resume` returns.
        """
        losses = []
        if self.recent_losses:
            losses = torch.stack(list(self.recent_losses)).tolist()
        content = {
            "step": self.step,
            "prior": self.prior.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": losses,
            "others": others,
        }
        weights.Checkpoint(folder.checkpoint_path(LAST)).save(content)

    def resume(self, folder: RunFolder, launch: Launch) -> dict[str, Any] | None:
        """Load the newest checkpoint.

        Returns:
            The further values of `save`, or None without a checkpoint.

        Raises:
            BrainhiveError: if the checkpoint does not fit the prior.
        """
        device = self.parameters[0].device
        checkpoint = weights.Checkpoint(folder.checkpoint_path(LAST))
        saved = checkpoint.load(launch, device)
        if saved is None:
            return None
        with weights.reading(checkpoint.path, weights.RETRAIN_HINT, BrainhiveError):
            # pop, so that the device does not hold the weights twice
            self.prior.load_state_dict(saved.pop("prior"))
            self.optimizer.load_state_dict(saved.pop("optimizer"))
            self.recent_losses.extend(torch.tensor(saved["losses"], device=device))
            self.step = int(saved["step"])
            return dict(saved["others"])


def freeze_modules(prior: Any, frozen: Sequence[str]) -> list[nn.Parameter]:
    """Freeze child modules of a prior, and return the parameters of the others.

    Args:
        prior: The prior.
        frozen: Names of the frozen modules.

    Raises:
        BrainhiveError: if a name is unknown, or if no module is left to train.
    """
    names = [name for name, _ in prior.named_children()]
    if set(frozen) - set(names) or set(frozen) == set(names):
        raise BrainhiveError(
            f"freeze: {', '.join(frozen) or 'nothing'} leaves no module to train, or "
            "is unknown",
            f"choose from {', '.join(names)}, but not all",
        )
    for name in frozen:
        prior.get_submodule(name).requires_grad_(False)
    return [parameter for parameter in prior.parameters() if parameter.requires_grad]


@console.progress("loading the generator")
def load_generator(config: Any, recipe: Recipe, device: torch.device | str) -> Any:
    """Load a diffusion model in the precision of the training.

    Its autoencoder computes in float32.

    Args:
        config: Config of the generator or sampler.
        recipe: Recipe of the training.
        device: Device of the model. "meta" loads no weights.

    Raises:
        BrainhiveError: if the model does not make pictures of `resolution_px`, or if no
            prior can be trained on it.
    """
    generator = config.build(device, DTYPES[recipe.train.precision])
    generator.check_size(recipe.resolution_px)
    if not hasattr(generator, "prepare_training"):
        raise RecipeError(
            "no prior can be trained on this generator",
            "choose a single diffusion model of the default kind",
        )
    generator.use_float32_autoencoder()
    return generator


def check_fit(recipe: Recipe, dims: Mapping[str, int] | None = None) -> None:
    """Check that prior, generator, sampler and embeddings fit, without weights.

    Args:
        recipe: Recipe of the training.
        dims: Width D of each embedding, or None if an encoder is absent.

    Raises:
        BrainhiveError: if generator, sampler, prior and embeddings do not fit.
    """
    generator = load_generator(recipe.generator, recipe, "meta")
    # Width of an embedding whose encoder and store are absent.
    widths = dims or {config.name: 1024 for config in recipe.encoders}
    with torch.device("meta"):
        prior, keys = make_prior(recipe, widths, generator)
        prior = prior.to("meta", torch.float32)
    if dims is not None:
        embeddings = {keys[name]: torch.empty(0, dim) for name, dim in dims.items()}
        order_embeddings(embeddings, prior.dims)
    freeze_modules(prior, recipe.freeze)
    prior.attach(generator)
    if recipe.sampler is not None and (recipe.sample_items or recipe.fid_items):
        prior.attach(load_generator(recipe.sampler, recipe, "meta"))


@console.progress("embedding the empty prompt")
def embed_empty_prompt(
    generator: Any, folder: RunFolder, name: str, launch: Launch
) -> None:
    """Load the embedding of the empty prompt, which is computed once in a run.

    The main process alone loads the text encoders.
    """
    path = f"checkpoints/{name}"

    def load() -> None:
        try:
            generator.load_empty_prompt(folder.path / path)
        except MissingData:  # absent or damaged
            folder.replace(path, generator.save_empty_prompt)
            generator.load_empty_prompt(folder.path / path)

    launch.run_main_first(load)


def make_prior(
    recipe: Recipe, dims: Mapping[str, int], generator: Any
) -> tuple[Any, dict[str, str]]:
    """Make a new prior, or load the prior whose training is continued.

    Args:
        recipe: Recipe of the training.
        dims: Width D of each encoder's embedding.
        generator: The diffusion model.

    Returns:
        The prior, and its key of each encoder.

    Raises:
        BrainhiveError: if the prior has other encoders, or cannot be trained.
    """
    source = recipe.continue_from
    if source is None:
        torch.manual_seed(recipe.seed)
        keys = {config.name: config.published_name for config in recipe.encoders}
        widths = {key: dims[name] for name, key in keys.items()}
        prior = recipe.prior.build(widths, generator)
    else:
        prior = priors.load(source)
    if not hasattr(prior, "condition_on_embeddings"):
        raise RecipeError(
            f"a prior of kind {prior.kind} cannot be trained",
            f"set prior={priors.DEFAULT}",
        )
    if source is not None:
        keys = match_prior_keys(source, recipe.encoders)
    return prior, keys
