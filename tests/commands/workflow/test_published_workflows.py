"""The workflows of papers, by their names and from start to end, on files as their
publishers write them.

Cut down are sizes alone: pictures, voxels, epochs, steps, and the widths of the
networks, which a hub on this machine has under the published names, in the published
files and layouts. All run in a single home.
"""

import json
import re
from collections.abc import Mapping, Sequence

import open_clip
import pytest
import torch
from diffusers import AutoencoderKL
from huggingface_hub import constants
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2Model
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import workflow
from brainhive_cli.models import Head, SignalSpec
from brainhive_cli.training.alignment import Aligner, Layout
from tests.publishers import cc2017_files, nsd_files
from tests.repositories import (
    animatediff_repositories,
    blip2_repository,
    sd15_repositories,
    unclip_checkpoint,
    versatile_diffusion_repository,
)
from tests.tools.hub_server import serving

Steps = Mapping[str, Sequence[str]]
WIDTH = 16
"""D of bigG's tokens (1664)."""
BIGG = {
    "model_cfg": {
        "embed_dim": 1280,
        "vision_cfg": {
            "image_size": 224,
            "patch_size": 14,
            "width": WIDTH,
            "layers": 1,
            "head_width": 8,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 8,
            "heads": 2,
            "layers": 1,
        },
    },
    "preprocess_cfg": {"mean": [0.48, 0.45, 0.41], "std": [0.27, 0.26, 0.28]},
}
UNCLIP = {
    "unet": {**unclip_checkpoint.UNET, "cross_attention_dim": WIDTH},
    "vae": unclip_checkpoint.VAE,
}
VAE = {"block_out_channels": [4, 4, 4, 8], "layers_per_block": 1, "norm_num_groups": 4}
VAE |= {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
PRIOR = {"depth": 1, "heads": 2, "dim_head": 4, "timesteps": 3}
CLIPS = {"train": 6, "test": 3}
SMALL_PRIOR = tuple(f"backbone.prior.{name}={value}" for name, value in PRIOR.items())
FAST = ("train.stages.0.epochs=1", "train.precision=fp32")
DRAWN = (
    "items=1",
    "subjects=1",
    "steps=2",
    "precision=fp32",
    "metrics=pixcorr,ssim",
    "sheet_rows=0",
)
"""Two pictures of each subject."""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A home with all data sets, and a hub with all models; beyond it nothing
    answers.
    """
    home, repositories = (
        tmp_path_factory.mktemp("home"),
        write_repositories(tmp_path_factory.mktemp("hub")),
    )
    nsd_files.write(home)
    cc2017_files.unpack_masks(cc2017_files.write(home / "data/cc2017", CLIPS))
    torch.save(
        {"proj": torch.randn(WIDTH, 1280)},
        home / "data/cc2017/coco_tokens_avg_proj.pth",
    )
    with pytest.MonkeyPatch.context() as patch, serving(repositories) as hub:
        variables = {
            "BRAINHIVE_HOME": home,
            "TORCH_HOME": home / "torch",
            "NO_PROXY": "127.0.0.1",
        }
        for name, value in {**variables, "HTTPS_PROXY": "http://127.0.0.1:9"}.items():
            patch.setenv(name, str(value))
        patch.chdir(home)
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "cache"))
        hub.redirect_client(patch)
        yield home


def write_repositories(root):
    """Write what the recipes name; sides, tokens, ids and factors are the published
    ones.
    """
    write_versatile_diffusion(root)
    write_bigg(root)
    unclip_checkpoint.write(root, sizes=UNCLIP["unet"])
    write_mindeye2(root)
    animatediff_repositories.write(root)
    AutoencoderKL(**{**VAE, "sample_size": 512}).save_pretrained(
        root / sd15_repositories.SD15 / "vae"
    )
    blip2_repository.write(root)
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 64}
    GPT2Model(GPT2Config(**sizes)).save_pretrained(root / "openai-community/gpt2")
    return root


def write_versatile_diffusion(root):
    sizes = {
        "vae": {**VAE, "sample_size": 512},
        "image_encoder": {"image_size": 224, "patch_size": 14},
    }
    # few tokens where there is attention
    for name, ending in (("image_unet", "2D"), ("text_unet", "Flat")):
        layouts = {
            "down": ["Down", "Down", "CrossAttnDown"],
            "up": ["CrossAttnUp", "Up", "Up"],
        }
        kinds = {
            f"{layout_name}_block_types": [f"{kind}Block{ending}" for kind in layout]
            for layout_name, layout in layouts.items()
        }
        sizes[name] = {"sample_size": 64, "block_out_channels": [8, 8, 8], **kinds}
    folder = versatile_diffusion_repository.write(
        root / versatile_diffusion_repository.NAME, sizes=sizes
    )
    path = folder / "image_feature_extractor/preprocessor_config.json"
    path.write_text(path.read_text().replace("16", "224"))


def write_bigg(root):
    folder = root / "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    save_file(
        open_clip.CLIP(**BIGG["model_cfg"]).state_dict(),
        folder / "open_clip_model.safetensors",
    )
    (folder / "open_clip_config.json").write_text(json.dumps(BIGG))


def write_mindeye2(root):
    """Write the checkpoint of its training on subject 1: names without our prefixes."""
    heads = {"image": Head((256, WIDTH))}
    backbone = {"kind": "with-prior", "backbone": {"kind": "mindeye2", "hidden": 8}}
    backbone |= {"prior": {"kind": "mindeye1", **PRIOR}, "condition": "voxel_tokens"}
    aligner = Aligner(
        Layout(
            SignalSpec((), 1, (1,), (7,)), heads, backbone, retrieval_heads=("image",)
        )
    )
    names = (
        ("brain.", ""),
        ("prior.", "diffusion_prior."),
        ("ridge.linears.1.", "ridge.linears.0."),
    )
    state = {}
    for name, value in aligner.backbone.state_dict().items():
        for ours, theirs in names:
            name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
        state[name] = value
    path = (
        root
        / "pscotti/mindeyev2/train_logs/final_subj01_pretrained_40sess_24bs/last.pth"
    )
    path.parent.mkdir(parents=True)
    torch.save(
        {"epoch": 149, "model_state_dict": state, "train_losses": [0.5], "lrs": [3e-4]},
        path,
    )


def run_workflow(recipe, align_overrides, text=""):
    """Run a shipped workflow by its name, or its steps until one; each step's own
    overrides come first.

    Returns:
        What it says, by the step's name where it is of one.
    """
    steps = workflow.Recipe.resolve("workflow", recipe, {}, []).steps
    overrides = []
    for name, extra in align_overrides.items():
        step_overrides = list(steps[name].overrides) + list(extra)
        overrides.append(f"steps.{name}.overrides={json.dumps(step_overrides)}")
    last_override = [f"until={text}"] if text else []
    ended = CliRunner().invoke(
        app,
        ["workflow", "--recipe", recipe, "--json"]
        + list(overrides)
        + list(last_override),
    )
    assert ended.exit_code == 0, ended.stderr
    document = json.loads(ended.stdout)
    # a step that sweeps values has a row for each of its runs
    rows = document["tables"][-1]["rows"]
    names = dict.fromkeys(row["step"].partition(" · ")[0] for row in rows)
    assert list(names) == list(steps)[: list(steps).index(text) + 1 if text else None]
    return document


def assert_pictures(fields, count):
    """Check that the last step compared so many pictures."""
    scores = fields["metrics"]["scopes"]["reconstruct"]
    assert scores.keys() == {"pixcorr", "ssim"}
    assert scores["ssim"]["n"] == count


HAVIR = (
    "backbone.hidden=8",
    "backbone.blocks=1",
    "backbone.features=8",
    "backbone.decoder_channels=[8,8,8]",
)
HAVIR = tuple(HAVIR) + ("backbone.decoder_groups=4", "train.batch_size=2")
EMBEDDED = ("batch_size=8", "precision=fp32")


@pytest.mark.nightly
def test_havir_goes_from_mindeye1s_files_to_pictures(published):
    result = run_workflow(
        "papers/havir",
        {
            "embed": EMBEDDED,
            "train-align": list(HAVIR) + ["backbone.projector=8"] + list(FAST),
            "eval-retrieval": ["sheet_rows=0", "subjects=1", "baseline=none"],
            "reconstruct": DRAWN,
        },
        text="reconstruct",
    )

    assert_pictures(result, 1)


def test_brain_diffuser_goes_from_its_means_to_pictures(published):
    small = {
        "embed": EMBEDDED,
        "train-align": ["backbone.components=4"],
        "reconstruct": DRAWN,
    }

    result = run_workflow("papers/brain-diffuser", small)

    assert_pictures(result, 1)
    stores = published / "embeddings/nsd-1-2-5-7/train"
    assert {"vd-image", "vd-text-average", "vd-vae"} <= {
        path.stem for path in stores.glob("*.h5")
    }
    assert run_workflow("papers/brain-diffuser", small)["folder"] == result["folder"]
    # the steps are found finished
    assert len(list((published / "runs/reconstruct").glob("nsd-*-ridge*"))) == 1


@pytest.mark.nightly
def test_mindeye2_goes_from_seven_subjects_to_a_new_subject(
    published,
):
    result = run_workflow(
        "papers/mindeye2",
        {
            "embed": EMBEDDED,
            "train-align": ["backbone.backbone.hidden=8"]
            + list(SMALL_PRIOR)
            + list(FAST)
            + ["train.epoch_trials=84"],
            "one hour": list(FAST) + ["train.epoch_trials=48"],
            "reconstruct": list(DRAWN)
            + [f"generator.architecture={json.dumps(UNCLIP)}", "resolution_px=64"],
        },
    )

    assert_pictures(result, 1)
    (table,) = (item for item in result["tables"] if "subsets" in item["title"])
    note_numbers = re.findall(r"\d+", table["note"])
    assert {str(nsd_files.N_SHARED), "4", "300"} <= set(note_numbers)
    joint, tuned_run, decoded = (
        result["metrics"]["facts"]["commands"][step].split() for step in (2, 3, 5)
    )
    assert tuned_run[4].startswith("finetune.run=nsd-")
    assert decoded[4] != f"align_run={tuned_run[4].partition('=')[2]}"
    assert joint[1] == tuned_run[1] == "train-align"


def test_neurons_goes_from_neuroclips_tensors_to_clips(published):
    brain = ("subjects=1", "backbone.hidden=8") + tuple(FAST)
    decoders = (
        "backbone.brain.hidden=8",
        "backbone.maps=[8,8,8]",
        "backbone.channels=[4,8]",
        "backbone.groups=4",
    )
    captions = (
        "caption_width=8",
        "caption_layers=1",
        "caption_heads=2",
        "caption_positions=64",
    )
    small = (
        tuple(decoders)
        + ("backbone.concept_width=8",)
        + tuple(f"backbone.{caption}" for caption in captions)
    )
    stages = "generator.stages.0", "generator.stages.1"

    result = run_workflow(
        "papers/neurons",
        {
            "embed": ["batch_size=2", "precision=fp32"],
            "brain model": brain,
            "train-align": ["subjects=1"]
            + list(small)
            + list(SMALL_PRIOR)
            + list(FAST),
            "reconstruct": [
                "items=1",
                "subjects=1",
                "precision=fp32",
                "metrics=frame_ssim",
                "sheet_rows=0",
                "resolution_px=32",
                f"{stages[0]}.generator.architecture={json.dumps(UNCLIP)}",
            ]
            + [
                f"{caption}.{key}"
                for caption in stages
                for key in ("resolution_px=32", "steps=2")
            ],
        },
    )

    assert result["metrics"]["scopes"]["reconstruct"]["frame_ssim"]["n"] == 1
    names = {
        path.stem
        for path in (published / "embeddings/cc2017/train").glob("clip-bigg-tokens*.h5")
    }
    # of which both trainings read their frames
    assert names == {"clip-bigg-tokens-all"}
    (first_run,) = (published / "runs/train-align").glob("cc2017-intra-mindeye2-*")
    assert f"start_from={{backbone.brain: {first_run.name}," in result["metrics"][
        "facts"
    ]["commands"][3].replace("'\"'\"'", "")
