"""Tests of the average with a blurry picture, and of MindEye2's refinement."""

import diffusers
import pytest
import torch
import torch.nn.functional as F

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.files.inputs import require_inputs
from brainhive_cli.core.results.measurements import MIXED_WITH_BLURRY
from brainhive_cli.models.generators import Sampling, _latent_diffusion, chain, sdxl
from brainhive_cli.models.generators.chain import ChainStage, Config, LowLevelMix
from brainhive_cli.models.heads import Conditioning, Decoded

CPU = torch.device("cpu")
PX = 32
DECODED = Decoded(
    {"blurry": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))}
)


@pytest.fixture
def autoencoder(tmp_path):
    """Folder of a tiny autoencoder."""
    sdxl.TINY.build().vae.save_pretrained(tmp_path / "vae")
    return str(tmp_path / "vae")


def test_pictures_are_three_quarters_of_the_mean_at_256_px(autoencoder):
    """Source: MindEye2's final_evaluations.ipynb, .75 · refined + .25 · blurry."""
    stages = (ChainStage(generator=sdxl.TINY),)
    unmixed, mixed = (
        Config(stages=stages, low_level_mix=mix)
        for mix in (None, {"autoencoder": autoencoder})
    )
    conditioning = Conditioning(decoded=DECODED)
    sampling = Sampling(steps=2)

    picture = unmixed.build().generate(conditioning, [1, 2], PX, sampling)
    pictures = mixed.build().generate(conditioning, [1, 2], PX, sampling)

    vae = sdxl.TINY.build().vae
    blurry = _latent_diffusion.decode_pictures(vae, DECODED.tensors["blurry"], CPU)
    sized = [
        F.interpolate(batch, (256, 256), mode="bilinear", antialias=True)
        for batch in (picture, blurry)
    ]
    assert torch.allclose(pictures, 0.75 * sized[0] + 0.25 * sized[1], atol=1e-5)
    assert unmixed.caveats == ()
    assert mixed.caveats == (MIXED_WITH_BLURRY,)
    assert [item.state for item in mixed.inputs() if item.name == autoencoder] == [
        "here"
    ]


def test_the_published_file_is_read_as_its_autoencoder(tmp_path, monkeypatch):
    """MindEye2's notebook loads the file with these arguments, here at tiny widths."""
    monkeypatch.setitem(chain.MIX_AUTOENCODER, "block_out_channels", (32, 32, 32, 32))
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(**chain.MIX_AUTOENCODER)
    torch.save(vae.state_dict(), tmp_path / "sd_image_var_autoenc.pth")
    config = LowLevelMix(
        autoencoder=str(tmp_path / "sd_image_var_autoenc.pth"), share=1
    )

    autoencoder = config.build(CPU, torch.float32)

    latents = torch.randn(2, 4, 4, 4)
    with torch.no_grad():
        blurry = (vae.decode(latents / 0.18215).sample / 2 + 0.5).clamp(0, 1)
    pictures = config.mix(
        autoencoder, torch.rand(2, 3, PX, PX), Decoded({"blurry": latents})
    )
    assert torch.allclose(
        pictures,
        F.interpolate(blurry, (256, 256), mode="bilinear", antialias=True),
        atol=1e-5,
    )
    assert [item.state for item in config.inputs()] == ["here"]
    torch.save(
        {"encoder.conv_in.weight": torch.zeros(1)},
        tmp_path / "sd_image_var_autoenc.pth",
    )
    with pytest.raises(BrainhiveError, match=r"sd_image_var_autoenc\.pth"):
        config.build(CPU, torch.float32)
    with pytest.raises(MissingData, match=r"none\.pth"):
        require_inputs(LowLevelMix(autoencoder=str(tmp_path / "none.pth")).inputs())


def test_refinement_does_the_last_twelve_of_sgms_25_steps():
    """The expected steps are sgm's, with LegacyDDPMDiscretization and Euler steps.

    Source: MindEye2's enhanced_recon_inference.ipynb, whose sigmas begin at index −13
    of 26.
    """
    generator = sdxl.TINY.model_copy(update={"target_px": 1024}).build()
    rng = torch.Generator().manual_seed(3)
    texts = torch.randn(1, 5, 16, generator=rng)
    start = torch.randn(1, 4, 8, 8, generator=rng)
    sampling = Sampling(steps=25, guidance=5, strength=0.48, scheduler="lightning")

    pictures = generator.generate(
        Conditioning(texts=texts, start=start), [4], PX, sampling
    )

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, 0)
    all_sigmas = ((1 - alphas) / alphas) ** 0.5
    timesteps = [int(999 - 999 * step / 25) for step in range(25)]
    sigmas = [float(all_sigmas[time]) for time in timesteps] + [0.0]
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(4))
    latents = start + noise * sigmas[-13]
    _, pooled = generator.embed_empty_prompt(2)
    ids = torch.tensor([[PX, PX, 0, 0, 1024, 1024]] * 2, dtype=torch.float32)
    guided_texts = torch.cat([torch.zeros_like(texts), texts])
    with torch.no_grad():
        for step in range(13, 25):
            scaled = torch.cat([latents, latents]) / (sigmas[step] ** 2 + 1) ** 0.5
            added = {"text_embeds": pooled, "time_ids": ids}
            noise_uncond, noise_cond = generator.unet(
                scaled, timesteps[step], guided_texts, added_cond_kwargs=added
            ).sample.chunk(2)
            latents = latents + (sigmas[step + 1] - sigmas[step]) * (
                noise_uncond + 5 * (noise_cond - noise_uncond)
            )
    expected = generator.decode(latents)
    assert torch.allclose(pictures, expected, atol=1e-4)
    smaller_pictures = sdxl.TINY.build().generate(
        Conditioning(texts=texts, start=start), [4], PX, sampling
    )
    assert not torch.allclose(
        pictures, smaller_pictures, atol=1e-4
    )  # of another target size
