"""What a training would do and need, found out without loading a network."""

from collections.abc import Callable
from functools import partial

import torch

from brainhive_cli import encoders
from brainhive_cli.core import hub
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.launch import Launch, num_processes
from brainhive_cli.core.memory_estimate import in_words, size_of
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.metrics import perceptual
from brainhive_cli.metrics.distribution import require
from brainhive_cli.prior_training.examples import Pictures
from brainhive_cli.prior_training.loop import make_prior, outline
from brainhive_cli.prior_training.memory import training_bytes
from brainhive_cli.prior_training.optimisation import adamw8bit, trainable
from brainhive_cli.prior_training.recipe import INCEPTION, Recipe
from brainhive_cli.stores.target_store import EmbeddingStore, path_of


def looks(what: Recipe) -> dict[str, Callable[[], str]]:
    """Name all that is planned, and how each thing is found out; missing metrics are told, and not missed."""
    settings = what.train
    size = settings.batch_size * settings.accumulate
    found: dict[str, Callable[[], str]] = {
        "steps": lambda: f"{settings.steps} of {size} pictures on each process",
        "pictures": partial(_pictures, what, size),
        "generator": what.generator.check,
        "prior": partial(_prior, what),
    }
    if what.sampler is not None:
        found["sampler"] = what.sampler.check
    if settings.optimizer == "adamw8bit":
        found["optimizer"] = lambda: f"{adamw8bit().__name__} of bitsandbytes"
    return found | {"metrics": partial(_metrics, what), "memory, estimated": lambda: in_words(memory(what))}


def _pictures(what: Recipe, size: int) -> str:
    found, processes = Pictures.of(what, Launch(0, 1, torch.device("cpu"))), num_processes(what.run)
    count = found.in_a_step(size * processes, what.train.accumulate, processes)
    epochs = what.train.steps * count / len(found.train)
    where = f"{processes} processes" if processes > 1 else "one process"
    told = f"{len(found.train)} to learn ({epochs:.1f} epochs on {where}), {len(found.held)} kept"
    missing = [config for group in found.targets.groups for config in group.configs]
    computed = [f"{config.name}, {hub.to_download(config.bytes_to_fetch())}" for config in missing]
    return told + (f"; embedded at every step by {'; '.join(computed)}" if computed else "")


def _prior(what: Recipe) -> str:
    if what.continue_from is not None:
        return f"goes on from {what.continue_from}"
    if what.prior.start_from is None:
        return "new, from random weights"
    return f"new, from {what.prior.start_from}, {hub.to_download(what.prior.bytes_to_fetch())}"


def _metrics(what: Recipe) -> str:
    found: dict[str, Callable[[], str]] = {}
    if what.sample_items:
        found |= {f"similarity_{config.name}": partial(_encoder, config) for config in what.similarity}
    if what.sample_items and what.lpips:
        found["lpips"] = partial(_network, "LPIPS")
    if what.fid_items:
        found["fid and kid"] = partial(_distribution, what)
    return "; ".join(f"{name}: {_or_skipped(look)}" for name, look in found.items()) or "none"


def _or_skipped(look: Callable[[], str]) -> str:
    try:
        return look()
    except RecipeError:
        raise
    except BrainhiveError as error:
        return f"skipped, {error.in_one_line}"


def _encoder(config: EncoderConfig) -> str:
    if not (count := config.bytes_to_fetch()):
        config.build()  # which finds out whether it can be loaded, and loads nothing
    return hub.to_download(count)


def _network(metric: str) -> str:
    return hub.to_download(0) if perceptual.is_here(metric) else "weights to download"


def _distribution(what: Recipe) -> str:
    require(what.fid_items)
    name = what.fid_features
    return _network("FID") if name == INCEPTION else _encoder(encoders.resolve(name))


def memory(what: Recipe) -> int:
    """Estimate the bytes that training takes on each GPU; a file to start from need not be there.

    Raises:
        BrainhiveError: if generator, sampler, prior and embeddings do not fit each other.
    """
    train, size_px = what.train, what.resolution_px
    generator = outline(what.generator, what)
    if not what.prior.is_here:  # of which the shapes are known all the same
        what = what.model_copy(update={"prior": what.prior.model_copy(update={"start_from": None})})
    with torch.device("meta"):
        prior = make_prior(what, _dims(what), generator)[0].to("meta", torch.float32)
    parameters = trainable(prior, what.freeze)
    prior.attach(generator)
    generator.prepare_training(train.gradient_checkpointing)
    given = (generator, prior, parameters, train, size_px, what.cache_latents, num_processes(what.run))
    training = training_bytes(*given)
    drawn = min(train.batch_size, max(what.sample_items, what.fid_items))
    if not drawn:
        return training
    sampler = generator if what.sampler is None else outline(what.sampler, what)
    between_steps = sampler.memory_estimate(drawn, size_px) + training_bytes(*given, steps=0)
    return max(
        training, between_steps - (sum(map(size_of, generator.networks)) if sampler is generator else 0)
    )


def _dims(what: Recipe) -> dict[str, int]:
    """D of each encoder's embedding, where a store or the encoder's own fixes it."""
    dims: dict[str, int] = {}
    root = what.paths.under_home("embeddings")
    name = what.dataset.build(what.paths).name
    for config in what.encoders:
        path = path_of(root, name, what.split, config.name)
        found = EmbeddingStore.open(path).embedding.shape[-1] if path.is_file() else config.known_dim
        dims |= {config.name: found} if found is not None else {}
    return dims
