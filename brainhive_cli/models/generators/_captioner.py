"""Captions of pictures by BLIP-2, and of decoded tokens by GIT."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.base import BrainhiveError, MissingData
from brainhive_cli.core.files import Input, documents, hub
from brainhive_cli.core.recipes import Section
from brainhive_cli.core.runs import weights
from brainhive_cli.models import (
    Decoded,
    find_file_input,
    find_weight_file,
    load_network,
)
from brainhive_cli.models.generators import GeneratedMedia
from brainhive_cli.models.generators._components import Placement

SMALL_FILES = ("*.json", "merges.txt", "vocab.*", "tokenizer*")
WEIGHT_FILES = ("model.safetensors", "model-*.safetensors")

GIT = "hub:microsoft/git-large-coco"


class HeadCaption(Section):
    """GIT with a decoded head in place of the features of its vision tower.

    Source: MindEye2 (arXiv 2403.11207).
    """

    model: str = Field(GIT, description="Folder or hub reference of GIT.")
    head: str = Field("image", description="Head whose tokens [S, D] are captioned.")
    converter: str = Field(
        "hub:datasets/pscotti/mindeyev2/bigG_to_L_epoch8.pth",
        description="File of two linear maps, over tokens and then over features, from "
        "the head's tokens to the tokens of GIT's vision tower.",
    )


class Captioner:
    """Network that writes captions, with its preprocessor.

    Args:
        model: BLIP-2, or GIT with a `Converter` in place of its vision tower.
        preprocessor: Processor of BLIP-2, or tokenizer of GIT.
        device: Device of the network.
        head: Name of the captioned head, or "" to caption media.
    """

    def __init__(
        self, model: Any, preprocessor: Any, device: torch.device, head: str = ""
    ) -> None:
        self.model = model
        self.preprocessor = preprocessor
        self.head = head
        self.placement = Placement((model,), device)

    @torch.no_grad()
    def caption(
        self, media: "GeneratedMedia | None", decoded: Decoded | None
    ) -> list[str]:
        """Write a caption for each picture, clip or row of the head.

        Args:
            media: Pictures [B, 3, H, W] or clips in 0..1. Clips are captioned by their
                middle frame. Unused if there is a head.
            decoded: Decoded heads. Unused for media.

        Raises:
            BrainhiveError: if the head is absent or its tokens have another shape.
        """
        # Largest number of tokens of a caption, with GIT's first token.
        # BLIP-2's own limit.
        max_caption_tokens = 20
        if self.head:
            tokenizer = self.preprocessor
            n_skipped_tokens = 0
            limit = {"max_length": max_caption_tokens}
            # GIT expects the four axes of pictures
            pixel_values = self._get_tokens(decoded)[:, None]
        else:
            assert media is not None
            tokenizer = self.preprocessor.tokenizer
            limit = {"max_new_tokens": max_caption_tokens}
            # the caption follows the tokens of the picture and a start token
            n_skipped_tokens = self.model.config.num_query_tokens + 1
            pictures = media if media.ndim == 4 else media[:, media.shape[1] // 2]
            images = list(pictures.mul(255).round().byte().cpu())
            pixel_values = self.preprocessor.image_processor(
                images, return_tensors="pt"
            )["pixel_values"]

        # greedy generation, so that a caption depends on its picture alone
        self.placement.use(self.model)
        pixel_values = pixel_values.to(self.placement.device, self.model.dtype)
        token_ids = self.model.generate(
            pixel_values=pixel_values, do_sample=False, **limit
        )
        self.placement.use()  # makes room for the generator
        captions = tokenizer.batch_decode(
            token_ids[:, n_skipped_tokens:], skip_special_tokens=True
        )
        return [caption.strip() for caption in captions]

    def _get_tokens(self, decoded: Decoded | None) -> Tensor:
        """Return the head's tokens [B, S, D], after a check of their shape."""
        tokens = None if decoded is None else decoded.tensors.get(self.head)
        expected_shape = self.model.git.image_encoder.shape
        if tokens is None or tuple(tokens.shape[1:]) != expected_shape:
            state = "not decoded" if tokens is None else str(list(tokens.shape[1:]))
            raise BrainhiveError(
                f"captions are made of the head {self.head} of "
                f"{list(expected_shape)}, which is {state}",
                "name in caption.head a head of the tokens that caption.converter "
                "was trained on",
            )
        return tokens


class Converter(nn.Module):
    """Linear maps over tokens, then over features, in place of GIT's vision tower.

    Source: CLIPConverter of MindEye2's recon_inference.ipynb (MIT), with its parameter
    names.
    """

    def __init__(self, state_dict: dict[str, Tensor]) -> None:
        super().__init__()
        # weights of linear layers are [out, in]
        n_tower_tokens, n_tokens = state_dict["linear1.weight"].shape
        tower_width, width = state_dict["linear2.weight"].shape
        self.shape = (n_tokens, width)
        self.linear1 = nn.Linear(n_tokens, n_tower_tokens)
        self.linear2 = nn.Linear(width, tower_width)

    def forward(self, tokens: Tensor, **_: Any) -> Any:
        """Map tokens [B, 1, S, D] to an output like the vision tower's."""
        from transformers.modeling_outputs import BaseModelOutput

        # [B, S_tower, D]
        features = self.linear1(tokens[:, 0].transpose(1, 2)).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=self.linear2(features))


def load_captioner(
    caption: str | HeadCaption, device: torch.device | str, dtype: torch.dtype
) -> Captioner:
    """Load a captioner onto a device.

    Args:
        caption: Reference of BLIP-2, which captions media, or the config of GIT, which
            captions a decoded head.
        device: Device.
        dtype: Data type of the weights.

    Raises:
        MissingData: if the model or converter is absent or half-downloaded.
        BrainhiveError: if the converter's file holds other weights.
    """
    import transformers as tf

    folder, model_type = find_folder(caption, SMALL_FILES + WEIGHT_FILES)
    name = f"the captioner {folder}"
    # Classes of the network and of its preprocessor in transformers, by `model_type`.
    classes = {
        "blip-2": ("Blip2ForConditionalGeneration", "Blip2Processor"),
        "git": ("GitForCausalLM", "BertTokenizer"),
    }
    network_class, preprocessor_class = classes[model_type]
    model = load_network(getattr(tf, network_class), folder, name, dtype=dtype)
    with weights.reading(name):
        preprocessor = getattr(tf, preprocessor_class).from_pretrained(folder)
    if isinstance(caption, str):
        return Captioner(model, preprocessor, torch.device(device))

    # replace GIT's vision tower by the converter of the head's tokens
    file = find_weight_file(caption.converter)
    with weights.reading(
        file,
        "give bigG_to_L_epoch8.pth",
        BrainhiveError,
        problem="is no such converter",
    ):
        state_dict = weights.read(file)
        converter = Converter(state_dict)
        weights.fill(converter, state_dict, file)
    model.git.image_encoder = converter.to(dtype)
    return Captioner(model, preprocessor, torch.device(device), caption.head)


def list_inputs(caption: str | HeadCaption) -> list[Input]:
    """List the weights of a captioner, and its converter if there is one."""
    reference, _ = _get_reference(caption)
    patterns = SMALL_FILES + WEIGHT_FILES[1:]
    inputs = [hub.find_input(reference, (), WEIGHT_FILES, patterns)]
    if isinstance(caption, HeadCaption):
        inputs.append(find_file_input(caption.converter))
    return inputs


def _get_reference(caption: str | HeadCaption) -> tuple[str, str]:
    """Return the reference of a captioner, and its `model_type`."""
    if isinstance(caption, str):
        return caption, "blip-2"
    return caption.model, "git"


def find_folder(
    caption: str | HeadCaption, allow: Sequence[str] = ("config.json",)
) -> tuple[Path, str]:
    """Return the folder of a captioner, and its `model_type`.

    Raises:
        MissingData: if the folder is absent or holds another model.
    """
    reference, expected_type = _get_reference(caption)
    folder = hub.folder(reference, allow=allow)
    file = folder / "config.json"
    config = documents.read_download(file) if file.is_file() else {}
    model_type = config.get("model_type", "none")
    if model_type != expected_type:
        raise MissingData(
            f"the captioner {folder} is no {expected_type} (model_type {model_type})",
            GIT if expected_type == "git" else "hub:Salesforce/blip2-opt-2.7b",
        )
    return folder, expected_type
