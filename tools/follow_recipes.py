"""Follows the check of each papers/ recipe from an empty home: `python -m
tools.follow_recipes [NAME …]`.

Lines that a check or an error proposes are run as they stand, on small files in the
published layouts and with a hub on this machine; files that people get by hand are
copied. Run it before each release: the table says of each recipe how many lines were
run, how long that took, and what stopped it.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "COLUMNS": "200",
}
ROOT = Path(__file__).resolve().parents[1]

import numpy as np  # noqa: E402
import open_clip  # noqa: E402
import pytest  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from huggingface_hub import constants  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import (  # noqa: E402  # noqa: E402
    CLIPConfig,
    CLIPModel,
    InternVLVisionConfig,
    InternVLVisionModel,
)
from typer.testing import CliRunner  # noqa: E402

from brainhive_cli.app import app  # noqa: E402
from brainhive_cli.commands import train_align  # noqa: E402
from brainhive_cli.core.recipe import shipped_recipes  # noqa: E402
from tests.commands.train_align.test_every_recipe_trains import shortened  # noqa: E402
from tests.commands.workflow.test_published_workflows import (  # noqa: E402
    CLIPS,
    DRAWN,
    UNCLIP,
    WIDTH,
    write_repositories,
)
from tests.publishers import cc2017_files, nsd_files, things_files  # noqa: E402
from tests.repositories import hub_repositories  # noqa: E402
from tests.tools.hub_server import serving  # noqa: E402

COMMANDS = ("train-align", "train-prior", "reconstruct", "prepare")
"""The last step of a recipe is the first of these that it has."""
MOST_LINES = 24
ELSEWHERE = "on a machine with a network: "
WAY = re.compile(r" \(((?:on a machine|brainhive |hf |mkdir |unzip ).*|[^()]*)\)$")
"""The way to get something, at the end of what a check misses."""
RUN = ("brainhive ", "hf download ", "unzip -nq ", "mkdir -p ")
"""How ways begin that are lines."""
SUBJECTS = (1, 2, 3)
"""Of THINGS, whose recordings there are."""
BY_HAND = {
    "brainhive fetch nsd": ("nsd",),
    "data/prepare_nsddata.py of ozcelikfu/brain-diffuser": ("brain_diffuser", "nsd"),
}
"""Folders of data that people get by themselves where a way holds these words."""
NOT_HERE = ("unzip DreamSim's release", "hf auth login")
"""Words of ways that lead to files which are not written here."""
TOWERS = {
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": (512, 32),
    "openai/clip-vit-large-patch14": (768, 14),
}
"""Width of the projection, and side of a patch."""
FIRST = "generator.stages.0"
DRAWN_BY = {
    "neurons": ["metrics=frame_ssim"],
    "neurons-enhance": [
        "metrics=frame_ssim",
        f"{FIRST}.generator.architecture={json.dumps(UNCLIP)}",
        f"{FIRST}.resolution_px=64",
        f"{FIRST}.steps=2",
    ],
}
"""What makes drawing short, by the recipe."""
INTERN_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 45,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
INTERN_VIT |= {"image_size": 56, "patch_size": 14}
"""Of 45 blocks, as published, on small pictures."""
RN50: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 1024,
        "vision_cfg": {
            "image_size": 224,
            "layers": [1, 1, 1, 1],
            "width": 8,
            "patch_size": None,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 512,
            "width": 8,
            "heads": 2,
            "layers": 1,
        },
    },
    "preprocess_cfg": {"mean": [0.48, 0.45, 0.41], "std": [0.27, 0.26, 0.28]},
}


def main() -> int:
    """Follow the recipes that are named, or all, and print a table."""
    names = sys.argv[1:] or sorted(
        path.name for path in (shipped_recipes() / "papers").iterdir()
    )
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="follow-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        scratch = Path(folder)
        by_hand = write_world(scratch)
        with serving(scratch / "hub") as hub:
            hub.lead(patch)
            names_of = [
                path.relative_to(hub.root).as_posix() for path in hub.root.glob("*/*")
            ]
            hub.commits = {
                one: hashlib.sha1(one.encode()).hexdigest() for one in names_of
            }
            patch.setenv("HF_HUB_OFFLINE", "0")
            patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
            patch.setenv("HF_ENDPOINT", hub.endpoint)
            patch.setenv("NO_PROXY", "127.0.0.1")
            # nothing beyond this machine answers
            patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
            for name in names:
                with empty_home(scratch, patch):
                    began_s = time.monotonic()
                    tried = list[str]()
                    end = follow(line_of(name), by_hand, tried) or "runs"
                rows.append(
                    (
                        name,
                        len(tried) + (end == "runs"),
                        f"{time.monotonic() - began_s:.0f} s",
                        end,
                    )
                )
                print("\t".join(map(str, rows[-1])), file=sys.stderr, flush=True)
    widths = [max(len(str(row[place])) for row in rows) for place in range(3)]
    for row in rows:
        print(
            "  ".join(
                [
                    *(
                        str(cell).ljust(width)
                        for cell, width in zip(row, widths, strict=False)
                    ),
                    row[3],
                ]
            )
        )
    return int(any(row[3].startswith("stopped") for row in rows))


@contextmanager
def empty_home(scratch: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give commands a home without files and caches of weights without any; both are
    removed.
    """
    home = scratch / "home"
    home.mkdir()
    for variable, value in {
        "BRAINHIVE_HOME": home,
        "HF_HUB_CACHE": home / "hub",
        "TORCH_HOME": home / "torch",
    }.items():
        patch.setenv(variable, str(value))
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    patch.chdir(home)
    try:
        yield home
    finally:
        shutil.rmtree(home)


def line_of(name: str) -> str:
    """Write the line that ends a recipe."""
    recipe = f"papers/{name}"
    command = next(
        each
        for each in COMMANDS
        if (shipped_recipes() / recipe / f"{each}.yaml").is_file()
    )
    return f"brainhive {command} --recipe {recipe}"


def follow(line: str, by_hand: Path, tried: list[str]) -> str:
    """Run what the check of a line misses, way by way, then the line; give the problem,
    if there is one.
    """
    while len(tried) < MOST_LINES:
        checked = brainhive(f"{line} --check")
        if "missing" not in checked:
            return f"stopped: {checked['error'][:200]}"
        ways = [
            WAY.findall(missing)[0]
            for missing in checked["missing"]
            if WAY.search(missing)
        ]
        # a run that was made short never has the sizes of a check: each way is taken
        # once
        way = next((way for way in ways if way not in tried), None)
        if way is None:
            return run(line, by_hand, tried)
        if problem := take(way, by_hand, tried):
            return problem
    return "stopped: the check does not end"


def take(way: str, by_hand: Path, tried: list[str]) -> str:
    """Run the lines of a way, or copy what people get by hand; give the problem, if
    there is one.
    """
    tried.append(way)
    way = way.removeprefix(ELSEWHERE)
    folders = next((folders for words, folders in BY_HAND.items() if words in way), ())
    for folder in folders:
        shutil.copytree(by_hand / folder, Path("data") / folder, dirs_exist_ok=True)
    if folders:
        return ""
    lines = way.partition(", or ")[0]
    if not lines.startswith(RUN):
        return f"ends by hand: {way[:160]}"
    for line in lines.split(" && "):
        if line.startswith("brainhive "):
            is_checked = line.split()[1] in COMMANDS[:3]
            problem = (follow if is_checked else run)(line, by_hand, tried)
        else:
            ran = subprocess.run(
                ["bash", "-ec", line], capture_output=True, text=True, check=False
            )
            problem = (
                f"stopped at {line[:90]}: {ran.stderr.strip()[-200:]}"
                if ran.returncode
                else ""
            )
        if problem:
            return problem
    return ""


def run(line: str, by_hand: Path, tried: list[str]) -> str:
    """Run a line, and what its errors' hints say; give the problem, if there is one."""
    while "error" in (ended := brainhive(line)):
        hint = ended["hint"]
        may_run = hint.removeprefix(ELSEWHERE).startswith(RUN)
        if hint in tried or not (may_run or any(words in hint for words in BY_HAND)):
            is_by_hand = any(words in hint for words in (*BY_HAND, *NOT_HERE))
            how = "ends by hand" if is_by_hand else f"stopped at {line[:90]}"
            return f"{how}: {ended['error'][:160]} ({hint[:160]})"
        if problem := take(hint, by_hand, tried):
            return problem
    return ""


def brainhive(line: str) -> dict[str, Any]:
    """Run a line as it stands, followed by what makes its command short; give what it
    prints.
    """
    _, command, *words = shlex.split(line)
    short: Sequence[str] = ()
    if command == "train-align":
        name = words[words.index("--recipe") + 1]
        options = {"--check", "--recipe", name}
        overrides = [word for word in words if word not in options]
        short = shortened(
            name, train_align.Recipe.resolve(command, name, {}, overrides)
        )
        # a check keeps its sizes: by these it finds the recipe of what training starts
        # from
        left_out = ("train.start_from", *(["backbone."] if "--check" in words else []))
        short = [key for key in short if not key.startswith(left_out)]
    small = {
        "embed": ["batch_size=8", "precision=fp32"],
        "eval-retrieval": ["sheet_rows=0"],
        "reconstruct": [*DRAWN, *DRAWN_BY.get(line.rpartition("/")[2], ())],
        "prepare": ["preparation.sessions=1,2"] if line.endswith("--from nsd") else [],
    }
    short = (
        ()
        if command == "reconstruct" and "--check" in words
        else small.get(command, short)
    )
    ended = CliRunner().invoke(app, [command, *words, "--json", *short])
    try:
        document: dict[str, Any] = json.loads(ended.stdout)
    except ValueError:
        return {
            "error": ended.stderr.strip()[-200:] or repr(ended.exception),
            "hint": "",
        }
    return document


def write_world(scratch: Path) -> Path:
    """Write a hub with data sets and weights, and what people get by hand; give the
    folder of the latter.
    """
    hub = write_repositories(scratch / "hub")
    hub_repositories.write_encoders(hub)
    for name, (width, patch_size) in TOWERS.items():
        config = json.loads(json.dumps(hub_repositories.CLIP_CONFIG)) | {
            "projection_dim": width
        }
        config["vision_config"] |= {"patch_size": patch_size, "num_hidden_layers": 12}
        CLIPModel(CLIPConfig(**config)).save_pretrained(hub / name)
        (hub / name / "config.json").write_text(json.dumps(config))
        (hub / name / "preprocessor_config.json").write_text(
            json.dumps(hub_repositories.PREPROCESSOR)
        )
    resnet = hub / "timm/resnet50_clip.openai"
    resnet.mkdir(parents=True)
    save_file(
        open_clip.CLIP(**RN50["model_cfg"]).state_dict(),
        resnet / "open_clip_model.safetensors",
    )
    (resnet / "open_clip_config.json").write_text(json.dumps(RN50))

    vit = InternVLVisionModel(InternVLVisionConfig(**INTERN_VIT))
    vit.save_pretrained(hub / "OpenGVLab/InternViT-6B-448px-V2_5")
    settings = json.dumps(hub_repositories.PREPROCESSOR | {"crop_size": 56, "size": 56})
    (hub / "OpenGVLab/InternViT-6B-448px-V2_5/preprocessor_config.json").write_text(
        settings
    )
    deep = timm.create_model("test_vit", depth=36, num_classes=0)
    folder = hub / "timm/vit_pe_core_gigantic_patch14_448.fb"
    timm.models._hub.save_for_hf(
        deep, str(folder), model_args={"depth": 36}, safe_serialization=True
    )
    state = timm.create_model("vit_base_patch16_224", num_classes=0).half().state_dict()
    folder = hub / "paulgavrikov/synclr-vit-base-patch16-224"
    folder.mkdir(parents=True)
    torch.save(
        {"model": {f"module.visual.{key}": value for key, value in state.items()}},
        folder / "synclr_vit_b_16.pth",
    )

    # data sets: NSD itself and brain-diffuser's files are in no repository
    write_things(hub / "Haitao999/things-eeg", things_files.save_eeg, (63, 250))
    write_things(hub / "Haitao999/things-eeg-meg", things_files.save_meg, (271, 201))
    nsd_files.write(scratch / "nsd")
    data = scratch / "nsd/data"
    for name, repository in (
        ("naturalscenesdataset", "pscotti/naturalscenesdataset"),
        ("mindeyev2", "pscotti/mindeyev2"),
    ):
        shutil.copytree(data / name, hub / repository, dirs_exist_ok=True)
    for captions in data.rglob("COCO_73k_annots_curated.npy"):
        shutil.copy(captions, hub / "pscotti/naturalscenesdataset")
    cc2017_files.WIDTHS |= {3: 9}  # all three subjects
    cc2017_files.write(hub / "gongzx/cc2017_dataset", CLIPS)
    torch.save(
        {"proj": torch.randn(WIDTH, 1280)},
        hub / "gongzx/cc2017_dataset/coco_tokens_avg_proj.pth",
    )
    for name in ("masks", "qwen_annotation"):
        (hub / "McGregorW/NEURONS").mkdir(parents=True, exist_ok=True)
        shutil.move(
            hub / "gongzx/cc2017_dataset" / name, hub / "McGregorW/NEURONS" / name
        )
    return data


def write_things(root: Path, save: Callable[..., Path], shape: tuple[int, int]) -> None:
    """Write pictures and recordings of THINGS as the hub has them."""
    content_of = (
        things_files.eeg_content
        if save is things_files.save_eeg
        else things_files.meg_content
    )
    random = np.random.default_rng(0)
    for split, folder in (("train", "training_images"), ("test", "test_images")):
        names = [
            f"{folder}/{row:05d}_thing{row}/thing{row}_{copy}.jpg"
            for row in range(8)
            for copy in range(2)
        ]
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (32, 32, 3), np.uint8)).save(
                root / name
            )
        for subject in SUBJECTS:
            save(
                root,
                subject,
                split,
                content_of(random.normal(size=(len(names), 2, *shape)), names),
            )


if __name__ == "__main__":
    sys.exit(main())
