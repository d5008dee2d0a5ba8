"""Follows the check of each papers/ recipe from an empty home: `python -m
tools.follow_recipes [NAME …]`.

Proposed command lines run unchanged, on small files in the published layouts and a hub
on this machine. Files that users get by hand are copied. The table shows the number of
steps of each recipe, their duration, and the problem that stopped it. Run it before
each release.
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
from collections.abc import Callable, Iterator
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
from transformers import (  # noqa: E402
    CLIPConfig,
    CLIPModel,
    InternVLVisionConfig,
    InternVLVisionModel,
)
from typer.testing import CliRunner  # noqa: E402

from brainhive_cli.app import app  # noqa: E402
from brainhive_cli.commands import train_align  # noqa: E402
from brainhive_cli.core.recipes.recipe import shipped_recipes  # noqa: E402
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
"""The first of these commands that a recipe has is its last step."""
MAX_STEPS = 24
ELSEWHERE = "on a machine with a network: "
STEP = re.compile(r" \(((?:on a machine|brainhive |hf |mkdir |unzip ).*|[^()]*)\)$")
"""The advice at the end of an input that a check misses."""
PROGRAMS = ("brainhive ", "hf download ", "unzip -nq ", "mkdir -p ")
"""Beginnings of advice that is a command line."""
SUBJECTS = (1, 2, 3)
"""Subjects of THINGS with recordings."""
HAND_FOLDERS = {
    "brainhive fetch nsd": ("nsd",),
    "data/prepare_nsddata.py of ozcelikfu/brain-diffuser": ("brain_diffuser", "nsd"),
}
"""Data folders that users get by hand if the advice holds these words."""
NOT_HERE = ("unzip DreamSim's release", "hf auth login")
"""Words of advice on files that this tool does not write."""
TOWERS = {
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": (512, 32),
    "openai/clip-vit-large-patch14": (768, 14),
}
"""Width of the projection, and patch size in pixels."""
FIRST_STAGE = "generator.stages.0"
RECONSTRUCT_OVERRIDES = {
    "neurons": ["metrics=frame_ssim"],
    "neurons-enhance": [
        "metrics=frame_ssim",
        f"{FIRST_STAGE}.generator.architecture={json.dumps(UNCLIP)}",
        f"{FIRST_STAGE}.resolution_px=64",
        f"{FIRST_STAGE}.steps=2",
    ],
}
"""Overrides that make reconstruct short, by the recipe."""
INTERN_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 45,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 56,
    "patch_size": 14,
}
"""Config with 45 blocks, as published, for small pictures."""
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
    """Follow recipes, print a table, and return 1 if a recipe was stopped."""
    names = sys.argv[1:]
    if not names:
        names = sorted(path.name for path in (shipped_recipes() / "papers").iterdir())
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="follow-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        scratch = Path(folder)
        hand_files = write_world(scratch)
        with serving(scratch / "hub") as hub:
            hub.redirect_client(patch)
            hub.commits = {}
            for path in hub.root.glob("*/*"):
                name = path.relative_to(hub.root).as_posix()
                hub.commits[name] = hashlib.sha1(name.encode()).hexdigest()
            patch.setenv("HF_HUB_OFFLINE", "0")
            patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
            patch.setenv("HF_ENDPOINT", hub.endpoint)
            patch.setenv("NO_PROXY", "127.0.0.1")
            # other machines do not answer
            patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
            for name in names:
                with empty_home(scratch, patch):
                    started_s = time.monotonic()
                    steps: list[str] = []
                    problem = follow(write_last_line(name), hand_files, steps)
                n_lines = len(steps) + (not problem)
                duration = f"{time.monotonic() - started_s:.0f} s"
                rows.append([name, str(n_lines), duration, problem or "runs"])
                print("\t".join(rows[-1]), file=sys.stderr, flush=True)
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns[:3]]
    for row in rows:
        cells = list(map(str.ljust, row, widths))
        print("  ".join(cells + row[3:]))
    return int(any(row[3].startswith("stopped") for row in rows))


@contextmanager
def empty_home(scratch: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Context manager with an empty home and empty caches of weights."""
    home = scratch / "home"
    home.mkdir()
    patch.setenv("BRAINHIVE_HOME", str(home))
    patch.setenv("HF_HUB_CACHE", str(home / "hub"))
    patch.setenv("TORCH_HOME", str(home / "torch"))
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    patch.chdir(home)
    try:
        yield home
    finally:
        shutil.rmtree(home)


def write_last_line(name: str) -> str:
    """Write the command line that ends a recipe."""
    recipe = f"papers/{name}"
    for command in COMMANDS:
        if (shipped_recipes() / recipe / f"{command}.yaml").is_file():
            return f"brainhive {command} --recipe {recipe}"
    raise LookupError(f"{recipe} has none of the commands {', '.join(COMMANDS)}")


def follow(line: str, hand_files: Path, steps: list[str]) -> str:
    """Run a command line after the steps that its check proposes.

    Args:
        line: A command line of brainhive.
        hand_files: Folder of the files that users get by hand.
        steps: Steps so far, to which new ones are added.

    Returns:
        The problem that stopped it. Empty if the line ran.
    """
    while len(steps) < MAX_STEPS:
        document = run_brainhive(f"{line} --check")
        if "missing" not in document:
            return f"stopped: {document['error'][:200]}"
        next_step = None
        for missing_input in document["missing"]:
            match = STEP.search(missing_input)
            # a shortened run never has the sizes of a check: no step is taken twice
            if match is not None and match[1] not in steps:
                next_step = match[1]
                break
        if next_step is None:
            return run_line(line, hand_files, steps)
        problem = take_step(next_step, hand_files, steps)
        if problem:
            return problem
    return "stopped: the check does not end"


def take_step(step: str, hand_files: Path, steps: list[str]) -> str:
    """Run the command lines of a step, or copy the files that users get by hand.

    Returns its problem, or an empty text.
    """
    steps.append(step)
    step = step.removeprefix(ELSEWHERE)
    for words, folders in HAND_FOLDERS.items():
        if words in step:
            for folder in folders:
                source = hand_files / folder
                shutil.copytree(source, Path("data") / folder, dirs_exist_ok=True)
            return ""
    lines = step.partition(", or ")[0]
    if not lines.startswith(PROGRAMS):
        return f"ends by hand: {step[:160]}"
    for line in lines.split(" && "):
        problem = ""
        if not line.startswith("brainhive "):
            process = subprocess.run(
                ["bash", "-ec", line], capture_output=True, text=True, check=False
            )
            if process.returncode:
                problem = f"stopped at {line[:90]}: {process.stderr.strip()[-200:]}"
        elif line.split()[1] in COMMANDS[:3]:
            problem = follow(line, hand_files, steps)
        else:
            problem = run_line(line, hand_files, steps)
        if problem:
            return problem
    return ""


def run_line(line: str, hand_files: Path, steps: list[str]) -> str:
    """Run a command line, and the steps that the hints of its errors propose.

    Returns its problem, or an empty text.
    """
    document = run_brainhive(line)
    while "error" in document:
        hint = document["hint"]
        is_hand_folder = any(words in hint for words in HAND_FOLDERS)
        can_run = hint.removeprefix(ELSEWHERE).startswith(PROGRAMS) or is_hand_folder
        if hint in steps or not can_run:
            is_by_hand = is_hand_folder or any(words in hint for words in NOT_HERE)
            end = "ends by hand" if is_by_hand else f"stopped at {line[:90]}"
            return f"{end}: {document['error'][:160]} ({hint[:160]})"
        problem = take_step(hint, hand_files, steps)
        if problem:
            return problem
        document = run_brainhive(line)
    return ""


def run_brainhive(line: str) -> dict[str, Any]:
    """Run a shortened command line, and return its JSON document or its error."""
    words = shlex.split(line)
    overrides = find_short_overrides(line, command=words[1], arguments=words[2:])
    result = CliRunner().invoke(app, words[1:] + ["--json"] + overrides)
    try:
        document: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        error = result.stderr.strip()[-200:] or repr(result.exception)
        return {"error": error, "hint": ""}
    return document


def find_short_overrides(line: str, command: str, arguments: list[str]) -> list[str]:
    """Return the overrides that make a command short."""
    is_check = "--check" in arguments
    if command == "embed":
        return ["batch_size=8", "precision=fp32"]
    if command == "eval-retrieval":
        return ["sheet_rows=0"]
    if command == "prepare" and line.endswith("--from nsd"):
        return ["preparation.sessions=1,2"]
    if command == "reconstruct" and not is_check:
        recipe_name = line.rpartition("/")[2]
        return list(DRAWN) + RECONSTRUCT_OVERRIDES.get(recipe_name, [])
    if command != "train-align":
        return []
    name = arguments[arguments.index("--recipe") + 1]
    options = ("--check", "--recipe", name)
    overrides = [argument for argument in arguments if argument not in options]
    recipe = train_align.Recipe.resolve(command, name, {}, overrides)
    # a check keeps its sizes, by which it finds the recipe of `train.start_from`
    kept_keys = ("train.start_from", "backbone.") if is_check else "train.start_from"
    return [key for key in shortened(name, recipe) if not key.startswith(kept_keys)]


def write_world(scratch: Path) -> Path:
    """Write a hub, and return the folder of the files that users get by hand."""
    hub = write_repositories(scratch / "hub")
    write_networks(hub)

    # NSD itself and brain-diffuser's files are in no repository
    write_things(hub / "Haitao999/things-eeg", things_files.save_eeg, (63, 250))
    write_things(hub / "Haitao999/things-eeg-meg", things_files.save_meg, (271, 201))
    nsd_files.write(scratch / "nsd")
    data = scratch / "nsd/data"
    for name in ("naturalscenesdataset", "mindeyev2"):
        shutil.copytree(data / name, hub / "pscotti" / name, dirs_exist_ok=True)
    for captions in data.rglob("COCO_73k_annots_curated.npy"):
        shutil.copy(captions, hub / "pscotti/naturalscenesdataset")

    # the films of all three subjects, and files of NEURONS
    cc2017_files.WIDTHS |= {3: 9}
    films = hub / "gongzx/cc2017_dataset"
    cc2017_files.write(films, CLIPS)
    projection = {"proj": torch.randn(WIDTH, 1280)}
    torch.save(projection, films / "coco_tokens_avg_proj.pth")
    neurons = hub / "McGregorW/NEURONS"
    neurons.mkdir(parents=True, exist_ok=True)
    for name in ("masks", "qwen_annotation"):
        shutil.move(films / name, neurons / name)
    return data


def write_networks(hub: Path) -> None:
    """Write the encoders of the recipes with random weights into a hub."""
    hub_repositories.write_encoders(hub)
    for name, (width, patch_size) in TOWERS.items():
        config = json.loads(json.dumps(hub_repositories.CLIP_CONFIG))
        config["projection_dim"] = width
        config["vision_config"] |= {"patch_size": patch_size, "num_hidden_layers": 12}
        CLIPModel(CLIPConfig(**config)).save_pretrained(hub / name)
        (hub / name / "config.json").write_text(json.dumps(config))
        (hub / name / "preprocessor_config.json").write_text(
            json.dumps(hub_repositories.PREPROCESSOR)
        )
    resnet = hub / "timm/resnet50_clip.openai"
    resnet.mkdir(parents=True)
    weights = open_clip.CLIP(**RN50["model_cfg"]).state_dict()
    save_file(weights, resnet / "open_clip_model.safetensors")
    (resnet / "open_clip_config.json").write_text(json.dumps(RN50))

    intern_vit = hub / "OpenGVLab/InternViT-6B-448px-V2_5"
    InternVLVisionModel(InternVLVisionConfig(**INTERN_VIT)).save_pretrained(intern_vit)
    settings = json.dumps(hub_repositories.PREPROCESSOR | {"crop_size": 56, "size": 56})
    (intern_vit / "preprocessor_config.json").write_text(settings)
    model = timm.create_model("test_vit", depth=36, num_classes=0)
    folder = hub / "timm/vit_pe_core_gigantic_patch14_448.fb"
    timm.models._hub.save_for_hf(
        model, str(folder), model_args={"depth": 36}, safe_serialization=True
    )
    model = timm.create_model("vit_base_patch16_224", num_classes=0).half()
    state_dict = {}
    for key, tensor in model.state_dict().items():
        state_dict[f"module.visual.{key}"] = tensor
    folder = hub / "paulgavrikov/synclr-vit-base-patch16-224"
    folder.mkdir(parents=True)
    torch.save({"model": state_dict}, folder / "synclr_vit_b_16.pth")


def write_things(root: Path, save: Callable[..., Path], shape: tuple[int, int]) -> None:
    """Write pictures, and recordings of shape [C, T], in the hub's layout of THINGS."""
    make_content = things_files.meg_content
    if save is things_files.save_eeg:
        make_content = things_files.eeg_content
    rng = np.random.default_rng(0)
    for split, folder in (("train", "training_images"), ("test", "test_images")):
        names = []
        for row in range(8):
            concept = f"{folder}/{row:05d}_thing{row}"
            names += [f"{concept}/thing{row}_{copy}.jpg" for copy in range(2)]
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(root / name)
        for subject in SUBJECTS:
            signals = rng.normal(size=(len(names), 2, *shape))
            save(root, subject, split, make_content(signals, names))


if __name__ == "__main__":
    sys.exit(main())
