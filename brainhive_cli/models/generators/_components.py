"""The components of an SDXL-type folder, loaded one by one so that what is missing can be named."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brainhive_cli.core import console, documents, hub, weights
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.needs import Need
from brainhive_cli.models.generators._architecture import Architecture

RANDOM = "random"
"""The source that means random weights."""
EMPTY_PROMPT = "empty_prompt.safetensors"
"""Stands for the text encoders: prompt_embeds [1, S, D_text] and pooled_prompt_embeds [1, D_pooled]."""
CONFIGS = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
}
"""The config file of each component, as diffusers names it, where it is not config.json."""
WHOLE = "give a whole folder of diffusers, or download it again"
TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
TEXT_STEMS = tuple(f"{name}/model" for name in TEXT[:2])
TEXT_CONFIGS = tuple(f"{name}/{CONFIGS.get(name, 'config.json')}" for name in TEXT)
"""Of SDXL's text encoders: weight files without ending, and the files that must lie next to them."""
SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
"""The classes of diffusers that a generator's config may name: those of Stable Diffusion XL."""
WEIGHTS = "diffusion_pytorch_model"
"""Stem of the weight files of U-Net and VAE."""
COMPONENTS = {"unet": "unet", "vae": "vae", "scheduler": "scheduler"}
STEMS = (f"unet/{WEIGHTS}", f"vae/{WEIGHTS}")


def folder_of(source: str, variant: str | None, *, text: bool = False) -> Path:
    """Find a generator's folder; from the hub only what is used is fetched (the text encoders on request)."""
    stems = ["text_encoder*/model"] if text else STEMS
    weights = [name for stem in stems for name in weight_files(stem, variant)]
    return hub.folder(source, allow=["*.json", "tokenizer*/*", EMPTY_PROMPT, *weights])


def weight_files(stem: str, variant: str | None) -> list[str]:
    """Name the file of weights, and the pattern of those that are split."""
    return [f"{stem}{f'.{variant}' if variant else ''}{shard}.safetensors" for shard in ("", "-*")]


def load(
    folder: Path, dtype: torch.dtype, variant: str | None, check: Callable[[dict[str, Any], Path | str], None]
) -> dict[str, Any]:
    """Load U-Net, VAE and scheduler, with the errors of `Config.build`; `check` refuses another U-Net."""
    import diffusers

    check(read(folder, "unet"), folder)
    read(folder, "vae")
    return {
        "unet": pretrained(diffusers.UNet2DConditionModel, folder, "unet", dtype, variant),
        "vae": pretrained(diffusers.AutoencoderKL, folder, "vae", dtype, variant),
        "scheduler": scheduler(read(folder, "scheduler"), folder),
    }


def scheduler(config: dict[str, Any], where: Path | str) -> Any:
    """Make the scheduler that a config names."""
    import diffusers

    if (kind := config.get("_class_name")) not in SCHEDULERS:
        raise MissingData(
            f"the scheduler of the generator {where} is of the class {kind!r}, which is not known here",
            f"known: {', '.join(SCHEDULERS)}",
        )
    return getattr(diffusers, kind).from_config(config)


def draw(
    architecture: Architecture,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
    change: Callable[[Any], Any] = lambda unet: unet,
) -> dict[str, Any]:
    """Make U-Net and VAE with random weights (shapes alone on the meta device), and the scheduler.

    Args:
        architecture: Arguments of their classes.
        device: Where they are made.
        dtype: Of the weights.
        seed: Of the weights.
        change: Changes the U-Net.
    """
    import diffusers

    gpus = [device] if device.type == "cuda" else []  # by default all, which would wake the others
    with torch.random.fork_rng(gpus), device:
        torch.manual_seed(seed)
        unet: Any = change(diffusers.UNet2DConditionModel.from_config(architecture["unet"]))
        vae: Any = diffusers.AutoencoderKL.from_config(architecture["vae"])
    sampler = {"_class_name": "EulerDiscreteScheduler", **architecture["scheduler"]}
    return {
        "unet": cast(unet, dtype),
        "vae": cast(vae, dtype),
        "scheduler": scheduler(sampler, "the architecture"),
    }


def cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Change a model's dtype without the warning that diffusers' own `to` gives for no cause."""
    return nn.Module.to(model, dtype)


def read_config(source: str, component: str) -> dict[str, Any]:
    """Read the config of a component; from the hub nothing else is fetched."""
    return read(hub.folder(source, allow=["*/*.json"]), component)


def check_configs(source: str, check: Callable[[dict[str, Any], Path | str], None]) -> None:
    """Raise as `load` does, but read configs alone."""
    check(read_config(source, "unet"), source)
    for component in ("vae", "scheduler"):
        read_config(source, component)


def needs(
    source: str, variant: str | None, stems: Sequence[str] = STEMS, files: Sequence[str] = ()
) -> list[Need]:
    """Look for the weights of a generator's components; none of random ones.

    Args:
        source: The generator's folder, or that of one network.
        variant: Of the weight files.
        stems: The components' weight files, without ending.
        files: What else must be there.
    """
    every = [weights for stem in stems for weights in weight_files(stem, variant)]
    configs = ["config.json"] if stems[0] == WEIGHTS else ["*/*.json", "tokenizer*/*"]
    listed = []
    for stem in stems if source != RANDOM else ():
        config = [] if source.startswith("hub:") else [str(Path(stem).with_name("config.json"))]
        listed.append(hub.need(source, [*config, *files], weight_files(stem, variant), [*configs, *every]))
    return listed


def architecture_of(
    config: Any,
    published: Architecture,
    folders: Mapping[str, str] = COMPONENTS,
    further: Callable[[], Architecture] = dict,
) -> Architecture:
    """Read a generator's architecture; while the hub cannot be reached, that of the usual source is known.

    Args:
        config: The generator's.
        published: The architecture of random weights without another, and of the usual source.
        folders: Components to their folders below the source.
        further: Reads other components.
    """
    if config.source == RANDOM:
        return config.architecture or published
    try:
        return {name: read_config(config.source, folder) for name, folder in folders.items()} | further()
    except hub.Unreachable:
        if config.source != type(config).model_fields["source"].default:
            raise
        return published


def check_unet(config: dict[str, Any], where: Path | str) -> None:
    """Refuse a U-Net that does not take SDXL's pooled text and size ids."""
    kind = config.get("addition_embed_type")
    if kind != "text_time":
        raise BrainhiveError(
            f"the U-Net of {where} is not SDXL's type: addition_embed_type is {kind}, not text_time",
            "use an SDXL-type generator, such as hub:stabilityai/sdxl-turbo",
        )


def read(folder: Path, component: str) -> dict[str, Any]:
    """Read the config of a component; MissingData if it is absent or damaged."""
    file = folder / component / CONFIGS.get(component, "config.json")
    if not file.is_file():
        other = f", nor {EMPTY_PROMPT}" if component in TEXT else ""
        raise MissingData(
            f"the generator {folder} has no {file.relative_to(folder)}{other}",
            WHOLE,
        )
    config = documents.read(file, dict[str, Any], documents.DOWNLOAD, MissingData)
    if "tokenizer" not in component:  # whose model_max_length may be 10^30
        weights.check_sizes(config, file)
    return config


def pretrained(cls: Any, folder: Path, component: str, dtype: torch.dtype, variant: str | None) -> Any:
    """Load a component, frozen; MissingData if its weights are absent, damaged or not all there."""
    options: dict[str, Any] = {"variant": variant, "dtype" if component in TEXT else "torch_dtype": dtype}
    files = list((folder / component).glob("*.safetensors"))
    if pickles := [] if files else list((folder / component).glob("*.bin")):
        options["use_safetensors"] = False  # else their absence would be reported as an error
    where = f"{component} of the generator {folder}" if component else f"the network {folder}"
    if not files and not pickles:
        raise MissingData(f"{where} is damaged or half-downloaded: no weights", WHOLE)
    with weights.reading(where, files=files + pickles), console.hushed():
        model, loading_info = cls.from_pretrained(folder / component, output_loading_info=True, **options)
        if absent := sorted(loading_info["missing_keys"]):
            raise ValueError(f"it lacks {absent[0]} and {len(absent) - 1} more")
        return model.eval().requires_grad_(False)


def pretrained_folder(cls: Any, reference: str, dtype: torch.dtype) -> Any:
    """Load a network that is a folder of its own, with the errors of `pretrained`."""
    folder = hub.folder(reference, allow=["config.json", *weight_files(WEIGHTS, None)])
    read(folder, "")
    return pretrained(cls, folder, "", dtype, None)
