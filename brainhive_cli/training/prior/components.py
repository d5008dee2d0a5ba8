"""The components of a prior's training: a frozen diffusion model, the prior, and what learns."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from brainhive_cli.core import console, weights
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.weights import ANEW, Checkpoint
from brainhive_cli.data.stores.target_store import TargetStore, path_of
from brainhive_cli.data.targets.encoder_keys import match_prior
from brainhive_cli.models import priors
from brainhive_cli.training.prior.recipe import Recipe, Train

USUAL_WIDTH = 1024
"""D that is taken of an embedding of which nothing is known yet."""
LAST = "last"
"""The newest checkpoint, and the samples of the finished prior."""
RECENT = 100
"""Steps whose mean loss is logged."""


@console.progress("loading the generator")
def load_generator(config: Any, recipe: Recipe, device: torch.device | str) -> Any:
    """Load a generator (or sampler) that denoises in the training's precision, and encodes in float32.

    Args:
        config: The part.
        recipe: What is trained.
        device: Where it lies; "meta" for its shapes alone.

    Raises:
        BrainhiveError: if it has no pictures of `resolution_px`, or cannot be trained on.
    """
    dtype = torch.bfloat16 if recipe.train.precision == "bf16" else torch.float32
    generator = config.build(device, dtype)
    generator.check_size(recipe.resolution_px)
    if not hasattr(generator, "prepare_training"):
        raise RecipeError(
            "no prior can be trained on this generator", "name a single diffusion model of the default kind"
        )
    generator.use_float32_autoencoder()
    return generator


def require_fit(recipe: Recipe) -> None:
    """Put generator, prior and sampler together by their shapes alone, as far as they are here.

    Raises:
        BrainhiveError: if generator, sampler, prior and embeddings do not fit each other.
    """
    # the width of each embedding, where a store or the encoder itself fixes it
    root, dataset = recipe.paths.under_home("embeddings"), recipe.dataset.build(recipe.paths).name
    dims = {}
    for config in recipe.encoders:
        path = path_of(root, dataset, recipe.split, config.name)
        dim = TargetStore.open(path).embedding.shape[-1] if path.is_file() else config.known_dim
        dims[config.name] = USUAL_WIDTH if dim is None else dim

    # the networks by their shapes, trained and for samples
    generator = load_generator(recipe.generator, recipe, "meta")
    with torch.device("meta"):
        prior = make_prior(recipe, dims, generator)[0].to("meta", torch.float32)
    trainable(prior, recipe.freeze)
    prior.attach(generator)
    if recipe.sampler is not None and (recipe.sample_items or recipe.fid_items):
        prior.attach(load_generator(recipe.sampler, recipe, "meta"))


@console.progress("embedding the empty prompt")
def embed_empty_prompt(generator: Any, folder: RunFolder, name: str, launch: Launch) -> None:
    """Embed the empty prompt once a run: text encoders are loaded by one process, and never again."""
    file = folder.path / "checkpoints" / name
    if launch.is_main:
        try:
            generator.load_empty_prompt(file)
        except MissingData:  # or damaged
            folder.replace(f"checkpoints/{name}", generator.save_empty_prompt)
    launch.barrier()
    generator.load_empty_prompt(file)


def make_prior(recipe: Recipe, dims: Mapping[str, int], generator: Any) -> tuple[Any, dict[str, str]]:
    """Load the prior whose training is continued, or make a new one for a generator.

    Args:
        recipe: The recipe.
        dims: D of each encoder's embedding.
        generator: The diffusion model.

    Returns:
        The prior, and its key of each encoder.

    Raises:
        BrainhiveError: if it was made with other encoders, for other widths, or cannot be trained.
    """
    # a new prior is drawn by the seed, another one is loaded
    source = recipe.continue_from
    if source is None:
        torch.manual_seed(recipe.seed)
        keys = {config.name: config.upstream or config.name for config in recipe.encoders}
        widths = {key: dims[name] for name, key in keys.items()}
        prior = recipe.prior.build(widths, generator)
    else:
        prior = priors.load(source)

    # some priors can only be used
    if not hasattr(prior, "condition_on_embeddings"):
        raise RecipeError(f"a prior of kind {prior.kind} cannot be trained", f"prior={priors.DEFAULT}")
    if source is None:
        return prior, keys

    # a loaded prior fixes its encoders and their widths
    keys = match_prior(source, recipe.encoders)
    for name, width in dims.items():
        if width != (expected := prior.dims[keys[name]]):
            raise BrainhiveError(
                f"the prior {source} takes {name} of width {expected}, not {width}",
                "embed with the encoder that the prior was trained on",
            )
    return prior, keys


class Learner:
    """The parts of a prior (on its device) that are not `frozen`, their optimiser and step."""

    def __init__(self, prior: Any, frozen: Sequence[str], train: Train) -> None:
        # parameters that learn, and the settings of the optimiser
        self.prior, self.grad_norm = prior, train.grad_norm
        self.parameters = trainable(prior, frozen)
        self.optimizer = torch.optim.AdamW(
            self.parameters, train.lr, train.betas, weight_decay=train.weight_decay, fused=True
        )

        # progress, and losses of the last steps
        self.step = 0
        self.norm = torch.tensor(0.0)
        self.losses: deque[torch.Tensor] = deque(maxlen=RECENT * train.accumulate)  # of backward passes

    def update(self) -> None:
        """Take one step along the gradients, keep their norm, and set them to None."""
        self.norm = nn.utils.clip_grad_norm_(self.parameters, self.grad_norm)
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
        Checkpoint(folder.checkpoint_path(LAST)).save(content)

    def resume(self, folder: RunFolder, launch: Launch) -> dict[str, Any] | None:
        """Restore the newest checkpoint, if there is one; return the other values that were saved."""
        checkpoint = Checkpoint(folder.checkpoint_path(LAST))
        saved = checkpoint.load(launch, self.parameters[0].device)
        if saved is None:
            return None

        # a checkpoint that does not fit ends in a message with the way out
        with weights.reading(checkpoint.path, ANEW, BrainhiveError):
            self.prior.load_state_dict(saved.pop("prior"))  # so that the device holds nothing twice
            self.optimizer.load_state_dict(saved.pop("optimizer"))
            losses = saved["losses"]  # so that the next mean is of as many steps as without an interruption
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
