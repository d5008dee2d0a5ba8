"""A pretended GPU, whose tensors have their values on the CPU.

torch's FakeTensorMode has no values, so it fails at code that depends on them, at
random numbers of a GPU and at a backward pass. Here all of these run. Calls of torch
from Python are checked, but neither calls inside torch nor the backward pass.
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
"""Functions that copy values between devices."""
SHAPES = {
    T.view_as,
    T.expand_as,
    T.reshape_as,
    torch._has_compatible_shallow_copy_type,
    torch.result_type,
}
"""Functions that read only shape or type of their second tensor."""
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
"""Functions that wait until the GPU has finished."""


def list_tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among arguments or results."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict | list | tuple):
        for value in values.values() if isinstance(values, dict) else values:
            yield from list_tensors(value)


class PretendedGpu(TorchFunctionMode):
    """Mode that notes the pretended device of tensors, and refuses mixed devices.

    Attributes:
        waits: Calls that waited for the GPU, with their line in the package.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        # storages on the GPU. References prevent the reuse of an address.
        self._storages: dict[int, StorageWeakRef] = {}

    def find_device(self, tensor: Tensor) -> torch.device:
        """Return the pretended device of a tensor."""
        is_on_gpu = tensor.untyped_storage()._cdata in self._storages
        return GPU if is_on_gpu else tensor.device

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch on the CPU, and note the device of its results."""
        kwargs = dict(kwargs or {})
        if function in (T.device.__get__, T.is_cuda.__get__):
            device = self.find_device(args[0])
            return device if function == T.device.__get__ else device == GPU
        if function in (T.numpy, T.__array__) and self.find_device(args[0]) == GPU:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if function is torch._C._nn._parse_to:  # it makes no tensor
            return function(*args, **kwargs)
        device, args, kwargs = self._choose_device(function, args, kwargs)
        self._note_wait(function, args, device)
        result = (T.clone if function == T.pin_memory else function)(*args, **kwargs)
        if (
            function in MOVES
            and isinstance(result, Tensor)
            and self.find_device(result) != device
        ):
            result = result.clone()
        for tensor in list_tensors(result) if device == GPU else ():
            storage = tensor.untyped_storage()
            self._storages[storage._cdata] = StorageWeakRef(storage)
        return result

    def _choose_device(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Return the device of a call's result, and arguments that name the CPU."""
        requested: Any = kwargs.get("device")
        if function in (T.to, T.type_as, T.cpu):
            if function == T.cpu:
                requested = CPU
            else:
                for value in args[1:]:
                    if isinstance(value, str | torch.device | Tensor):
                        requested = value
                        break
            if isinstance(requested, Tensor):
                requested = self.find_device(requested)
            args = list(args)
            for position, value in enumerate(args):
                is_device = isinstance(value, str | torch.device)
                if is_device and value != torch.device("meta"):
                    args[position] = CPU
        if requested is None:
            device = self._find_shared_device(function, args, kwargs)
        else:
            device = torch.device(requested)
            if device.type == "cuda":
                device = GPU
            if kwargs.get("device") and device == GPU:
                kwargs["device"] = CPU
        generator = kwargs.get("generator")
        if (
            isinstance(generator, torch.Generator)
            and generator.device.type != device.type
        ):
            raise RuntimeError(
                f"Expected a '{device.type}' device type for generator, not "
                f"'{generator.device}'"
            )
        return device, args, kwargs

    def _find_shared_device(
        self, function: Any, args: Any, kwargs: Any
    ) -> torch.device:
        """Return the device that a call's tensors share.

        Numbers and indices on the CPU fit any device.
        """
        tensors = list(list_tensors((args, kwargs)))
        if function in MOVES | SHAPES | {torch._VF._pack_padded_sequence}:
            tensors = tensors[:1]
        elif function in (T.__getitem__, T.__setitem__):
            indices = [
                index
                for index in list_tensors(args[1])
                if index.ndim or index.dtype == torch.bool
            ]
            tensors = [args[0]]
            tensors += [index for index in indices if self.find_device(index) != CPU]
            if indices:
                tensors += list_tensors(args[2:])
        devices = set()
        for tensor in tensors:
            device = self.find_device(tensor)
            if device != CPU or tensor.ndim:
                devices.add(device)
        if len(devices) > 1:
            descriptions = []
            for tensor in tensors:
                device_type = self.find_device(tensor).type
                descriptions.append(f"{device_type} {list(tensor.shape)}")
            raise RuntimeError(
                f"Expected all tensors to be on the same device: {function.__name__} "
                f"of {', '.join(descriptions)}"
            )
        return devices.pop() if devices else CPU

    def _note_wait(self, function: Any, args: Any, device: torch.device) -> None:
        if not (
            args and isinstance(args[0], Tensor) and self.find_device(args[0]) == GPU
        ):
            return
        is_mask = function in (T.__getitem__, T.__setitem__) and any(
            index.dtype == torch.bool for index in list_tensors(args[1])
        )
        if function in WAITS or is_mask or (function == T.to and device == CPU):
            frame: Any = sys._getframe()
            while frame.f_back and "/brainhive_cli/" not in frame.f_code.co_filename:
                frame = frame.f_back
            file = frame.f_code.co_filename.rpartition("/brainhive_cli/")[2]
            self.waits.append(f"{function.__name__} in {file}:{frame.f_lineno}")


class Generator(torch.Generator):
    """Generator of the CPU that names the requested device."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        """Make a generator for a device."""
        generator = super().__new__(cls)
        generator.pretended = GPU if torch.device(device).type == "cuda" else CPU
        return generator

    @property
    def device(self) -> torch.device:
        """The requested device."""
        return self.pretended


class Autocast(torch.autocast):
    """Autocast of the GPU, on the CPU."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(
            "cpu" if device_type == "cuda" else device_type, *args, **kwargs
        )


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Context manager that pretends a GPU, and replaces functions of torch.cuda."""
    event = SimpleNamespace(synchronize=lambda: None, query=lambda: True)
    pinning = SimpleNamespace(
        cudaHostRegister=lambda *_: 0, cudaHostUnregister=lambda *_: 0
    )
    mode = PretendedGpu()
    load = torch.load
    group = torch._C._group_tensors_by_device_and_dtype

    def load_onto(*args: Any, map_location: Any = None, **kwargs: Any) -> Any:
        content = load(*args, map_location="cpu", **kwargs)
        return tree_map_only(
            Tensor, lambda tensor: tensor.to(map_location or CPU), content
        )

    def group_by_pretended_device(lists: Any, *options: Any) -> Any:
        groups = {}
        for (_, dtype), value in group(lists, *options).items():
            groups[mode.find_device(value[0][0][0]), dtype] = value
        return groups

    def ask_cpu(function: Any) -> Any:
        return lambda *device: (
            function("cpu") if device == ("cuda",) else function(*device)
        )

    replacements = {
        torch: {
            "Generator": Generator,
            "autocast": Autocast,
            "load": load_onto,
            "is_autocast_enabled": ask_cpu(torch.is_autocast_enabled),
            "get_autocast_dtype": ask_cpu(torch.get_autocast_dtype),
        },
        torch._C: {"_group_tensors_by_device_and_dtype": group_by_pretended_device},
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
        for module, functions in replacements.items():
            for name, function in functions.items():
                patch.setattr(module, name, function)
        yield mode
