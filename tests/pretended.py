"""A CUDA device that is only pretended, where there is none: tensors "on" it compute on the CPU, bit for bit.

What a real one refuses is refused: operations on tensors of both sides, NumPy's view of a tensor that is over there. So
code that runs here, and gives the CPU's bytes, moves everything that it must move. What it cannot show is anything
about speed, memory, streams, or how a real device rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from supermerge.assemble import workers

DEVICE = torch.device("cuda", 0)
NAME = "Pretended"
# Copies go from one to the other; indices may lie on the CPU.
_ON_BOTH = ("aten::copy_", "aten::_to_copy", "aten::index")


class Away(Tensor):
    """A tensor on the pretended device. `here` holds its values."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Away:
        """Wrap a tensor of the CPU, which must not be used any more."""
        made = Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
        )
        made.here = here
        return made

    @property
    def device(self) -> torch.device:
        """What Python sees; to C++ it is a tensor of the CPU, since a build without CUDA knows no other."""
        return DEVICE

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        """A copy on the CPU; to C++ it is there already, and nothing would be dispatched."""
        return self.detach().here.clone()

    def to(self, *wanted: Any, **named: Any) -> Tensor:
        """See `cpu`."""
        first = named.get("device", wanted[0] if wanted else None)
        target = first.device if isinstance(first, Tensor) else first
        if isinstance(target, (str, torch.device)) and torch.device(target).type == "cpu":
            dtypes = [value for value in (*wanted, *named.values()) if isinstance(value, torch.dtype)]
            return self.cpu().to([*dtypes, first.dtype if isinstance(first, Tensor) else self.dtype][0])
        return super().to(first.dtype) if isinstance(first, Tensor) else super().to(*wanted, **named)

    def tolist(self) -> Any:
        """Its values."""
        return self.here.tolist()

    def numpy(self, **_: Any) -> Any:
        """Refused, as of a real one."""
        raise TypeError(f"can't convert {DEVICE} tensor to numpy")

    def __repr__(self) -> str:
        return f"Away({self.here!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.name().split(".")[0]
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    away = any(isinstance(tensor, Away) for tensor in tensors)
    wanted = kwargs.get("device")
    goes = away if wanted is None else torch.device(wanted).type == "cuda"
    if away and name not in _ON_BOTH:
        strangers = [t for t in tensors if not isinstance(t, Away) and t.dim()]
        if strangers:
            raise RuntimeError(f"{name}: tensors on {DEVICE} and on the CPU")
    plain = tree_map_only(Away, lambda tensor: tensor.here, (args, kwargs))
    if wanted is not None and goes:
        plain[1]["device"] = torch.device("cpu")
    found = func(*plain[0], **plain[1])
    if func._schema.is_mutable:
        # In place: whoever was given is given back.
        given = {id(t.here): t for t in tensors if isinstance(t, Away)}
        return tree_map_only(Tensor, lambda t: given.get(id(t), t), found)
    return tree_map_only(Tensor, Away, found) if goes else found


class _Dispatched(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Pool(ThreadPoolExecutor):
    """Threads that can put tensors there, too."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        def there() -> Any:
            with _Dispatched():
                return fn(*args, **kwargs)

        return super().submit(there)


@contextmanager
def pretended_device(free: int = 80 * 10**9) -> Iterator[torch.device]:
    """While entered, PyTorch says that there is a device with `free` bytes, and merges can put tensors there."""
    answers = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "mem_get_info": lambda device: (free, free),
        "get_device_name": lambda device: NAME,
    }
    with patch.multiple(torch.cuda, **answers), patch.object(workers, "ThreadPoolExecutor", _Pool), _Dispatched():
        yield DEVICE
