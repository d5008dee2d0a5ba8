"""Several outputs of a network in one forward pass, by hooks of its modules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.encoders import EMBEDDING, as_list
from brainhive_cli.models.encoders._tokens import OUTPUT_PATTERN


@dataclass(frozen=True)
class Anatomy:
    """The modules of a network whose outputs are read.

    Attributes:
        blocks: Blocks of a vision transformer, which give tokens [B, S, D].
        norm: The norm after the last block.
        n_prefix_tokens: Number of tokens (class, registers) before the patches.
        has_class: If True, the first token is a class token.
        stages: Stages of a ResNet, which give maps [B, C, h, w].
    """

    blocks: Sequence[nn.Module] = ()
    norm: nn.Module = field(default_factory=nn.Identity)
    n_prefix_tokens: int = 0
    has_class: bool = False
    stages: Sequence[nn.Module] = ()


def find_resnet_anatomy(network: Any) -> Anatomy | None:
    """Find the stages of a ResNet as torchvision, timm and open_clip name them; None
    for other networks.
    """
    stages = [
        stage
        for number in range(1, 5)
        if (stage := getattr(network, f"layer{number}", None))
    ]
    return Anatomy(stages=stages) if stages else None


class Tower(nn.Module):
    """A network, by a function of it and of what it encodes."""

    def __init__(self, tower: nn.Module, encode: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.tower = tower
        self.encode = encode

    def forward(self, inputs: Tensor) -> Any:
        """Encode pictures [B, 3, H, W], or token ids [B, S]."""
        return self.encode(self.tower, inputs)


class Outputs(nn.Module):
    """Gives several outputs of a network from one forward pass.

    Args:
        network: Pictures [B, 3, H, W] to their usual embedding [B, D].
        output: One output, or several, which come as a list.
        anatomy: None for a network that has neither tokens nor stages.

    Raises:
        RecipeError: if the network does not have such an output.
    """

    def __init__(
        self, network: nn.Module, output: str | list[str], anatomy: Anatomy | None
    ) -> None:
        super().__init__()
        self.network = network
        self.output = output
        self.anatomy = anatomy
        self._names = as_list(output)
        self._module_outputs: dict[nn.Module, Tensor] = {}

        # catch the outputs of the modules that are read, during the network's own
        # forward pass
        for module in {
            self._find_module(name)[0] for name in self._names if name != EMBEDDING
        }:
            module.register_forward_hook(self._store_output)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Encode pictures [B, 3, H, W]: [B, D] or [B, S, D], or a list of these."""
        embedding = self.network(images)
        outputs = [
            embedding if name == EMBEDDING else self._read_output(name)
            for name in self._names
        ]
        self._module_outputs.clear()
        return outputs[0] if isinstance(self.output, str) else outputs

    def _store_output(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._module_outputs[module] = output

    def _find_module(self, output: str) -> tuple[nn.Module, str]:
        """Find the module whose output is read, and the form in which."""
        anatomy = self.anatomy or Anatomy()
        match = OUTPUT_PATTERN.fullmatch(output)
        assert match

        # a stage of a ResNet, counted from 1
        if match["stage"]:
            modules = anatomy.stages
            index = int(match["stage"]) - 1
            form = match["mean"] or ""
        else:
            # a block of a vision transformer, the last by default
            modules = anatomy.blocks
            form = match["last"] or match["form"] or ""
            depth = match["block"] or str(len(modules) - 1)
            # a share is hidden state int(share · blocks), of which 0 stands before
            # block 0 (NeuralBench)
            index = (
                int(depth) if "." not in depth else int(float(depth) * len(modules)) - 1
            )

        # refuse what the network does not have
        if not 0 <= index < len(modules):
            there = (
                f"block-0 to block-{len(anatomy.blocks) - 1}"
                if anatomy.blocks
                else "no tokens"
            )
            stages = (
                f", stage-1 to stage-{len(anatomy.stages)}" if anatomy.stages else ""
            )
            raise RecipeError(
                f"this network has no {output!r}",
                f"it has {EMBEDDING}, {there}{stages}",
            )
        if form == "class" and not anatomy.has_class:
            raise RecipeError(
                f"this network has no class token, so no {output!r}",
                "take mean or patches",
            )
        return modules[index], form

    def _read_output(self, output: str) -> Tensor:
        module, form = self._find_module(output)
        assert self.anatomy
        tokens = self._module_outputs[module]  # [B, S, D]; [B, C, h, w] of a stage
        if form == ".mean":
            return tokens.mean((2, 3))  # [B, C]

        # the final output is normed, those of blocks are as they are
        if output == form:
            tokens = self.anatomy.norm(tokens)
        if form == "class":
            return tokens[:, 0]
        if form == "tokens-mean":
            return tokens.mean(1)

        # patches alone, without class token and registers
        patches = tokens[:, self.anatomy.n_prefix_tokens :]
        return (
            patches.mean(1)
            if form == "mean"
            else patches
            if form == "patches"
            else tokens
        )
