"""The Fusion Prior: embeddings to a token, and the token to the conditioning of an
SDXL-type U-Net.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from brainhive_cli.core import hub, parts
from brainhive_cli.core.command import Input
from brainhive_cli.models.foreign_weights import file_input, find_file
from brainhive_cli.models.priors import OWNER, Description
from brainhive_cli.models.priors._fusion_files import (
    CLASSES,
    KIND,
    WEIGHTS,
    read_config,
)
from brainhive_cli.models.sizes import InnerWidth

if TYPE_CHECKING:
    from brainhive_cli.models.priors._fusion_network import AdapterUse, FusionPrior

CONFIG = "fusion_encoder/config.json"
"""Config that names the embeddings which a prior fuses, and the width of their
token.
"""


IMAGE_TOKENS = 4
"""Image tokens that a token becomes; IP-Adapter's."""


class Config(parts.Config):
    """A Fusion Prior that is to be trained (BrainHiVE, arXiv 2602.07495)."""

    cites = ("zheng2026", "ye2023")

    hidden_size: InnerWidth = Field(
        1024, description="Width of the token; the paper's value."
    )
    intermediate_size: InnerWidth = Field(
        4096, description="Width inside fusion block and adapter; the paper's."
    )
    start_from: str | None = Field(
        None,
        description="IP-Adapter single file whose projection and attention it starts "
        "from: a path or hub:OWNER/NAME/FILE; the paper: "
        "hub:h94/IP-Adapter/sdxl_models/ip-adapter_sdxl_vit-h.safetensors. "
        "Without it they start random.",
    )

    def inputs(self) -> list[Input]:
        """Look for what it starts from."""
        return [] if self.start_from is None else [file_input(self.start_from)]

    def build(self, dims: dict[str, int], generator: Any) -> FusionPrior:
        """Make a prior for embeddings of these widths (by upstream key) and this
        generator's U-Net.
        """
        from brainhive_cli.models.priors._fusion_network import (
            FusionPrior,
            cross_sizes,
            processors_of,
            unet_of,
        )

        # read from the U-Net the widths and the order of attentions that the adapter
        # must fit
        unet = unet_of(generator)
        processors = list(processors_of(unet))
        cross_attention = {"cross_attention_dim": unet.config.cross_attention_dim}

        # the config.json of each part, as upstream writes it
        configs = {
            "fusion_encoder": {
                "hidden_size": self.hidden_size,
                "intermediate_size": self.intermediate_size,
                "num_layers": 1,
                "proj_meta": dict(dims),
            },
            "proj": {
                **cross_attention,
                "embed_dim": self.hidden_size,
                "sequence_length": IMAGE_TOKENS,
            },
            "attn_adapter": {
                **cross_attention,
                "attn_processor_keys": processors,
                "block_out_channels": list(unet.config.block_out_channels),
                "scale": 1.0,
            },
        }
        prior = FusionPrior(configs, cross_sizes(unet))

        # replace random weights by those of an IP-Adapter; shapes alone fetch no file
        if self.start_from is not None:
            is_here = file_input(self.start_from).state == "here"
            if is_here or not prior.proj.proj.weight.is_meta:
                prior.start_from(find_file(self.start_from))
        return prior


TINY = Config(hidden_size=32, intermediate_size=64)
"""Small enough for tests."""


def describe(reference: str) -> Description:
    """Describe a Fusion Prior; MissingData if its config is absent, half-downloaded or
    has no embeddings.
    """
    folder = hub.folder(reference, allow=[CONFIG], owner=OWNER)
    config = read_config(folder, "fusion_encoder")
    sizes = {
        "dim": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
    }
    return Description(
        KIND, reference, folder, config["proj_meta"], sizes["dim"], sizes
    )


def digest(reference: str) -> str:
    """Digest a prior's weights (64 hexadecimal digits), which identify it wherever it
    lies.
    """
    folder = hub.folder(reference, allow=[f"{part}/*" for part in CLASSES], owner=OWNER)
    return hub.digest(folder, [f"{part}/{WEIGHTS}" for part in CLASSES])


def load(
    reference: str, adapter: AdapterUse = "skip", scale: float | None = None
) -> FusionPrior:
    """Load a prior of this kind; see `FusionPrior.load`."""
    from brainhive_cli.models.priors._fusion_network import FusionPrior

    return FusionPrior.load(reference, adapter, scale)
