"""Captions for a stage of a chain: of the pictures before it by BLIP-2, or of decoded tokens by GIT."""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import console, documents, hub, single_file, weights
from brainhive_cli.core.decoded import Decoded
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.media import Media
from brainhive_cli.core.needs import Need, require
from brainhive_cli.core.recipe import Section
from brainhive_cli.generators._denoising import Placement

FILES = ("*.json", "merges.txt", "vocab.*", "tokenizer*")
WEIGHTS = ("model.safetensors", "model-*.safetensors")
LONGEST = 20
"""Tokens of a caption, at most: new ones as BLIP-2's `generate` does by itself, GIT's with its first."""
KINDS = {"blip-2": "hub:Salesforce/blip2-opt-2.7b", "git": "hub:microsoft/git-large-coco"}
"""Models by the `model_type` of their config, each with one that serves."""


class HeadCaption(Section):
    """GIT, which reads a decoded head in the place of its vision tower's features, as MindEye2 does."""

    model: str = Field(KINDS["git"], description="The GIT: a reference or folder.")
    head: str = Field("image", description="Head of tokens [S, D] that is captioned.")
    converter: str = Field(
        "hub:datasets/pscotti/mindeyev2/bigG_to_L_epoch8.pth",
        description="File of the linear maps from these tokens to those of GIT's tower: over tokens, then "
        "over features.",
    )


class Captioner:
    """BLIP-2, its image processor and its tokenizer.

    Args:
        model: The network.
        processor: Pictures to pixel values, and token ids to words.
        device: Where it runs.
    """

    def __init__(self, model: Any, processor: Any, device: torch.device) -> None:
        self.model, self.processor = model, processor
        self.placement = Placement((model,), device)

    @torch.no_grad()
    def captions(self, media: Media) -> list[str]:
        """Caption pictures [B, 3, H, W] in 0..1, or the middle frames of clips [B, F, 3, H, W], greedily."""
        pictures = media if media.ndim == 4 else media[:, media.shape[1] // 2]
        images = list(pictures.mul(255).round().byte().cpu())
        pixels = self.processor.image_processor(images, return_tensors="pt")["pixel_values"]
        self.placement.use(self.model)
        pixels = pixels.to(self.placement.device, self.model.dtype)
        found = self.model.generate(pixel_values=pixels, do_sample=False, max_new_tokens=LONGEST)
        own = found[:, self.model.config.num_query_tokens + 1 :]  # behind the picture's tokens and the first
        self.placement.use()
        return [
            words.strip() for words in self.processor.tokenizer.batch_decode(own, skip_special_tokens=True)
        ]


class HeadCaptioner:
    """GIT without its vision tower, the converter that takes its place, and its tokenizer.

    Args:
        head: Name of the head that is captioned.
        model: The network; its `image_encoder` is replaced.
        converter: From tokens of the head to features of the tower.
        tokenizer: Ids to words.
        device: Where both run.
    """

    def __init__(
        self, head: str, model: Any, converter: "Converter", tokenizer: Any, device: torch.device
    ) -> None:
        self.head, self.model, self.tokenizer = head, model, tokenizer
        model.git.image_encoder = converter
        self.placement = Placement((model,), device)

    @torch.no_grad()
    def captions(self, decoded: Decoded | None) -> list[str]:
        """Caption the head's tokens [B, S, D], greedily.

        Raises:
            BrainhiveError: if there is no such head, or it is of other tokens.
        """
        tokens = None if decoded is None else decoded.tensors.get(self.head)
        expected = self.model.git.image_encoder.shape
        if tokens is None or tuple(tokens.shape[1:]) != expected:
            seen = "not decoded" if tokens is None else str([*tokens.shape[1:]])
            raise BrainhiveError(
                f"captions are made of the head {self.head} of {[*expected]}, which is {seen}",
                "name in caption.head a head of the tokens that caption.converter was trained on",
            )
        self.placement.use(self.model)
        pixels = tokens[:, None].to(self.placement.device, self.model.dtype)  # four axes, as of pictures
        ids = self.model.generate(pixel_values=pixels, do_sample=False, max_length=LONGEST)
        self.placement.use()
        return [words.strip() for words in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]


class Converter(nn.Module):
    """Linear maps over tokens, then over features, in the place of GIT's vision tower.

    Source: CLIPConverter of MindEye2's recon_inference.ipynb (MIT), whose names are kept.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        to_tokens, tokens = state["linear1.weight"].shape
        to_width, width = state["linear2.weight"].shape
        self.shape = (tokens, width)
        self.linear1, self.linear2 = nn.Linear(tokens, to_tokens), nn.Linear(width, to_width)

    def forward(self, tokens: Tensor, **_: Any) -> Any:
        """Map [B, 1, S, D] to what the tower gives of pictures."""
        from transformers.modeling_outputs import BaseModelOutput

        features = self.linear1(tokens[:, 0].transpose(1, 2)).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=self.linear2(features))


def load(caption: str | HeadCaption, device: torch.device | str, dtype: torch.dtype) -> Any:
    """Load a captioner onto a device.

    Raises:
        MissingData: if its model or converter is absent or half-downloaded.
        BrainhiveError: if the converter is of another tower.
    """
    import transformers as tf

    reference, kind = _model_of(caption)
    folder = hub.folder(reference, allow=(*FILES, *WEIGHTS))
    _check(folder, kind)
    files = list(folder.glob("*.safetensors"))
    if not files:
        raise MissingData(f"the captioner {folder} has no weights", "download it again")
    with weights.reading(f"the captioner {folder}", files=files), console.hushed():
        model_class: Any = tf.Blip2ForConditionalGeneration if kind == "blip-2" else tf.GitForCausalLM
        model, info = model_class.from_pretrained(folder, dtype=dtype, output_loading_info=True)
        if absent := sorted(info["missing_keys"]):
            raise ValueError(f"it lacks {absent[0]} and {len(absent) - 1} more")
        reader_class: Any = tf.Blip2Processor if kind == "blip-2" else tf.BertTokenizer
        reader = reader_class.from_pretrained(folder)
    if isinstance(caption, str):
        return Captioner(model, reader, torch.device(device))
    converter = _converter(single_file.find(caption.converter), model.config.vision_config.hidden_size)
    return HeadCaptioner(caption.head, model, converter.to(dtype), reader, torch.device(device))


def skeleton(caption: str | HeadCaption, dtype: torch.dtype) -> Any:
    """Make the network of shapes alone; only its config is fetched."""
    import transformers as tf

    reference, kind = _model_of(caption)
    folder = hub.folder(reference, allow=("config.json",))
    _check(folder, kind)
    with weights.reading(f"the captioner {folder}"), torch.device("meta"), console.hushed():
        if kind == "blip-2":
            return tf.Blip2ForConditionalGeneration(tf.Blip2Config.from_pretrained(folder)).to(dtype)
        made: Any = tf.GitForCausalLM(tf.GitConfig.from_pretrained(folder))
        made.git.image_encoder = nn.Identity()  # the converter's 2 million weights are nothing beside it
        return made.to(dtype)


def needs(caption: str | HeadCaption) -> list[Need]:
    """Look for the weights of a captioner, and for the converter of a head's tokens."""
    reference, _ = _model_of(caption)
    listed = [hub.need(reference, (), WEIGHTS, (*FILES, WEIGHTS[1]))]
    if not reference.startswith("hub:") and not hub.holds(reference, (), WEIGHTS):
        error = MissingData(f"the captioner {reference} has no weights", "download it again")
        listed = [Need(reference, None, error)]
    return listed if isinstance(caption, str) else [*listed, single_file.need(caption.converter)]


def check(caption: str | HeadCaption) -> str:
    """Describe a captioner and what would be downloaded; MissingData if it is of another kind."""
    reference, kind = _model_of(caption)
    _check(hub.folder(reference, allow=("config.json",)), kind)
    described = f"captions by {reference}, {hub.to_download(require(needs(caption)))}"
    if isinstance(caption, str):
        return described
    return f"{described}, from the head {caption.head} by {caption.converter}"


def _model_of(caption: str | HeadCaption) -> tuple[str, str]:
    return (caption, "blip-2") if isinstance(caption, str) else (caption.model, "git")


def _converter(file: Path, width: int) -> Converter:
    """Read a converter to features of a tower of some width."""
    with weights.reading(file, "give bigG_to_L_epoch8.pth", BrainhiveError, problem="is no such converter"):
        state = weights.read(file)
        if len(state["linear2.weight"]) != width:
            raise ValueError(
                f"it maps to {len(state['linear2.weight'])} features, the captioner takes {width}"
            )
        converter = Converter(state)
        weights.fill(converter, state, file)
    return converter


def _check(folder: Path, kind: str) -> None:
    """Refuse a folder of another model."""
    file = folder / "config.json"
    config = documents.read(file, dict[str, Any], documents.DOWNLOAD, MissingData) if file.is_file() else {}
    if (seen := config.get("model_type", "none")) != kind:
        name = {"blip-2": "BLIP-2", "git": "GIT"}[kind]
        raise MissingData(f"the captioner {folder} is no {name} (model_type {seen})", KINDS[kind])
