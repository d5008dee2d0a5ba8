"""The program that makes the demo's weights: its pieces at a size for tests."""

import torch
import torch.nn.functional as F

from brainhive_cli.demo.pictures import scenes
from tools.demo_world import encoder, optimisers, pool, prior


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


def test_every_parameter_is_stepped_and_a_kernel_as_a_matrix():
    """Muon goes equally far in all directions of a matrix, however uneven its gradient is."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(20, 32, 3), torch.nn.Conv2d(32, 4, 3))
    before = [p.detach().clone() for p in layers.parameters()]
    (layers(torch.randn(2, 20, 8, 8)) ** 2).sum().backward()
    for one in optimisers.optimisers_of(list(layers.parameters())):
        one.step()
    steps = [old - new for old, new in zip(before, layers.parameters(), strict=True)]
    assert all(step.abs().max() > 0 for step in steps)
    gradient, step = (
        torch.linalg.svdvals(kernel.detach().flatten(1)) for kernel in (layers[0].weight.grad, steps[0])
    )
    assert step.max() / step.min() < 2.5 < 10 < gradient.max() / gradient.min()
