"""Outputs of priors for fixed tokens, compared with recorded numbers."""

from itertools import islice

import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.heads import Decoded
from brainhive_cli.models.priors import fusion_prior, identity, mindeye1, mindeye2
from tests.tools.network_digests import disturb, gradient_norm, parameters
from tests.worlds.number_rows import weighted_means

pytestmark = pytest.mark.usefixtures("doubles")
SMALL = {"dim": 10, "tokens": 3, "depth": 2, "heads": 3, "dim_head": 6, "timesteps": 5}
SIZES = {
    "mindeye1": mindeye1.TINY,
    "mindeye2": mindeye2.TINY,
    "mindeye1 deep": mindeye1.Config(**SMALL),
    "mindeye2 wide": mindeye2.Config(
        **{**SMALL, "depth": 1, "dim_head": 40, "timesteps": 30}
    ),
}


def test_diffusion_priors(recorded):
    rows = {}
    for case, config in SIZES.items():
        torch.manual_seed(0)
        prior = config.build({}, None)
        row = parameters(prior) + [prior.scale]
        row += weighted_means([prior.betas, prior.alphas_cumprod])
        disturb(prior)
        shape = (3, config.tokens, config.dim)
        brain = torch.randn(shape)
        image = torch.randn(shape)

        noises = list(islice(prior.noises([4, 1]), 3))
        sampled = prior.sample(brain, [4, 1, 7])
        expected = prior.predict_from_brain(brain)
        timesteps = torch.tensor([0, config.timesteps - 1, 1])
        keep = torch.tensor([True, False, True])
        predicted = prior.net(image, timesteps, brain, keep, ~keep)
        torch.manual_seed(2)
        learned = [prior.learn(brain, image) for _ in range(3)]
        gradient = gradient_norm(learned[0][0], prior)
        masks = torch.ones(3, 1, 4, 4)
        decoded = Decoded({"image": brain, "mask": masks})
        conditioning = prior.condition(decoded, [4, 1, 7])

        row += weighted_means([noises, sampled, expected, predicted, learned])
        row += weighted_means(conditioning.embeddings)
        rows[case] = row + [gradient]
        assert conditioning.masks is masks
    recorded(4, **rows)


@pytest.mark.parametrize("case", SIZES)
def test_diffusion_priors_refuse_other_heads_and_shapes(case):
    config = SIZES[case]
    prior = config.build({}, None)
    brain = torch.randn(3, config.tokens, config.dim)
    other_heads = ({"other": brain}, {"image": brain[:, 1:]}, {"image": brain[..., 1:]})
    for tensors in other_heads:
        with pytest.raises(BrainhiveError):
            prior.condition(Decoded(tensors), [4, 1, 7])


def test_fusion_prior(recorded):
    rows = {}
    for adapter in ("skip", "apply"):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float32)
        unet = sdxl.TINY.build().unet.double()
        torch.set_default_dtype(torch.float64)
        config = fusion_prior.Config(hidden_size=9, intermediate_size=11)
        prior = config.build({"b": 4, "a": 5}, unet)
        prior.adapter = adapter
        row = parameters(prior)
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
        row += weighted_means([item.embeddings for item in conditions])
        row += weighted_means([prior(embeddings), prior.adapt(token)])

        # the U-Net without and with the prior, also for texts of two lengths
        added = {"text_embeds": torch.randn(2, 8), "time_ids": torch.randn(2, 6)}
        latents = torch.randn(2, 4, 8, 8)
        text = torch.randn(2, 5, 16)
        times = torch.tensor([3, 700])
        row += weighted_means(
            unet(latents, times, text, added_cond_kwargs=added).sample
        )
        prior.attach(unet)
        tokens = {"ip_hidden_states": conditions[0].embeddings}
        mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
        for attention_mask in (None, mask):
            output = unet(
                latents,
                times,
                text,
                added_cond_kwargs=added,
                cross_attention_kwargs=tokens,
                encoder_attention_mask=attention_mask,
            )
            row += weighted_means(output.sample)
        rows[adapter] = row
    recorded(5, **rows)


def test_an_identity_prior_without_heads_gives_no_condition():
    decoded = Decoded({"token": torch.randn(2, 3)})
    config = identity.Config(embeddings=(), texts=(), images=(), start=(), masks=())

    conditioning = config.build({}, None).condition(decoded, [0, 1])

    assert conditioning.embeddings is None
    assert conditioning.decoded is decoded
