"""The demo's generators, in their publishers' layouts: folders that are joined from
what the wheel holds.

The SDXL-type generator lies in the wheel. The dual-guided one (Versatile Diffusion's
layout), the one from image tokens (SDXL-unCLIP's) and the one from text (Stable
Diffusion 1's, of which motion modules make clips) share most of its weights.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.core import hub
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.files import atomic_write, remove
from brainhive_cli.core.hub import DEMO_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

SHARED = DEMO_WEIGHTS / "generator"
DUAL = DEMO_WEIGHTS / "dual"
PRIOR = DEMO_WEIGHTS / "prior"
MOTION = DEMO_WEIGHTS / "films"
"""Motion modules and SparseCtrl, which were trained on drawn films."""
DUAL_UNET = DUAL / "unet.safetensors"
"""Weights of the dual U-Net in which it differs from the SDXL-type one."""
STAMP = "made_of.txt"
"""Digests of what a folder was joined from."""
STREAMS = ("image", "text")
"""Streams of the dual U-Net, which has each attention block once for either."""
TEXT_TOKENS, IMAGE_TOKENS, TOKEN_DIM = 12, 4, 128
"""Number and width of the tokens that the dual U-Net was trained with; without a
condition they are zeros.
"""
CAPTION_LENGTH = 2.563
"""Mean length of a caption's projected end token (spread 0.2), by which the dual-guided
generator divides.
"""
SIZE_IDS = (64.0, 64.0, 0.0, 0.0, 64.0, 64.0)
"""Size of every picture of the SDXL-type generator."""
TIME_ID_DIM = 8
_ADDED = "add_embedding."
_WEIGHTS = "diffusion_pytorch_model.safetensors"


def assemble(name: str, folder: Path) -> None:
    """Write a folder of `GENERATORS`, unless it is there of these weights; interrupted,
    that leaves none.
    """
    sources, write = GENERATORS[name]
    stamp = " ".join(
        hub.digest(source, ("*/*.safetensors", "*.safetensors")) for source in sources
    )
    # processes that start together join it once; the others wait
    lock = Claim.for_path(folder, wait=True)
    try:
        if (folder / STAMP).is_file() and (folder / STAMP).read_text() == stamp:
            return
        remove(folder)  # was joined from other weights
        with atomic_write(folder, is_lasting=False) as part:
            part.mkdir()
            write(part)
            (part / STAMP).write_text(stamp)
    finally:
        lock.release()


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config of a component."""
    file = next(
        path
        for path in (folder / "config.json", folder / "scheduler_config.json")
        if path.is_file()
    )
    return json.loads(file.read_text())


def write_configs(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a config.json into each component's folder; a scheduler's has a name of its
    own.
    """
    for name, config in configs.items():
        (folder / name).mkdir(exist_ok=True)
        file = "scheduler_config" if name == "scheduler" else "config"
        text = json.dumps(dict(config), indent=2) + "\n"
        (folder / name / f"{file}.json").write_text(text, encoding="utf-8")


def unet_config() -> dict[str, Any]:
    """Describe a U-Net like the SDXL-type one, without its embedding of sizes."""
    return read_config(SHARED / "unet") | {"addition_embed_type": None}


def dual_state() -> dict[str, "Tensor"]:
    """Join the weights of the dual U-Net: those of the SDXL-type one, and those in
    which it differs.
    """
    from safetensors.torch import load_file

    # a stream's attention block that has no weight of its own has the shared one
    shared = load_file(SHARED / "unet" / _WEIGHTS)
    different = load_file(DUAL_UNET)
    return {
        dual: different.get(dual, value)
        for name, value in shared.items()
        for dual in dual_names(name)
    }


def dual_names(name: str) -> Iterator[str]:
    """Name a weight of the SDXL-type U-Net as the dual one does: in both streams, or
    not at all.
    """
    block, is_attention, below = name.partition(".attentions.")
    if is_attention:
        index, _, rest = below.partition(".")
        yield from (f"{block}.attentions.{index}.{stream}.{rest}" for stream in STREAMS)
    elif not name.startswith(_ADDED):  # which embeds sizes, that never change here
        yield name


def _write_dual_guided(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from brainhive_cli.core import weights

    # configs of the components
    scheduler = read_config(SHARED / "scheduler")
    # diffusers' pipelines demand it; trailing timesteps do not use it
    scheduler["steps_offset"] = 1
    vae = read_config(SHARED / "vae")
    write_configs(
        folder, {"image_unet": unet_config(), "vae": vae, "scheduler": scheduler}
    )

    # the weights, and tokens of zeros where there is no condition
    tokens = {
        "text": torch.zeros(1, TEXT_TOKENS, TOKEN_DIM),
        "image": torch.zeros(1, IMAGE_TOKENS, TOKEN_DIM),
    }
    weights.save(folder / "unet.safetensors", dual_state())
    weights.save(folder / "vae.safetensors", load_file(SHARED / "vae" / _WEIGHTS))
    weights.save(folder / "unconditional.safetensors", tokens)


def text_state(
    dual: Mapping[str, "Tensor"], projection: "Tensor"
) -> dict[str, "Tensor"]:
    """Take the text stream of a dual U-Net; its keys and values take text tokens before
    their projection.

    Args:
        dual: Its weights.
        projection: Of the text encoder, [D_cross, D_text].
    """
    state = {}
    for name, value in dual.items():
        block, is_stream, rest = name.partition(".text.")
        # weights of the text stream lose its name, shared ones have none
        plain_name = f"{block}.{rest}" if is_stream else name
        if ".image." in name:
            continue
        if plain_name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")):
            # [D, D_cross] @ [D_cross, D_text]; the dual generator divides by the length
            value = (value.float() @ projection.float() / CAPTION_LENGTH).to(value)
        state[plain_name] = value
    return state


def _write_text_guided(folder: Path) -> None:
    from safetensors.torch import load_file

    from brainhive_cli.core import weights

    # the projection of the text encoder becomes part of the U-Net
    text = load_file(DUAL / "text_encoder/model.safetensors")
    projection = text.pop("text_projection.weight")
    encoder = read_config(DUAL / "text_encoder") | {"architectures": ["CLIPTextModel"]}
    unet = unet_config() | {"cross_attention_dim": projection.shape[1]}

    # files of the other components, configs and weights
    for component in ("vae", "scheduler"):
        shutil.copytree(SHARED / component, folder / component)
    shutil.copytree(DUAL / "tokenizer", folder / "tokenizer")
    write_configs(folder, {"unet": unet, "text_encoder": encoder})
    weights.save(folder / "unet" / _WEIGHTS, text_state(dual_state(), projection))
    weights.save(folder / "text_encoder/model.safetensors", text)


def plain_state() -> dict[str, "Tensor"]:
    """Give the weights of a U-Net that takes latents, timesteps and image tokens, and
    nothing else.

    SDXL's size ids and its empty pooled prompt never change here: they become a bias of
    the time embedding. The Fusion Prior's image attention replaces the text attention,
    which sees nothing but zeros.
    """
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file

    unet: Any = UNet2DConditionModel.from_pretrained(
        SHARED / "unet", torch_dtype=torch.float32
    )
    adapter = PRIOR / "attn_adapter"
    processors = read_config(adapter)["attn_processor_keys"]
    with torch.no_grad():
        # sizes and an empty prompt, embedded once and for all
        ids = unet.add_time_proj(torch.tensor(SIZE_IDS)).reshape(1, -1)
        pooled = torch.zeros(1, unet.add_embedding.linear_1.in_features - ids.shape[1])
        unet.time_embedding.linear_2.bias += unet.add_embedding(
            torch.cat([pooled, ids], 1)
        )[0]

        # keys and values of the prior's image attention
        for key, weight in load_file(adapter / _WEIGHTS).items():
            index, kind = (
                key.removeprefix("attn_processors.")
                .removesuffix("_ip.weight")
                .split(".")
            )
            attention = processors[int(index)].removesuffix(".processor")
            unet.get_parameter(f"{attention}.{kind}.weight").copy_(weight)
    state: dict[str, Tensor] = unet.state_dict()
    # the embedding of sizes is left out: it is part of the bias now
    return {name: weight for name, weight in state.items() if [*dual_names(name)]}


def _write_token_guided(folder: Path) -> None:
    import torch

    from brainhive_cli.core import weights

    # components that are the same, and a U-Net that embeds sizes
    for component in ("vae", "scheduler"):
        shutil.copytree(SHARED / component, folder / component)
    ids = 4 * TIME_ID_DIM
    width = 4 * unet_config()["block_out_channels"][0]
    sizes = {
        "addition_embed_type": "text_time",
        "projection_class_embeddings_input_dim": ids,
    }
    write_configs(folder, {"unet": unet_config() | sizes})

    # the weights; those of the embedding of sizes add nothing
    state = plain_state()
    for layer, shape in (("linear_1", (width, ids)), ("linear_2", (width, width))):
        state[f"add_embedding.{layer}.weight"] = torch.zeros(shape)
        state[f"add_embedding.{layer}.bias"] = torch.zeros(shape[0])
    weights.save(
        folder / "unet" / _WEIGHTS,
        {name: weight.half() for name, weight in state.items()},
    )


DUAL_GUIDED = "models/demo-dual-guided"
TOKEN_GUIDED = "models/demo-token-guided"
TEXT_GUIDED = "models/demo-text-guided"
"""Folders of the generators below home, which recipes name."""
GENERATORS: dict[str, tuple[tuple[Path, ...], Callable[[Path], None]]] = {
    DUAL_GUIDED: ((SHARED, DUAL), _write_dual_guided),
    TOKEN_GUIDED: ((SHARED, PRIOR), _write_token_guided),
    TEXT_GUIDED: ((SHARED, DUAL), _write_text_guided),
}
"""Folder > folders of the wheel that it is joined from, and what writes it into an
empty folder.
"""
