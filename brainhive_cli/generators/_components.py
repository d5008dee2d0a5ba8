"""The components of an SDXL-type folder, loaded one by one so that what is missing can be named."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from brainhive_cli import hub
from brainhive_cli.errors import BrainhiveError, MissingData, first_line
from brainhive_cli.generators._architecture import Architecture

EMPTY_PROMPT = "empty_prompt.safetensors"
"""Stands for the text encoders: prompt_embeds [1, S, D_text] and pooled_prompt_embeds [1, D_pooled]."""
EMPTY_TOKENS = 77
"""Length of a CLIP prompt."""
CONFIGS = {
    "unet": "config.json",
    "vae": "config.json",
    "scheduler": "scheduler_config.json",
    "text_encoder": "config.json",
    "text_encoder_2": "config.json",
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
}
"""The config file of each component, as diffusers names it."""
TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


def folder_of(source: str, variant: str | None, *, text: bool = False) -> Path:
    """Find a generator's folder; from the hub only what is used is fetched (the text encoders if asked)."""
    suffix = f".{variant}" if variant else ""
    stems = (
        ["text_encoder*/model"] if text else ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"]
    )
    weights = [f"{stem}{suffix}{shard}.safetensors" for stem in stems for shard in ("", "-*")]
    return hub.folder(source, allow=["*.json", "tokenizer*/*", EMPTY_PROMPT, *weights])


def load(folder: Path, dtype: torch.dtype, variant: str | None) -> dict[str, Any]:
    """Load U-Net, VAE and scheduler.

    Raises:
        MissingData: if a component is absent or damaged.
        BrainhiveError: if the U-Net is not of SDXL's type.
    """
    import diffusers

    check_unet(_config(folder, "unet"), folder)
    scheduler_class = getattr(diffusers, _config(folder, "scheduler")["_class_name"])
    _config(folder, "vae")
    return {
        "unet": _pretrained(diffusers.UNet2DConditionModel, folder, "unet", dtype, variant),
        "vae": _pretrained(diffusers.AutoencoderKL, folder, "vae", dtype, variant),
        "scheduler": scheduler_class.from_pretrained(folder / "scheduler"),
    }


def draw(architecture: Architecture, device: torch.device, dtype: torch.dtype, seed: int) -> dict[str, Any]:
    """Make U-Net and VAE with random weights, and an Euler scheduler."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel

    check_unet(architecture["unet"], "the architecture")
    with torch.random.fork_rng(), device:
        torch.manual_seed(seed)
        unet: Any = UNet2DConditionModel(**architecture["unet"])
        vae: Any = AutoencoderKL(**architecture["vae"])
    scheduler = EulerDiscreteScheduler(**architecture["scheduler"])
    return {"unet": cast(unet, dtype), "vae": cast(vae, dtype), "scheduler": scheduler}


def cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Change a model's dtype without the warning that diffusers' own `to` gives for no cause."""
    return nn.Module.to(model, dtype)


def upcast(vae: Any) -> None:
    """Decode in float32 where the VAE overflows in half precision, as SDXL's own does."""
    if vae.dtype == torch.float16 and vae.config.force_upcast:
        cast(vae, torch.float32)


def skeleton(architecture: Architecture, dtype: torch.dtype) -> dict[str, Any]:
    """Make U-Net and VAE of these configs on the meta device, and the scheduler."""
    import diffusers

    check_unet(architecture["unet"], "the architecture")
    with torch.device("meta"):
        unet: Any = diffusers.UNet2DConditionModel.from_config(architecture["unet"])
        vae: Any = diffusers.AutoencoderKL.from_config(architecture["vae"])
    kind = architecture["scheduler"].get("_class_name", "EulerDiscreteScheduler")
    scheduler = getattr(diffusers, kind).from_config(architecture["scheduler"])
    return {"unet": cast(unet, dtype), "vae": cast(vae, dtype), "scheduler": scheduler}


def read_config(source: str, component: str) -> dict[str, Any]:
    """Read the config of a component; from the hub nothing else is fetched."""
    return _config(hub.folder(source, allow=["*/*.json"]), component)


def check(source: str, variant: str | None) -> str:
    """Say whether a generator's weights are here; raises as `load` does, but reads configs alone."""
    check_unet(read_config(source, "unet"), source)
    for component in ("vae", "scheduler"):
        read_config(source, component)
    folder = hub.folder(source, allow=["*/*.json"])
    weights = f"diffusion_pytorch_model{f'.{variant}' if variant else ''}*.safetensors"
    absent = [name for name in ("unet", "vae") if not any((folder / name).glob(weights))]
    if absent and not source.startswith("hub:"):
        raise MissingData(f"the generator {folder} has no {absent[0]}/{weights}", "download it again")
    return "weights to be fetched" if absent else "SDXL type"


def bytes_to_fetch(source: str, variant: str | None) -> int:
    """Ask the hub how many bytes of a generator are not on this machine."""
    configs = [f"{name}/{CONFIGS[name]}" for name in ("unet", "vae", "scheduler")]
    weights = f"diffusion_pytorch_model{f'.{variant}' if variant else ''}.safetensors"
    return hub.bytes_to_fetch(source, [*configs, f"vae/{weights}"], [f"unet/{weights}"])


def check_unet(config: dict[str, Any], where: Path | str) -> None:
    """Refuse a U-Net that does not take SDXL's pooled text and size ids."""
    kind = config.get("addition_embed_type")
    if kind != "text_time":
        raise BrainhiveError(
            f"the U-Net of {where} is not SDXL's type: addition_embed_type is {kind}, not text_time",
            "use an SDXL-type generator, such as hub:stabilityai/sdxl-turbo",
        )


def empty_prompt(
    folder: Path, device: torch.device, dtype: torch.dtype, variant: str | None
) -> tuple[Tensor, Tensor]:
    """Embed the empty prompt, from the folder's file or with its text encoders.

    Returns:
        The text [1, S, D_text] and the pooled text [1, D_pooled].
    """
    if (folder / EMPTY_PROMPT).is_file():
        held = load_file(folder / EMPTY_PROMPT)
        return held["prompt_embeds"], held["pooled_prompt_embeds"]
    return _embed("", folder, device, dtype, variant)


def prompt(config: Any, words: str, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Embed a prompt with the text encoders of a generator's folder.

    Args:
        config: The generator's Config.
        words: What to embed.
        device: Where the text encoders run.
        dtype: What they run in.

    Returns:
        As `empty_prompt`.

    Raises:
        MissingData: if there are no text encoders.
    """
    try:
        folder = folder_of(config.source, config.variant, text=True)
        return _embed(words, folder, device, dtype, config.variant)
    except MissingData as error:
        raise MissingData(
            f"the prompt {words!r} needs text encoders: {error.what}",
            "give a whole SDXL folder, or no prompt",
        ) from error


def _embed(
    words: str, folder: Path, device: torch.device, dtype: torch.dtype, variant: str | None
) -> tuple[Tensor, Tensor]:
    import transformers as tf
    from diffusers import StableDiffusionXLPipeline

    for name in TEXT:
        _config(folder, name)
    pipeline: Any = StableDiffusionXLPipeline(
        vae=None,
        unet=None,
        scheduler=None,
        text_encoder=_pretrained(tf.CLIPTextModel, folder, "text_encoder", dtype, variant),
        text_encoder_2=_pretrained(tf.CLIPTextModelWithProjection, folder, "text_encoder_2", dtype, variant),
        tokenizer=_tokenizer(folder, "tokenizer"),
        tokenizer_2=_tokenizer(folder, "tokenizer_2"),
        add_watermarker=False,
    )
    pipeline.to(device)
    with torch.no_grad():
        text, _, pooled, _ = pipeline.encode_prompt(words, device=device, do_classifier_free_guidance=False)
    return text.to(device, dtype), pooled.to(device, dtype)


def _config(folder: Path, component: str) -> dict[str, Any]:
    file = folder / component / CONFIGS[component]
    if not file.is_file():
        other = f", nor {EMPTY_PROMPT}" if component in TEXT else ""
        raise MissingData(
            f"the generator {folder} has no {component}/{file.name}{other}",
            "give a whole diffusers SDXL folder, or download it again",
        )
    return json.loads(file.read_text(encoding="utf-8"))


def _pretrained(cls: Any, folder: Path, component: str, dtype: torch.dtype, variant: str | None) -> Any:
    dtype_name = "dtype" if component in TEXT else "torch_dtype"
    try:
        model = cls.from_pretrained(folder / component, variant=variant, **{dtype_name: dtype})
    except (OSError, SafetensorError, ValueError) as error:
        raise _damaged(component, folder, error) from error
    return model.eval().requires_grad_(False)


def _tokenizer(folder: Path, component: str) -> Any:
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(folder / component)
    except Exception as error:  # the library of tokenizers raises nothing narrower
        raise _damaged(component, folder, error) from error


def _damaged(component: str, folder: Path, error: Exception) -> MissingData:
    return MissingData(
        f"cannot load {component} of the generator {folder}: {first_line(error)}", "download it again"
    )
