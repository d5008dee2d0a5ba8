"""Network of the Fusion Prior, with its attention adapter for a U-Net."""

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core.base import BrainhiveError, MissingData
from brainhive_cli.core.files import hub
from brainhive_cli.core.runs import weights
from brainhive_cli.models import (
    TOKEN_HEAD,
    Conditioning,
    Decoded,
    FusionEncoder,
    build_mlp,
    rename_weights,
    strip_prefix,
)
from brainhive_cli.models.priors import OWNER
from brainhive_cli.models.priors._fusion_files import (
    CLASSES,
    KIND,
    WEIGHTS,
    read_config,
)

OTHER_MODEL = "these weights are for another prior, or for another generator's U-Net"
AdapterUse = Literal["apply", "skip"]
"""Use of the trained adapter on decoded tokens. BrainHiVE's reconstruction skips it."""


class FusionPrior(nn.Module):
    """Prior of a fusion encoder with adapter, a projection and an attention adapter.

    Args:
        configs: Values of config.json, keyed by the folder of the component.
        cross_attention_sizes: (D_cross, D_inner) of each cross-attention, keyed by the
            index among the U-Net's processors.

    Attributes:
        adapter: Use of the trained adapter in `condition` and `null`.
        processor_names: Attention processors of the U-Net, self-attentions included, in
            the order of the U-Net.
        scale: Weight of the image attention relative to the text attention.

    Source: BrainHiVE (arXiv 2602.07495), published repository; IP-Adapter (arXiv
    2308.06721).
    """

    kind = KIND

    def __init__(
        self,
        configs: dict[str, dict[str, Any]],
        cross_attention_sizes: dict[int, tuple[int, int]],
    ) -> None:
        super().__init__()
        self.configs = configs
        self.adapter: AdapterUse = "skip"
        fusion_config, proj_config, attention_config = (
            configs[folder] for folder in CLASSES
        )
        # config.json is written with sorted keys
        self.dims: dict[str, int] = dict(sorted(fusion_config["proj_meta"].items()))
        self.dim: int = fusion_config["hidden_size"]

        # fusion encoder and adapter
        hidden = fusion_config["intermediate_size"]
        n_layers = fusion_config["num_layers"]
        encoder = FusionEncoder(self.dims, self.dim, hidden, depth=n_layers)
        adapter = nn.ModuleDict({"ff": build_mlp(self.dim, hidden)})
        self.fusion_encoder: Any = nn.ModuleDict(
            {"vision_model": encoder, "adapter": adapter}
        )

        # projection of a token [B, D] to image tokens [B, S, D_cross]
        n_tokens = proj_config["sequence_length"]
        width = proj_config["cross_attention_dim"]
        self.proj: Any = nn.Sequential(
            OrderedDict(
                proj=nn.Linear(proj_config["embed_dim"], width * n_tokens),
                tokens=nn.Unflatten(-1, (n_tokens, width)),
                norm=nn.LayerNorm(width),
            )
        )

        # keys and values of the image tokens, for each cross-attention
        self.processor_names = attention_config["attn_processor_keys"]
        self.cross_attention_sizes = cross_attention_sizes
        self.scale = attention_config["scale"]
        processors = nn.ModuleDict()
        for index, (cross_dim, inner_dim) in cross_attention_sizes.items():
            to_k_ip = nn.Linear(cross_dim, inner_dim, bias=False)
            to_v_ip = nn.Linear(cross_dim, inner_dim, bias=False)
            processors[str(index)] = nn.ModuleDict(
                {"to_k_ip": to_k_ip, "to_v_ip": to_v_ip}
            )
        self.attn_adapter: Any = nn.ModuleDict({"attn_processors": processors})

    def adapt(self, token: Tensor) -> Tensor:
        """Apply the trained adapter to a token [B, D]."""
        return token + self.fusion_encoder["adapter"]["ff"](token)

    def project(self, token: Tensor) -> Tensor:
        """Project a token [B, D] to image tokens [B, S, D_cross] of the U-Net.

        Raises:
            BrainhiveError: if the token has another width.
        """
        if token.shape[-1] != self.dim:
            raise BrainhiveError(
                f"the Fusion Prior takes tokens of width {self.dim}, not "
                f"{token.shape[-1]}",
                "use an align run that was trained with --prior on this prior",
            )
        return self.proj(token)

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Turn embeddings [B, D_encoder], by key, into image tokens [B, S, D_cross]."""
        return self.project(self.adapt(self.fuser(embeddings)))

    @property
    def fuser(self) -> FusionEncoder:
        """Fusion encoder without adapter, whose token brain models predict."""
        return self.fusion_encoder["vision_model"]

    def condition(self, decoded: Decoded, seeds: Sequence[int]) -> Conditioning:
        """Condition on the head `token` [B, D].

        Args:
            decoded: Heads of B signals.
            seeds: Without effect, as nothing is sampled.

        Raises:
            BrainhiveError: if there is no such head, or it has another width.
        """
        if TOKEN_HEAD not in decoded.tensors:
            raise BrainhiveError(
                f"the Fusion Prior takes the head {TOKEN_HEAD}, the model has "
                f"{', '.join(decoded.tensors)}",
                "use an align run that was trained with --prior on this prior",
            )
        token = decoded.tensors[TOKEN_HEAD].to(self.proj.proj.weight.device)
        if self.adapter == "apply":
            token = self.adapt(token)
        return Conditioning(embeddings=self.project(token))

    def null(self, n: int, seeds: Sequence[int]) -> Conditioning:
        """Condition n rows on a token of zeros, as a share of the training does."""
        token = self.proj.proj.weight.new_zeros(1, self.dim)
        if self.adapter == "apply":
            token = self.adapt(token)
        image_tokens = self.project(token)  # [1, S, D_cross]
        return Conditioning(embeddings=image_tokens.expand(n, -1, -1))

    def condition_on_embeddings(
        self, embeddings: dict[str, Tensor], is_kept: Tensor | None = None
    ) -> Conditioning:
        """Condition on embeddings of stimuli, adapter included.

        Args:
            embeddings: Embeddings [B, D_encoder], by key.
            is_kept: Factor [B, 1] of the tokens. Zeros drop a row. Default: all ones.
        """
        token = self.fuser(embeddings)  # [B, D]
        if is_kept is not None:
            token = token * is_kept
        return Conditioning(embeddings=self.project(self.adapt(token)))

    def attach(self, generator: Any) -> None:
        """Add the image attention to a U-Net.

        The U-Net then takes `cross_attention_kwargs={"ip_hidden_states": …}`.

        Args:
            generator: A generator with a U-Net, or a U-Net.

        Raises:
            BrainhiveError: if a prior is already attached, or the U-Net has another
                layout.
        """
        unet = get_unet(generator)
        self._check_unet(unet)
        processors = dict(unet.attn_processors)
        for index, image_maps in self.attn_adapter["attn_processors"].items():
            name = self.processor_names[int(index)]
            processors[name] = ImageAttention(processors[name], self, image_maps)
        unet.set_attn_processor(processors)

    def detach(self, generator: Any) -> None:
        """Restore the U-Net's own processors.

        Raises:
            BrainhiveError: if this prior is not attached to the U-Net.
        """
        unet = get_unet(generator)
        processors = get_processors(unet)
        text_processors = {}
        for name, processor in processors.items():
            if isinstance(processor, ImageAttention) and processor.prior is self:
                text_processors[name] = processor.text_processor
        if not text_processors:
            raise BrainhiveError(
                "this Fusion Prior is not attached to the U-Net", "attach it first"
            )
        unet.set_attn_processor(processors | text_processors)

    def _check_unet(self, unet: Any) -> None:
        """Raise an error if this prior cannot be attached to a U-Net."""
        # a second adapter would replace the first
        processors = get_processors(unet)
        for processor in processors.values():
            if isinstance(processor, ImageAttention):
                raise BrainhiveError(
                    "a Fusion Prior is already attached to this U-Net",
                    "detach it first",
                )

        # the weights are numbered in the order of the processors
        for expected, name in zip(self.processor_names, processors, strict=False):
            if expected != name:
                raise _make_unet_error(f"{name} stands where {expected} should")
        unet_sizes = read_cross_attention_sizes(unet)
        prior_sizes = self.cross_attention_sizes
        for index in sorted(unet_sizes.keys() | prior_sizes.keys()):
            unet_size = unet_sizes.get(index)
            prior_size = prior_sizes.get(index)
            if unet_size != prior_size:
                raise _make_unet_error(
                    f"attention {index} is {unet_size} wide, not {prior_size}"
                )

    def load_ip_adapter(self, file: Path) -> None:
        """Load projection and attention adapter from a single file of IP-Adapter."""
        state = weights.read(file)
        weights.fill(self.proj, strip_prefix(state, "image_proj."), file, OTHER_MODEL)
        # the empty pattern adds a prefix to every name
        attention = rename_weights(
            strip_prefix(state, "ip_adapter."), {"": "attn_processors."}
        )
        weights.fill(self.attn_adapter, attention, file, OTHER_MODEL)

    @classmethod
    def load(
        cls,
        reference: str | Path,
        adapter: AdapterUse = "skip",
        scale: float | None = None,
    ) -> Self:
        """Load a Fusion Prior in float32.

        Args:
            reference: Folder in upstream's layout, or a `hub:` or `demo:` reference.
            adapter: Use of the trained adapter on decoded tokens.
            scale: Weight of the image attention relative to the text attention.
                Default: the scale in the prior's config.

        Raises:
            MissingData: if a file is absent or incomplete.
            BrainhiveError: if weights and config do not belong together.
        """
        patterns = [f"{component}/*" for component in CLASSES]
        folder = hub.folder(str(reference), allow=patterns, owner=OWNER)
        absent = []
        for component in CLASSES:
            for name in ("config.json", WEIGHTS):
                if not (folder / component / name).is_file():
                    absent.append(str(Path(component, name)))
        if absent:
            raise MissingData(
                f"{folder} is no Fusion Prior: it lacks {', '.join(absent)}",
                f"download it again, or give a folder that holds {', '.join(CLASSES)}",
            )

        # only the shapes of the weights tell the sizes of the cross-attentions
        configs = {component: read_config(folder, component) for component in CLASSES}
        states = {
            component: weights.read(folder / component / WEIGHTS)
            for component in CLASSES
        }
        sizes = {}
        for name, weight in states["attn_adapter"].items():
            # Name of the image keys' weight of a cross-attention. The group is the
            # index among the U-Net's processors.
            match = re.fullmatch(r"attn_processors\.(\d{1,4})\.to_k_ip\.weight", name)
            if match and weight.ndim == 2:
                inner_dim, cross_dim = weight.shape
                sizes[int(match[1])] = (cross_dim, inner_dim)

        # the meta device draws no random weights
        with weights.reading(folder), torch.device("meta"):
            prior = cls(configs, sizes)
        for component, state in states.items():
            file = folder / component / WEIGHTS
            weights.fill(prior.get_submodule(component), state, file, OTHER_MODEL)
        prior.adapter = adapter
        if scale is not None:
            prior.scale = scale
        return prior.float()

    def save(self, folder: Path) -> None:
        """Write a folder that upstream's code and `load` can read."""
        from diffusers import __version__

        for component, class_name in CLASSES.items():
            config = {"_class_name": class_name, "_diffusers_version": __version__}
            config |= self.configs[component]
            if component == "attn_adapter":
                config["scale"] = self.scale  # `load` may have changed it

            (folder / component).mkdir(parents=True, exist_ok=True)
            text = json.dumps(config, indent=2, sort_keys=True) + "\n"
            (folder / component / "config.json").write_text(text, encoding="utf-8")
            state = self.get_submodule(component).state_dict()
            weights.save(folder / component / WEIGHTS, state)


class ImageAttention:
    """Cross-attention that computes text attention + scale × image attention.

    It is no module, so that the U-Net neither saves nor freezes the prior's weights.

    Args:
        text_processor: Processor of the U-Net that this one replaces. It runs alone if
            there are no image tokens.
        prior: Prior that holds the scale.
        image_maps: Linear maps `to_k_ip` and `to_v_ip` of the image tokens.
    """

    def __init__(
        self,
        text_processor: Callable[..., Tensor],
        prior: FusionPrior,
        image_maps: Any,
    ) -> None:
        self.text_processor = text_processor
        self.prior = prior
        self.image_maps = image_maps

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        ip_hidden_states: Tensor | None = None,
    ) -> Tensor:
        """Attend to the text and to the image tokens, with diffusers' arguments.

        Args:
            attn: Attention of diffusers, whose maps are used.
            hidden_states: Pixels [B, HW, D].
            encoder_hidden_states: Text tokens [B, S, D_cross].
            attention_mask: Mask of the text tokens.
            temb: Passed to the text processor.
            ip_hidden_states: Image tokens [B, S', D_cross].

        Returns:
            Hidden states [B, HW, D].
        """
        if ip_hidden_states is None:
            return self.text_processor(
                attn, hidden_states, encoder_hidden_states, attention_mask, temb
            )

        # diffusers prepares a mask [B * heads, 1, S], torch takes [B, heads, 1, S]
        if attention_mask is not None:
            batch_size = len(hidden_states)
            n_text_tokens = encoder_hidden_states.shape[1]
            attention_mask = attn.prepare_attention_mask(
                attention_mask, n_text_tokens, batch_size
            )
            attention_mask = attention_mask.view(
                batch_size, attn.heads, -1, n_text_tokens
            )

        # text and image share the query
        query = attn.to_q(hidden_states)  # [B, HW, D]
        text_key = attn.to_k(encoder_hidden_states)
        text_value = attn.to_v(encoder_hidden_states)
        text = attend(query, text_key, text_value, attn.heads, attention_mask)
        to_k_ip, to_v_ip = self.image_maps.values()
        image_tokens = ip_hidden_states.to(to_k_ip.weight.dtype)
        image_key = to_k_ip(image_tokens)
        image_value = to_v_ip(image_tokens)
        image = attend(query, image_key, image_value, attn.heads)

        # output projection of the U-Net
        project, dropout = attn.to_out
        return dropout(project(text + self.prior.scale * image))


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None
) -> Tensor:
    """Compute multi-head attention.

    Args:
        query: Queries [B, Q, D].
        key: Keys [B, S, D].
        value: Values [B, S, D].
        heads: Number of heads.
        mask: Attention mask, broadcast to [B, heads, Q, S].

    Returns:
        Attended values [B, Q, D].
    """
    q, k, v = (
        x.to(query.dtype).unflatten(-1, (heads, -1)).transpose(1, 2)
        for x in (query, key, value)
    )  # [B, heads, Q or S, D / heads]
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return attended.transpose(1, 2).flatten(2)


def get_unet(generator: Any) -> Any:
    """Return the U-Net of a generator. A U-Net is returned as it is."""
    return getattr(generator, "unet", generator)


def get_processors(unet: Any) -> dict[str, Any]:
    """Return the attention processors of a U-Net by name, in the order of the U-Net.

    Raises:
        BrainhiveError: if the module has no attention processors.
    """
    if not hasattr(unet, "attn_processors"):
        raise _make_unet_error(f"{type(unet).__name__} has no attention processors")
    return unet.attn_processors


def read_cross_attention_sizes(unet: Any) -> dict[int, tuple[int, int]]:
    """Read (D_cross, D_inner) of each cross-attention of a U-Net.

    Returns:
        Sizes, keyed by the index among all processors, self-attentions included.
    """
    sizes = {}
    for index, name in enumerate(get_processors(unet)):
        # Suffix of diffusers' names of cross-attentions. `attn1`
        # are the self-attentions.
        if name.endswith("attn2.processor"):
            attention = unet.get_submodule(name.removesuffix(".processor"))
            sizes[index] = (attention.to_k.in_features, attention.to_k.out_features)
    return sizes


def _make_unet_error(mismatch: str) -> BrainhiveError:
    """Make the error for a U-Net of another layout."""
    return BrainhiveError(
        f"the Fusion Prior does not fit this U-Net: {mismatch}",
        "use the generator that the prior was trained for (or one of the same "
        "layout, as SDXL and turbo are)",
    )
