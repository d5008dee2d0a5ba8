"""Files of a Fusion Prior: the folders of its parts, and their configs."""

from pathlib import Path
from typing import Any

from brainhive_cli.core import documents, weights

KIND = "fusion-prior"
WEIGHTS = "diffusion_pytorch_model.safetensors"
"""Weight file of each part folder, as diffusers names it."""
CLASSES = {
    "fusion_encoder": "FusionEncoderModel",
    "proj": "IPProjectionModel",
    "attn_adapter": "IPAttnAdapterModel",
}
"""The folders of a prior, and the class that upstream writes into their config.json."""
KEYS_OF_CONFIG = {
    "fusion_encoder": ("proj_meta", "hidden_size", "intermediate_size", "num_layers"),
    "proj": ("embed_dim", "cross_attention_dim", "sequence_length"),
    "attn_adapter": ("attn_processor_keys", "scale"),
}
"""Keys that the config.json of each part must have."""
KEYS_OF_UPSTREAM = ("block_out_channels", "cross_attention_dim")
"""Keys that upstream's own code reads, too; others, as a path that diffusers writes,
are not passed on.
"""


def read_config(folder: Path, part: str) -> dict[str, Any]:
    """Read the config of a part; MissingData if it is half-downloaded."""
    file = folder / part / "config.json"
    written = documents.read_download(file)
    with weights.reading(file):
        required = {key: written[key] for key in KEYS_OF_CONFIG[part]}
    return required | {key: written[key] for key in KEYS_OF_UPSTREAM if key in written}
