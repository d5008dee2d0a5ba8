"""Fusion Prior compared with upstream's numbers and files, and its errors."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.models.priors import fusion_prior
from brainhive_cli.models.priors._fusion_files import WEIGHTS
from brainhive_cli.models.priors._fusion_network import FusionPrior
from brainhive_cli.models.priors.fusion_prior import TINY

TOLERANCE = 1e-5
"""Largest difference of float32 sums in another order."""
DIMS = {"vae": 24, "synclr_vit_b_16": 12}


@pytest.fixture(scope="module")
def reference(golden):
    """Folder of a prior, its U-Net, and outputs of the reference."""
    return golden / "fusion_prior"


@pytest.fixture(scope="module")
def expected(reference):
    """Tensors that the reference computed with this prior and U-Net."""
    return load_file(reference / "expected.safetensors")


@pytest.fixture(scope="module")
def prior(reference):
    return FusionPrior.load(reference / "prior").eval()


@pytest.fixture
def golden_unet(reference):
    return UNet2DConditionModel.from_pretrained(reference / "unet").eval()


@pytest.fixture
def unet():
    return make_unet()


def make_unet(cross_attention_dim=16, n_attentions=1):
    """Make a tiny U-Net of SDXL's layout."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=n_attentions,
        norm_num_groups=4,
        attention_head_dim=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=32,
        use_linear_projection=True,
        cross_attention_dim=cross_attention_dim,
    ).eval()


def denoise(unet, inputs, **kwargs):
    """Apply a U-Net, with keyword arguments for its cross-attentions."""
    return unet(
        inputs["latent"],
        inputs["timestep"],
        inputs["text"],
        added_cond_kwargs={
            "text_embeds": inputs["pooled"],
            "time_ids": inputs["time_ids"],
        },
        cross_attention_kwargs=kwargs or None,
    ).sample


def compute_gap(actual, b):
    """Return the largest difference between two tensors."""
    return float((actual - b).detach().abs().max())


def draw_inputs():
    """Draw inputs of the tiny U-Net."""
    generator = torch.Generator().manual_seed(1)
    return {
        "latent": torch.randn((2, 4, 8, 8), generator=generator),
        "text": torch.randn((2, 5, 16), generator=generator),
        "pooled": torch.randn((2, 8), generator=generator),
        "time_ids": torch.randn((2, 6), generator=generator),
        "timestep": torch.tensor([3, 700]),
    }


def test_tokens_equal_the_reference_at_every_stage(prior, expected):
    prefix = "embedding."
    embeddings = {}
    for key, value in expected.items():
        if key.startswith(prefix):
            embeddings[key.removeprefix(prefix)] = value
    with torch.no_grad():
        fused = prior.fuser(embeddings)
        adapted = prior.adapt(fused)
        tokens = prior.project(adapted)
        tokens_without_adapter = prior.project(fused)

    assert compute_gap(fused, expected["fused"]) < TOLERANCE
    assert compute_gap(adapted, expected["adapted"]) < TOLERANCE
    assert compute_gap(tokens, expected["tokens"]) < TOLERANCE
    # the adapter has an effect
    assert compute_gap(tokens_without_adapter, expected["tokens"]) > 100 * TOLERANCE


def test_the_unet_with_the_prior_equals_the_reference(prior, golden_unet, expected):
    unconditioned = denoise(golden_unet, expected)
    prior.attach(golden_unet)
    conditioned = denoise(golden_unet, expected, ip_hidden_states=expected["tokens"])

    assert compute_gap(unconditioned, expected["unet_plain"]) < TOLERANCE
    assert compute_gap(conditioned, expected["unet_with_prior"]) < TOLERANCE
    assert compute_gap(unconditioned, conditioned) > 100 * TOLERANCE


def read_without_digest(file):
    """Read a file. Weights are split into content and header, without our digest."""
    content = file.read_bytes()
    if file.suffix != ".safetensors":
        return content
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:size])
    header["__metadata__"].pop("digest", None)
    return header, content[size:]


def test_a_folder_is_written_as_it_was_read_bit_for_bit(prior, reference, tmp_path):
    prior.save(tmp_path)

    for file in sorted((reference / "prior").rglob("*.*")):
        copied_file = tmp_path / file.relative_to(reference / "prior")
        assert read_without_digest(copied_file) == read_without_digest(file), file


def test_the_scale_weighs_the_attention_to_image_tokens(unet):
    inputs = draw_inputs()
    prior = TINY.build(DIMS, unet)
    tokens = prior.project(torch.randn(2, 32))
    before_attaching = denoise(unet, inputs)

    prior.attach(unet)
    without_tokens = denoise(unet, inputs)
    conditioned = denoise(unet, inputs, ip_hidden_states=tokens)
    prior.scale = 0.0
    unscaled = denoise(unet, inputs, ip_hidden_states=tokens)

    assert torch.equal(without_tokens, before_attaching)
    assert compute_gap(unscaled, before_attaching) < TOLERANCE
    assert compute_gap(conditioned, before_attaching) > TOLERANCE


def test_a_detached_prior_leaves_the_unet_as_it_was(unet):
    inputs = draw_inputs()
    prior = TINY.build(DIMS, unet)
    other_prior = TINY.build(DIMS, unet)
    before_attaching = denoise(unet, inputs)
    names = unet.state_dict().keys()

    prior.attach(unet)

    # the U-Net does not own the prior's weights
    assert unet.state_dict().keys() == names
    with pytest.raises(BrainhiveError, match="already attached"):
        other_prior.attach(unet)
    with pytest.raises(BrainhiveError, match="not attached"):
        other_prior.detach(unet)
    prior.detach(unet)
    assert torch.equal(denoise(unet, inputs), before_attaching)


def test_gradients_reach_all_three_modules_through_a_frozen_unet(unet):
    prior = TINY.build(DIMS, unet)
    unet.requires_grad_(False)
    prior.attach(unet)

    tokens = prior({"vae": torch.randn(2, 24), "synclr_vit_b_16": torch.randn(2, 12)})
    output = denoise(unet, draw_inputs(), ip_hidden_states=tokens)
    output.square().mean().backward()

    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("make_other", "mismatch"),
    [
        (lambda: make_unet(cross_attention_dim=24), r"\(24, 16\).*\(16, 16\)"),
        (lambda: make_unet(n_attentions=2), "stands where"),
        (lambda: torch.nn.Linear(2, 2), "Linear"),
    ],
)
def test_another_unet_is_refused_with_the_mismatch(unet, make_other, mismatch):
    prior = TINY.build(DIMS, unet)
    with pytest.raises(BrainhiveError, match=mismatch):
        prior.attach(make_other())


def test_a_folder_without_a_prior_is_refused(tmp_path):
    with pytest.raises(MissingData, match=str(tmp_path)) as caught:
        FusionPrior.load(tmp_path)
    for folder in ("fusion_encoder", "proj", "attn_adapter"):
        assert folder in caught.value.hint


def test_a_config_without_its_keys_is_refused(unet, tmp_path):
    TINY.build(DIMS, unet).save(tmp_path)
    (tmp_path / "fusion_encoder" / "config.json").write_text("{}")

    for read_folder in (FusionPrior.load, fusion_prior.describe):
        with pytest.raises(MissingData, match="proj_meta") as caught:
            read_folder(str(tmp_path))
        assert "download" in caught.value.hint


def test_half_downloaded_weights_are_refused(unet, tmp_path):
    TINY.build(DIMS, unet).save(tmp_path)
    file = tmp_path / "proj" / WEIGHTS
    file.write_bytes(file.read_bytes()[:200])

    with pytest.raises(MissingData, match=r"proj.*half-downloaded"):
        FusionPrior.load(tmp_path)


def test_a_prior_starts_from_an_ip_adapter_file(
    reference, golden_unet, prior, hub_cache
):
    """The weights of the file are equal to the golden prior's."""
    config = json.loads((reference / "prior" / "proj" / "config.json").read_text())
    hidden_size = config["embed_dim"]
    local_file = reference / "ip-adapter.safetensors"
    hub_name = "sdxl_models/ip-adapter_sdxl_vit-h.safetensors"
    hub_file = hub_cache("h94/IP-Adapter") / hub_name
    hub_file.parent.mkdir()
    hub_file.symlink_to(local_file)

    for start_from in (str(local_file), f"hub:h94/IP-Adapter/{hub_name}"):
        settings = {"hidden_size": hidden_size, "start_from": start_from}
        started = TINY.model_copy(update=settings).build({"vae": 1024}, golden_unet)
        for component in ("proj", "attn_adapter"):
            expected = prior.get_submodule(component).state_dict()
            for name, weight in started.get_submodule(component).state_dict().items():
                assert torch.equal(weight, expected[name])


def test_an_ip_adapter_file_of_another_width_is_refused(reference, prior):
    config = json.loads((reference / "prior" / "proj" / "config.json").read_text())
    settings = {
        "hidden_size": config["embed_dim"],
        "start_from": str(reference / "ip-adapter.safetensors"),
    }
    width = len(prior.proj.norm.bias)
    unet = make_unet(cross_attention_dim=width + 4)

    with pytest.raises(BrainhiveError, match=rf"\({width},\).*\({width + 4},\)"):
        TINY.model_copy(update=settings).build(DIMS, unet)


@pytest.mark.usefixtures("hub_cache")
def test_a_prior_that_is_not_in_the_cache_is_refused_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingData, match="fakekungfu/Fusion-Prior-of-nobody"):
        FusionPrior.load("hub:Fusion-Prior-of-nobody")
