"""Network that returns several of its outputs from one forward pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from brainhive_cli.core.base import RecipeError
from brainhive_cli.models.encoders import EMBEDDING, as_list
from brainhive_cli.models.encoders._tokens import OUTPUT_PATTERN


@dataclass(frozen=True)
class Anatomy:
    """Modules of a network whose outputs can be requested.

    Attributes:
        blocks: Blocks of a vision transformer, each with tokens [B, S, D] as output.
        norm: Norm after the last block.
        n_prefix_tokens: Number of tokens (class, registers) before the patches.
        has_class: If True, the first token is a class token.
        stages: Stages of a ResNet, each with maps [B, C, h, w] as output.
    """

    blocks: Sequence[nn.Module] = ()
    norm: nn.Module = field(default_factory=nn.Identity)
    n_prefix_tokens: int = 0
    has_class: bool = False
    stages: Sequence[nn.Module] = ()


def find_resnet_anatomy(network: Any) -> Anatomy | None:
    """Find the stages of a ResNet of torchvision, timm or open_clip.

    Returns:
        The stages, or None for other networks.
    """
    stages = []
    for number in range(1, 5):
        stage = getattr(network, f"layer{number}", None)
        if stage:
            stages.append(stage)
    return Anatomy(stages=stages) if stages else None


class Tower(nn.Module):
    """A network and the function that encodes inputs with it."""

    def __init__(self, tower: nn.Module, encode: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.tower = tower
        self.encode = encode

    def forward(self, inputs: Tensor) -> Any:
        """Encode pictures [B, 3, H, W], or token ids [B, S]."""
        return self.encode(self.tower, inputs)


class Outputs(nn.Module):
    """A network that returns requested outputs of its modules.

    Args:
        network: Maps pictures [B, 3, H, W] to the default embedding [B, D].
        output: Name of an output, or a list of names.
        anatomy: Modules with outputs, or None if there are neither blocks nor stages.

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

        # store the outputs of the requested modules in each forward pass
        modules = set()
        for name in self._names:
            if name != EMBEDDING:
                module, _ = self._find_module(name)
                modules.add(module)
        for module in modules:
            module.register_forward_hook(self._store_output)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Encode pictures [B, 3, H, W] as [B, D], [B, S, D] or [B, C, h, w].

        Returns:
            The output, or a list if a list was requested.
        """
        embedding = self.network(images)
        outputs = []
        for name in self._names:
            outputs.append(embedding if name == EMBEDDING else self._read_output(name))
        self._module_outputs.clear()
        return outputs[0] if isinstance(self.output, str) else outputs

    def _store_output(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._module_outputs[module] = output

    def _find_module(self, output: str) -> tuple[nn.Module, str]:
        """Find the module of an output, and the form in which it is returned.

        Returns:
            The module, and a form such as "class". Empty for all tokens or maps.
        """
        anatomy = self.anatomy or Anatomy()
        match = OUTPUT_PATTERN.fullmatch(output)
        assert match

        if match["stage"]:
            # stages of a ResNet are counted from 1
            modules = anatomy.stages
            index = int(match["stage"]) - 1
            form = match["mean"] or ""
        else:
            modules = anatomy.blocks
            form = match["last"] or match["form"] or ""
            depth = match["block"]
            if depth is None:
                index = len(modules) - 1
            elif "." in depth:
                # NeuralBench: hidden state int(share · blocks); state 0 is the input
                # of block 0
                index = int(float(depth) * len(modules)) - 1
            else:
                index = int(depth)

        if not 0 <= index < len(modules):
            available = [EMBEDDING, "no tokens"]
            if anatomy.blocks:
                available[1] = f"block-0 to block-{len(anatomy.blocks) - 1}"
            if anatomy.stages:
                available.append(f"stage-1 to stage-{len(anatomy.stages)}")
            raise RecipeError(
                f"this network has no {output!r}", f"it has {', '.join(available)}"
            )
        if form == "class" and not anatomy.has_class:
            raise RecipeError(
                f"this network has no class token, so no {output!r}",
                "take mean or patches",
            )
        return modules[index], form

    def _read_output(self, output: str) -> Tensor:
        """Return an output of the forward pass in the requested form."""
        module, form = self._find_module(output)
        assert self.anatomy
        tokens = self._module_outputs[module]  # [B, S, D]; [B, C, h, w] of a stage
        if form == ".mean":
            return tokens.mean((2, 3))  # [B, C]

        # the norm applies to the final tokens, but not to the tokens of a block
        if output == form:
            tokens = self.anatomy.norm(tokens)
        if form == "class":
            return tokens[:, 0]
        if form == "tokens-mean":
            return tokens.mean(1)

        patches = tokens[:, self.anatomy.n_prefix_tokens :]
        if form == "mean":
            return patches.mean(1)
        return patches if form == "patches" else tokens
