"""The network of the Fusion Prior, and its attention in a generator's U-Net."""

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core import hub, weights
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.models.blocks import FusionEncoder, mlp
from brainhive_cli.models.foreign_weights import below, rename
from brainhive_cli.models.heads import TOKEN, Conditioning, Decoded
from brainhive_cli.models.priors import OWNER
from brainhive_cli.models.priors._fusion_files import (
    CLASSES,
    KIND,
    WEIGHTS,
    read_config,
)

KEYS = re.compile(r"attn_processors\.(\d{1,4})\.to_k_ip\.weight")
"""The keys of a cross-attention among the weights, by its index in the list of
processors.
"""


CROSS_ATTENTION = "attn2.processor"
"""Ending of diffusers' names of cross-attentions; `attn1` are the self-attentions."""


OTHER_MODEL = "these weights are for another prior, or for another generator's U-Net"


AdapterUse = Literal["apply", "skip"]
"""Whether the trained adapter is applied to a decoded token; BrainHiVE's reconstruction
skips it.
"""


class FusionPrior(nn.Module):
    """Fusion encoder with adapter, projection and attention adapter.

    Args:
        configs: The config.json of each part, by folder.
        sizes: (D_cross, D_inner) of each cross-attention, by its index among the
            U-Net's processors.

    Attributes:
        adapter: Whether `condition` and `null` apply the trained adapter.
        names: The U-Net's attention processors, in its own order, self-attentions
            included.
        scale: Weight of the image attention relative to the text attention.

    Source: BrainHiVE (arXiv 2602.07495), published repository; IP-Adapter (arXiv
    2308.06721).
    """

    kind = KIND

    def __init__(
        self, configs: dict[str, dict[str, Any]], sizes: dict[int, tuple[int, int]]
    ) -> None:
        super().__init__()
        self.configs = configs
        self.adapter: AdapterUse = "skip"
        fusion, proj, attention = (configs[folder] for folder in CLASSES)
        # as the file will order them
        self.dims: dict[str, int] = dict(sorted(fusion["proj_meta"].items()))
        self.dim: int = fusion["hidden_size"]

        # upstream's three parts, in upstream's order
        hidden = fusion["intermediate_size"]
        encoder = FusionEncoder(self.dims, self.dim, hidden, depth=fusion["num_layers"])
        adapter = nn.ModuleDict({"ff": mlp(self.dim, hidden)})
        self.fusion_encoder: Any = nn.ModuleDict(
            {"vision_model": encoder, "adapter": adapter}
        )
        # a token to S image tokens of the width of the U-Net's cross-attention, [B, S,
        # D_cross]
        count = proj["sequence_length"]
        width = proj["cross_attention_dim"]
        self.proj: Any = nn.Sequential(
            OrderedDict(
                proj=nn.Linear(proj["embed_dim"], width * count),
                tokens=nn.Unflatten(-1, (count, width)),
                norm=nn.LayerNorm(width),
            )
        )
        # keys and values of the image tokens in every cross-attention, whose weight is
        # `scale`
        self.names = attention["attn_processor_keys"]
        self.sizes = sizes
        self.scale = attention["scale"]
        processors = nn.ModuleDict()
        for index, (cross, inner) in sizes.items():
            maps = {
                name: nn.Linear(cross, inner, bias=False)
                for name in ("to_k_ip", "to_v_ip")
            }
            processors[str(index)] = nn.ModuleDict(maps)
        self.attn_adapter: Any = nn.ModuleDict({"attn_processors": processors})

    def adapt(self, token: Tensor) -> Tensor:
        """Apply the trained adapter to a token [B, D] (the reference skips it in
        reconstruction).
        """
        return token + self.fusion_encoder["adapter"]["ff"](token)

    def tokens(self, token: Tensor) -> Tensor:
        """Make the U-Net's image tokens [B, S, D_cross] of a token [B, D];
        BrainhiveError for another D.
        """
        if token.shape[-1] != self.dim:
            raise BrainhiveError(
                f"the Fusion Prior takes tokens of width {self.dim}, not "
                f"{token.shape[-1]}",
                "use an align run that was trained with --prior on this prior",
            )
        return self.proj(token)

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Go from embeddings to image tokens [B, S, D_cross], adapter included, as in
        training.
        """
        return self.tokens(self.adapt(self.fuser(embeddings)))

    @property
    def fuser(self) -> FusionEncoder:
        """The fusion encoder, without adapter: the target of brain models."""
        return self.fusion_encoder["vision_model"]

    def condition(self, decoded: Decoded, seeds: Sequence[int]) -> Conditioning:
        """Condition on the head `token` [B, D]; nothing is sampled, so the seeds have
        no effect.
        """
        if TOKEN not in decoded.tensors:
            raise BrainhiveError(
                f"the Fusion Prior takes the head {TOKEN}, the model has "
                f"{', '.join(decoded.tensors)}",
                "use an align run that was trained with --prior on this prior",
            )
        token = decoded.tensors[TOKEN].to(self.proj.proj.weight.device)
        return Conditioning(
            embeddings=self.tokens(
                self.adapt(token) if self.adapter == "apply" else token
            )
        )

    def null(self, n: int, seeds: Sequence[int]) -> Conditioning:
        """Condition n rows on the zeroed token, as a share of the training does."""
        # one row, expanded: all rows are the same
        token = self.proj.proj.weight.new_zeros(1, self.dim)
        # [1, S, D_cross]
        tokens = self.tokens(self.adapt(token) if self.adapter == "apply" else token)
        return Conditioning(embeddings=tokens.expand(n, -1, -1))

    def condition_on_embeddings(
        self, embeddings: dict[str, Tensor], is_kept: Tensor | None = None
    ) -> Conditioning:
        """Condition on embeddings [B, D_encoder] by key, adapter included; `is_kept`
        [B, 1] is 0 to drop.
        """
        token = self.fuser(embeddings)  # [B, D]
        return Conditioning(
            embeddings=self.tokens(
                self.adapt(token if is_kept is None else token * is_kept)
            )
        )

    def attach(self, generator: Any) -> None:
        """Let the U-Net (of a generator, or itself) take
        `cross_attention_kwargs={"ip_hidden_states": …}`.

        Raises:
            BrainhiveError: if a prior is attached already, or the U-Net is not of the
                prior's layout.
        """
        unet = unet_of(generator)
        self._check(unet)
        # wrap the processors of cross-attentions; self-attentions stay
        processors = dict(unet.attn_processors)
        for index, pair in self.attn_adapter["attn_processors"].items():
            name = self.names[int(index)]
            processors[name] = ImageAttention(processors[name], self, pair)
        unet.set_attn_processor(processors)

    def detach(self, generator: Any) -> None:
        """Restore the U-Net's own processors; BrainhiveError if this prior is not
        attached to it.
        """
        unet = unet_of(generator)
        processors = processors_of(unet)
        # the processors that this prior has wrapped
        plain = {
            n: p.plain
            for n, p in processors.items()
            if getattr(p, "prior", None) is self
        }
        if not plain:
            raise BrainhiveError(
                "this Fusion Prior is not attached to the U-Net", "attach it first"
            )
        unet.set_attn_processor(processors | plain)

    def _check(self, unet: Any) -> None:
        # a second adapter would replace the text attention that the first one keeps
        processors = processors_of(unet)
        if any(
            isinstance(processor, ImageAttention) for processor in processors.values()
        ):
            raise BrainhiveError(
                "a Fusion Prior is already attached to this U-Net", "detach it first"
            )

        # the adapter's weights are numbered by the order of attentions, and have the
        # widths of these
        for expected, name in zip(self.names, processors, strict=False):
            if expected != name:
                raise _other_unet(f"{name} stands where {expected} should")
        sizes = cross_sizes(unet)
        for index in sorted(sizes.keys() | self.sizes.keys()):
            if sizes.get(index) != self.sizes.get(index):
                widths = f"{sizes.get(index)} wide, not {self.sizes.get(index)}"
                raise _other_unet(f"attention {index} is {widths}")

    def start_from(self, file: Path) -> None:
        """Take projection and attention adapter from an IP-Adapter single file of the
        same sizes.
        """
        state = weights.read(file)
        weights.fill(self.proj, below(state, "image_proj."), file, OTHER_MODEL)
        # the empty pattern sets the prefix before every name
        keys_and_values = rename(below(state, "ip_adapter."), {"": "attn_processors."})
        weights.fill(self.attn_adapter, keys_and_values, file, OTHER_MODEL)

    @classmethod
    def load(
        cls,
        reference: str | Path,
        adapter: AdapterUse = "skip",
        scale: float | None = None,
    ) -> Self:
        """Load a prior from a folder of upstream's layout, or a `hub:` or `demo:`
        reference, in float32.

        Args:
            reference: The folder.
            adapter: Whether the trained adapter is applied to decoded tokens.
            scale: Weight of the image attention next to the text attention; None for
                the prior's own.

        Raises:
            MissingData: if the folder, or a file of a part, is absent or
                half-downloaded.
            BrainhiveError: if weights and config do not belong together.
        """
        # tell a folder of something else from a prior that is half-downloaded
        folder = hub.folder(
            str(reference), allow=[f"{part}/*" for part in CLASSES], owner=OWNER
        )
        files = [
            folder / part / name
            for part in CLASSES
            for name in ("config.json", WEIGHTS)
        ]
        absent = [str(f.relative_to(folder)) for f in files if not f.is_file()]
        if absent:
            raise MissingData(
                f"{folder} is no Fusion Prior: it lacks {', '.join(absent)}",
                f"download it again, or give a folder that holds {', '.join(CLASSES)}",
            )

        # read configs and weights; the adapter's widths stand in the shapes of its
        # weights alone
        configs = {part: read_config(folder, part) for part in CLASSES}
        states = {part: weights.read(folder / part / WEIGHTS) for part in CLASSES}
        sizes = {
            int(match[1]): (weight.shape[1], weight.shape[0])
            for key, weight in states["attn_adapter"].items()
            if (match := KEYS.fullmatch(key)) and weight.ndim == 2
        }

        # fill an empty prior: random weights need not be drawn
        with weights.reading(folder), torch.device("meta"):
            prior = cls(configs, sizes)
        for part in CLASSES:
            weights.fill(
                prior.get_submodule(part),
                states[part],
                folder / part / WEIGHTS,
                OTHER_MODEL,
            )
        prior.adapter = adapter
        if scale is not None:
            prior.scale = scale
        return prior.float()

    def save(self, folder: Path) -> None:
        """Write the folder layout that upstream's code and `load` read."""
        from diffusers import __version__

        for part, class_name in CLASSES.items():
            # the part's config, with the scale as it is now: `load` can have changed it
            config = {
                "_class_name": class_name,
                "_diffusers_version": __version__,
                **self.configs[part],
            }
            if part == "attn_adapter":
                config["scale"] = self.scale

            # write the part as diffusers does
            (folder / part).mkdir(parents=True, exist_ok=True)
            text = json.dumps(config, indent=2, sort_keys=True) + "\n"
            (folder / part / "config.json").write_text(text, encoding="utf-8")
            weights.save(folder / part / WEIGHTS, self.get_submodule(part).state_dict())


class ImageAttention:
    """Text attention + scale x image attention, then the output projection.

    Not a module, so that the U-Net neither owns, saves, casts nor freezes the prior's
    weights.

    Args:
        plain: The processor that was there; it runs alone when no image tokens are
            given.
        prior: The prior that holds the scale.
        pair: Keys and values of the image tokens for this attention.
    """

    def __init__(
        self, plain: Callable[..., Tensor], prior: FusionPrior, pair: Any
    ) -> None:
        self.plain = plain
        self.prior = prior
        self.pair = pair

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        ip_hidden_states: Tensor | None = None,
    ) -> Tensor:
        """Attend from pixels [B, HW, D] to the text [B, S, D_cross] and, if given, the
        image tokens.
        """
        # without image tokens the U-Net attends as before
        if ip_hidden_states is None:
            return self.plain(
                attn, hidden_states, encoder_hidden_states, attention_mask, temb
            )

        # bring the text's mask into the shape [B, heads, 1, S] of torch's attention
        if attention_mask is not None:  # [B * heads, 1, S] as diffusers prepares it
            text_tokens = encoder_hidden_states.shape[1]
            attention_mask = attn.prepare_attention_mask(
                attention_mask, text_tokens, len(hidden_states)
            )
            attention_mask = attention_mask.view(
                len(hidden_states), attn.heads, -1, text_tokens
            )

        # attend to the text and to the image by one query, each with keys and values of
        # its own
        query = attn.to_q(hidden_states)  # [B, HW, D]
        key = attn.to_k(encoder_hidden_states)
        value = attn.to_v(encoder_hidden_states)
        text = attend(query, key, value, attn.heads, attention_mask)
        # [B, S, D_cross]
        tokens = ip_hidden_states.to(self.pair["to_k_ip"].weight.dtype)
        image_key, image_value = (
            keys_or_values(tokens) for keys_or_values in self.pair.values()
        )
        image = attend(query, image_key, image_value, attn.heads)

        # mix the attentions, and finish as the U-Net's processor does
        project, dropout = attn.to_out
        return dropout(project(text + self.prior.scale * image))


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None
) -> Tensor:
    """Multi-head attention of query [B, Q, D] to key and value [B, S, D], giving [B, Q,
    D].
    """
    # [B, heads, Q or S, D / heads]
    q, k, v = (
        x.to(query.dtype).unflatten(-1, (heads, -1)).transpose(1, 2)
        for x in (query, key, value)
    )
    return (
        F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        .transpose(1, 2)
        .flatten(2)
    )


def unet_of(generator: Any) -> Any:
    """Return the U-Net that a prior attaches to: a generator's, or the argument
    itself.
    """
    return getattr(generator, "unet", generator)


def processors_of(unet: Any) -> dict[str, Any]:
    """List a U-Net's attention processors by name, in its own order."""
    if not hasattr(unet, "attn_processors"):
        raise _other_unet(f"{type(unet).__name__} has no attention processors")
    return unet.attn_processors


def cross_sizes(unet: Any) -> dict[int, tuple[int, int]]:
    """Read (D_cross, D_inner) of each cross-attention, by its index in the U-Net's list
    of processors.
    """
    # indices count self-attentions too, as in the names of weights
    names = {
        i: name
        for i, name in enumerate(processors_of(unet))
        if name.endswith(CROSS_ATTENTION)
    }
    modules = {
        i: unet.get_submodule(name.removesuffix(".processor"))
        for i, name in names.items()
    }
    return {i: (m.to_k.in_features, m.to_k.out_features) for i, m in modules.items()}


def _other_unet(why: str) -> BrainhiveError:
    return BrainhiveError(
        f"the Fusion Prior does not fit this U-Net: {why}",
        "use the generator that the prior was trained for (or one of the same "
        "layout, as SDXL and turbo are)",
    )
