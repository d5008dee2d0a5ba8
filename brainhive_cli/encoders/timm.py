"""Any timm model, by its pooled features."""

from typing import Any, ClassVar

import torch
from pydantic import Field

from brainhive_cli import hub
from brainhive_cli.encoders import Encoder, EncoderConfig, weights_of
from brainhive_cli.encoders.transformers_clip import require


class Config(EncoderConfig):
    """A timm model without its classifier, with the transform its own config states."""

    files: ClassVar[tuple[str, ...]] = ("*.json", "*.safetensors", "*.bin")
    source: str = Field("", description="hub:owner/name, a folder in timm's hub layout, or `random`")
    architecture: str = Field("", description="timm's model name, for `random` weights")

    def build(self) -> Encoder:
        """Load the model and its transform."""
        import timm

        if self.source == "random":
            torch.manual_seed(0)
            model = timm.create_model(self.architecture, num_classes=0)
            weights = {"source": "random"}
        else:
            folder = hub.folder(self.source, allow=self.files)
            require(folder, "config.json")
            model = timm.create_model(f"local-dir:{folder.resolve()}", pretrained=True, num_classes=0)
            weights = weights_of(self.source, folder)
        settings: dict[str, Any] = timm.data.resolve_model_data_config(model)
        transform = timm.data.create_transform(**settings, is_training=False)
        return Encoder(model, transform, f"timm {settings}", weights)


TINY = Config(source="random", architecture="test_vit")
