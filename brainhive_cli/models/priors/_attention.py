"""The attention adapter of a prior: image tokens next to the text in a U-Net's cross-attentions."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError

CROSS_ATTENTION = "attn2.processor"
"""How diffusers' names of cross-attentions end; `attn1` are the self-attentions."""


class KeysAndValues(nn.Module):
    """Keys and values of the image tokens for one cross-attention."""

    def __init__(self, cross_attention_dim: int, inner_dim: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(cross_attention_dim, inner_dim, bias=False)
        self.to_v_ip = nn.Linear(cross_attention_dim, inner_dim, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Map tokens [B, S, D_cross] to keys and values [B, S, D_inner]."""
        tokens = tokens.to(self.to_k_ip.weight.dtype)
        return self.to_k_ip(tokens), self.to_v_ip(tokens)


class AttentionAdapter(nn.Module):
    """Keys and values for every cross-attention of a U-Net.

    Args:
        names: The U-Net's attention processors, in its own order, self-attentions included.
        sizes: (D_cross, D_inner) of each cross-attention, by its place in `names`.
        scale: Weight of the image attention relative to the text attention.

    Source: IP-Adapter (arXiv 2308.06721); parameter names of the BrainHiVE repository.
    """

    def __init__(self, names: list[str], sizes: dict[int, tuple[int, int]], scale: float) -> None:
        super().__init__()
        self.names = list(names)
        self.sizes = dict(sizes)
        self.scale = scale
        self.attn_processors = nn.ModuleDict({str(i): KeysAndValues(*size) for i, size in sizes.items()})

    def attach(self, unet: Any) -> None:
        """Put the adapter into the U-Net, whose own weights stay; BrainhiveError if it does not fit."""
        self._check(unet)
        processors: dict[str, Any] = dict(unet.attn_processors)
        for index, pair in self.attn_processors.items():
            name = self.names[int(index)]
            processors[name] = ImageAttention(processors[name], self, pair)
        unet.set_attn_processor(processors)

    def detach(self, unet: Any) -> None:
        """Restore the U-Net's own processors; BrainhiveError if this adapter is not attached to it."""
        processors = processors_of(unet)
        plain = {n: p.plain for n, p in processors.items() if getattr(p, "adapter", None) is self}
        if not plain:
            raise BrainhiveError("this Fusion Prior is not attached to the U-Net", "attach it first")
        unet.set_attn_processor({**processors, **plain})

    def _check(self, unet: Any) -> None:
        processors = processors_of(unet)
        if any(isinstance(processor, ImageAttention) for processor in processors.values()):
            raise BrainhiveError("a Fusion Prior is already attached to this U-Net", "detach it first")
        for expected, name in zip(self.names, processors, strict=False):
            if expected != name:
                raise _other_unet(f"{name} stands where {expected} should")
        if len(processors) != len(self.names):
            raise _other_unet(f"it has {len(processors)} attentions, not {len(self.names)}")
        sizes = cross_sizes(unet)
        for place in sorted(sizes.keys() | self.sizes.keys()):
            if sizes.get(place) != self.sizes.get(place):
                widths = f"{sizes.get(place)} wide, not {self.sizes.get(place)}"
                raise _other_unet(f"{self.names[place]} is {widths}")


class ImageAttention:
    """Text attention + scale x image attention, then the output projection.

    Not a module, so that the U-Net neither owns, saves, casts nor freezes the prior's weights.

    Args:
        plain: The processor that was there; it runs alone when no image tokens are given.
        adapter: The adapter that holds the scale.
        pair: Keys and values of the image tokens for this attention.
    """

    def __init__(self, plain: Callable[..., Tensor], adapter: AttentionAdapter, pair: nn.Module) -> None:
        self.plain, self.adapter, self.pair = plain, adapter, pair

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        ip_hidden_states: Tensor | None = None,
    ) -> Tensor:
        """Attend from pixels [B, HW, D] to the text [B, S, D_cross] and, if given, the image tokens."""
        if ip_hidden_states is None:
            return self.plain(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if attention_mask is not None:  # [B * heads, 1, S] as diffusers prepares it
            text_tokens = encoder_hidden_states.shape[1]
            attention_mask = attn.prepare_attention_mask(attention_mask, text_tokens, len(hidden_states))
            attention_mask = attention_mask.view(len(hidden_states), attn.heads, -1, text_tokens)
        query = attn.to_q(hidden_states)
        key, value = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        text = attend(query, key, value, attn.heads, attention_mask)
        image_key, image_value = self.pair(ip_hidden_states)
        image = attend(query, image_key, image_value, attn.heads)
        project, dropout = attn.to_out
        return dropout(project(text + self.adapter.scale * image))


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention of query [B, Q, D] to key and value [B, S, D], giving [B, Q, D]."""
    q, k, v = (x.to(query.dtype).unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def unet_of(generator: Any) -> Any:
    """Return the U-Net that a prior attaches to: a generator's, or the argument itself."""
    return getattr(generator, "unet", generator)


def processors_of(unet: Any) -> dict[str, Any]:
    """List a U-Net's attention processors by name, in its own order."""
    if not hasattr(unet, "attn_processors"):
        raise _other_unet(f"{type(unet).__name__} has no attention processors")
    return unet.attn_processors


def cross_sizes(unet: Any) -> dict[int, tuple[int, int]]:
    """Read (D_cross, D_inner) of each cross-attention, by its place in the U-Net's list of processors."""
    places = {i: name for i, name in enumerate(processors_of(unet)) if name.endswith(CROSS_ATTENTION)}
    modules = {i: unet.get_submodule(name.removesuffix(".processor")) for i, name in places.items()}
    return {i: (m.to_k.in_features, m.to_k.out_features) for i, m in modules.items()}


def _other_unet(why: str) -> BrainhiveError:
    return BrainhiveError(
        f"the Fusion Prior does not fit this U-Net: {why}",
        "use the generator that the prior was trained for (or one of the same layout, as SDXL and turbo are)",
    )
