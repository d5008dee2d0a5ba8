"""Text tokens of Versatile Diffusion: projected tokens of CLIP ViT-L/14."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from brainhive_cli.core.files import hub
from brainhive_cli.models import clip_conditions as clip, encoders
from brainhive_cli.models.encoders import (
    Encoder,
    EncoderConfig,
    ModelConfig,
    source_field,
)
from brainhive_cli.models.encoders._weights import list_weight_files, prepare_network

if TYPE_CHECKING:
    from torch import Tensor, nn

TextOutput = Literal["embedding", "average", "first"]
CAPTION_TOKENS = 77
"""Number of tokens of a caption."""
TOKEN_KINDS: Mapping[str, tuple[str, Callable[[Any, Tensor], Tensor]]] = {
    "projected": (clip.PROJECTED_TEXT_TOWER, clip.encode_texts),
    "last hidden": (
        clip.PLAIN_TEXT_TOWER,
        lambda tower, ids: tower(input_ids=ids).last_hidden_state,
    ),
    "pooled": (
        clip.PROJECTED_TEXT_TOWER,
        lambda tower, ids: tower(input_ids=ids).text_embeds,
    ),
}
"""Class of the tower in transformers, and the function that maps the tower and token
ids [B, S] to tokens [B, S, D] or a vector [B, D], keyed by kind.
"""


class Config(EncoderConfig):
    """77 tokens [77, 768] of a caption, divided by the length of the end token."""

    cites = ("xu2023", "radford2021")
    reads: ClassVar[Literal["captions"]] = "captions"
    shape = (CAPTION_TOKENS, 768)
    config_files = (f"{clip.TEXT_FOLDER}/config.json",)
    weight_files = (
        f"{clip.TEXT_FOLDER}/*.safetensors",
        f"{clip.TEXT_FOLDER}/pytorch_model.bin",
    )
    also_fetched = (f"{clip.TEXT_FOLDER}/pytorch_model.bin", "tokenizer/*")
    licence = "MIT"
    components: ClassVar[tuple[str, str]] = (clip.TEXT_FOLDER, clip.TOKENIZER_FOLDER)
    """Folders of tower and tokenizer. Empty if their files are in the main folder."""
    tokenizer_files: ClassVar[tuple[str, ...]] = ("tokenizer/*",)
    length: ClassVar[int] = CAPTION_TOKENS
    """Number of tokens of a caption."""
    tokens: ClassVar[str] = "projected"
    """Kind of tokens, a key of `TOKEN_KINDS`."""

    output: TextOutput | list[TextOutput] = Field(
        "embedding",
        description="targets of several captions: embedding (a target for each, and "
        "training draws one in a step), average (of the distinct captions, as in "
        "Brain-Diffuser) or first; a list makes a store for each in one forward pass",
    )
    architecture: dict[str, Any] = Field(
        {}, description="transformers' config of `random` weights"
    )
    source: str = source_field(clip.SOURCE)

    def build(self) -> Encoder:
        """Prepare tokenizer and tower.

        Raises:
            MissingData: if the folder lacks either.
        """
        from brainhive_cli.models.encoders._outputs import Tower

        tower_class, encode_tokens = TOKEN_KINDS[self.tokens]
        tower_folder, tokenizer_folder = self.components

        def draw() -> nn.Module:
            import transformers

            config = transformers.CLIPTextConfig(**self.architecture)
            return getattr(transformers, tower_class)(config)

        def load_tower(folder: Path) -> nn.Module:
            # some folders state the projection's width outside of the tower's config
            config = ModelConfig.read(folder / tower_folder)
            options = config.model_dump(include={"projection_dim"}, exclude_none=True)
            return clip.load_tower(
                folder,
                tower_folder,
                tower_class,
                files=list_weight_files(self, folder),
                **options,
            )

        load, weights = prepare_network(self, draw, load_tower)

        # random weights have no vocabulary
        tokenize: Callable[[str], Tensor] = _tokenize_letters
        preprocessing = "letters"
        if self.source != "random":
            folder = hub.folder(self.source, allow=self.tokenizer_files)
            tokenize = clip.load_tokenizer(folder, tokenizer_folder)
            preprocessing = f"CLIPTokenizer, {self.length} tokens"

        def encode(tower: Any, ids: Tensor) -> Tensor | list[Tensor]:
            """Encode token ids [B, S] as text tokens [B, S, D], for each output."""
            # outputs differ only in how captions are combined later
            tokens = encode_tokens(tower, ids)
            if isinstance(self.output, str):
                return tokens
            return [tokens] * len(self.output)

        return Encoder(
            network=lambda: Tower(load(), encode),
            preprocess=tokenize,
            preprocessing=preprocessing,
            weights=weights,
            reads="captions",
        )


TINY = Config(source="random", architecture=encoders.TINY_ARCHITECTURES["vd-text"])


def _tokenize_letters(text: str) -> Tensor:
    """Return the ASCII codes of a text [S], with 128 as start, end and padding."""
    import torch

    letters = text[: CAPTION_TOKENS - 2]
    ids = [128]
    ids += [min(ord(letter), 127) for letter in letters]
    ids += [128] * (CAPTION_TOKENS - len(ids))
    return torch.tensor(ids)
