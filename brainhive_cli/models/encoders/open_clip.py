"""Image embedding of any open_clip model."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image
from pydantic import Field

from brainhive_cli.core.files import documents
from brainhive_cli.core.runs import reading
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import Encoder, EncoderConfig
from brainhive_cli.models.encoders._tokens import TokenConfig
from brainhive_cli.models.encoders._weights import (
    build_untrained,
    fetch_weights,
    list_weight_files,
)
from brainhive_cli.models.encoders.timm import find_anatomy

if TYPE_CHECKING:
    from torch import nn

CONFIG_FILE = "open_clip_config.json"


class Config(TokenConfig):
    """Projected embedding of the image tower, not normalised.

    Pictures are transformed as its config states.
    """

    cites = ("ilharco2021",)
    config_files = (CONFIG_FILE,)
    weight_files = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

    source: str = Field(
        "",
        description="hub:owner/name, a folder in open_clip's hub layout, or `random`",
    )
    architecture: dict[str, Any] | Literal[""] = Field(
        "", description="open_clip's `model_cfg` of `random` weights"
    )

    def build(self) -> Encoder:
        """Prepare image tower and transform.

        Raises:
            MissingData: if the folder lacks files, or its config is damaged.
        """
        from open_clip.model import _build_vision_tower
        from open_clip.transform import (
            PreprocessCfg,
            image_transform_v2,
            merge_preprocess_dict,
        )
        from torch import nn

        from brainhive_cli.models.encoders._outputs import (
            Anatomy,
            Outputs,
            find_resnet_anatomy,
        )

        # architecture and preprocessing
        if self.source == "random":
            model = dict(self.architecture or {})
            preprocess_cfg = dict[str, Any]()
            weights = {"source": "random"}
        else:
            folder, weights = fetch_weights(self)
            model, preprocess_cfg = read_config(folder)

        # a trial of the transform reports a damaged config
        with reading(self.source):
            preprocess_cfg["size"] = model["vision_cfg"].get("image_size", 224)
            settings = merge_preprocess_dict(PreprocessCfg(), preprocess_cfg)
            transform = image_transform_v2(PreprocessCfg(**settings), is_train=False)
            transform(Image.new("RGB", (64, 64)))

        def load_outputs() -> nn.Module:
            if self.source == "random":
                # the public functions of open_clip also build a text tower
                build_tower = partial(
                    _build_vision_tower,
                    model["embed_dim"],
                    model["vision_cfg"],
                    model.get("quick_gelu", False),
                )
                tower: Any = build_untrained(build_tower)
            else:
                tower = load_towers(self, folder).visual

            # networks of timm, ResNets and vision transformers
            if hasattr(tower, "trunk"):
                anatomy = find_anatomy(tower.trunk)
            elif not hasattr(tower, "transformer"):
                anatomy = find_resnet_anatomy(tower)
            else:
                # with an attention pool, the norm has the width of the pool
                norm = tower.ln_post if tower.attn_pool is None else nn.Identity()
                anatomy = Anatomy(
                    list(tower.transformer.resblocks),
                    norm,
                    n_prefix_tokens=1,
                    has_class=True,
                )
            return Outputs(tower, self.output, anatomy)

        return Encoder(
            load_outputs, transform, f"open_clip {json.dumps(settings)}", weights
        )


TINY = Config(source="random", architecture=encoders.TINY_ARCHITECTURES["open-clip"])


def read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read `model_cfg` and `preprocess_cfg` of a folder in open_clip's hub layout."""
    config = documents.read_download(folder / CONFIG_FILE)
    with reading(folder / CONFIG_FILE):
        return dict(config["model_cfg"]), dict(config.get("preprocess_cfg", {}))


def load_towers(config: EncoderConfig, folder: Path) -> Any:
    """Load the image tower and the text tower."""
    import open_clip

    files = list_weight_files(config, folder)
    with reading(folder, files=files):
        return open_clip.create_model(
            f"local-dir:{folder.resolve()}", require_pretrained=True
        )
