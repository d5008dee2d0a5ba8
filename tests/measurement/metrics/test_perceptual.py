"""LPIPS by torchmetrics, and what is said where its weights or those of FID are not
there.
"""

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import alexnet

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.measurement.metrics.perceptual import find_inputs, lpips

CPU = torch.device("cpu")


@pytest.fixture
def network(tmp_path, monkeypatch):
    """An AlexNet with random weights where torch.hub keeps the trained one."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    with torch.device("meta"):
        alexnet_module = alexnet()
    alexnet_module = alexnet_module.to_empty(device="cpu")
    for name, weight in alexnet_module.named_parameters():
        weight.data.normal_(0, 0.05) if name.startswith(
            "features"
        ) else weight.data.zero_()
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(
        alexnet_module.state_dict(),
        tmp_path / "hub/checkpoints/alexnet-owt-7be5be79.pth",
    )
    return alexnet_module.eval()


def test_lpips_weighs_feature_differences_by_published_heads(network, shared):
    stimuli, reconstructions = torch.rand(
        2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1)
    )
    reconstructions[1] = stimuli[1]

    distances = lpips(stimuli, reconstructions, CPU)

    heads = torch.load(shared / "data/lpips/alex.pth", CPU, weights_only=True)
    shift, scale = (
        torch.tensor([-0.030, -0.088, -0.188]),
        torch.tensor([0.458, 0.448, 0.450]),
    )
    x = torch.stack([stimuli, reconstructions]).flatten(0, 1) * 2 - 1
    x = (x - shift.view(3, 1, 1)) / scale.view(3, 1, 1)
    expected = torch.zeros(2)
    with torch.no_grad():
        for layer_number, layer in enumerate(network.features):
            x = layer(x)
            if layer_number in (1, 4, 7, 9, 11):
                head = heads[
                    f"lin{(1, 4, 7, 9, 11).index(layer_number)}.model.1.weight"
                ]
                unit = F.normalize(x, dim=1).unflatten(0, (2, 2))
                expected += ((unit[0] - unit[1]).square() * head).sum(1).mean((1, 2))
    assert distances[0] == pytest.approx(float(expected[0]), rel=1e-4)
    assert distances[1] == 0 < distances[0]


def test_weights_that_are_not_here_are_told_with_their_place(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    assert [asset.state for asset in find_inputs("LPIPS")] == [
        "here",
        "missing (optional)",
    ]
    with pytest.raises(MissingData) as caught:
        lpips(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64), CPU)
    assert "AlexNet" in str(caught.value)
    assert f"{tmp_path}/hub/checkpoints/alexnet-owt-7be5be79.pth" in caught.value.hint
    assert capfd.readouterr().out == ""  # which is for results
