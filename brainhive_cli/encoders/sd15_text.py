"""Text tokens as Stable Diffusion 1 takes them: CLIP ViT-L/14's last hidden states, not projected."""

from typing import Any

from torch import Tensor

from brainhive_cli.core.clip_conditions import PLAIN_TEXT, TEXT
from brainhive_cli.encoders import Encoder, _captions, located


class Config(_captions.CaptionConfig):
    """Captions as 77 tokens of width 768."""

    licence = "CreativeML OpenRAIL-M"
    weight_files = (f"{TEXT}/model.safetensors", f"{TEXT}/pytorch_model.bin")
    source: str = located("hub:stable-diffusion-v1-5/stable-diffusion-v1-5")

    def build(self) -> Encoder:
        """Prepare tokenizer and tower; MissingData when the folder lacks either."""
        return self.built(PLAIN_TEXT, _last_hidden)


TINY = Config(source="random", architecture=_captions.TINY_TOWER)


def _last_hidden(tower: Any, ids: Tensor) -> Tensor:
    found: Tensor = tower(input_ids=ids).last_hidden_state
    return found
