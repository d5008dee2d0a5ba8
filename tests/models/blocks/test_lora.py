"""Low-rank adapters, compared with the values and gradients of peft."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.models.blocks import Adapter, find_linear_shapes

CLOSE = 1e-5
ENDINGS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def open_golden(golden):
    """The reference's tensors, its network, and an adapter of its rank that changes
    nothing yet.
    """
    tensors = load_file(golden / "methods/lora.safetensors")
    width, heads, inner, blocks, image, patch, projection_dim, rank, alpha = tensors[
        "settings"
    ].tolist()
    sizes = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": blocks,
    }
    sizes |= {
        "num_attention_heads": heads,
        "image_size": image,
        "patch_size": patch,
        "projection_dim": projection_dim,
    }
    config = CLIPVisionConfig(**sizes, hidden_act="gelu")
    network = CLIPVisionModelWithProjection(config).eval().requires_grad_(False)
    network.load_state_dict(
        {
            key.removeprefix("weights."): v
            for key, v in tensors.items()
            if "weights." in key
        }
    )
    return tensors, network, Adapter(find_linear_shapes(network, ENDINGS), rank, alpha)


def load_change(adapter, tensors):
    """Load the weights of the reference into an adapter."""
    with torch.no_grad():
        for name, down_weight, up_weight in zip(
            adapter.names, adapter.down, adapter.up, strict=True
        ):
            down_weight.copy_(tensors[f"lora.{name}.A"])
            up_weight.copy_(tensors[f"lora.{name}.B"])


def test_an_adapted_network_has_pefts_embeddings_and_gradients(golden):
    tensors, network, adapter = open_golden(golden)
    assert (
        sum(parameter.numel() for parameter in adapter.parameters())
        == tensors["expected.trainable"]
    )
    load_change(adapter, tensors)
    adapter.attach(network)

    output = network(pixel_values=tensors["pixels"], output_hidden_states=True)
    assert (output.image_embeds - tensors["expected.embedding"]).abs().max() < CLOSE
    norm = network.vision_model.post_layernorm  # type: ignore[union-attr]
    layers = torch.stack(
        [norm(output.hidden_states[n])[:, 0] for n in tensors["layers"].tolist()], 1
    )  # type: ignore[operator]
    assert (layers - tensors["expected.layers"]).abs().max() < CLOSE
    (output.image_embeds * tensors["probe"]).sum().backward()
    compared = [key for key in tensors if key.startswith("expected.grad.")]
    for key in compared:
        name, matrix = key.removeprefix("expected.grad.").rsplit(".", 1)
        weight = {"A": adapter.down, "B": adapter.up}[matrix][adapter.names.index(name)]
        assert (weight.grad - tensors[key]).abs().max() < CLOSE
    assert compared


@torch.no_grad()
def test_a_new_adapter_leaves_the_references_embedding(golden):
    tensors, network, adapter = open_golden(golden)

    adapter.attach(network)

    embedding = network(pixel_values=tensors["pixels"]).image_embeds
    assert (embedding - tensors["expected.base_embedding"]).abs().max() < CLOSE


@torch.no_grad()
def test_an_adapted_network_is_pefts_merged_one(golden):
    """Golden values: the embedding and a weight after W + alpha / rank B A."""
    tensors, network, adapter = open_golden(golden)
    load_change(adapter, tensors)
    adapter.attach(network)
    adapter.attach(network)  # in place of the first
    # an adapted map of the unit vectors shows its whole weight
    name = "vision_model.encoder.layers.1.self_attn.q_proj"
    merged = tensors["expected.merged_q_proj_1"]
    bias = tensors[f"weights.{name}.bias"]

    embedding = network(pixel_values=tensors["pixels"]).image_embeds
    rows = network.get_submodule(name)(torch.eye(merged.shape[1]))

    assert (embedding - tensors["expected.merged_embedding"]).abs().max() < CLOSE
    assert (rows - (merged.T + bias)).abs().max() < CLOSE


def test_a_new_adapter_changes_nothing_and_scales_with_its_rank(
    golden,
):
    tensors, network, _ = open_golden(golden)
    embedding = network(pixel_values=tensors["pixels"]).image_embeds
    torch.manual_seed(0)
    adapter = Adapter({"visual_projection": (12, 4000)}, 8, 8)
    assert float(adapter.down[0].detach().std()) == pytest.approx(1 / 8, rel=0.02)
    assert not adapter.up[0].any()
    changed = Adapter(find_linear_shapes(network, ()), 4, 4)
    changed.attach(network)
    assert torch.equal(network(pixel_values=tensors["pixels"]).image_embeds, embedding)


def test_unknown_maps_and_attention_of_torch_are_refused():
    with pytest.raises(RecipeError, match=r"train\.lora\.modules .*'q_proj'"):
        find_linear_shapes(nn.Sequential(nn.Linear(3, 2)), ("q_proj",))
    with pytest.raises(BrainhiveError, match="attention"):
        find_linear_shapes(nn.MultiheadAttention(4, 2), ())
