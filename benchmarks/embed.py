"""Speed of `brainhive embed`, next to the bare encoder and to bare decoding."""

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
from brainhive_cli.core.runs import launch
from brainhive_cli.data.media.pictures import decode
from brainhive_cli.models import encoders
from brainhive_cli.models.generators.sdxl import ARCHITECTURE as SDXL

WORKERS = min(16, max(1, (os.cpu_count() or 2) - 1))
H14 = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
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
"""BrainHiVE's encoders: CLIP ViT-H/14, SDXL's VAE and SynCLR's ViT-B/16."""
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
def build_network(name: str) -> tuple[nn.Module, Any]:
    """Build a network with random weights, and the transform of its pictures."""
    if name == "light":  # its computation takes almost no time
        return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), VIEW
    # a GPU draws weights faster
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        encoder = encoders.resolve(FULL[name]).build()
    return encoder.module, encoder.preprocess


# the encoders `python:embed:NAME`
vit_h14 = partial(build_network, "vit_h14")
sdxl_vae = partial(build_network, "sdxl_vae")
vit_b16 = partial(build_network, "vit_b16")
light = partial(build_network, "light")


def run_embed(
    folder: Path, names: list[str], batch_size: int, precision: str = "fp32"
) -> None:
    """Embed a folder with the command, in an empty home."""
    encoder_names = [f"python:embed:{name}" for name in names]
    overrides = [
        f"dataset={{kind: image-folder, root: {folder}}}",
        f"run.workers={WORKERS}",
        f"encoders=[{', '.join(encoder_names)}]",
        f"batch_size={batch_size}",
        f"precision={precision}",
    ]
    with tempfile.TemporaryDirectory() as home:
        # allow the networks of this file
        os.environ |= {"BRAINHIVE_HOME": home, "BRAINHIVE_ALLOW_CODE": "1"}
        recipe = embed.Recipe.resolve("embed", None, {}, overrides)
        embed.run(recipe, launch.start(recipe.run))


def measure_forward(
    bench: Bench, name: str, files: list[Path], batch_size: int, precision: str
) -> float:
    """Time the forward passes of a network, for as many pictures, decoded before."""
    module, transform = build_network(name)
    process = launch.start(embed.Recipe.resolve("embed", None, {}, []).run)
    module.to(process.device)
    views = [transform(decode(file, file)) for file in files[:batch_size]]
    batch = torch.stack(views).to(process.device)

    @torch.inference_mode()
    def loop() -> None:
        with process.autocast(precision):
            for start in range(0, len(files), batch_size):
                values = module(batch[: len(files) - start])
        values.float().cpu()

    return bench.measure_seconds(loop)


def networks(bench: Bench) -> None:
    """Compare with the bare networks, each alone and all in one pass."""
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - WORKERS))
    names = bench.pick(["light"], ["vit_b16", "light"], list(FULL))
    count, batch_size, precision = bench.pick(
        (12, 4, "fp32"), (64, 16, "fp32"), (4096, 128, "bf16")
    )
    files = synthetic.write_pictures(bench.home / "few", count)

    def compare(label: str, names: list[str], target: float | None) -> None:
        bench.compare(
            label,
            lambda: run_embed(files[0].parent, names, batch_size, precision),
            lambda: sum(
                measure_forward(bench, name, files, batch_size, precision)
                for name in names
            ),
            count,
            "pictures/s",
            target,
            f"{count} pictures",
        )

    for name in names:
        target = None if name == "light" else 0.95
        compare(f"embed, {name}: of the bare forward", [name], target)
    compare("embed, all in one pass: of their bare forwards", names, 0.95)


def decode_pictures(files: list[Path]) -> None:
    """Decode and preprocess pictures without keeping them."""
    torch.set_num_threads(1)
    for file in files:
        VIEW(decode(file, file))


def decoding(bench: Bench) -> None:
    """Compare the light network with processes that only decode the same pictures."""
    files = synthetic.write_pictures(bench.home / "many", bench.pick(40, 3000, 6000))

    def peer() -> float:
        chunks = [files[start : start + 20] for start in range(0, len(files), 20)]
        pool = multiprocessing.get_context("fork").Pool(WORKERS)
        # start and warm up the processes
        pool.map(decode_pictures, [files[:2]] * WORKERS, chunksize=1)

        def work() -> None:
            pool.map(decode_pictures, chunks, chunksize=1)
            pool.close()
            pool.join()

        return bench.measure_seconds(work, in_children=True)

    bench.compare(
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
