"""The Fusion Prior: upstream's numbers, upstream's files, and errors that name the
mismatch.
"""

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.models.priors import fusion_prior
from brainhive_cli.models.priors._fusion_files import WEIGHTS
from brainhive_cli.models.priors._fusion_network import FusionPrior
from brainhive_cli.models.priors.fusion_prior import TINY

TOLERANCE = 1e-5
"""Of float32 sums in another order."""
DIMS = {"vae": 24, "synclr_vit_b_16": 12}


@pytest.fixture(scope="module")
def reference(golden: Path) -> Path:
    return golden / "fusion_prior"


@pytest.fixture(scope="module")
def expected(reference: Path) -> dict[str, torch.Tensor]:
    """Tensors that the reference implementation gave for this prior and U-Net."""
    return load_file(reference / "expected.safetensors")


@pytest.fixture(scope="module")
def prior(reference: Path) -> FusionPrior:
    return FusionPrior.load(reference / "prior").eval()


@pytest.fixture
def golden_unet(reference: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(reference / "unet").eval()


@pytest.fixture
def unet() -> UNet2DConditionModel:
    return tiny_unet()


def tiny_unet(
    cross_attention_dim: int = 16, attentions: int = 1
) -> UNet2DConditionModel:
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "layers_per_block": attentions,
    }
    blocks |= {
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (8, 16),
    }
    sizes = {"sample_size": 8, "norm_num_groups": 4, "attention_head_dim": (1, 2)}
    sizes |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    sizes |= {
        "projection_class_embeddings_input_dim": 32,
        "use_linear_projection": True,
    }
    return UNet2DConditionModel(
        **blocks, **sizes, cross_attention_dim=cross_attention_dim
    ).eval()


def denoise(
    unet: UNet2DConditionModel, given: dict[str, torch.Tensor], **kwargs
) -> torch.Tensor:
    more = {
        "added_cond_kwargs": {
            "text_embeds": given["pooled"],
            "time_ids": given["time_ids"],
        }
    }
    more["cross_attention_kwargs"] = kwargs or None
    return unet(given["latent"], given["timestep"], given["text"], **more).sample


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).detach().abs().max())


def conditions() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    shapes = {
        "latent": (2, 4, 8, 8),
        "text": (2, 5, 16),
        "pooled": (2, 8),
        "time_ids": (2, 6),
    }
    given = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return {**given, "timestep": torch.tensor([3, 700])}


def test_every_joint_from_embedding_to_tokens_equals_the_reference(prior, expected):
    embeddings = {
        k.removeprefix("embedding."): v
        for k, v in expected.items()
        if k.startswith("embedding.")
    }
    with torch.no_grad():
        fused = prior.fuser(embeddings)
        adapted = prior.adapt(fused)
        tokens = prior.project(adapted)

    assert gap(fused, expected["fused"]) < TOLERANCE
    assert gap(adapted, expected["adapted"]) < TOLERANCE
    assert gap(tokens, expected["tokens"]) < TOLERANCE
    # the adapter matters
    assert gap(prior.project(fused), expected["tokens"]) > 100 * TOLERANCE


def test_the_unet_with_the_prior_equals_the_reference(prior, golden_unet, expected):
    plain = denoise(golden_unet, expected)
    prior.attach(golden_unet)
    conditioned = denoise(golden_unet, expected, ip_hidden_states=expected["tokens"])

    assert gap(plain, expected["unet_plain"]) < TOLERANCE
    assert gap(conditioned, expected["unet_with_prior"]) < TOLERANCE
    assert gap(plain, conditioned) > 100 * TOLERANCE


def without_digest(file):
    """Split off the header of a file of weights, without the digest that ours have
    there.
    """
    content = file.read_bytes()
    if file.suffix != ".safetensors":
        return content
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:size])
    header["__metadata__"].pop("digest", None)
    return header, content[size:]


def test_a_folder_is_written_as_it_was_read_bit_for_bit(prior, reference, tmp_path):
    prior.save(tmp_path)

    for file in sorted(
        f.relative_to(reference / "prior") for f in (reference / "prior").rglob("*.*")
    ):
        assert without_digest(tmp_path / file) == without_digest(
            reference / "prior" / file
        ), file


def test_a_unet_without_tokens_is_the_plain_one_and_the_scale_weighs_tokens(unet):
    given, prior, other = conditions(), TINY.build(DIMS, unet), TINY.build(DIMS, unet)
    plain, names, tokens = (
        denoise(unet, given),
        set(unet.state_dict()),
        prior.project(torch.randn(2, 32)),
    )

    prior.attach(unet)
    attached = denoise(unet, given)
    full = denoise(unet, given, ip_hidden_states=tokens)
    prior.scale = 0.0
    none = denoise(unet, given, ip_hidden_states=tokens)

    assert torch.equal(attached, plain) and gap(none, plain) < TOLERANCE < gap(
        full, plain
    )
    assert set(unet.state_dict()) == names  # the U-Net does not own the prior's weights
    with pytest.raises(BrainhiveError, match="already attached"):
        other.attach(unet)
    with pytest.raises(BrainhiveError, match="this Fusion Prior is not attached"):
        other.detach(unet)
    prior.detach(unet)
    assert torch.equal(denoise(unet, given), plain)


def test_gradients_reach_all_three_modules_through_a_frozen_unet(unet):
    given, prior = conditions(), TINY.build(DIMS, unet)
    unet.requires_grad_(False)
    prior.attach(unet)

    tokens = prior({"vae": torch.randn(2, 24), "synclr_vit_b_16": torch.randn(2, 12)})
    denoise(unet, given, ip_hidden_states=tokens).square().mean().backward()

    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in prior.parameters()
    )


def test_the_wrong_unet_is_an_error_that_names_the_mismatch(unet):
    for other, message in (
        (
            tiny_unet(cross_attention_dim=24),
            r"attention \d+ is \(24, 16\) wide, not \(16, 16\)",
        ),
        (tiny_unet(attentions=2), "stands where"),
        (torch.nn.Linear(2, 2), "Linear has no attention processors"),
    ):
        with pytest.raises(BrainhiveError, match=message):
            TINY.build(DIMS, unet).attach(other)


def test_a_missing_or_damaged_file_of_a_part_is_named(unet, tmp_path):
    with pytest.raises(MissingData, match="is no Fusion Prior") as caught:
        FusionPrior.load(tmp_path)
    assert "fusion_encoder, proj, attn_adapter" in caught.value.hint
    TINY.build(DIMS, unet).save(tmp_path)
    config, weights = (
        tmp_path / "fusion_encoder" / "config.json",
        tmp_path / "proj" / WEIGHTS,
    )
    whole = config.read_text()
    config.write_text("{}")
    for read in (FusionPrior.load, lambda folder: fusion_prior.describe(str(folder))):
        with pytest.raises(MissingData, match="proj_meta") as caught:
            read(tmp_path)
        assert "download it again" in caught.value.hint
    config.write_text(whole)
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(MissingData, match=r"proj.* half-downloaded"):
        FusionPrior.load(tmp_path)


def test_a_prior_starts_from_an_ip_adapter_file_or_the_papers_in_the_hubs_cache(
    reference, golden_unet, prior, hub_cache, monkeypatch
):
    sizes = json.loads((reference / "prior" / "proj" / "config.json").read_text())
    own = {"hidden_size": sizes["embed_dim"]}
    given = str(reference / "ip-adapter.safetensors")  # the prior's weights equal it
    file = (
        hub_cache("h94/IP-Adapter")
        / "sdxl_models"
        / "ip-adapter_sdxl_vit-h.safetensors"
    )
    file.parent.mkdir()
    file.symlink_to(given)
    for start_from in (given, f"hub:h94/IP-Adapter/sdxl_models/{file.name}"):
        start = TINY.model_copy(update={**own, "start_from": start_from})
        started = start.build({"vae": 1024}, golden_unet)
        for part in ("proj", "attn_adapter"):
            theirs = prior.get_submodule(part).state_dict()
            for name, weight in started.get_submodule(part).state_dict().items():
                assert torch.equal(weight, theirs[name])

    found = len(prior.proj.norm.bias)
    with pytest.raises(
        BrainhiveError, match=rf"norm.bias has shape \({found},\), \({found + 4},\) is"
    ):
        start.build(DIMS, tiny_unet(cross_attention_dim=found + 4))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        MissingData, match="fakekungfu/Fusion-Prior-of-nobody is not in the hub's cache"
    ):
        FusionPrior.load("hub:Fusion-Prior-of-nobody")
