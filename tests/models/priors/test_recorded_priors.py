"""Outputs of priors for fixed tokens, compared with recorded numbers."""

from itertools import islice
from typing import Any

import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.heads import Decoded
from brainhive_cli.models.priors import fusion_prior, identity, mindeye1, mindeye2
from tests.tools.network_digests import digest, disturb, gradient_norm, parameters

pytestmark = pytest.mark.usefixtures("doubles")
SMALL = {"dim": 10, "tokens": 3, "depth": 2, "heads": 3, "dim_head": 6, "timesteps": 5}
SIZES: dict[str, Any] = {
    "mindeye1": mindeye1.TINY,
    "mindeye2": mindeye2.TINY,
    "mindeye1 deep": mindeye1.Config(**SMALL),
    "mindeye2 wide": mindeye2.Config(
        **{**SMALL, "depth": 1, "dim_head": 40, "timesteps": 30}
    ),
}


@pytest.mark.parametrize("case", SIZES)
def test_diffusion_priors(recorded, case: str) -> None:
    config = SIZES[case]
    prior = config.build({}, None)
    numbers: dict[str, Any] = {"made": parameters(prior), "scale": prior.scale}
    numbers["schedule"] = digest([prior.betas, prior.alphas_cumprod])
    disturb(prior)
    shape = (3, config.tokens, config.dim)
    brain = torch.randn(shape)
    image = torch.randn(shape)

    numbers["noises"] = digest(list(islice(prior.noises([4, 1]), 3)))
    numbers["sampled"] = digest(prior.sample(brain, [4, 1, 7]))
    numbers["expected"] = digest(prior.predict_from_brain(brain))
    timesteps = torch.tensor([0, config.timesteps - 1, 1])
    keep = torch.tensor([True, False, True])
    numbers["kept"] = digest(prior.net(image, timesteps, brain, keep, ~keep))
    torch.manual_seed(2)
    learned = [prior.learn(brain, image) for _ in range(3)]
    numbers["learned"] = digest(learned)
    numbers["gradient"] = gradient_norm(learned[0][0], prior)
    decoded = Decoded({"image": brain, "mask": torch.ones(3, 1, 4, 4)})
    conditioning = prior.condition(decoded, [4, 1, 7])
    numbers["conditions"] = digest([conditioning.embeddings, conditioning.masks])

    recorded(4, **numbers)


@pytest.mark.parametrize("case", SIZES)
def test_diffusion_priors_refuse_other_heads_and_shapes(case: str) -> None:
    config = SIZES[case]
    prior = config.build({}, None)
    brain = torch.randn(3, config.tokens, config.dim)
    other_heads = ({"other": brain}, {"image": brain[:, 1:]}, {"image": brain[..., 1:]})
    for tensors in other_heads:
        with pytest.raises(BrainhiveError):
            prior.condition(Decoded(tensors), [4, 1, 7])


def test_bias_and_times(recorded) -> None:
    prior = mindeye1.Config(**SMALL).build({}, None)
    disturb(prior)
    times = torch.tensor([0.0, 1.0, 99.0, 700.0])
    recorded(
        6,
        bias=digest([prior.net.bias(count) for count in (1, 40, 150)]),
        sinusoids=digest([mindeye1.sinusoids(times, count) for count in (2, 5, 32)]),
        norms=digest(
            [mindeye1._Norm(4, stable)(torch.randn(2, 4)) for stable in (False, True)]
        ),
    )


@pytest.mark.parametrize("adapter", ["skip", "apply"])
def test_fusion_prior(recorded, adapter: Any) -> None:
    torch.set_default_dtype(torch.float32)
    unet = sdxl.TINY.build().unet.double()
    torch.set_default_dtype(torch.float64)
    config = fusion_prior.Config(hidden_size=9, intermediate_size=11)
    prior = config.build({"b": 4, "a": 5}, unet)
    prior.adapter = adapter
    numbers: dict[str, Any] = {"made": parameters(prior), "dims": prior.dims}
    disturb(prior)
    embeddings = {"a": torch.randn(2, 5), "b": torch.randn(2, 4)}
    token = torch.randn(2, 9)
    is_kept = torch.tensor([[1.0], [0.0]])
    conditions = [
        prior.condition(Decoded({"token": token}), [0, 1]),
        prior.null(3, [0, 1, 2]),
        prior.condition_on_embeddings(embeddings),
        prior.condition_on_embeddings(embeddings, is_kept),
    ]
    numbers["conditions"] = digest([item.embeddings for item in conditions])
    numbers["tokens"] = digest([prior(embeddings), prior.adapt(token)])

    # the U-Net without and with the prior
    added = {"text_embeds": torch.randn(2, 8), "time_ids": torch.randn(2, 6)}
    latents = torch.randn(2, 4, 8, 8)
    text = torch.randn(2, 5, 16)
    inputs = (latents, torch.tensor([3, 700]), text)
    numbers["plain"] = digest(unet(*inputs, added_cond_kwargs=added).sample)
    prior.attach(unet)
    arguments: dict[str, Any] = {
        "added_cond_kwargs": added,
        "cross_attention_kwargs": {"ip_hidden_states": conditions[0].embeddings},
    }
    mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    numbers["attached"] = digest(unet(*inputs, **arguments).sample)
    arguments["encoder_attention_mask"] = mask
    numbers["masked"] = digest(unet(*inputs, **arguments).sample)
    recorded(5, **numbers)


def test_identity_takes_the_first_of_its_heads() -> None:
    heads = {name: torch.randn(2, 3) for name in ("token", "tokens", "latent", "text")}
    heads["keyframe"] = torch.rand(2, 3, 4, 4)
    heads["mask"] = torch.ones(2, 1, 4, 4)
    decoded = Decoded(heads)

    conditioning = identity.TINY.build({}, None).condition(decoded, [0, 1])

    assert torch.equal(conditioning.embeddings, heads["tokens"][:, None])
    assert conditioning.start is heads["latent"]
    assert conditioning.texts is heads["text"]
    assert conditioning.masks is heads["mask"]
    assert conditioning.images is heads["keyframe"]


def test_an_identity_prior_without_heads_gives_no_condition() -> None:
    decoded = Decoded({"token": torch.randn(2, 3)})
    config = identity.Config(embeddings=(), texts=(), images=(), start=(), masks=())

    conditioning = config.build({}, None).condition(decoded, [0, 1])

    assert conditioning.embeddings is None
    assert conditioning.decoded is decoded
