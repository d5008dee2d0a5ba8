"""Components of a latent diffusion model, with their folders, configs and weights."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brainhive_cli.core.base import MissingData, console
from brainhive_cli.core.files import Input, documents, home_folder, hub, locate
from brainhive_cli.core.runs import Claim
from brainhive_cli.models import load_network

Architecture = dict[str, dict[str, Any]]
"""Arguments of the diffusers classes, by component, such as `unet` or `vae`."""
ARCHITECTURES = documents.read(
    Path(__file__).with_name("architectures.yaml"), dict[str, Architecture]
)
"""Published architecture of each kind, and `KIND TINY` for its `TINY`."""
RANDOM = "random"
"""Source of a generator with random weights."""
EMPTY_PROMPT_FILE = "empty_prompt.safetensors"
"""File that replaces the text encoders of SDXL for the empty prompt. It holds
prompt_embeds [1, S, D_text] and pooled_prompt_embeds [1, D_pooled].
"""
CONFIG_FILES = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
}
"""Name of a component's config file in diffusers, if it is not config.json."""
WHOLE_FOLDER_HINT = "give a whole folder of diffusers, or download it again"
TEXT_COMPONENTS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
"""Components of SDXL that encode prompts."""
WEIGHTS_STEM = "diffusion_pytorch_model"
"""Name, without ending, of the weight files of U-Net and VAE."""
NETWORK_STEMS = (f"unet/{WEIGHTS_STEM}", f"vae/{WEIGHTS_STEM}")
CONVERTED_FOLDER = "models"
"""Folder of converted weights, below the home folder."""


class Placement:
    """Device of some networks, where they stay or are moved only while they are used.

    The networks are moved to the device and frozen.

    Args:
        networks: Networks of a generator.
        device: Device on which the networks compute.
    """

    def __init__(self, networks: Sequence[Any], device: torch.device) -> None:
        self.networks = networks
        self.device = device
        self.is_offloaded = False
        for network in networks:
            nn.Module.to(network, device).eval().requires_grad_(False)

    def offload(self, device: torch.device) -> None:
        """Compute on another device, which from now on holds only networks in use."""
        self.device = device
        self.is_offloaded = True

    def use(self, *networks: Any) -> None:
        """Move these networks to the device and the others to the CPU, if offloaded."""
        if self.is_offloaded:
            for network in self.networks:
                nn.Module.to(network, self.device if network in networks else "cpu")


def find_folder(source: str, variant: str | None = None, *, text: bool = False) -> Path:
    """Find the folder of a generator, and download its U-Net and VAE if absent.

    With `text`, its text encoders are downloaded instead.

    Raises:
        MissingData: if the source is a file, is absent or cannot be downloaded.
    """
    error = find_source_error(source)
    if error is not None:
        raise error
    stems: Sequence[str] = ["text_encoder*/model"] if text else NETWORK_STEMS
    patterns = ["*.json", "tokenizer*/*", EMPTY_PROMPT_FILE]
    for stem in stems:
        patterns += list_weight_files(stem, variant)
    return hub.folder(source, allow=patterns)


def find_source_error(source: str) -> MissingData | None:
    """Return an error if the source of a generator is a file, else None."""
    if source.startswith("hub:") or not locate(source).is_file():
        return None
    return MissingData(
        f"{source} is a file, and generators are read from a folder of diffusers",
        "a folder, as diffusers' from_single_file makes it; an IP-Adapter is for "
        "prior.start_from",
    )


def list_weight_files(stem: str, variant: str | None = None) -> list[str]:
    """Return the name of a weight file, and a pattern for weights in several files."""
    suffix = f".{variant}" if variant else ""
    return [f"{stem}{suffix}.safetensors", f"{stem}{suffix}-*.safetensors"]


def list_inputs(
    source: str,
    stems: Sequence[str] = NETWORK_STEMS,
    files: Sequence[str] = (),
    variant: str | None = None,
) -> list[Input]:
    """List the weights of a generator or network, with their states.

    Args:
        source: Folder or hub reference.
        stems: Weight files of the networks, without ending.
        files: Further files that each network needs.
        variant: Variant of the weight files.

    Returns:
        An input for each network. Empty for random weights.
    """
    error = find_source_error(source)
    if error is not None:
        return [Input(source, None, error)]
    if source == RANDOM:
        return []

    # patterns of the files that would be downloaded
    patterns = ["*/*.json", "tokenizer*/*"]
    if stems[0] == WEIGHTS_STEM:
        patterns = ["config.json"]
    for stem in stems:
        patterns += list_weight_files(stem, variant)

    inputs = []
    for stem in stems:
        required_files = list(files)
        if not source.startswith("hub:"):
            required_files.insert(0, str(Path(stem).with_name("config.json")))
        inputs.append(
            hub.find_input(
                source, required_files, list_weight_files(stem, variant), patterns
            )
        )
    return inputs


def read_config(folder: Path, component: str) -> dict[str, Any]:
    """Read the config of a component such as `unet`. "" is the folder's own network.

    Raises:
        MissingData: if the file is absent or damaged.
    """
    file = folder / component / CONFIG_FILES.get(component, "config.json")
    if not file.is_file():
        alternative = (
            f", nor {EMPTY_PROMPT_FILE}" if component in TEXT_COMPONENTS else ""
        )
        raise MissingData(
            f"the generator {folder} has no {file.relative_to(folder)}{alternative}",
            WHOLE_FOLDER_HINT,
        )
    return documents.read_download(file)


def load_network_folder(network_class: Any, reference: str, dtype: torch.dtype) -> Any:
    """Load a network from its own folder or hub reference.

    Raises:
        MissingData: if the folder is absent, incomplete or damaged.
    """
    patterns = ["config.json"] + list_weight_files(WEIGHTS_STEM)
    folder = hub.folder(reference, allow=patterns)
    read_config(folder, "")
    return load_network(
        network_class, folder, f"the network {folder}", torch_dtype=dtype
    )


def make_scheduler(config: dict[str, Any], generator: Path | str) -> Any:
    """Make the scheduler whose class a config names.

    Raises:
        MissingData: if the class is unknown.
    """
    import diffusers
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

    # schedulers that pipelines can exchange, and the schedulers of distilled models
    class_names = {"LCMScheduler", "TCDScheduler"}
    class_names |= set(KarrasDiffusionSchedulers.__members__)
    class_name = config.get("_class_name", "")
    if class_name not in class_names:
        raise MissingData(
            f"the scheduler of the generator {generator} is of the class "
            f"{class_name!r}, which is not known here",
            f"known: {', '.join(sorted(class_names))}",
        )
    return getattr(diffusers, class_name).from_config(config)


def draw_components(
    architecture: Architecture,
    device: torch.device,
    dtype: torch.dtype,
    change_unet: Callable[[Any], Any] = lambda unet: unet,
) -> dict[str, Any]:
    """Make a U-Net and a VAE with random weights, and the scheduler.

    The weights are the same in each call. On the meta device they are shapes without
    values.

    Args:
        architecture: Arguments of the classes.
        device: Device.
        dtype: Data type.
        change_unet: Function that changes the new U-Net.
    """
    import diffusers

    # forking the random state of all GPUs, the default, would wake idle ones
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus), device:
        torch.manual_seed(0)
        unet = change_unet(
            diffusers.UNet2DConditionModel.from_config(architecture["unet"])
        )
        vae = diffusers.AutoencoderKL.from_config(architecture["vae"])

    scheduler = {"_class_name": "EulerDiscreteScheduler"} | architecture["scheduler"]
    return {
        "unet": change_dtype(unet, dtype),
        "vae": change_dtype(vae, dtype),
        "scheduler": make_scheduler(scheduler, "the architecture"),
    }


def change_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Change the data type of a model without the needless warning of diffusers."""
    return nn.Module.to(model, dtype)


def is_converted(name: str) -> bool:
    """Return True if published weights were converted before, to any data type."""
    return any((home_folder() / CONVERTED_FOLDER).glob(f"{name}-*"))


def convert_once(
    name: str, dtype: torch.dtype, description: str, convert: Callable[[Path], None]
) -> Path:
    """Find the folder of converted weights, or convert them into it.

    An interrupted conversion leaves only a hidden folder, which the next one completes.

    Args:
        name: Name of the folder, without the data type.
        dtype: Data type of the weights.
        description: Name of the model.
        convert: Function that writes the weights into a folder.
    """
    dtype_name = str(dtype).removeprefix("torch.")
    folder = home_folder() / CONVERTED_FOLDER / f"{name}-{dtype_name}"

    # if another process is converting, wait and use its folder
    lock = Claim.for_path(folder, wait=True)
    try:
        if not folder.is_dir():
            console.say(f"{description} is converted once, into {folder}")
            unfinished_folder = folder.with_name(f".{folder.name}.part")
            unfinished_folder.mkdir(exist_ok=True)
            convert(unfinished_folder)
            os.replace(unfinished_folder, folder)
    finally:
        lock.release()
    return folder
