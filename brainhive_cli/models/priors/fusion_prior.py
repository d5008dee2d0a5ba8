"""Fusion Prior, which turns a fused token into the conditioning of an SDXL U-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from brainhive_cli.core.files import Input, hub
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import InnerWidth, find_file_input, find_weight_file
from brainhive_cli.models.priors import OWNER, Description
from brainhive_cli.models.priors._fusion_files import (
    CLASSES,
    KIND,
    WEIGHTS,
    read_config,
)

if TYPE_CHECKING:
    from brainhive_cli.models.priors._fusion_network import AdapterUse, FusionPrior


class Config(parts.Config):
    """Fusion Prior to be trained (BrainHiVE, arXiv 2602.07495)."""

    cites = ("zheng2026", "ye2023")

    hidden_size: InnerWidth = Field(
        1024, description="Width of the token, by default the paper's."
    )
    intermediate_size: InnerWidth = Field(
        4096,
        description="Width inside fusion block and adapter, by default the paper's.",
    )
    start_from: str | None = Field(
        None,
        description="Path or hub:OWNER/NAME/FILE of an IP-Adapter file that "
        "initialises projection and attention, in the paper "
        "hub:h94/IP-Adapter/sdxl_models/ip-adapter_sdxl_vit-h.safetensors. Default: "
        "random initialisation.",
    )

    def inputs(self) -> list[Input]:
        """List the IP-Adapter file as an input."""
        return [] if self.start_from is None else [find_file_input(self.start_from)]

    def build(self, dims: dict[str, int], generator: Any) -> FusionPrior:
        """Make a prior for a generator's U-Net.

        Args:
            dims: Width of each embedding, by upstream's key.
            generator: A generator with a U-Net, or a U-Net.
        """
        from brainhive_cli.models.priors._fusion_network import (
            FusionPrior,
            get_processors,
            get_unet,
            read_cross_attention_sizes,
        )

        unet = get_unet(generator)
        cross_attention_dim = unet.config.cross_attention_dim

        # the config.json of each part, as upstream writes it
        configs = {
            "fusion_encoder": {
                "hidden_size": self.hidden_size,
                "intermediate_size": self.intermediate_size,
                "num_layers": 1,
                "proj_meta": dict(dims),
            },
            "proj": {
                "cross_attention_dim": cross_attention_dim,
                "embed_dim": self.hidden_size,
                # Number of image tokens per token, as in IP-Adapter.
                "sequence_length": 4,
            },
            "attn_adapter": {
                "cross_attention_dim": cross_attention_dim,
                "attn_processor_keys": list(get_processors(unet)),
                "block_out_channels": list(unet.config.block_out_channels),
                "scale": 1.0,
            },
        }
        prior = FusionPrior(configs, read_cross_attention_sizes(unet))

        # a prior on the meta device, which has shapes alone, downloads no file
        if self.start_from is not None:
            is_present = find_file_input(self.start_from).state == "here"
            if is_present or not prior.proj.proj.weight.is_meta:
                prior.load_ip_adapter(find_weight_file(self.start_from))
        return prior


TINY = Config(hidden_size=32, intermediate_size=64)
"""Small enough for tests."""


def describe(reference: str) -> Description:
    """Describe a Fusion Prior without reading its weights.

    Raises:
        MissingData: if the config is absent or incomplete.
    """
    # Config that names the fused embeddings and the width of their token.
    folder = hub.folder(reference, allow=["fusion_encoder/config.json"], owner=OWNER)
    config = read_config(folder, "fusion_encoder")
    dim = config["hidden_size"]
    return Description(
        KIND,
        reference,
        folder,
        dims=config["proj_meta"],
        dim=dim,
        fuser={"dim": dim, "intermediate_size": config["intermediate_size"]},
    )


def digest(reference: str) -> str:
    """Return the SHA-256 digest of a prior's weights in hexadecimal."""
    patterns = [f"{component}/*" for component in CLASSES]
    folder = hub.folder(reference, allow=patterns, owner=OWNER)
    return hub.digest(folder, [f"{component}/{WEIGHTS}" for component in CLASSES])


def load(
    reference: str, adapter: AdapterUse = "skip", scale: float | None = None
) -> FusionPrior:
    """Load a Fusion Prior. See `FusionPrior.load` for arguments and errors."""
    from brainhive_cli.models.priors._fusion_network import FusionPrior

    return FusionPrior.load(reference, adapter, scale)
