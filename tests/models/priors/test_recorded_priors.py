"""Priors on fixed tokens beside the numbers that were recorded."""

from itertools import islice
from typing import Any

import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError
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
    brain, image = torch.randn(shape), torch.randn(shape)
    numbers["noises"] = digest([*islice(prior.noises([4, 1]), 3)])
    numbers["sampled"] = digest(prior.sample(brain, [4, 1, 7]))
    numbers["expected"] = digest(prior.predict_from_brain(brain))
    times = torch.tensor([0, config.timesteps - 1, 1])
    kept = torch.tensor([True, False, True])
    numbers["kept"] = digest(prior.net(image, times, brain, kept, ~kept))
    torch.manual_seed(2)
    learned = [prior.learn(brain, image) for _ in range(3)]
    numbers["learned"] = digest(learned)
    numbers["gradient"] = gradient_norm(learned[0][0], prior)
    decoded = Decoded({"image": brain, "mask": torch.ones(3, 1, 4, 4)})
    conditions = prior.condition(decoded, [4, 1, 7])
    numbers["conditions"] = digest([conditions.embeddings, conditions.masks])
    recorded(4, **numbers)
    for wrong in ({"other": brain}, {"image": brain[:, 1:]}, {"image": brain[..., 1:]}):
        with pytest.raises(BrainhiveError):
            prior.condition(Decoded(wrong), [4, 1, 7])


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
    token, kept = torch.randn(2, 9), torch.tensor([[1.0], [0.0]])
    conditions = [
        prior.condition(Decoded({"token": token}), [0, 1]),
        prior.null(3, [0, 1, 2]),
        prior.condition_on_embeddings(embeddings),
        prior.condition_on_embeddings(embeddings, kept),
    ]
    numbers["conditions"] = digest([each.embeddings for each in conditions])
    numbers["tokens"] = digest([prior(embeddings), prior.adapt(token)])
    added = {"text_embeds": torch.randn(2, 8), "time_ids": torch.randn(2, 6)}
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16)
    mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    given = (latents, torch.tensor([3, 700]), text)
    numbers["plain"] = digest(unet(*given, added_cond_kwargs=added).sample)
    prior.attach(unet)
    kwargs = {"ip_hidden_states": conditions[0].embeddings}
    for name, more in (("attached", {}), ("masked", {"encoder_attention_mask": mask})):
        numbers[name] = digest(
            unet(
                *given, added_cond_kwargs=added, cross_attention_kwargs=kwargs, **more
            ).sample
        )
    recorded(5, **numbers)


def test_identity_takes_the_first_of_its_heads() -> None:
    heads = {name: torch.randn(2, 3) for name in ("token", "tokens", "latent", "text")}
    kept = torch.ones(2, 1, 4, 4)
    decoded = Decoded({**heads, "keyframe": torch.rand(2, 3, 4, 4), "mask": kept})
    found = identity.TINY.build({}, None).condition(decoded, [0, 1])
    assert torch.equal(found.embeddings, heads["tokens"][:, None])
    assert found.start is heads["latent"] and found.texts is heads["text"]
    assert found.masks is kept and found.images is decoded.tensors["keyframe"]
    # no condition is wanted
    none = identity.Config(embeddings=(), texts=(), images=(), start=(), masks=())
    empty = none.build({}, None).condition(decoded, [0, 1])
    assert empty.embeddings is None and empty.decoded is decoded
