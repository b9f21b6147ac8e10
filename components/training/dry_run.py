"""What a training step will cost, from a run on meta tensors: no weights, no data, no device.

What belongs here: counting parameters, operations and memory. What does not: which model (``components.pipeline``) and
what an hour of a device costs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

# Bytes for each parameter: weights, gradients and AdamW's two averages in float32, and the moving average that is saved
BYTES_PER_PARAMETER = 4 + 4 + 8 + 4


@dataclass(frozen=True, slots=True)
class DryRun:
    """Counts of one network. Operations are those of matrix products and convolutions, forward and backward."""

    num_parameters: int
    flops_per_row: int
    activation_bytes_per_row: int  # kept from forward to backward, in the type of autocast

    @property
    def state_bytes(self) -> int:
        """Memory of weights, gradients, optimizer and moving average."""
        return self.num_parameters * BYTES_PER_PARAMETER

    def flops_per_step(self, batch_size: int) -> int:
        """Operations of a step over all workers."""
        return self.flops_per_row * batch_size

    def hours(self, batch_size: int, num_steps: int, flops_per_second: float) -> float:
        """Hours of one device that reaches ``flops_per_second``, or device hours of many that reach it each."""
        return self.flops_per_step(batch_size) * num_steps / flops_per_second / 3600


def dry_run(build: Callable[[], torch.nn.Module], inputs: Callable[[int], Mapping[str, Any]]) -> DryRun:
    """Counts for the network that ``build`` makes, called with ``inputs(batch size)`` under bfloat16 autocast.

    Both are called with meta as the default device.
    """
    with torch.device("meta"):
        network = build()
        rows = 2  # one row may take shapes that a batch does not
        kept: dict[int, int] = {}
        weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                kept[storage._cdata] = storage.nbytes()
            return tensor

        with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                output = network(**inputs(rows))
                value = output.sample if hasattr(output, "sample") else output[0]
            value.float().square().mean().backward()
    return DryRun(
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
        flops_per_row=counter.get_total_flops() // rows,
        activation_bytes_per_row=sum(kept.values()) // rows,
    )
