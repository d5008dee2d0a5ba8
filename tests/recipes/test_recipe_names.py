"""Every file and repository that a shipped recipe names is one that is published, or
that we write.
"""

import importlib
import re
from collections.abc import Mapping
from functools import cache

from brainhive_cli.core.files import hub
from brainhive_cli.core.recipes.recipe import shipped_recipes
from brainhive_cli.demo import joined_generators

RECIPES = [
    path.relative_to(shipped_recipes())
    for path in sorted(shipped_recipes().rglob("*.yaml"))
]
SPLITS, SUBJECTS = ("train", "test"), (1, 2, 3)
CC2017 = (
    {
        f"GT_{split}_{content}.pt"
        for split in SPLITS
        for content in ("3fps", "caption", "caption_emb")
    }
    | {f"subj{subject:02d}_{split}_fmri.pt" for subject in SUBJECTS for split in SPLITS}
    | {"coco_tokens_avg_proj.pth"}
    | {
        f"qwen_{split}_{content}.json"
        for split in SPLITS
        for content in ("caption_tag", "caption_tag_category_id")
    }
    | {
        f"GT_{split}_caption_qwen{ending}.pt"
        for split in SPLITS
        for ending in ("", "_emb")
    }
)
"""Files that `brainhive fetch cc2017` gives."""
MINDEYE2 = "hub:datasets/pscotti/mindeyev2"
IP_ADAPTER = "hub:h94/IP-Adapter/sdxl_models"
TRAINED = "hub:datasets/pscotti/mindeyev2/train_logs"
PUBLISHED = {
    **{f"data/cc2017/{name}": "brainhive fetch cc2017" for name in CC2017},
    "eeg_5_95_std.pth": "brainhive fetch eegcvpr40",
    # Recordings that users get by hand
    **{
        f"data/digits69/{name}": "brainhive fetch digits69"
        for name in ("images", "betas", "further")
    },
    "data/alljoined": "NEMAR nm000133, docs/datasets.md",
    "data/alljoined/stimuli/nsd": "NEMAR nm000133, docs/datasets.md",
    "*_task-images_eeg.bdf": (
        "NEMAR nm000133; reader Xu2024Alljoined of Meta's neuralset"
    ),
    "data/alljoined-1.6m": "NEMAR nm000134, docs/datasets.md",
    "data/alljoined-1.6m/pictures": "links that docs/datasets.md has made",
    "*_ses-0[1-4]_task-images_run-*_eeg.edf": (
        "NEMAR nm000134; reader Xu2025Alljoined of Meta's neuralset"
    ),
    "data/things-eeg-nemar": "NEMAR nm000232, docs/datasets.md",
    "data/things-eeg-nemar/stimuli": "NEMAR nm000232",
    **{
        f"data/nod-{kind}/derivatives/preprocessed/epochs": "its authors' README"
        for kind in ("eeg", "meg")
    },
    "data/nod-eeg/stimuli/ImageNet": "OpenNeuro ds005811",
    "data/nod-fmri": "OpenNeuro ds004496 and fMRIPrep",
    "data/things-eeg1": "OpenNeuro ds003825, docs/datasets.md",
    "data/things-eeg1/stimuli": "THINGS, docs/datasets.md",
    "data/things-eeg1/test_images.csv": (
        "OpenNeuro ds003825; reader Grootswagers2022 of Meta's neuralset"
    ),
    "*_task-rsvp_eeg.vhdr": (
        "OpenNeuro ds003825; reader Grootswagers2022 of Meta's neuralset"
    ),
    # Checkpoints
    "hub:Fusion-Prior-H14_B32_VAE": "BrainHiVE's README",
    "hub:timm/vit_base_patch32_clip_224.laion400m_e32": "open_clip's table of weights",
    f"{MINDEYE2}/unclip6_epoch0_step110000.ckpt": "MindEye2's README",
    f"{MINDEYE2}/bigG_to_L_epoch8.pth": "MindEye2's recon_inference",
    f"{TRAINED}/final_subj01_pretrained_40sess_24bs/last.pth": "NEURONS' README",
    f"{TRAINED}/multisubject_subj01_1024hid_nolow_300ep/last.pth": (
        "MindEye2's Train.ipynb and accel.slurm"
    ),
    f"{IP_ADAPTER}/ip-adapter_sdxl_vit-h.safetensors": "IP-Adapter's README",
    "hub:guoyww/animatediff/v3_sd15_adapter.ckpt": "AnimateDiff's README",
    "hub:guoyww/animatediff-motion-adapter-v1-5-3": "diffusers' guide of AnimateDiff",
    "hub:guoyww/animatediff-sparsectrl-rgb": "diffusers' guide of AnimateDiff",
    "hub:Fusion-Prior-SynCLR_B32_VAE": "BrainHiVE's README",
    # Models of the hub, by the names that their pages have
    **dict.fromkeys(
        (
            "hub:OpenGVLab/InternViT-6B-448px-V2_5",
            "hub:Salesforce/blip2-opt-2.7b",
            "hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            "hub:laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
            "hub:laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
            "hub:microsoft/git-large-coco",
            "hub:openai-community/gpt2",
            "hub:openai/clip-vit-large-patch14",
            "hub:paulgavrikov/synclr-vit-base-patch16-224",
            "hub:shi-labs/versatile-diffusion",
            "hub:shi-labs/versatile-diffusion/vae",
            "hub:stabilityai/sdxl-turbo",
            "hub:stabilityai/stable-diffusion-xl-base-1.0",
            "hub:stabilityai/stable-diffusion-xl-base-1.0/vae",
            "hub:stable-diffusion-v1-5/stable-diffusion-v1-5",
            "hub:stable-diffusion-v1-5/stable-diffusion-v1-5/vae",
            "hub:facebook/dinov2-giant",
            "hub:timm/resnet50_clip.openai",
            "hub:timm/vit_pe_core_gigantic_patch14_448.fb",
        ),
        "the model's page",
    ),
    # What the demo writes
    **dict.fromkeys(
        (
            joined_generators.DUAL_GUIDED,
            joined_generators.TEXT_GUIDED,
            joined_generators.TOKEN_GUIDED,
        ),
        "brainhive demo",
    ),
}
"""Names of files, folders and repositories that recipes may use, each with its
source.
"""
IS_FILE = re.compile(
    r"(hub|demo):\S|(data|models)/|.*\.(bdf|bin|ckpt|csv|edf|h5|hdf5|json|mat|np[yz]|pth?|safetensors|tsv|vhdr)$"
)


@cache
def resolve_recipe(name):
    """Resolve a shipped recipe, so that the defaults of its parts are there too."""
    pipeline = importlib.import_module(
        f"brainhive_cli.commands.{name.stem.replace('-', '_')}"
    )
    return pipeline.Recipe.resolve(name.stem, str(shipped_recipes() / name), {}, [])


def list_texts(value):
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from list_texts(item)
    elif isinstance(value, str):
        yield value


def list_file_names(value):
    return {text for text in list_texts(value) if IS_FILE.match(text)}


def is_known(name):
    return hub.folder(name).exists() if name.startswith("demo:") else name in PUBLISHED


def test_every_file_of_a_recipe_is_published_or_our_own():
    unknown = {}
    for name in RECIPES:
        file_names = list_file_names(resolve_recipe(name).model_dump(mode="json"))
        unknown[name] = [
            file_name for file_name in file_names if not is_known(file_name)
        ]
    assert {name: files for name, files in unknown.items() if files} == {}


def test_a_recipe_or_data_set_uses_each_source_of_the_table():
    used_files = set()
    for name in RECIPES:
        used_files |= list_file_names(resolve_recipe(name).model_dump(mode="json"))
    for file_name in PUBLISHED:
        assert file_name in used_files or file_name.startswith("data/cc2017/")
