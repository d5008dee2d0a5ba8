"""Files of a Fusion Prior: the folders of its components, and their configs."""

from pathlib import Path
from typing import Any

from brainhive_cli.core.files import documents
from brainhive_cli.core.runs import weights

KIND = "fusion-prior"
WEIGHTS = "diffusion_pytorch_model.safetensors"
"""Name of the weight file in each folder of a component, as in diffusers."""
CLASSES = {
    "fusion_encoder": "FusionEncoderModel",
    "proj": "IPProjectionModel",
    "attn_adapter": "IPAttnAdapterModel",
}
"""Class that upstream writes into config.json, keyed by the folder of a component."""


def read_config(folder: Path, component: str) -> dict[str, Any]:
    """Read the config.json of a component.

    Raises:
        MissingData: if the download is incomplete.
    """
    file = folder / component / "config.json"
    values = documents.read_download(file)
    with weights.reading(file):
        # Keys that the config.json of each component must have.
        required_keys = {
            "fusion_encoder": (
                "proj_meta",
                "hidden_size",
                "intermediate_size",
                "num_layers",
            ),
            "proj": ("embed_dim", "cross_attention_dim", "sequence_length"),
            "attn_adapter": ("attn_processor_keys", "scale"),
        }
        required = {key: values[key] for key in required_keys[component]}
    # Further keys that upstream's code reads. Other keys, such as a path that diffusers
    # writes, are not passed on.
    return required | {
        key: values[key]
        for key in ("block_out_channels", "cross_attention_dim")
        if key in values
    }
