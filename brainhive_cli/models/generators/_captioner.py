"""Captions for a stage of a chain: of the pictures before it by BLIP-2, or of decoded
tokens by GIT.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import documents, hub, weights
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.sections import Section
from brainhive_cli.models.foreign_weights import (
    find_file_input,
    find_weight_file,
    load_network,
)
from brainhive_cli.models.generators import GeneratedMedia
from brainhive_cli.models.generators._components import Placement
from brainhive_cli.models.heads import Decoded

FILES = ("*.json", "merges.txt", "vocab.*", "tokenizer*")
WEIGHTS = ("model.safetensors", "model-*.safetensors")
LONGEST = 20
"""Tokens of a caption, at most: new ones as BLIP-2's `generate` does by itself, GIT's
with its first.
"""


BLIP = "hub:Salesforce/blip2-opt-2.7b"
GIT = "hub:microsoft/git-large-coco"
CLASSES = {
    "blip-2": ("Blip2ForConditionalGeneration", "Blip2Processor"),
    "git": ("GitForCausalLM", "BertTokenizer"),
}
"""Classes of transformers, the network's and the reader's, by the `model_type` of a
captioner's config.
"""


class HeadCaption(Section):
    """GIT, which reads a decoded head instead of its vision tower's features, as
    MindEye2 does.
    """

    model: str = Field(GIT, description="The GIT: a reference or folder.")
    head: str = Field("image", description="Head of tokens [S, D] that is captioned.")
    converter: str = Field(
        "hub:datasets/pscotti/mindeyev2/bigG_to_L_epoch8.pth",
        description="File of the linear maps from these tokens to those of GIT's "
        "tower: over tokens, then over features.",
    )


class Captioner:
    """A network that captions, and what reads for it.

    Args:
        model: BLIP-2; or GIT, whose tower is then a converter of the tokens of a head.
        reader: BLIP-2's processor, which has its tokenizer; or GIT's tokenizer.
        device: Where it runs.
        head: The head that is captioned; "" for media.
    """

    def __init__(
        self, model: Any, reader: Any, device: torch.device, head: str = ""
    ) -> None:
        self.model = model
        self.reader = reader
        self.head = head
        self.placement = Placement((model,), device)

    @torch.no_grad()
    def captions(
        self, media: "GeneratedMedia | None", decoded: Decoded | None
    ) -> list[str]:
        """Caption pictures [B, 3, H, W] in 0..1, the middle frames of clips, or a
        decoded head, greedily.

        Raises:
            BrainhiveError: if there is no such head, or it is of other tokens.
        """
        # GIT reads tokens of a head, BLIP-2 pictures; `first` is the index of the first
        # new token
        if self.head:
            tokenizer = self.reader
            first = 0
            limit = {"max_length": LONGEST}
            pixels = self._tokens(decoded)[:, None]  # four axes, as of pictures
        else:
            assert media is not None
            tokenizer = self.reader.tokenizer
            limit = {"max_new_tokens": LONGEST}
            # behind the picture's tokens and the first
            first = self.model.config.num_query_tokens + 1
            pictures = media if media.ndim == 4 else media[:, media.shape[1] // 2]
            images = list(pictures.mul(255).round().byte().cpu())
            pixels = self.reader.image_processor(images, return_tensors="pt")[
                "pixel_values"
            ]

        # generate greedily, so that a caption depends on its picture alone
        self.placement.use(self.model)
        pixels = pixels.to(self.placement.device, self.model.dtype)
        ids = self.model.generate(pixel_values=pixels, do_sample=False, **limit)[
            :, first:
        ]
        self.placement.use()  # makes room for the generator
        return [
            words.strip()
            for words in tokenizer.batch_decode(ids, skip_special_tokens=True)
        ]

    def _tokens(self, decoded: Decoded | None) -> Tensor:
        """Choose the head's tokens [B, S, D]."""
        # the converter was trained for one number of tokens and one width
        tokens = None if decoded is None else decoded.tensors.get(self.head)
        expected = self.model.git.image_encoder.shape
        if tokens is None or tuple(tokens.shape[1:]) != expected:
            seen = "not decoded" if tokens is None else str([*tokens.shape[1:]])
            raise BrainhiveError(
                f"captions are made of the head {self.head} of {[*expected]}, "
                f"which is {seen}",
                "name in caption.head a head of the tokens that caption.converter "
                "was trained on",
            )
        return tokens


class Converter(nn.Module):
    """Linear maps over tokens, then over features, instead of GIT's vision tower.

    Source: CLIPConverter of MindEye2's recon_inference.ipynb (MIT), whose names are
    kept.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        # weights of linear maps are [out, in]
        to_tokens, tokens = state["linear1.weight"].shape
        to_width, width = state["linear2.weight"].shape
        self.shape = (tokens, width)
        self.linear1 = nn.Linear(tokens, to_tokens)
        self.linear2 = nn.Linear(width, to_width)

    def forward(self, tokens: Tensor, **_: Any) -> Any:
        """Map [B, 1, S, D] to what the tower gives of pictures."""
        from transformers.modeling_outputs import BaseModelOutput

        # [B, S_tower, D]
        features = self.linear1(tokens[:, 0].transpose(1, 2)).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=self.linear2(features))


def load(
    caption: str | HeadCaption, device: torch.device | str, dtype: torch.dtype
) -> Captioner:
    """Load a captioner onto a device.

    Raises:
        MissingData: if its model or converter is absent or half-downloaded.
        BrainhiveError: if the file is no converter.
    """
    import transformers as tf

    # the network, and the processor or tokenizer that belongs to it
    folder, kind = find_folder(caption, FILES + WEIGHTS)
    network, preprocessor = CLASSES[kind]
    model = load_network(
        getattr(tf, network), folder, f"the captioner {folder}", dtype=dtype
    )
    with weights.reading(f"the captioner {folder}"):
        reader = getattr(tf, preprocessor).from_pretrained(folder)
    if isinstance(caption, str):
        return Captioner(model, reader, torch.device(device))

    # a converter of decoded tokens replaces GIT's vision tower
    file = find_weight_file(caption.converter)
    with weights.reading(
        file,
        "give bigG_to_L_epoch8.pth",
        BrainhiveError,
        problem="is no such converter",
    ):
        state = weights.read(file)
        converter = Converter(state)
        weights.fill(converter, state, file)
    model.git.image_encoder = converter.to(dtype)
    return Captioner(model, reader, torch.device(device), caption.head)


def inputs(caption: str | HeadCaption) -> list[Input]:
    """Look for the weights of a captioner, and for the converter of a head's tokens."""
    reference, _ = _model_of(caption)
    converter = [] if isinstance(caption, str) else [find_file_input(caption.converter)]
    return [hub.find_input(reference, (), WEIGHTS, (*FILES, WEIGHTS[1])), *converter]


def _model_of(caption: str | HeadCaption) -> tuple[str, str]:
    """Return the reference of a captioner, and its `model_type`."""
    return (caption, "blip-2") if isinstance(caption, str) else (caption.model, "git")


def find_folder(
    caption: str | HeadCaption, allow: Sequence[str] = ("config.json",)
) -> tuple[Path, str]:
    """Find the folder of a captioner and its `model_type`, and refuse that of another
    model.
    """
    reference, expected = _model_of(caption)
    folder = hub.folder(reference, allow=allow)
    # the model_type tells another kind of model before any weights are read
    file = folder / "config.json"
    config = documents.read_download(file) if file.is_file() else {}
    seen = config.get("model_type", "none")
    if seen != expected:
        raise MissingData(
            f"the captioner {folder} is no {expected} (model_type {seen})",
            GIT if expected == "git" else BLIP,
        )
    return folder, expected
