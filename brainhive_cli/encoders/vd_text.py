"""Text tokens as Versatile Diffusion takes them: CLIP ViT-L/14's, projected, by the end token's length."""

from brainhive_cli.core.clip_conditions import PROJECTED_TEXT, SOURCE, TEXT, of_texts
from brainhive_cli.encoders import Encoder, _captions, located


class Config(_captions.CaptionConfig):
    """Captions as 77 tokens of width 768."""

    weight_files = (f"{TEXT}/*.safetensors", f"{TEXT}/pytorch_model.bin")
    also_fetched = (f"{TEXT}/pytorch_model.bin", "tokenizer/*")
    source: str = located(SOURCE)

    def build(self) -> Encoder:
        """Prepare tokenizer and tower; MissingData when the folder lacks either."""
        return self.built(PROJECTED_TEXT, of_texts)


TINY = Config(source="random", architecture=_captions.TINY_TOWER)
