"""The training of a prior, resolved: its pictures, networks and metrics, known without weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.launch import Launch, num_processes
from brainhive_cli.core.needs import to_download
from brainhive_cli.data.stores.target_store import TargetStore, path_of
from brainhive_cli.measurement.metrics import perceptual
from brainhive_cli.measurement.metrics.perceptual import require_distances
from brainhive_cli.models import encoders, priors
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.prior.examples import Pictures
from brainhive_cli.training.prior.memory import training_bytes
from brainhive_cli.training.prior.optimisation import adamw8bit
from brainhive_cli.training.prior.recipe import INCEPTION, Recipe

ONE_PROCESS = Launch(0, 1, torch.device("cpu"))  # where a plan reads data


@dataclass(frozen=True)
class Job:
    """What train-prior is going to do; each member is resolved once, when it is first needed."""

    recipe: Recipe
    launch: Launch = ONE_PROCESS

    @cached_property
    def pinned(self) -> Recipe:
        """The recipe with the digest of the prior that it continues from, for the run's fingerprint."""
        source = self.recipe.continue_from
        return self.recipe.holding({source: priors.describe(source).digest} if source else {})

    @cached_property
    def pictures(self) -> Pictures:
        """The pictures with their embeddings, those kept from training apart."""
        return Pictures.open(self.recipe, self.launch)

    @property
    def pass_pictures(self) -> int:
        """Pictures of a step on one process."""
        return self.recipe.train.batch_size * self.recipe.train.accumulate

    def describe_pictures(self) -> str:
        """Count the pictures and epochs, and name the encoders that run in each step."""
        train, pictures, processes = self.recipe.train, self.pictures, num_processes(self.recipe.run)
        size = pictures.count_in_step(self.pass_pictures * processes, train.accumulate, processes)
        epochs = train.steps * size / len(pictures.train)
        where = f"{processes} processes" if processes > 1 else "one process"
        words = f"{len(pictures.train)} to learn ({epochs:.1f} epochs on {where}), {len(pictures.held)} kept"
        online = [
            f"{config.name}, {to_download(config.needs())}"
            for group in pictures.targets.groups
            for config in group.configs
        ]
        return words + (f"; embedded in each step by {'; '.join(online)}" if online else "")

    def describe_prior(self) -> str:
        """Describe what the prior starts from."""
        source = self.recipe.continue_from
        return f"new, {self.recipe.prior.check()}" if source is None else f"continues from {source}"

    def describe_metrics(self) -> str:
        """Name the metrics, and of those that cannot be measured the reason."""
        recipe = self.recipe
        found: dict[str, Callable[[], str]] = {}
        if recipe.sample_items:
            for config in recipe.similarity:
                found[f"similarity_{config.name}"] = partial(_describe_encoder, config)
        if recipe.sample_items and recipe.lpips:
            found["lpips"] = partial(_describe_network, "LPIPS")
        if recipe.fid_items:
            found["fid and kid"] = partial(_describe_distribution, recipe)
        return "; ".join(f"{name}: {_or_skipped(describe)}" for name, describe in found.items()) or "none"

    def require_optimizer(self) -> str:
        """Name the optimiser; MissingExtra if its library is not installed."""
        name = self.recipe.train.optimizer
        return f"{adamw8bit().__name__} of bitsandbytes" if name == "adamw8bit" else name

    @cached_property
    def memory_bytes(self) -> int:
        """Estimate of what training takes on each GPU; see `training_bytes`."""
        recipe, dims = self.recipe, dict[str, int]()  # where a store or the encoder itself fixes them
        root, name = recipe.paths.under_home("embeddings"), recipe.dataset.build(recipe.paths).name
        for config in recipe.encoders:
            path = path_of(root, name, recipe.split, config.name)
            dim = TargetStore.open(path).embedding.shape[-1] if path.is_file() else config.known_dim
            dims |= {config.name: dim} if dim is not None else {}
        return training_bytes(recipe, dims)


def _or_skipped(describe: Callable[[], str]) -> str:
    try:
        return describe()
    except RecipeError:
        raise
    except BrainhiveError as error:
        return f"skipped, {error.in_one_line}"


def _describe_encoder(config: EncoderConfig) -> str:
    words = to_download(needs := config.needs())
    if not any(need.size for need in needs):
        config.build()  # which finds out whether it can be loaded, and loads nothing
    return words


def _describe_network(metric: str) -> str:
    return to_download([]) if perceptual.is_here(metric) else "weights to download"


def _describe_distribution(recipe: Recipe) -> str:
    require_distances(recipe.fid_items)
    name = recipe.fid_features
    return _describe_network("FID") if name == INCEPTION else _describe_encoder(encoders.resolve(name))
