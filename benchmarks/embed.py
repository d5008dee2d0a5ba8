"""How fast `brainhive embed` is next to what limits it: the bare encoder, or bare
decoding.
"""

import multiprocessing
import os
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import synthetic
import torch
from harness import Bench, main
from torch import nn
from torchvision.transforms import v2

from brainhive_cli.commands import embed
from brainhive_cli.core import launch
from brainhive_cli.data.media.pictures import decode
from brainhive_cli.models import encoders
from brainhive_cli.models.generators.sdxl import ARCHITECTURE as SDXL

WORKERS = min(16, max(1, (os.cpu_count() or 2) - 1))
H14 = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
}
H14 |= {
    "patch_size": 14,
    "image_size": 224,
    "projection_dim": 1024,
    "hidden_act": "gelu",
}
FULL = {
    "vit_h14": {"kind": "transformers_clip", "source": "random", "architecture": H14},
    "sdxl_vae": {
        "kind": "diffusers_vae",
        "source": "random",
        "architecture": SDXL["vae"],
    },
    "vit_b16": {"kind": "synclr_b16", "source": "random"},
}
"""BrainHiVE's encoders: CLIP ViT-H/14, SDXL's VAE and SynCLR's ViT-B/16, as functions
of this file.
"""
VIEW = v2.Compose(
    [
        v2.Resize(224, v2.InterpolationMode.BICUBIC),
        v2.CenterCrop(224),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.48, 0.46, 0.41], [0.27, 0.26, 0.28]),
    ]
)


@cache
def network(name: str) -> tuple[nn.Module, Any]:
    """Return a network with random weights, and what turns a picture into its view."""
    if name == "light":  # takes next to nothing
        return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), VIEW
    # which draws weights faster
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        built = encoders.resolve(FULL[name]).build()
    return built.module, built.preprocess


vit_h14, sdxl_vae, vit_b16, light = (
    partial(network, name) for name in (*FULL, "light")
)
"""What `python:embed:NAME` names."""


def run_embed(
    folder: Path, names: list[str], batch_size: int, precision: str = "fp32"
) -> None:
    """Embed a folder as the command does, into an empty home."""
    with tempfile.TemporaryDirectory() as home:
        # the networks of this file
        os.environ |= {"BRAINHIVE_HOME": home, "BRAINHIVE_ALLOW_CODE": "1"}
        words = [
            f"dataset={{kind: image-folder, root: {folder}}}",
            f"run.workers={WORKERS}",
        ]
        words += [f"encoders=[{', '.join(f'python:embed:{name}' for name in names)}]"]
        words += [f"batch_size={batch_size}", f"precision={precision}"]
        recipe = embed.Recipe.resolve("embed", None, {}, words)
        embed.run(recipe, launch.start(recipe.run))


def forward(
    on: Bench, name: str, files: list[Path], batch_size: int, precision: str
) -> float:
    """Pass as many pictures, decoded before, through the bare network; return the
    seconds.
    """
    module, view = network(name)
    here = launch.start(embed.Recipe.resolve("embed", None, {}, []).run)
    module.to(here.device)
    views = torch.stack([view(decode(file, file)) for file in files[:batch_size]]).to(
        here.device
    )

    @torch.inference_mode()
    def loop() -> None:
        with here.autocast(precision):
            for start in range(0, len(files), batch_size):
                values = module(views[: len(files) - start])
        values.float().cpu()

    return on.measure_seconds(loop)


def networks(on: Bench) -> None:
    """Compare with the bare networks, each alone, and all in one pass: the same
    pictures on both sides.
    """
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - WORKERS))
    names = on.pick(["light"], ["vit_b16", "light"], [*FULL])
    count, batch_size, precision = on.pick(
        (12, 4, "fp32"), (64, 16, "fp32"), (4096, 128, "bf16")
    )
    files = synthetic.write_pictures(on.home / "few", count)

    def compare(what: str, names: list[str], target: float | None) -> None:
        on.compare(
            what,
            lambda: run_embed(files[0].parent, names, batch_size, precision),
            lambda: sum(
                forward(on, name, files, batch_size, precision) for name in names
            ),
            count,
            "pictures/s",
            target,
            f"{count} pictures",
        )

    for name in names:
        compare(
            f"embed, {name}: of the bare forward",
            [name],
            None if name == "light" else 0.95,
        )
    compare("embed, all in one pass: of their bare forwards", names, 0.95)


def decode_pictures(files: list[Path]) -> None:
    """Decode and preprocess, and keep nothing."""
    torch.set_num_threads(1)
    for file in files:
        VIEW(decode(file, file))


def decoding(on: Bench) -> None:
    """Compare a network that takes next to nothing with processes that only decode the
    same pictures.
    """
    files = synthetic.write_pictures(on.home / "many", on.pick(40, 3000, 6000))

    def peer() -> float:
        shares = [files[start : start + 20] for start in range(0, len(files), 20)]
        pool = multiprocessing.get_context("fork").Pool(WORKERS)
        # started and warm
        pool.map(decode_pictures, [files[:2]] * WORKERS, chunksize=1)

        def work() -> None:
            pool.map(decode_pictures, shares, chunksize=1)
            pool.close()
            pool.join()

        return on.measure_seconds(work, in_children=True)

    on.compare(
        "embed, decoding is the limit: of pure decoding",
        lambda: run_embed(files[0].parent, ["light"], 32),
        peer,
        len(files),
        "pictures/s",
        0.9,
        f"{WORKERS} processes",
        in_children=True,
    )


CASES = (networks, decoding)

if __name__ == "__main__":
    main(__doc__, CASES, {})
