"""A GPU that is pretended: values lie on the CPU, and a tensor's storage says on which
device it would lie.

torch's FakeTensorMode has no values: it stops at what depends on them, at random
numbers of a GPU and at a backward pass. Here all of these run. Each call of torch is
seen, of the package as of libraries in Python; neither what torch's own functions do
inside, nor the backward pass.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
T: Any = Tensor
MOVES = {
    T.to,
    T.type_as,
    T.copy_,
    T.data.__set__,
    T.cpu,
    torch.as_tensor,
    torch.asarray,
    torch.tensor,
}
"""What takes values from one device to another."""
SHAPES = {
    T.view_as,
    T.expand_as,
    T.reshape_as,
    torch._has_compatible_shallow_copy_type,
    torch.result_type,
}
"""What looks at the shape or type of a second tensor alone."""
WAITS = {
    T.item,
    T.tolist,
    T.__float__,
    T.__int__,
    T.__bool__,
    T.__index__,
    T.cpu,
    T.nonzero,
    torch.nonzero,
}
WAITS |= {
    T.unique,
    torch.unique,
    T.bincount,
    torch.bincount,
    T.masked_select,
    torch.masked_select,
    torch.equal,
}
"""What returns only when the GPU has done all that it was asked for."""


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among arguments or results."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict | list | tuple):
        for value in values.values() if isinstance(values, dict) else values:
            yield from tensors_in(value)


class PretendedGpu(TorchFunctionMode):
    """Gives tensors the device that they would have, and refuses to mix devices where
    torch would.

    Attributes:
        waits: The calls that waited for the GPU, each with the line of the package that
            made it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        # on the GPU; references keep addresses from reuse
        self._storages: dict[int, StorageWeakRef] = {}

    def device_of(self, tensor: Tensor) -> torch.device:
        """Return where a tensor would lie."""
        return (
            GPU if tensor.untyped_storage()._cdata in self._storages else tensor.device
        )

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch on the CPU, and note where its results would lie."""
        kwargs = dict(kwargs or {})
        if function in (T.device.__get__, T.is_cuda.__get__):
            device = self.device_of(args[0])
            return device if function == T.device.__get__ else device == GPU
        if function in (T.numpy, T.__array__) and self.device_of(args[0]) == GPU:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if function is torch._C._nn._parse_to:  # names a device, and makes no tensor
            return function(*args, **kwargs)
        where, args, kwargs = self._place(function, args, kwargs)
        self._note_wait(function, args, where)
        result = (T.clone if function == T.pin_memory else function)(*args, **kwargs)
        if (
            function in MOVES
            and isinstance(result, Tensor)
            and self.device_of(result) != where
        ):
            result = result.clone()
        for tensor in tensors_in(result) if where == GPU else ():
            storage = tensor.untyped_storage()
            self._storages[storage._cdata] = StorageWeakRef(storage)
        return result

    def _place(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Find where the result of a call lies, and write the CPU for the GPU in its
        arguments.
        """
        asked: Any = kwargs.get("device")
        if function in (T.to, T.type_as, T.cpu):
            named = (
                value
                for value in args[1:]
                if isinstance(value, str | torch.device | Tensor)
            )
            asked = CPU if function == T.cpu else next(named, asked)
            asked = self.device_of(asked) if isinstance(asked, Tensor) else asked
            args = [
                CPU
                if isinstance(v, str | torch.device) and v != torch.device("meta")
                else v
                for v in args
            ]
        if asked is None:
            where = self._shared(function, args, kwargs)
        else:
            where = GPU if (asked := torch.device(asked)).type == "cuda" else asked
            kwargs |= {"device": CPU} if kwargs.get("device") and where == GPU else {}
        random = kwargs.get("generator")
        if isinstance(random, torch.Generator) and random.device.type != where.type:
            raise RuntimeError(
                f"Expected a '{where.type}' device type for generator, not "
                f"'{random.device}'"
            )
        return where, args, kwargs

    def _shared(self, function: Any, args: Any, kwargs: Any) -> torch.device:
        """Return the one device of a call's tensors; numbers on the CPU go with any,
        and so do indices.
        """
        tensors = [*tensors_in((args, kwargs))]
        if function in MOVES | SHAPES | {torch._VF._pack_padded_sequence}:
            tensors = tensors[:1]
        elif function in (T.__getitem__, T.__setitem__):
            indices = [
                index
                for index in tensors_in(args[1])
                if index.ndim or index.dtype == torch.bool
            ]
            used = [index for index in indices if self.device_of(index) != CPU]
            tensors = [args[0], *used, *(tensors_in(args[2:]) if indices else ())]
        devices = {
            device for t in tensors if (device := self.device_of(t)) != CPU or t.ndim
        }
        if len(devices) > 1:
            seen = ", ".join(
                f"{self.device_of(t).type} {list(t.shape)}" for t in tensors
            )
            raise RuntimeError(
                f"Expected all tensors to be on the same device: {function.__name__} "
                f"of {seen}"
            )
        return next(iter(devices), CPU)

    def _note_wait(self, function: Any, args: Any, where: torch.device) -> None:
        if not (
            args and isinstance(args[0], Tensor) and self.device_of(args[0]) == GPU
        ):
            return
        is_mask = function in (T.__getitem__, T.__setitem__) and any(
            index.dtype == torch.bool for index in tensors_in(args[1])
        )
        if function in WAITS or is_mask or (function == T.to and where == CPU):
            frame: Any = sys._getframe()
            while frame.f_back and "/brainhive_cli/" not in frame.f_code.co_filename:
                frame = frame.f_back
            file = frame.f_code.co_filename.rpartition("/brainhive_cli/")[2]
            self.waits.append(f"{function.__name__} in {file}:{frame.f_lineno}")


class Generator(torch.Generator):
    """Random numbers of the CPU, which say that they are of the device that they were
    asked for.
    """

    def __new__(cls, device: Any = "cpu") -> "Generator":
        """Make a generator for a device."""
        generator = super().__new__(cls)
        generator.pretended = GPU if torch.device(device).type == "cuda" else CPU
        return generator

    @property
    def device(self) -> torch.device:
        """The device that was asked for."""
        return self.pretended


class Autocast(torch.autocast):
    """Casts on the CPU what it would on the GPU."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(
            "cpu" if device_type == "cuda" else device_type, *args, **kwargs
        )


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Pretend a GPU: what torch has for one besides functions of tensors is replaced
    for as long.
    """
    event = SimpleNamespace(synchronize=lambda: None, query=lambda: True)
    pinning = SimpleNamespace(
        cudaHostRegister=lambda *_: 0, cudaHostUnregister=lambda *_: 0
    )
    mode, load, group = (
        PretendedGpu(),
        torch.load,
        torch._C._group_tensors_by_device_and_dtype,
    )

    def load_onto(*args: Any, map_location: Any = None, **kwargs: Any) -> Any:
        content = load(*args, map_location="cpu", **kwargs)
        return tree_map_only(
            Tensor, lambda tensor: tensor.to(map_location or CPU), content
        )

    def grouped(lists: Any, *options: Any) -> Any:
        groups = group(lists, *options).items()  # by the true device
        return {
            (mode.device_of(value[0][0][0]), dtype): value
            for (_, dtype), value in groups
        }

    def on_cpu(function: Any) -> Any:
        return lambda *device: (
            function("cpu") if device == ("cuda",) else function(*device)
        )

    replaced = {
        torch: {"Generator": Generator, "autocast": Autocast, "load": load_onto}
        | {
            name: on_cpu(getattr(torch, name))
            for name in ("is_autocast_enabled", "get_autocast_dtype")
        },
        torch._C: {"_group_tensors_by_device_and_dtype": grouped},
        torch.backends.cudnn: {"is_acceptable": lambda tensor: False},
        torch.cuda: {
            "device_count": lambda: 1,
            "manual_seed": torch.default_generator.manual_seed,
            "get_rng_state": lambda device=None: torch.get_rng_state(),
            "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
            "mem_get_info": lambda device=None: (2**34, 2**34),
            "get_device_name": lambda device=None: "a pretended GPU",
            "current_stream": lambda device=None: SimpleNamespace(
                record_event=lambda: event
            ),
            "synchronize": lambda device=None: None,
            "reset_peak_memory_stats": lambda device=None: None,
            "max_memory_allocated": lambda device=None: 2**30,
            "cudart": lambda: pinning,
        },
    }
    with pytest.MonkeyPatch.context() as patch, mode:
        for module, functions in replaced.items():
            for name, function in functions.items():
                patch.setattr(module, name, function)
        yield mode
