"""InternViT: its hub repository's layout, read by transformers' module, against golden
tensors.
"""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from brainhive_cli.models import encoders, strip_prefix

REPOSITORY = "OpenGVLab/InternViT-6B-448px-V2_5"
SAME = 2e-6
"""The largest difference between two implementations in float32, of values of about
1.
"""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
CODE = "intern_vit_code_was_run"


@pytest.fixture
def reference(golden):
    """The golden tensors of a tiny network."""
    return load_file(golden / "methods" / "intern_vit.safetensors")


@pytest.fixture
def repository(reference, hub_cache):
    """A snapshot with the files, names and keys of the real repository, and weights of
    the tiny network.
    """
    folder = hub_cache(REPOSITORY)
    width, heads, inner, blocks, image, patch = reference["settings"].tolist()
    config = {
        "architectures": ["InternVisionModel"],
        "attention_dropout": 0.0,
        "drop_path_rate": 0.0,
    }
    config["auto_map"] = {
        "AutoConfig": "configuration_intern_vit.InternVisionConfig",
        "AutoModel": "modeling_intern_vit.InternVisionModel",
    }
    config |= {
        "dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_size": width,
        "image_size": image,
    }
    config |= {
        "initializer_factor": 0.1,
        "initializer_range": 1e-10,
        "intermediate_size": inner,
    }
    config |= {
        "layer_norm_eps": 1e-06,
        "model_type": "intern_vit_6b",
        "norm_type": "rms_norm",
    }
    config |= {
        "num_attention_heads": heads,
        "num_channels": 3,
        "num_hidden_layers": blocks,
    }
    config |= {
        "patch_size": patch,
        "qk_normalization": True,
        "qkv_bias": False,
        "torch_dtype": "bfloat16",
    }
    config |= {"use_bfloat16": True, "use_flash_attn": True}
    view = {
        "crop_size": image,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
    }
    view |= {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": MEAN,
        "image_std": STD,
    }
    view |= {"resample": 3, "size": image}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(view))
    for module in ("configuration_intern_vit", "modeling_intern_vit"):
        (folder / f"{module}.py").write_text(
            f"import builtins\nbuiltins.{CODE} = True\n"
        )
    state = strip_prefix(reference, "weights.")
    names = sorted(state)
    middle = len(state) // 2
    shards = {
        "model-00001-of-00002": names[:middle],
        "model-00002-of-00002": names[middle:],
    }
    for shard, names_of_shard in shards.items():
        save_file(
            {name: state[name] for name in names_of_shard},
            folder / f"{shard}.safetensors",
            {"format": "pt"},
        )
    index = {
        name: f"{shard}.safetensors"
        for shard, names_of_shard in shards.items()
        for name in names_of_shard
    }
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    return folder


def differs(ours, golden):
    assert ours.shape == golden.shape
    assert golden.std() > 0
    return float((ours - golden).abs().max())


@torch.no_grad()
def test_every_block_gives_what_the_published_network_gives(repository, reference):
    blocks = range(int(reference["settings"][3]))
    outputs = [f"block-{block}{form}" for block in blocks for form in ("", ".mean")]
    config = encoders.resolve(
        {"kind": "intern-vit", "output": list(outputs) + ["tokens", "embedding"]}
    )

    encoded = config.build().module(reference["pixels"])

    by_output = dict(zip(config.output, encoded, strict=True))
    for block in blocks:
        hidden, mean = (
            reference[f"expected.{name}.{block + 1}"]
            for name in ("hidden", "patch_mean")
        )
        assert differs(by_output[f"block-{block}"], hidden) <= SAME
        assert differs(by_output[f"block-{block}.mean"], mean) <= SAME
    # there is no last norm
    assert torch.equal(by_output["tokens"], by_output[f"block-{blocks[-1]}"])
    assert torch.equal(by_output["embedding"], by_output["tokens"][:, 0])


@torch.no_grad()
def test_positions_are_resized_to_pictures_of_another_size(repository, reference):
    network = encoders.resolve("intern-vit:tokens").build().module
    assert (
        differs(
            network.network.tower.embeddings(reference["pixels"]),
            reference["expected.hidden.0"],
        )
        <= SAME
    )
    tokens = network(reference["pixels_other_size"])
    assert differs(tokens, reference["expected.hidden_other_size"]) <= SAME


@torch.no_grad()
def test_a_hub_reference_is_read_without_running_its_code(repository, reference):
    import builtins

    encoder_by_name, by_reference = (
        encoders.resolve(r).build() for r in ("intern-vit", f"hub:{REPOSITORY}")
    )

    assert torch.equal(
        encoder_by_name.module(reference["pixels"]),
        by_reference.module(reference["pixels"]),
    )
    assert not hasattr(builtins, CODE)
    side_px = int(reference["settings"][4])
    pixels = encoder_by_name.preprocess(Image.new("RGB", (70, 50), "white"))
    white = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    assert pixels.shape == (3, side_px, side_px)
    assert torch.allclose(pixels.mean((1, 2)), white, atol=1e-5)
