"""Layers of backbones, fusers and priors, and low-rank adapters."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core.base import BrainhiveError, RecipeError


class Dropout(nn.Module):
    """`nn.Dropout` with a faster random mask on a CPU, of 16 bits for each unit.

    There torch draws numbers one by one on a single core, which takes longer than the
    matrix product of a block.

    Args:
        p: Probability of dropping a unit.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop random units of a tensor of any shape in training."""
        # other devices draw the mask in parallel
        if x.device.type != "cpu" or not self.training or not self.p:
            return F.dropout(x, self.p, self.training)

        # each 64-bit random number makes four 16-bit numbers
        n_draws = -(-x.numel() // 4)
        draws = torch.empty(n_draws, dtype=torch.int64).random_(-(2**63), None)
        units = draws.view(torch.int16)[: x.numel()].view_as(x)
        # a share p of the signed numbers is below the threshold
        threshold = round(self.p * 2**16) - 2**15
        mask = units >= threshold
        return x * mask.to(x.dtype).div_(1 - self.p)


def build_mlp(dim: int, hidden: int, dropout: float = 0.0) -> nn.Sequential:
    """Build two linear maps without bias, with GELU and dropout between them.

    Args:
        dim: Width D of input and output [..., D].
        hidden: Width between the maps.
        dropout: Probability of dropping a hidden unit.
    """
    return nn.Sequential(
        OrderedDict(
            w1=nn.Linear(dim, hidden, bias=False),
            activation=nn.GELU(),
            dropout=Dropout(dropout),
            w2=nn.Linear(hidden, dim, bias=False),
        )
    )


class ResidualMLP(nn.Module):
    """MLP with a residual connection, followed by a LayerNorm.

    Args:
        dim: Width D of input and output.
        hidden: Width inside the MLP.
        dropout: Probability of dropping a hidden unit.

    Source: fusion encoder of BrainHiVE (arXiv 2602.07495), published repository.
    """

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.ff = build_mlp(dim, hidden, dropout)
        self.norm = nn.LayerNorm(dim, eps=1e-6)  # torch's default is 1e-5

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return self.norm(x + self.ff(x))


def build_residual_stack(
    dim: int, hidden: int, dropout: float, depth: int = 1
) -> nn.Sequential:
    """Build a sequence of residual MLPs, with the names `layers.<i>` of BrainHiVE.

    Args:
        dim: Width D of input and output [..., D].
        hidden: Width inside the MLPs.
        dropout: Probability of dropping a hidden unit.
        depth: Number of MLPs.
    """
    layers = nn.Sequential(*(ResidualMLP(dim, hidden, dropout) for _ in range(depth)))
    return nn.Sequential(OrderedDict(layers=layers))


class FusionEncoder(nn.Module):
    """Fuser of embeddings: a sum of projections, followed by residual MLPs.

    Args:
        dims: Width of each encoder's embedding, keyed by encoder.
        dim: Width D of the token.
        hidden: Width inside the MLPs.
        dropout: Probability of dropping a hidden unit.
        depth: Number of residual MLPs.

    Source: BrainHiVE (arXiv 2602.07495), published repository.
    """

    def __init__(
        self,
        dims: dict[str, int],
        dim: int,
        hidden: int,
        dropout: float = 0.0,
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.dims = dict(dims)
        self.proj_maps = nn.ModuleDict(
            {key: nn.Linear(width, dim) for key, width in dims.items()}
        )
        self.block = build_residual_stack(dim, hidden, dropout, depth)

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Fuse embeddings [B, D_encoder], keyed by encoder, to tokens [B, D].

        Raises:
            BrainhiveError: if the encoders or their widths differ from `dims`.
        """
        ordered = order_embeddings(embeddings, self.dims)
        projections = []
        for project, embedding in zip(self.proj_maps.values(), ordered, strict=True):
            projections.append(project(embedding))
        return self.block(torch.stack(projections).sum(0))


def order_embeddings(
    embeddings: Mapping[str, Tensor], dims: Mapping[str, int]
) -> list[Tensor]:
    """List embeddings in the order of a fuser's encoders.

    Args:
        embeddings: Embeddings [B, D_encoder], keyed by encoder.
        dims: Width of each encoder's embedding in the fuser, keyed by encoder.

    Raises:
        BrainhiveError: if the encoders or their widths differ.
    """
    widths = {key: embedding.shape[-1] for key, embedding in embeddings.items()}
    if widths != dims:
        raise BrainhiveError(
            f"the fuser was made for {_list_widths(dims)}, not for "
            f"{_list_widths(widths)}",
            "give the embeddings of exactly those encoders, or a fuser that was "
            "trained on yours",
        )
    return [embeddings[key] for key in dims]


def _list_widths(dims: Mapping[str, int]) -> str:
    """List encoders and widths, such as `vae (1024)`. "nothing" without any."""
    texts = [f"{key} ({width})" for key, width in sorted(dims.items())]
    return ", ".join(texts) or "nothing"


def select_rows(weights: Tensor, subject_index: Tensor | None) -> Tensor:
    """Select the weights of the subject of each signal.

    Args:
        weights: Weights of all subjects, with a row for each.
        subject_index: Subject index [B] of each signal, or None for subjects without
            weights of their own.

    Returns:
        Weights [B, ...]. Without indices, the mean [1, ...] over all subjects.
    """
    if subject_index is None:
        return weights.mean(0, keepdim=True)
    return weights[subject_index]


CHANNEL_MIXING = "linear"
"""Name of the layer `ChannelMixing` in a recipe."""


class ChannelMixing(nn.Module):
    """Linear mixing of the channels for each subject, initially the identity.

    Source: the subject layer of Défossez et al. (arXiv 2208.12266).
    """

    def __init__(self, subjects: int, channels: int) -> None:
        super().__init__()
        identity = torch.eye(channels)
        self.weight = nn.Parameter(identity.repeat(subjects, 1, 1))  # [subjects, C, C]

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> Tensor:
        """Mix the channels of signals [B, C, T]."""
        return select_rows(self.weight, subject_index) @ signal


class Adapter(nn.Module):
    """Low-rank adapter of linear maps (LoRA, arXiv 2106.09685).

    The output y of a map of x becomes y + (alpha / rank) B A x. B is initially zero.

    Args:
        shapes: Widths of output and input of each map, keyed by its module's name.
        rank: Number of rows of A and columns of B.
        alpha: Numerator of the factor.
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], rank: int, alpha: float
    ) -> None:
        super().__init__()
        self.names = tuple(shapes)
        self.factor = alpha / rank
        # A [rank, inputs] and B [outputs, rank]
        self.down = nn.ParameterList(
            torch.randn(rank, inputs) / rank for _, inputs in shapes.values()
        )
        self.up = nn.ParameterList(
            torch.zeros(outputs, rank) for outputs, _ in shapes.values()
        )

    def attach(self, network: nn.Module) -> None:
        """Attach this adapter to a network, in place of an adapter attached before."""
        # Attribute of a network with the hooks of its attached adapter.
        hooks_attribute = "_adapter_hooks"
        for hook in getattr(network, hooks_attribute, ()):
            hook.remove()
        hooks = []
        for index, name in enumerate(self.names):
            linear_map = network.get_submodule(name)
            hooks.append(
                linear_map.register_forward_hook(partial(self._change_output, index))
            )
        setattr(network, hooks_attribute, hooks)

    def _change_output(
        self, index: int, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
    ) -> Tensor:
        """Return the changed output of a map: a forward hook of its module."""
        # the network may have a lower precision than the adapter
        down = self.down[index]
        projected = F.linear(inputs[0].to(down.dtype), down)  # [..., rank]
        change = self.factor * F.linear(projected, self.up[index])
        return output + change.to(output.dtype)


def find_linear_shapes(
    network: nn.Module, endings: Sequence[str]
) -> dict[str, list[int]]:
    """Find the linear maps of a network that an adapter changes.

    Args:
        network: Network.
        endings: Endings of the names of the maps. Empty for all maps.

    Returns:
        Widths of output and input of each map, keyed by name.

    Raises:
        RecipeError: if no name has one of the endings.
        BrainhiveError: if the network has attention of torch, which does not call its
            maps as modules.
    """
    if any(isinstance(module, nn.MultiheadAttention) for module in network.modules()):
        raise BrainhiveError(
            "train.lora cannot change torch's own attention, whose query, key and "
            "value are one map",
            "an encoder of transformers, as clip-b32",
        )

    linear_maps = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            linear_maps[name] = module

    # a misspelt ending must not be ignored
    for ending in endings:
        if not any(name.endswith(ending) for name in linear_maps):
            last_names = [name.rpartition(".")[2] for name in linear_maps]
            raise RecipeError(
                f"train.lora.modules names {ending!r}",
                f"there are: {', '.join(dict.fromkeys(last_names))}",
            )
    shapes = {}
    for name, module in linear_maps.items():
        if not endings or name.endswith(tuple(endings)):
            shapes[name] = [module.out_features, module.in_features]
    return shapes
