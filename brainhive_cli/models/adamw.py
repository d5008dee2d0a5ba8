"""AdamW without the import of torch's compiler."""

from inspect import unwrap
from typing import Any

import torch
from torch.optim import Optimizer


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`, with the same steps and state.

    torch wraps the methods of optimisers to exclude them from `torch.compile`. The
    first call of a wrapper imports the compiler with SymPy, ONNX and pandas, which
    takes longer than the training of a small model. These methods have no wrappers,
    because nothing is compiled.
    """

    add_param_group: Any = unwrap(Optimizer.add_param_group)
    zero_grad: Any = unwrap(Optimizer.zero_grad)
    state_dict: Any = unwrap(Optimizer.state_dict)
    load_state_dict: Any = unwrap(Optimizer.load_state_dict)
    step: Any = torch.no_grad()(unwrap(torch.optim.AdamW.step))
