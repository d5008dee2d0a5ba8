"""Generators of the demo, which are assembled from the weights in the wheel.

The wheel holds a generator of the SDXL type. Three others share most of its weights:
the dual-guided (Versatile Diffusion), the token-guided (SDXL-unCLIP) and the
text-guided (Stable Diffusion 1, from which motion modules make clips).
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.core.files import DEMO_WEIGHTS, atomic_write, hub, remove
from brainhive_cli.core.runs import Claim

if TYPE_CHECKING:
    from torch import Tensor

SHARED_FOLDER = DEMO_WEIGHTS / "generator"
DUAL_FOLDER = DEMO_WEIGHTS / "dual"
PRIOR_FOLDER = DEMO_WEIGHTS / "prior"
"""Motion modules and SparseCtrl, trained on drawn films."""
N_TEXT_TOKENS = 12
N_IMAGE_TOKENS = 4
TOKEN_WIDTH = 128
"""Number and width of the tokens on which the dual U-Net was trained. Absent conditions
are zeros.
"""
_ADDED_PREFIX = "add_embedding."
_WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


def assemble_generator(name: str, folder: Path) -> None:
    """Assemble a generator of the demo, unless the folder has it from the same weights.

    An interruption leaves no folder.

    Args:
        name: DUAL_GUIDED, TOKEN_GUIDED or TEXT_GUIDED.
        folder: Folder of the generator.
    """
    # Source folders in the wheel, and the function that writes the generator into an
    # empty folder, by its folder below home.
    generators: dict[str, tuple[tuple[Path, ...], Callable[[Path], None]]] = {
        DUAL_GUIDED: ((SHARED_FOLDER, DUAL_FOLDER), _write_dual_guided),
        TOKEN_GUIDED: ((SHARED_FOLDER, PRIOR_FOLDER), _write_token_guided),
        TEXT_GUIDED: ((SHARED_FOLDER, DUAL_FOLDER), _write_text_guided),
    }
    source_folders, write = generators[name]
    patterns = ("*/*.safetensors", "*.safetensors")
    digests = [hub.digest(source, patterns) for source in source_folders]
    stamp = " ".join(digests)
    # processes that start together wait for the first
    lock = Claim.for_path(folder, wait=True)
    try:
        # File with the digests of the weights from which a folder was assembled.
        stamp_file = "made_of.txt"
        file = folder / stamp_file
        if file.is_file() and file.read_text() == stamp:
            return
        remove(folder)  # has other weights
        with atomic_write(folder, is_lasting=False) as unfinished_folder:
            unfinished_folder.mkdir()
            write(unfinished_folder)
            (unfinished_folder / stamp_file).write_text(stamp)
    finally:
        lock.release()


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config of a component."""
    file = folder / "config.json"
    if not file.is_file():
        file = folder / "scheduler_config.json"
    return json.loads(file.read_text())


def write_configs(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the configs of components into their folders, as diffusers names them."""
    for component, config in configs.items():
        (folder / component).mkdir(exist_ok=True)
        file_name = "config.json"
        if component == "scheduler":
            file_name = "scheduler_config.json"
        text = json.dumps(dict(config), indent=2) + "\n"
        (folder / component / file_name).write_text(text, encoding="utf-8")


def read_unet_config() -> dict[str, Any]:
    """Read the config of the SDXL-type U-Net, without its embedding of sizes."""
    return read_config(SHARED_FOLDER / "unet") | {"addition_embed_type": None}


def load_dual_state_dict() -> dict[str, "Tensor"]:
    """Load the weights of the dual U-Net.

    Weights that are not in its own file are the SDXL-type U-Net's.
    """
    from safetensors.torch import load_file

    # Weights of the dual U-Net that differ from the SDXL-type U-Net.
    dual_unet_file = DUAL_FOLDER / "unet.safetensors"
    own_weights = load_file(dual_unet_file)
    state_dict = {}
    for name, value in load_file(SHARED_FOLDER / "unet" / _WEIGHTS_FILE).items():
        for dual_name in list_dual_names(name):
            state_dict[dual_name] = own_weights.get(dual_name, value)
    return state_dict


def list_dual_names(name: str) -> list[str]:
    """List the names in the dual U-Net of a weight of the SDXL-type U-Net.

    Attention weights have a name in each stream. The embedding of sizes, which never
    change here, has none.
    """
    block, is_attention, below = name.partition(".attentions.")
    if is_attention:
        index, _, layer = below.partition(".")
        # Streams of the dual U-Net, which has an attention block for each.
        return [
            f"{block}.attentions.{index}.{stream}.{layer}"
            for stream in ("image", "text")
        ]
    return [] if name.startswith(_ADDED_PREFIX) else [name]


def _write_dual_guided(folder: Path) -> None:
    """Write the dual-guided generator into an empty folder."""
    import torch
    from safetensors.torch import load_file

    from brainhive_cli.core.runs import weights

    scheduler = read_config(SHARED_FOLDER / "scheduler")
    # pipelines of diffusers require it, and trailing timesteps do not use it
    scheduler["steps_offset"] = 1
    configs = {
        "image_unet": read_unet_config(),
        "vae": read_config(SHARED_FOLDER / "vae"),
        "scheduler": scheduler,
    }
    write_configs(folder, configs)

    # the weights, and zeros as unconditional tokens
    vae_weights = load_file(SHARED_FOLDER / "vae" / _WEIGHTS_FILE)
    tokens = {
        "text": torch.zeros(1, N_TEXT_TOKENS, TOKEN_WIDTH),
        "image": torch.zeros(1, N_IMAGE_TOKENS, TOKEN_WIDTH),
    }
    weights.save(folder / "unet.safetensors", load_dual_state_dict())
    weights.save(folder / "vae.safetensors", vae_weights)
    weights.save(folder / "unconditional.safetensors", tokens)


def extract_text_state_dict(
    dual_state_dict: Mapping[str, "Tensor"], projection: "Tensor"
) -> dict[str, "Tensor"]:
    """Make the weights of a text U-Net from a U-Net for images and texts.

    The text U-Net takes the tokens of the text encoder before their projection, so the
    projection is multiplied into the keys and values of its attention.

    Args:
        dual_state_dict: Weights of the U-Net for images and texts.
        projection: Projection [D_cross, D_text] of the text encoder.
    """
    state_dict = {}
    for name, value in dual_state_dict.items():
        if ".image." in name:
            continue
        # shared weights have no stream in their name
        block, is_stream, layer = name.partition(".text.")
        plain_name = f"{block}.{layer}" if is_stream else name
        if plain_name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")):
            # [D, D_cross] @ [D_cross, D_text]. The dual-guided generator divides tokens
            # by their norm. 2.563 is the mean norm of a caption's projected end token,
            # with a standard deviation of 0.2.
            product = value.float() @ projection.float()
            state_dict[plain_name] = (product / 2.563).to(value)
        else:
            state_dict[plain_name] = value
    return state_dict


def _write_text_guided(folder: Path) -> None:
    """Write the text-guided generator into an empty folder."""
    from safetensors.torch import load_file

    from brainhive_cli.core.runs import weights

    # move the projection of the text encoder into the U-Net
    text_weights = load_file(DUAL_FOLDER / "text_encoder/model.safetensors")
    projection = text_weights.pop("text_projection.weight")
    encoder_config = read_config(DUAL_FOLDER / "text_encoder")
    encoder_config["architectures"] = ["CLIPTextModel"]
    unet_config = read_unet_config()
    unet_config["cross_attention_dim"] = projection.shape[1]

    for component in ("vae", "scheduler"):
        shutil.copytree(SHARED_FOLDER / component, folder / component)
    shutil.copytree(DUAL_FOLDER / "tokenizer", folder / "tokenizer")
    write_configs(folder, {"unet": unet_config, "text_encoder": encoder_config})
    unet_weights = extract_text_state_dict(load_dual_state_dict(), projection)
    weights.save(folder / "unet" / _WEIGHTS_FILE, unet_weights)
    weights.save(folder / "text_encoder/model.safetensors", text_weights)


def make_plain_state_dict() -> dict[str, "Tensor"]:
    """Make the weights of a U-Net that takes only latents, timesteps and image tokens.

    SDXL's size ids and empty pooled prompt never change here, and become a bias of the
    time embedding. The image attention of the Fusion Prior replaces the text attention.
    """
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file

    unet: Any = UNet2DConditionModel.from_pretrained(
        SHARED_FOLDER / "unet", torch_dtype=torch.float32
    )
    adapter_folder = PRIOR_FOLDER / "attn_adapter"
    processor_names = read_config(adapter_folder)["attn_processor_keys"]
    with torch.no_grad():
        # Size condition of the SDXL-type generator, the same for every picture.
        size_ids = (64.0, 64.0, 0.0, 0.0, 64.0, 64.0)
        # embed sizes and an empty pooled prompt
        time_ids = unet.add_time_proj(torch.tensor(size_ids)).reshape(1, -1)
        n_pooled = unet.add_embedding.linear_1.in_features - time_ids.shape[1]
        pooled = torch.zeros(1, n_pooled)
        added_embedding = unet.add_embedding(torch.cat([pooled, time_ids], 1))
        unet.time_embedding.linear_2.bias += added_embedding[0]

        # copy keys and values, from names such as `attn_processors.0.to_k_ip.weight`
        for name, weight in load_file(adapter_folder / _WEIGHTS_FILE).items():
            short_name = name.removeprefix("attn_processors.")
            index, layer = short_name.removesuffix("_ip.weight").split(".")
            attention = processor_names[int(index)].removesuffix(".processor")
            unet.get_parameter(f"{attention}.{layer}.weight").copy_(weight)

    state_dict: dict[str, Tensor] = {}
    for name, weight in unet.state_dict().items():
        if not name.startswith(_ADDED_PREFIX):
            state_dict[name] = weight
    return state_dict


def _write_token_guided(folder: Path) -> None:
    """Write the token-guided generator into an empty folder."""
    import torch

    from brainhive_cli.core.runs import weights

    for component in ("vae", "scheduler"):
        shutil.copytree(SHARED_FOLDER / component, folder / component)
    unet_config = read_unet_config()
    time_id_width = 8
    n_size_inputs = 4 * time_id_width
    width = 4 * unet_config["block_out_channels"][0]
    unet_config["addition_embed_type"] = "text_time"
    unet_config["projection_class_embeddings_input_dim"] = n_size_inputs
    write_configs(folder, {"unet": unet_config})

    # an embedding of sizes that adds nothing
    state_dict = make_plain_state_dict()
    shapes = {"linear_1": (width, n_size_inputs), "linear_2": (width, width)}
    for layer, shape in shapes.items():
        state_dict[f"{_ADDED_PREFIX}{layer}.weight"] = torch.zeros(shape)
        state_dict[f"{_ADDED_PREFIX}{layer}.bias"] = torch.zeros(shape[0])
    for name, weight in state_dict.items():
        state_dict[name] = weight.half()
    weights.save(folder / "unet" / _WEIGHTS_FILE, state_dict)


DUAL_GUIDED = "models/demo-dual-guided"
TOKEN_GUIDED = "models/demo-token-guided"
TEXT_GUIDED = "models/demo-text-guided"
"""Folders of the generators below home, as recipes name them."""
