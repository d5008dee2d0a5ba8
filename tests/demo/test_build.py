"""The program that makes the demo's weights: its pieces at a size for tests."""

import torch
import torch.nn.functional as F

from brainhive_cli.demo.build import encoder, pool, prior
from brainhive_cli.demo.pictures import scenes


def test_noisy_tokens_keep_their_spread_and_at_least_the_cosine_asked_for():
    """0.08 below the bound is five standard deviations of a cosine of random vectors at this width."""
    torch.manual_seed(0)
    token = F.layer_norm(torch.randn(500, 1000), (1000,))
    cosine = F.cosine_similarity(prior.noisy(token, 0.5), token)
    assert cosine.min() > 0.5 - 0.08
    assert cosine.min() < 0.6 < 0.9 < cosine.max()
    torch.testing.assert_close(prior.noisy(token, 0.5).std(-1, correction=0), torch.ones(500))


def test_a_random_pool_is_the_same_for_the_same_seed():
    first, again, other = (
        pool.random_pool(3, seed=1),
        pool.random_pool(3, seed=1),
        pool.random_pool(3, seed=2),
    )
    assert first.scenes == again.scenes
    assert torch.equal(first.pictures, again.pictures)
    assert first.pictures.shape == (3, 3, 64, 64)
    assert not torch.equal(first.pictures, other.pictures)


def test_targets_name_every_factor_of_a_scene():
    shown = scenes("test")[:5]
    for factor, classes in encoder.targets(shown).items():
        names = encoder.FACTORS[factor]
        assert [names[c] for c in classes] == [getattr(scene, factor) for scene in shown]
