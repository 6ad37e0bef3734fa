"""TorchScript traces of inference on a CPU.

A decode of a few queries is hundreds of operations of some microseconds each. A trace runs them without
Python between them, in half of the time, and without Python's lock, so that other threads go on meanwhile. On
a GPU CUDA graphs do the same (`graphs.py`).
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_LOG = logging.getLogger(__name__)
Function = Callable[..., Sequence[Tensor]]


class Traced:
    """A function of tensors, traced when it is first called with arguments of a kind.

    What can be computed of the weights alone is computed once, so make another one when weights change.

    Args:
        function: of tensors, or None where one is missing, to tensors; without data-dependent branches.
        free: how many of the first arguments, each of shape [B, N], may change N without another trace.
    """

    def __init__(self, function: Function, free: int = 0) -> None:
        """Nothing traced yet."""
        self._function, self._free = function, free
        self._made: dict[tuple[Any, ...], Function] = {}
        self._lock, self._complained = threading.Lock(), False

    def __call__(self, *arguments: Tensor | None) -> Sequence[Tensor]:
        """The function's result; no gradients."""
        given = [tensor for tensor in arguments if tensor is not None]
        if given[0].numel() == 0:  # a trace of nothing, or for it, may differ
            return self._function(*arguments)
        kind = (
            *(len(tensor) for tensor in given[: self._free]),
            *((tensor.shape, tensor.dtype) for tensor in given[self._free :]),
            *(tensor is None for tensor in arguments),
            torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
        )
        made = self._made.get(kind)
        if made is None:
            with self._lock:
                made = self._made.get(kind) or self._made.setdefault(kind, self._trace(arguments, given))
        return made(*given)

    def __reduce__(self) -> tuple[type[Traced], tuple[Function, int]]:
        """A copied or pickled network makes its own traces."""
        return Traced, (self._function, self._free)

    def _trace(self, arguments: Sequence[Tensor | None], given: list[Tensor]) -> Function:
        """A trace for arguments like these, or the function, its gaps filled, where there can be none.

        Raises what the function raises.
        """
        missing = [tensor is None for tensor in arguments]

        def function(*tensors: Tensor) -> tuple[Tensor, ...]:
            rest = iter(tensors)
            return tuple(self._function(*(None if gap else next(rest) for gap in missing)))

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # sizes become constants: that is meant, see `kind`
                traced: Function = torch.jit.trace(function, tuple(given), check_trace=False)
                return traced
        except Exception as error:  # the tracer may raise anything, the function too: see below whose it is
            problem = f"{type(error).__name__}: {error}".partition("\n")[0]
        function(*given)  # what is wrong without a trace, too, is raised here, and nothing is given up
        if not self._complained:
            self._complained = True
            _LOG.warning("runs without a trace, which takes longer: %s", problem)
        return function
