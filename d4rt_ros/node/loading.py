"""From the model.* parameters to a network on its device, and back to free memory."""

from __future__ import annotations

import gc
from collections.abc import Mapping

import torch

from d4rt_ros.model import D4RT, load_model
from d4rt_ros.model.precision import select_device, select_precision
from d4rt_ros.node.parameters import Value


def load_network(values: Mapping[str, Value]) -> D4RT:
    """Load the network that the parameters ask for.

    Raises:
        ValueError: a device or precision that is not there, or a checkpoint that is missing, damaged or of
            another network; names the parameter's value or the file and its first mismatching tensor.
    """
    device = select_device(str(values["model.device"]))
    precision = select_precision(str(values["model.precision"]), device)
    model = load_model(str(values["model.checkpoint"]), device, precision)
    if values["model.compile"]:
        model.compile()
    return model


def settle_memory() -> None:
    """Spare what stays for long the looks of the garbage collector: each takes some ten milliseconds."""
    gc.collect()
    gc.freeze()


def free_device_memory() -> None:
    """Give what a dropped network held back to the device."""
    gc.unfreeze()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
