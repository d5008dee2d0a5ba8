"""The Fusion Prior: upstream's numbers, upstream's files, and errors that name the mismatch."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.models.priors import fusion_prior
from brainhive_cli.models.priors.fusion_prior import CLASSES, TINY, WEIGHTS, Config, FusionPrior

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
def start(reference: Path, prior: FusionPrior) -> Config:
    """Start from the IP-Adapter file that the prior's weights equal."""
    sizes = json.loads((reference / "prior" / "proj" / "config.json").read_text())
    started = {"hidden_size": sizes["embed_dim"], "sequence_length": sizes["sequence_length"]}
    return TINY.model_copy(update={**started, "start_from": str(reference / "ip-adapter.safetensors")})


@pytest.fixture
def unet() -> UNet2DConditionModel:
    return tiny_unet()


def tiny_unet(cross_attention_dim: int = 16, attentions: int = 1) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=attentions,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=(1, 2),
        cross_attention_dim=cross_attention_dim,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=32,
        use_linear_projection=True,
    ).eval()


def denoise(unet: UNet2DConditionModel, given: dict[str, torch.Tensor], **kwargs) -> torch.Tensor:
    added = {"text_embeds": given["pooled"], "time_ids": given["time_ids"]}
    with torch.no_grad():
        return unet(
            given["latent"],
            given["timestep"],
            given["text"],
            added_cond_kwargs=added,
            cross_attention_kwargs=kwargs or None,
        ).sample


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).detach().abs().max())


def conditions(width: int = 16) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "latent": torch.randn(2, 4, 8, 8, generator=draw),
        "timestep": torch.tensor([3, 700]),
        "text": torch.randn(2, 5, width, generator=draw),
        "pooled": torch.randn(2, 8, generator=draw),
        "time_ids": torch.rand(2, 6, generator=draw),
    }


def test_every_joint_from_embedding_to_tokens_equals_the_reference(prior, expected):
    embeddings = {k.removeprefix("embedding."): v for k, v in expected.items() if k.startswith("embedding.")}
    with torch.no_grad():
        fused = prior.fuser(embeddings)
        adapted = prior.adapt(fused)
        tokens = prior.tokens(adapted)

    assert gap(fused, expected["fused"]) < TOLERANCE
    assert gap(adapted, expected["adapted"]) < TOLERANCE
    assert gap(tokens, expected["tokens"]) < TOLERANCE
    assert gap(prior.tokens(fused), expected["tokens"]) > 100 * TOLERANCE  # the adapter matters


def test_the_unet_with_the_prior_equals_the_reference(prior, golden_unet, expected):
    plain = denoise(golden_unet, expected)
    prior.attach(golden_unet)
    conditioned = denoise(golden_unet, expected, ip_hidden_states=expected["tokens"])

    assert gap(plain, expected["unet_plain"]) < TOLERANCE
    assert gap(conditioned, expected["unet_with_prior"]) < TOLERANCE
    assert gap(plain, conditioned) > 100 * TOLERANCE


def without_digest(file):
    """Split off the header of a file of weights, without the digest that ours have there."""
    content = file.read_bytes()
    if file.suffix != ".safetensors":
        return content
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:size])
    header["__metadata__"].pop("digest", None)
    return header, content[size:]


def test_a_folder_is_written_as_it_was_read_bit_for_bit(prior, reference, tmp_path):
    prior.save(tmp_path)

    for file in sorted(f.relative_to(reference / "prior") for f in (reference / "prior").rglob("*.*")):
        assert without_digest(tmp_path / file) == without_digest(reference / "prior" / file), file


def test_a_prior_that_starts_from_an_ip_adapter_file_holds_its_weights(start, golden_unet, prior):
    started = start.build({"vae": 1024}, golden_unet)

    for part in ("proj", "attn_adapter"):
        theirs = prior.get_submodule(part).state_dict()
        for name, weight in started.get_submodule(part).state_dict().items():
            assert torch.equal(weight, theirs[name])


def test_the_papers_start_is_found_in_the_hubs_cache(start, golden_unet, prior, hub_cache):
    file = hub_cache("h94/IP-Adapter") / "sdxl_models" / "ip-adapter_sdxl_vit-h.safetensors"
    file.parent.mkdir()
    file.symlink_to(start.start_from)
    reference = f"hub:h94/IP-Adapter/sdxl_models/{file.name}"

    started = start.model_copy(update={"start_from": reference}).build({"vae": 1024}, golden_unet)

    assert torch.equal(started.proj.proj.weight, prior.proj.proj.weight)


def test_an_ip_adapter_file_of_other_sizes_is_refused_by_the_name_of_the_weight(start, prior):
    found = len(prior.proj.norm.bias)
    width = found + 4

    with pytest.raises(BrainhiveError, match=rf"norm.bias has shape \({found},\), \({width},\) is needed"):
        start.build(DIMS, tiny_unet(cross_attention_dim=width))


def test_a_new_prior_survives_saving_and_loading(unet, tmp_path):
    prior = TINY.build(DIMS, unet)
    prior.attn_adapter.scale = 0.5

    prior.save(tmp_path)
    again = FusionPrior.load(tmp_path)

    assert (again.attn_adapter.scale, again.dim, again.dims) == (0.5, TINY.hidden_size, DIMS)
    assert all(torch.equal(a, b) for a, b in zip(prior.parameters(), again.parameters(), strict=True))
    assert all(p.requires_grad for p in again.parameters())


def test_an_attached_unet_without_tokens_is_exactly_the_plain_one(unet):
    given, prior = conditions(), TINY.build(DIMS, unet)
    plain, names = denoise(unet, given), set(unet.state_dict())

    prior.attach(unet)

    assert torch.equal(denoise(unet, given), plain)
    assert set(unet.state_dict()) == names  # the U-Net does not own the prior's weights


def test_detaching_restores_the_unet_and_the_scale_weighs_the_tokens(unet):
    given, prior = conditions(), TINY.build(DIMS, unet)
    plain, tokens = denoise(unet, given), prior.tokens(torch.randn(2, 32))
    prior.attach(unet)
    full = denoise(unet, given, ip_hidden_states=tokens)
    prior.attn_adapter.scale = 0.0
    none = denoise(unet, given, ip_hidden_states=tokens)
    prior.detach(unet)

    assert gap(none, plain) < TOLERANCE < gap(full, plain)
    assert torch.equal(denoise(unet, given), plain)
    with pytest.raises(BrainhiveError, match="not attached"):
        prior.detach(unet)


def test_a_prior_does_not_detach_another(unet):
    prior, other = TINY.build(DIMS, unet), TINY.build(DIMS, unet)
    prior.attach(unet)

    with pytest.raises(BrainhiveError, match="this Fusion Prior is not attached"):
        other.detach(unet)
    prior.detach(unet)  # for it is still there


def test_a_masked_text_token_does_not_count_beside_image_tokens(unet):
    given, prior = conditions(), TINY.build(DIMS, unet)
    prior.attach(unet)
    added = {"text_embeds": given["pooled"], "time_ids": given["time_ids"]}
    other = given["text"].clone()
    other[:, -1] += 1.0
    mask = torch.tensor([[1, 1, 1, 1, 0]] * 2)

    def run(text: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        with torch.no_grad():
            return unet(
                given["latent"],
                given["timestep"],
                text,
                added_cond_kwargs=added,
                encoder_attention_mask=mask,
                cross_attention_kwargs={"ip_hidden_states": prior.tokens(torch.ones(2, 32))},
            ).sample

    assert gap(run(given["text"], mask), run(other, mask)) < TOLERANCE
    assert gap(run(given["text"], None), run(other, None)) > TOLERANCE


def test_gradients_reach_all_three_modules_through_a_frozen_unet(unet):
    given, prior = conditions(), TINY.build(DIMS, unet)
    unet.requires_grad_(False)
    prior.attach(unet)

    tokens = prior({"vae": torch.randn(2, 24), "synclr_vit_b_16": torch.randn(2, 12)})
    added = {"text_embeds": given["pooled"], "time_ids": given["time_ids"]}
    unet(
        given["latent"],
        given["timestep"],
        given["text"],
        added_cond_kwargs=added,
        cross_attention_kwargs={"ip_hidden_states": tokens},
    ).sample.square().mean().backward()

    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in prior.parameters())


def test_attaching_twice_is_an_error(unet):
    prior = TINY.build(DIMS, unet)
    prior.attach(unet)

    with pytest.raises(BrainhiveError, match="already attached"):
        TINY.build(DIMS, unet).attach(unet)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: tiny_unet(cross_attention_dim=24), r"attention \d+ is \(24, 16\) wide, not \(16, 16\)"),
        (lambda: tiny_unet(attentions=2), "stands where"),
        (lambda: torch.nn.Linear(2, 2), "Linear has no attention processors"),
    ],
)
def test_the_wrong_unet_is_an_error_that_names_the_mismatch(unet, other, message):
    with pytest.raises(BrainhiveError, match=message):
        TINY.build(DIMS, unet).attach(other())


@pytest.mark.parametrize("part", CLASSES)
@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_missing_file_of_a_part_is_named(unet, tmp_path, part, name):
    TINY.build(DIMS, unet).save(tmp_path)
    (tmp_path / part / name).unlink()

    with pytest.raises(MissingData, match=f"{part}/{name}"):
        FusionPrior.load(tmp_path)


def test_a_half_downloaded_weight_file_is_named(unet, tmp_path):
    TINY.build(DIMS, unet).save(tmp_path)
    weights = tmp_path / "proj" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:200])

    with pytest.raises(MissingData, match=r"proj.* half-downloaded"):
        FusionPrior.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"hidden', "is not valid JSON"),
        ("{}", "proj_meta: Field required"),
        ('{"proj_meta": {"vae": "wide"}}', r"proj_meta\.vae: .*valid integer"),
        ('{"proj_meta": {"vae": 8}, "num_layers": 1000000000}', "Field required|less than 1000"),
    ],
)
def test_a_damaged_config_is_named_with_its_key(unet, tmp_path, text, told):
    TINY.build(DIMS, unet).save(tmp_path)
    (tmp_path / "fusion_encoder" / "config.json").write_text(text)

    for read in (FusionPrior.load, lambda folder: fusion_prior.describe(str(folder))):
        with pytest.raises(MissingData, match=told) as caught:
            read(tmp_path)
        assert "download it again" in caught.value.hint


def test_a_part_of_another_prior_is_refused(unet, tmp_path):
    TINY.build(DIMS, unet).save(tmp_path / "a")
    TINY.build({"vae": 24}, unet).save(tmp_path / "b")
    shutil.copytree(tmp_path / "b" / "fusion_encoder", tmp_path / "a" / "fusion_encoder", dirs_exist_ok=True)
    config = tmp_path / "a" / "fusion_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "proj_meta": DIMS}))

    with pytest.raises(BrainhiveError, match="synclr_vit_b_16"):
        FusionPrior.load(tmp_path / "a")


def test_embeddings_of_other_encoders_are_refused_naming_both(unet):
    prior = TINY.build(DIMS, unet)

    with pytest.raises(BrainhiveError, match=r"made for synclr_vit_b_16 \(12\), vae \(24\), not for RN50"):
        prior.fuser({"RN50": torch.zeros(1, 8)})


def test_a_token_of_another_width_is_refused(unet):
    with pytest.raises(BrainhiveError, match="width 32, not 31"):
        TINY.build(DIMS, unet).tokens(torch.zeros(1, 31))


def test_a_bare_hub_name_means_the_owner_of_the_published_priors(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(MissingData, match="fakekungfu/Fusion-Prior-of-nobody is not in the hub's cache"):
        FusionPrior.load("hub:Fusion-Prior-of-nobody")


@pytest.mark.parametrize(
    "reference", ["no/such.safetensors", "hub:nobody/Nothing/folder/file.safetensors@main"]
)
def test_a_start_that_is_not_there_is_named(unet, monkeypatch, reference):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(MissingData, match=r"no/such.safetensors|nobody/Nothing"):
        TINY.model_copy(update={"start_from": reference}).build(DIMS, unet)


def test_a_folder_of_something_else_is_no_prior(tmp_path):
    with pytest.raises(MissingData, match="is no Fusion Prior") as caught:
        FusionPrior.load(tmp_path)
    assert "fusion_encoder, proj, attn_adapter" in caught.value.hint
