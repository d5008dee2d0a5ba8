"""The generator's optimisers: Muon for matrices, which needs half the steps of AdamW;
AdamW for the rest.
"""

from typing import Any

from torch import nn, optim

MUON_RATE, ADAMW_RATE, DECAY = 6e-3, 1e-3, 0.01
_LEAST_SIDE = 16  # of a matrix for Muon


def optimisers_of(parameters: list[nn.Parameter]) -> list[optim.Optimizer]:
    """Make one optimiser for the matrices and one for the rest.

    A kernel [out, in, h, w] counts as the matrix [out, in * h * w].
    """
    kernels = [
        p for p in parameters if p.ndim > 1 and min(p.flatten(1).shape) > _LEAST_SIDE
    ]
    taken = {id(p) for p in kernels}
    rest = [p for p in parameters if id(p) not in taken]
    return [
        _muon(kernels),
        optim.AdamW(rest, ADAMW_RATE, betas=(0.9, 0.99), weight_decay=DECAY),
    ]


def _muon(kernels: list[nn.Parameter]) -> optim.Optimizer:
    """Step each kernel through a matrix that shares its memory: Muon takes matrices
    only.
    """
    matrices = [nn.Parameter(kernel.detach().flatten(1)) for kernel in kernels]

    def hand_over(*_: Any) -> None:
        for kernel, matrix in zip(kernels, matrices, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)

    muon = optim.Muon(matrices, MUON_RATE, DECAY)
    muon.register_step_pre_hook(hand_over)
    return muon
