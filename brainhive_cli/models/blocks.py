"""Layers that brain encoders, fusers and priors share, under upstream's names of
parameters; LoRA (arXiv 2106.09685).
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError, RecipeError

HOOKS_ATTRIBUTE = "_adapter_hooks"
"""Attribute of a network that holds what the adapter attached last has registered."""


class Dropout(nn.Module):
    """`nn.Dropout`, with a mask that a CPU draws 16 bits at a time.

    Torch draws it there number by number on one core, which takes longer than a block's
    matrix product.

    Args:
        p: Probability of dropping a unit.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Map [...] to [...]."""
        # other devices draw their mask in parallel, and evaluation needs none
        if x.device.type != "cpu" or not self.training or not self.p:
            return F.dropout(x, self.p, self.training)

        # one random 16-bit number for each unit, four from each that torch draws
        bits = (
            torch.empty(-(-x.numel() // 4), dtype=torch.int64)
            .random_(-(2**63), None)
            .view(torch.int16)
        )
        # signed numbers begin at -2**15, so a share p of them lies below this threshold
        mask = bits[: x.numel()].view_as(x) >= round(self.p * 2**16) - 2**15
        # the expectation of a unit stays the same
        return x * mask.to(x.dtype).div_(1 - self.p)


def build_mlp(dim: int, hidden: int, dropout: float = 0.0) -> nn.Sequential:
    """Make two linear maps without bias, with GELU and dropout between them, [..., D]
    to [..., D].
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
    """An MLP around which the input is added, then a LayerNorm.

    Args:
        dim: D, width of input and output.
        hidden: Width inside the MLP.
        dropout: Probability of dropping a hidden unit.

    Source: BrainHiVE (arXiv 2602.07495), published repository, the layer of its fusion
    encoder.
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
    """Make residual MLPs in a row, [..., D] to [..., D], by upstream's names
    `layers.<i>`.
    """
    layers = nn.Sequential(*(ResidualMLP(dim, hidden, dropout) for _ in range(depth)))
    return nn.Sequential(OrderedDict(layers=layers))


class FusionEncoder(nn.Module):
    """Several encoders' embeddings to one token: each is projected, the projections are
    summed, one block.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        dim: D, width of the token.
        hidden: Width inside the block.
        dropout: Probability of dropping a hidden unit of the block.
        depth: Number of residual MLPs in the block.

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
        """Fuse embeddings, each [B, D_encoder], to a token [B, D].

        Raises:
            BrainhiveError: if the encoders or their widths are not those it was made
                for.
        """
        # each encoder's embedding as [B, D], so that they can be summed
        pairs = zip(
            self.proj_maps.values(),
            order_embeddings(embeddings, self.dims),
            strict=True,
        )
        projected = [project(embedding) for project, embedding in pairs]
        return self.block(torch.stack(projected).sum(0))  # [B, D]


def order_embeddings(
    embeddings: Mapping[str, Tensor], dims: Mapping[str, int]
) -> list[Tensor]:
    """List embeddings [B, D_encoder] in the order of the encoders that a fuser was made
    for.

    Raises:
        BrainhiveError: if they are of other encoders or widths, naming both.
    """
    widths = {key: embedding.shape[-1] for key, embedding in embeddings.items()}
    if widths != dims:
        expected, actual = (
            ", ".join(f"{key} ({width})" for key, width in sorted(sizes.items()))
            or "nothing"
            for sizes in (dims, widths)
        )
        raise BrainhiveError(
            f"the fuser was made for {expected}, not for {actual}",
            "give the embeddings of exactly those encoders, or a fuser that was "
            "trained on yours",
        )
    return [embeddings[key] for key in dims]


def select_rows(bank: Tensor, subject_index: Tensor | None) -> Tensor:
    """Take each signal's row of a bank [S, ...].

    Returns:
        [B, ...]; for a subject not seen in training (None) the mean of all rows, [1,
        ...].
    """
    return bank.mean(0, keepdim=True) if subject_index is None else bank[subject_index]


CHANNEL_MIXING = "linear"
"""Name of the layer below in a recipe."""


class ChannelMixing(nn.Module):
    """A mixing of the channels for each subject; it starts as the identity.

    Source: the subject layer of Défossez et al. (arXiv 2208.12266).
    """

    def __init__(self, subjects: int, channels: int) -> None:
        super().__init__()
        # [subjects, C, C]
        self.weight = nn.Parameter(torch.eye(channels).repeat(subjects, 1, 1))

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> Tensor:
        """Map [B, C, T] to [B, C, T]."""
        return select_rows(self.weight, subject_index) @ signal


class Adapter(nn.Module):
    """y + (alpha / rank) B A x for every map y of x that it changes; B starts as zeros,
    which change nothing.

    Args:
        shapes: Outputs and inputs of each map, by the name of its module in the
            network.
        rank: Rows of A, columns of B.
        alpha: Numerator of the factor.
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], rank: int, alpha: float
    ) -> None:
        super().__init__()
        self.names = tuple(shapes)
        self.factor = alpha / rank
        # A [rank, inputs] is random and B [outputs, rank] zero
        self.down = nn.ParameterList(
            torch.randn(rank, inputs) / rank for _, inputs in shapes.values()
        )
        self.up = nn.ParameterList(
            torch.zeros(outputs, rank) for outputs, _ in shapes.values()
        )

    def attach(self, network: nn.Module) -> None:
        """Change a network's maps from now on, instead of the adapter that did so
        before.
        """
        # the adapter attached before would go on adding its change
        for hook in getattr(network, HOOKS_ATTRIBUTE, ()):
            hook.remove()
        hooks = [
            network.get_submodule(name).register_forward_hook(
                partial(self._change, index)
            )
            for index, name in enumerate(self.names)
        ]
        setattr(network, HOOKS_ATTRIBUTE, hooks)

    def _change(
        self, index: int, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
    ) -> Tensor:
        # in the adapter's precision: the network's may be lower
        # [..., rank]
        low = F.linear(inputs[0].to(self.down[index].dtype), self.down[index])
        return output + (self.factor * F.linear(low, self.up[index])).to(output.dtype)


def find_linear_shapes(
    network: nn.Module, endings: Sequence[str]
) -> dict[str, list[int]]:
    """Give the outputs and inputs of a network's linear maps, by name: all, or those
    whose names end so.

    Raises:
        RecipeError: if no name ends so.
        BrainhiveError: if the network has attention that calls its maps' weights, where
            nothing can be added.
    """
    # torch's own attention calls weights, not modules
    if any(isinstance(module, nn.MultiheadAttention) for module in network.modules()):
        raise BrainhiveError(
            "train.lora cannot change torch's own attention, whose query, key and "
            "value are one map",
            "an encoder of transformers, as clip-b32",
        )

    # linear maps whose names end as the recipe says
    maps = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear)}
    # a misspelt ending would silently change no map
    for ending in endings:
        if not any(name.endswith(ending) for name in maps):
            known = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in maps))
            raise RecipeError(
                f"train.lora.modules names {ending!r}", f"there are: {known}"
            )
    chosen = {
        name: m
        for name, m in maps.items()
        if not endings or name.endswith(tuple(endings))
    }
    return {
        name: [module.out_features, module.in_features]
        for name, module in chosen.items()
    }
