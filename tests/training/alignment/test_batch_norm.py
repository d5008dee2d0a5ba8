"""Batch normalisation of one cell in several processes: over the whole batch, or told not to be."""

import pytest
import torch
from layouts import one_token, spec_of
from torch import nn

from brainhive_cli.core.launch import Launch
from brainhive_cli.training.alignment.loop import normalise_together
from brainhive_cli.training.alignment.model import Aligner

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def aligner(kind: str) -> Aligner:
    torch.manual_seed(0)
    return Aligner(one_token(spec_of(("Oz",), 250), 16, {"e": 8}, backbone={"kind": kind}))


def synchronised(model: Aligner) -> int:
    return sum(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


def test_on_gpus_the_statistics_are_those_of_the_whole_batch_and_the_weights_the_same():
    plain = aligner("eeg_net")
    together = normalise_together(aligner("eeg_net"), Launch(0, 2, GPU))

    assert synchronised(plain) == 0 and synchronised(together) == 3
    assert all(torch.equal(plain.state_dict()[name], each) for name, each in together.state_dict().items())
    assert plain.state_dict().keys() == together.state_dict().keys()


@pytest.mark.parametrize(
    ("kind", "rank", "processes", "is_warned_of"),
    [("eeg-net", 0, 2, True), ("eeg-net", 1, 2, False), ("eeg-net", 0, 1, False), ("brain-mlp", 0, 2, False)],
)
def test_on_a_cpu_it_is_told_once_where_it_matters(kind, rank, processes, is_warned_of, capsys):
    found = normalise_together(aligner(kind), Launch(rank, processes, CPU))

    assert synchronised(found) == 0
    told = capsys.readouterr().err
    assert ("eeg-net normalises by batch, and on a CPU each of the 2 processes" in told) is is_warned_of


def test_torch_still_has_none_for_a_cpu(tmp_path, monkeypatch):
    """The day this fails, the warning can go."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="expected input tensor to be on GPU"):
            nn.SyncBatchNorm(3)(torch.randn(4, 3, 5))
    finally:
        torch.distributed.destroy_process_group()
