"""Encoders by name and reference, compared with direct calls of their libraries."""

import json

import diffusers
import pytest
import torch
import transformers
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torchvision.transforms import v2
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from brainhive_cli.core.base.errors import MissingData, MissingExtra, RecipeError
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import encoders

SAME = 1e-5
"""Largest difference to the library's embedding, in float32."""


pytestmark = pytest.mark.usefixtures("without_gradients")


def embed(encoder, picture):
    embedding = encoder.module.eval()(encoder.preprocess(picture)[None])
    return embedding


def write_clip(folder):
    torch.manual_seed(1)
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            **parts.load("encoders", "transformers-clip").TINY.architecture
        )
    ).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder)
    return folder


def write_vae(folder):
    torch.manual_seed(2)
    sizes = {"block_out_channels": [8, 8], "norm_num_groups": 4, "scaling_factor": 0.5}
    blocks = {
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    }
    diffusers.AutoencoderKL(**sizes, **blocks).save_pretrained(folder)
    return folder


def clip_directly(folder, picture):
    processor, tower = (
        cls.from_pretrained(folder)
        for cls in (CLIPImageProcessor, CLIPVisionModelWithProjection)
    )
    return tower.eval()(**processor(images=[picture], return_tensors="pt")).image_embeds


def crop(picture):
    side_px = 128
    steps = [
        v2.Resize(side_px),
        v2.CenterCrop(side_px),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
    ]
    return 2 * v2.Compose(steps)(picture)[None] - 1


def vae_directly(folder, picture):
    vae = diffusers.AutoencoderKL.from_pretrained(folder)
    return (vae.encode(crop(picture)).latent_dist.mode() * 0.5).flatten(1)


VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
VIT |= {"image_size": 32, "patch_size": 16}


def write_vit(folder, name, **config):
    """Write a model of transformers and a processor of its size; return the model."""
    network = getattr(transformers, name)
    torch.manual_seed(0)
    model = network(network.config_class(**config)).eval()
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    return model


def test_any_vision_transformer_of_the_hub_works_by_its_name(hub_cache, picture):
    folder = hub_cache("a-lab/its-vit")
    model = write_vit(folder, "DeiTModel", **VIT)
    first_tokens = 2
    reader = transformers.ViTImageProcessor.from_pretrained(folder)
    direct = model(**reader(picture, return_tensors="pt"), output_hidden_states=True)
    tokens = direct.last_hidden_state  # [1, S, D]
    expected = {
        "embedding": tokens[:, 0],
        "patches": tokens[:, first_tokens:],
        "block-1.mean": direct.hidden_states[2][:, first_tokens:].mean(1),
    }
    for output, value in expected.items():
        knobs = {"kind": "reference", "source": "hub:a-lab/its-vit", "output": output}
        encoder = encoders.resolve(knobs).build()
        torch.testing.assert_close(embed(encoder, picture), value, rtol=0, atol=SAME)


def test_named_encoders_load_from_the_hubs_cache(hub_cache, picture):
    for name, repository, write, directly in (
        (
            "clip_b32",
            "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            write_clip,
            clip_directly,
        ),
        (
            "vae",
            "stabilityai/stable-diffusion-xl-base-1.0/vae",
            write_vae,
            vae_directly,
        ),
    ):
        owner, model, *subfolders = repository.split("/")
        snapshot = hub_cache(f"{owner}/{model}")
        folder = write(snapshot.joinpath(*subfolders))
        config = encoders.resolve(name)
        encoder = config.build()
        embedding = embed(encoder, picture)
        torch.testing.assert_close(
            embedding, directly(folder, picture), rtol=0, atol=SAME
        )
        assert encoder.weights["revision"] == snapshot.name
        assert len(encoder.weights["digest"]) == 64
        assert config.name == name.replace("_", "-")
        # the config in a folder tells the kind
        for reference in (f"hub:{repository}", str(folder)):
            assert torch.equal(
                embed(encoders.resolve(reference).build(), picture), embedding
            )


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.fp16.safetensors"])
def test_a_folder_of_todays_transformers_is_read(tmp_path, picture, weights):
    model = write_vit(tmp_path, "DeiTModel", **VIT)
    settings = tmp_path / "preprocessor_config.json"
    processor_config = {"image_processor": json.loads(settings.read_text())}
    (tmp_path / "processor_config.json").write_text(json.dumps(processor_config))
    settings.unlink()
    (tmp_path / "model.safetensors").unlink()
    if weights.endswith(".bin"):
        torch.save(model.state_dict(), tmp_path / weights)
    else:
        save_file(model.state_dict(), tmp_path / weights, {"format": "pt"})

    embedding = embed(encoders.resolve(str(tmp_path)).build(), picture)

    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    pixels = processor(picture, return_tensors="pt")
    expected = model(**pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(embedding, expected, rtol=0, atol=SAME)


def test_errors_of_absent_weights_name_those_in_the_folder(
    tmp_path,
):
    write_vae(tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    weights.rename(tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(MissingData, match=r"only diffusion_pytorch_model\.fp16"):
        encoders.resolve(str(tmp_path)).build()


def test_errors_of_absent_weights_state_the_download_command(
    hub_cache,
):
    with pytest.raises(MissingData, match="laion/CLIP-ViT-H-14") as caught:
        encoders.resolve("clip-h14").build()
    files = (
        "--include config.json --include '*processor_config.json' --include "
        "'model*.safetensors*'"
    )
    assert caught.value.hint.endswith(
        f"hf download laion/CLIP-ViT-H-14-laion2B-s32B-b79K {files}"
    )
    hub_cache("laion/CLIP-ViT-H-14-laion2B-s32B-b79K")
    with pytest.raises(MissingData, match=r"\bconfig\.json, \*processor_config\.json"):
        encoders.resolve("clip-h14").build()


def test_a_function_of_the_user_is_an_encoder(
    picture,
    tmp_path,
    monkeypatch,
    code_allowed,
):
    (tmp_path / "my_network.py").write_text(
        "import torch\n"
        "from torchvision.transforms.v2.functional import pil_to_tensor\n"
        "def make(bias=0.0):\n"
        "    class Mean(torch.nn.Module):\n"
        "        def forward(self, images):\n"
        "            return images.float().mean((2, 3)) + bias\n"
        "    return Mean(), pil_to_tensor\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    unshifted = encoders.resolve("python:my_network:make")
    settings = {"source": "python:my_network:make", "arguments": {"bias": 1}}
    shifted = encoders.resolve({"kind": "python", **settings})
    torch.testing.assert_close(
        embed(shifted.build(), picture), embed(unshifted.build(), picture) + 1
    )
    assert unshifted.name == "my_network-make"
    assert shifted.name.startswith("my_network-make-")
    for source, error in (
        ("my_network:absent", RecipeError),
        ("absent_package:make", MissingExtra),
    ):
        with pytest.raises(error, match=source):
            encoders.resolve(f"python:{source}").build()


def test_a_store_is_named_after_its_encoder():
    degraded = {
        "kind": "clip-rn50",
        "degrade": "low-resolution-10",
        "output": "stage-3.mean",
        "views": 2,
    }
    for reference, name in (
        ("clip_h14", "clip-h14"),
        ({"kind": "vae", "resolution_px": 128}, "vae"),
        ("hub:timm/vit_small.dino", "timm--vit_small-dino"),
        ("hub:owner/name/vae@v2", "owner--name--vae@v2"),
        ("demo:encoder", "encoder"),
        ({"kind": "clip-h14", "source": "hub:me/finer"}, "me--finer"),
        (
            {"kind": "reference", "source": "hub:owner/vae", "output": "latent"},
            "owner--vae-latent",
        ),
        (
            "dinov2-giant:block-0.667.tokens-mean",
            "dinov2-giant-block-0-667-tokens-mean",
        ),
        (degraded, "clip-rn50-stage-3-mean-low-resolution-10-view-2"),
    ):
        assert encoders.resolve(reference).name == name
    vae_settings = [
        {},
        {"posterior": "sample"},
        {"posterior": "sample", "seed": 1},
        {"resolution_px": 64},
    ]
    names = [encoders.resolve({"kind": "vae", **knobs}).name for knobs in vae_settings]
    assert len(set(names)) == 4
    assert all(name.startswith("vae-") for name in names[1:])
    clip = encoders.resolve("clip-b32")
    assert clip.name == "clip-b32"
    assert clip.published_name == "CLIP-ViT-B-32-laion2B-s34B-b79K"
    tokens = encoders.resolve("clip-b32:tokens")
    assert tokens.published_name == tokens.name == "clip-b32-tokens"


def test_a_list_of_encoders_has_each_output_once():
    two_outputs = {"kind": "dinov2-b14", "output": ["class", "mean"]}
    configs = TypeAdapter(encoders.Encoders).validate_python(
        ["vae", two_outputs, "dinov2-b14:mean", "vae"]
    )
    assert [config.name for config in configs] == [
        "vae",
        "dinov2-b14-class",
        "dinov2-b14-mean",
    ]
    assert (
        configs[1].network_key
        == configs[2].network_key
        != encoders.resolve("dinov2-giant:mean").network_key
    )
    assert encoders.join_outputs(configs[1:]) == encoders.resolve(two_outputs)
