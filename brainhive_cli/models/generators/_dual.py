"""A U-Net that attends to image tokens and to text tokens at once."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Dual(nn.Module):
    """Two transformers side by side: each attends to its own tokens, and their changes are mixed.

    Source: DualTransformer2DModel of diffusers (Apache 2.0), which today's U-Nets cannot call.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.image, self.text = transformer, copy.deepcopy(transformer)

    def forward(
        self,
        hidden: Tensor,
        encoder_hidden_states: Tensor,
        cross_attention_kwargs: Mapping[str, Any],
        **_: Any,
    ) -> tuple[Tensor]:
        """Change hidden states [B, C, h, w].

        Args:
            hidden: The states.
            encoder_hidden_states: Text tokens, then image tokens: [B, S, D].
            cross_attention_kwargs: `text_tokens`, how many are text; `text_share` of the change, 0 to 1.
        """
        text, image = encoder_hidden_states.tensor_split([cross_attention_kwargs["text_tokens"]], 1)
        share, changed = cross_attention_kwargs["text_share"], hidden
        for weight, transformer, tokens in ((share, self.text, text), (1 - share, self.image, image)):
            if weight:
                found = transformer(hidden, encoder_hidden_states=tokens, return_dict=False)[0]
                changed = changed + weight * (found - hidden)
        return (changed,)


def make_dual(unet: nn.Module) -> nn.Module:
    """Replace each transformer of a U-Net by two of its kind."""
    from diffusers import Transformer2DModel

    for name, module in list(unet.named_modules()):
        if isinstance(module, Transformer2DModel):
            parent, _, place = name.rpartition(".")
            unet.get_submodule(parent)[int(place)] = Dual(module)  # type: ignore[operator,index]
    return unet


def joined(unet: nn.Module, image: Mapping[str, Tensor], text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a dual U-Net's weights: those of an image U-Net, and of a text U-Net its attentions'."""
    duals = [f"{name}." for name, module in unet.named_modules() if isinstance(module, Dual)]
    found = {}
    for kind, state in (("image", image), ("text", text)):
        for key, value in state.items():
            dual = next((each for each in duals if key.startswith(each)), None)
            if dual is not None:
                found[f"{dual}{kind}.{key.removeprefix(dual)}"] = value
            elif kind == "image":
                found[key] = value
    return found
