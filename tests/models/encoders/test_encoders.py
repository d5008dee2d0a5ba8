"""Encoders by name and by reference: each equals a direct call of the library that it stands for."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms import v2
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from brainhive_cli.core import hub, parts
from brainhive_cli.core.errors import MissingData, MissingExtra, RecipeError
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import Encoder, diffusers_vae

SAME = 1e-5
"""One picture and the library's own batch of it, in float32."""


@pytest.fixture
def picture() -> Image.Image:
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 255, (9, 7, 3), dtype=np.uint8))
    return small.resize((70, 90), Image.Resampling.BICUBIC)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def embed(encoder: Encoder, picture: Image.Image) -> Tensor:
    embedding: Tensor = encoder.module.eval()(encoder.preprocess(picture)[None])
    return embedding


def write_clip(folder: Path) -> Path:
    torch.manual_seed(1)
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(**parts.load("encoders", "transformers-clip").TINY.architecture)
    ).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(
        folder
    )
    return folder


def write_vae(folder: Path) -> Path:
    torch.manual_seed(2)
    sizes = {"block_out_channels": [8, 8], "norm_num_groups": 4, "scaling_factor": 0.5}
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    diffusers.AutoencoderKL(**sizes, **blocks).save_pretrained(folder)
    return folder


def write_tiny_vae(folder: Path) -> Path:
    torch.manual_seed(3)
    blocks = {"encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8]}
    counts = {"num_encoder_blocks": [1, 1], "num_decoder_blocks": [1, 1]}
    diffusers.AutoencoderTiny(**blocks, **counts).save_pretrained(folder)
    return folder


def write_timm(folder: Path) -> Path:
    torch.manual_seed(4)
    model = timm.create_model("test_vit", num_classes=10)
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": "test_vit", "num_classes": 10, "pretrained_cfg": model.pretrained_cfg}
    (folder / "config.json").write_text(json.dumps({**config, "num_features": model.num_features}))
    return folder


def clip_directly(folder: Path, picture: Image.Image) -> Tensor:
    processor, tower = (
        cls.from_pretrained(folder) for cls in (CLIPImageProcessor, CLIPVisionModelWithProjection)
    )
    return tower.eval()(**processor(images=[picture], return_tensors="pt")).image_embeds


def crop(picture: Image.Image) -> Tensor:
    side = 128
    steps = [v2.Resize(side), v2.CenterCrop(side), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return 2 * v2.Compose(steps)(picture)[None] - 1


def vae_directly(folder: Path, picture: Image.Image) -> Tensor:
    vae = diffusers.AutoencoderKL.from_pretrained(folder)
    return (vae.encode(crop(picture)).latent_dist.mode() * 0.5).flatten(1)


def tiny_vae_directly(folder: Path, picture: Image.Image) -> Tensor:
    return diffusers.AutoencoderTiny.from_pretrained(folder).encode(crop(picture)).latents.flatten(1)


def timm_directly(folder: Path, picture: Image.Image) -> Tensor:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    features = model.forward_features(transform(picture)[None])
    return model.forward_head(features, pre_logits=True)


FAMILIES = [
    ("transformers_clip", write_clip, clip_directly),
    ("diffusers_vae", write_vae, vae_directly),
    ("diffusers_vae", write_tiny_vae, tiny_vae_directly),
    ("timm", write_timm, timm_directly),
]


@pytest.mark.parametrize(("kind", "write", "directly"), FAMILIES)
def test_an_embedding_is_what_the_library_gives(
    kind: str, write: Any, directly: Any, tmp_path: Path, picture: Image.Image
) -> None:
    folder = write(tmp_path / "model")
    direct = directly(folder, picture)
    for reference in ({"kind": kind, "source": str(folder)}, str(folder)):  # a folder alone says its own kind
        encoder = encoders.resolve(reference).build()
        torch.testing.assert_close(embed(encoder, picture), direct, rtol=0, atol=SAME)
        made_by = {"source": str(folder), "revision": "", "digest": hub.digest(folder)}
        assert made_by.items() < encoder.weights.items() and len(encoder.weights["network"]) == 64
    assert direct.std() > 0


VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 16,
}


def write_vit(folder: Path, name: str, **config: Any) -> Any:
    """Write a model of transformers and a processor of its size; return the model."""
    network = getattr(transformers, name)
    torch.manual_seed(0)
    model = network(network.config_class(**config)).eval()
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("name", "first_tokens"), [("ViTModel", 1), ("DeiTModel", 2), ("BeitModel", 1), ("IJepaModel", 0)]
)
def test_any_vision_transformer_of_the_hub_works_by_its_name(
    name: str, first_tokens: int, hub_cache: Callable[[str], Path], picture: Image.Image
) -> None:
    folder = hub_cache("a-lab/its-vit")
    model = write_vit(folder, name, **VIT)
    reader = transformers.ViTImageProcessor.from_pretrained(folder)
    direct = model(**reader(picture, return_tensors="pt"), output_hidden_states=True)
    tokens = direct.last_hidden_state  # [1, S, D]
    expected = {
        "embedding": tokens[:, 0] if first_tokens else tokens.mean(1),
        "patches": tokens[:, first_tokens:],
        "block-1.mean": direct.hidden_states[2][:, first_tokens:].mean(1),
    }
    for output, value in expected.items():
        knobs = {"kind": "reference", "source": "hub:a-lab/its-vit", "output": output}
        encoder = encoders.resolve(knobs).build()
        torch.testing.assert_close(embed(encoder, picture), value, rtol=0, atol=SAME)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("ViTMAEModel", VIT),
        (
            "SwinModel",
            {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1]},
        ),
    ],
)
def test_a_transformer_of_hidden_or_merged_patches_is_refused(name: str, config: Any, tmp_path: Path) -> None:
    write_vit(tmp_path / "model", name, **config)
    with pytest.raises(MissingData, match="holds a "):
        _ = encoders.resolve(str(tmp_path / "model")).build().module


@pytest.mark.parametrize(
    ("name", "repository", "write", "directly"),
    [
        ("clip-h14", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", write_clip, clip_directly),
        ("clip_b32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", write_clip, clip_directly),
        ("vae", "stabilityai/stable-diffusion-xl-base-1.0/vae", write_vae, vae_directly),
    ],
)
def test_named_encoders_load_from_the_hubs_cache(
    name: str,
    repository: str,
    write: Any,
    directly: Any,
    hub_cache: Callable[[str], Path],
    picture: Image.Image,
) -> None:
    owner, model, *below = repository.split("/")
    snapshot = hub_cache(f"{owner}/{model}")
    folder = write(snapshot.joinpath(*below))
    config = encoders.resolve(name)
    encoder = config.build()
    torch.testing.assert_close(embed(encoder, picture), directly(folder, picture), rtol=0, atol=SAME)
    assert encoder.weights["revision"] == snapshot.name and len(encoder.weights["digest"]) == 64
    assert config.name == name.replace("_", "-")
    by_reference = encoders.resolve(f"hub:{repository}").build()
    torch.testing.assert_close(embed(by_reference, picture), embed(encoder, picture), rtol=0, atol=0)


def test_weights_of_another_family_in_the_same_snapshot_change_nothing(
    hub_cache: Callable[[str], Path],
) -> None:
    snapshot = write_clip(hub_cache("laion/CLIP-ViT-B-32-laion2B-s34B-b79K"))
    before = encoders.resolve("clip-b32").build().weights
    (snapshot / "open_clip_model.safetensors").write_bytes(b"fetched for open_clip")
    assert encoders.resolve("clip-b32").build().weights == before


def test_weights_that_are_not_there_say_how_to_get_them(hub_cache: Callable[[str], Path]) -> None:
    with pytest.raises(MissingData, match="is not in the hub's cache") as caught:
        encoders.resolve("clip-h14").build()
    files = "--include config.json --include preprocessor_config.json --include 'model*.safetensors*'"
    assert caught.value.hint.endswith(f"hf download laion/CLIP-ViT-H-14-laion2B-s32B-b79K {files}")
    hub_cache("laion/CLIP-ViT-H-14-laion2B-s32B-b79K")
    with pytest.raises(MissingData, match=r"has no config\.json, preprocessor_config\.json"):
        encoders.resolve("clip-h14").build()


def test_a_vae_samples_a_posterior_that_depends_on_seed_and_picture_alone(
    tmp_path: Path, picture: Image.Image
) -> None:
    source = str(write_vae(tmp_path / "model"))
    other = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)

    def sample(**knobs: Any) -> Encoder:
        return diffusers_vae.Config(source=source, posterior="sample", **knobs).build()

    encoder = sample()
    both = encoder.module(torch.stack([encoder.preprocess(other), encoder.preprocess(picture)]))
    torch.testing.assert_close(both[1:], embed(encoder, picture), rtol=0, atol=SAME)
    assert not torch.allclose(embed(sample(seed=1), picture), embed(encoder, picture))
    mode = embed(diffusers_vae.Config(source=source).build(), picture)
    assert not torch.allclose(mode, embed(encoder, picture))


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (None, r"has no config\.json"),
        ({"_class_name": "UNet2DConditionModel"}, "holds a model of kind UNet2DConditionModel"),
        ({"model_type": "bert"}, "holds a model of kind bert"),
        ({}, "holds a model of kind unknown"),
    ],
)
def test_a_folder_that_is_no_encoder_says_what_it_holds(tmp_path: Path, config: Any, what: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MissingData, match=what):
        encoders.resolve(str(tmp_path)).build()


@pytest.mark.parametrize("text", ["", "[]", '{"model_type": ["x"]}', '{"_class_name": {}}', "[" * 9999])
def test_a_damaged_config_of_an_encoder_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(MissingData, match=r"config\.json") as caught:
        encoders.resolve(str(tmp_path)).build()
    assert caught.value.hint == "download it again" and "\n" not in caught.value.message


def test_a_vae_config_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "diffusion_pytorch_model.safetensors").touch()
    with pytest.raises(MissingData, match="holds a model without a class name"):
        encoders.resolve({"kind": "diffusers_vae", "source": str(tmp_path)}).build()


def test_anyones_function_is_an_encoder(
    picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_allowed: None
) -> None:
    (tmp_path / "my_network.py").write_text(
        "import torch\n"
        "from torchvision.transforms.v2.functional import pil_to_tensor\n"
        "def make(bias=0.0):\n"
        "    class Mean(torch.nn.Module):\n"
        "        def forward(self, images):\n"
        "            return images.float().mean((2, 3)) + bias\n"
        "    return Mean(), pil_to_tensor\n"
        "def wrong():\n"
        "    return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plain = encoders.resolve("python:my_network:make")
    shifted = encoders.resolve(
        {"kind": "python", "source": "python:my_network:make", "arguments": {"bias": 1}}
    )
    torch.testing.assert_close(embed(shifted.build(), picture), embed(plain.build(), picture) + 1)
    assert plain.name == "my_network-make" and shifted.name.startswith("my_network-make-")
    with pytest.raises(RecipeError, match="returned int"):
        encoders.resolve("python:my_network:wrong").build()
    for source, error in (
        ("python:my_network:absent", RecipeError),
        ("python:my_network", RecipeError),
        ("python:absent_package:make", MissingExtra),
    ):
        with pytest.raises(error, match=source):
            encoders.resolve(source).build()


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("clip-h14", "clip-h14"),
        ("clip_h14", "clip-h14"),
        ({"kind": "vae"}, "vae"),
        ({"kind": "vae", "resolution_px": 128}, "vae"),
        ("hub:timm/vit_small.dino", "timm--vit_small-dino"),
        ("hub:owner/name/vae@v2", "owner--name--vae@v2"),
        ("demo:encoder", "encoder"),
        ({"kind": "clip-h14", "source": "hub:me/finer"}, "me--finer"),
        ({"kind": "timm", "source": "hub:timm/x"}, "timm--x"),
        ("dinov2-b14:mean", "dinov2-b14-mean"),
        ("vae:latent", "vae-latent"),
        ("hub:owner/name/vae", "owner--name--vae"),
        ({"kind": "reference", "source": "hub:owner/vae", "output": "latent"}, "owner--vae-latent"),
        ({"kind": "clip-h14", "output": "block-8.class"}, "clip-h14-block-8-class"),
        ("dinov2-giant:block-0.667.tokens-mean", "dinov2-giant-block-0-667-tokens-mean"),
        ("intern-vit:block-19.mean", "intern-vit-block-19-mean"),
        ({"kind": "clip-rn50", "degrade": "gaussian-15"}, "clip-rn50-gaussian-15"),
        (
            {"kind": "clip-rn50", "degrade": "low-resolution-10", "output": "stage-3.mean", "views": 2},
            "clip-rn50-stage-3-mean-low-resolution-10-view-2",
        ),
        ("dinov3", "dinov3"),
        ("siglip2:patches", "siglip2-patches"),
    ],
)
def test_a_store_is_named_after_its_encoder(reference: Any, name: str) -> None:
    assert encoders.resolve(reference).name == name


def test_other_knobs_are_other_names() -> None:
    made = [{}, {"posterior": "sample"}, {"posterior": "sample", "seed": 1}, {"resolution_px": 64}]
    names = [encoders.resolve({"kind": "vae", **knobs}).name for knobs in made]
    assert len(set(names)) == 4 and all(name.startswith("vae-") for name in names[1:])


def test_a_list_of_encoders_holds_one_an_output_and_none_twice() -> None:
    both = {"kind": "dinov2-b14", "output": ["class", "mean"]}
    found = TypeAdapter(encoders.Encoders).validate_python(["vae", both, "dinov2-b14:mean", "vae"])
    assert [config.name for config in found] == ["vae", "dinov2-b14-class", "dinov2-b14-mean"]
    assert found[1].network_key == found[2].network_key != encoders.resolve("dinov2-giant:mean").network_key
    assert encoders.joined(found[1:]) == encoders.resolve(both)


def test_a_name_wins_over_a_folder_of_that_name(home: Path) -> None:
    (home / "vae").mkdir()
    assert encoders.resolve("vae").kind == "vae"
    assert encoders.resolve("./vae").kind == "reference"


def test_an_unknown_encoder_lists_what_there_is() -> None:
    with pytest.raises(RecipeError, match="no encoder called 'clip-h15'") as caught:
        encoders.resolve("clip-h15")
    assert caught.value.hint.startswith("did you mean clip-h14? there are: ")
    assert all(kind in caught.value.hint for kind in parts.kinds("encoders"))


def test_a_prior_may_know_an_encoder_by_upstreams_name() -> None:
    assert encoders.resolve("clip-b32").known_as == ("clip-b32", "CLIP-ViT-B-32-laion2B-s34B-b79K")
    assert encoders.resolve("vae").known_as == ("vae",)
    assert encoders.resolve("clip-b32:class").known_as == ("clip-b32-class",)


def test_an_output_that_a_family_does_not_have_is_refused() -> None:
    with pytest.raises(RecipeError, match="latent"):
        encoders.resolve("dinov2-b14:latent")
    with pytest.raises(RecipeError, match="mean"):
        encoders.resolve("vae:mean")


def test_the_usual_output_of_a_vae_is_not_written_out_as_older_versions_did_not() -> None:
    assert "output" not in encoders.resolve("vae").model_dump()
    assert encoders.resolve("vae:latent").model_dump()["output"] == "latent"


CLIP = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
}
VAE = {"block_out_channels": [8], "norm_num_groups": 4, "sample_size": 32}
TOWER = {"image_size": 32, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "open_clip", "architecture": {"embed_dim": 8, "vision_cfg": TOWER}},
        {"kind": "clip-bigg-tokens", "architecture": {"embed_dim": 8, "vision_cfg": TOWER}},
        {"kind": "transformers_clip", "architecture": {"model_type": "clip_vision_model", **CLIP}},
        {"kind": "vae", "resolution_px": 32, "architecture": VAE},
        {"kind": "sd15-vae", "resolution_px": 32, "architecture": VAE},
    ],
    ids=lambda given: given["kind"],
)
@pytest.mark.parametrize("sizes", [[(32, 32)] * 3, [(50, 40)] * 3, [(50, 40), (32, 32), (40, 50)]], ids=str)
def test_frames_in_a_batch_are_preprocessed_to_the_same_numbers_as_one_by_one(given, sizes):
    random = np.random.default_rng(0)
    frames = [Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)) for w, h in sizes]
    encoder = encoders.resolve({"source": "random", **given}).build()

    together = encoder.preprocess_all(frames)

    assert encoder.preprocess_batch is not None
    assert torch.equal(together, torch.stack([encoder.preprocess(frame) for frame in frames]))
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("facebook/dinov2-base", "hub:facebook/dinov2-base, if it is on the hub"),
        ("timm/vit_base.augreg:block-1.mean", "hub:timm/vit_base.augreg, if it is on the hub"),
        ({"kind": "owner/name"}, "hub:owner/name, if it is on the hub"),
        ("no/such/folder", "a folder that exists"),
    ],
)
def test_a_repository_without_hub_is_answered_with_its_reference(reference, hint) -> None:
    with pytest.raises(RecipeError, match="no encoder or folder") as caught:
        encoders.resolve(reference)
    assert caught.value.hint == hint
