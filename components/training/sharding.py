"""Weights, gradients and optimizer state cut over a gang (FSDP), and the same state whole, whatever the gang's size.

What belongs here: cutting, and the way back and forth between cut and whole tensors. What does not: the gradients'
average of uncut weights (``loop``), and when anything happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

# By which an objective may enter a module, besides calling it.
_ENTRANCES = ("encode", "decode", "get_image_features", "get_text_features", "generate")


def shard(module: torch.nn.Module, device_type: str, world_size: int) -> None:
    """Cut a module's parameters over the gang, in place: blocks that its library calls inseparable, then the rest.

    Zhao et al. 2023, "PyTorch FSDP"; the blocks are transformers' and diffusers' ``_no_split_modules``. The module's
    parts are groups of their own too, because an objective may enter them one by one (a VAE's two halves).
    """
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()  # channels_last cannot be cut
    mesh = init_device_mesh(device_type, (world_size,))
    scalars = {parameter for parameter in module.parameters() if parameter.ndim == 0}  # these cannot be cut
    groups = _groups_of(module)
    # The outermost group stays whole until the backward pass, unless told: what is frozen has none, and is cut at once.
    reshards = None if any(parameter.requires_grad for parameter in module.parameters()) else True
    for part in reversed(list(module.modules())):  # the inner ones first
        if part in groups:
            fully_shard(part, mesh=mesh, ignored_params=scalars, reshard_after_forward=reshards)
    for name in _ENTRANCES:
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)


def _groups_of(module: torch.nn.Module) -> set[torch.nn.Module]:
    """The module, its parts and its inseparable blocks, without those that share a weight with another place."""
    blocks = set(getattr(module, "_no_split_modules", None) or ())
    places = Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))
    found = {part for part in module.modules() if type(part).__name__ in blocks}
    found |= {part for part in module.children() if not isinstance(part, torch.nn.ModuleList | torch.nn.ModuleDict)}
    return {module} | {part for part in found if all(places[id(each)] == 1 for each in part.parameters())}


def uncut(parameters: Sequence[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    """Parameters of which every worker holds all: their gradients are not averaged by the backward pass."""
    return [parameter for parameter in parameters if not isinstance(parameter, DTensor)]


def clip_gradients(parameters: Sequence[torch.nn.Parameter], max_norm: float) -> torch.Tensor:
    """Scale the gradients so that their norm over all parameters is at most ``max_norm``; the norm before that."""
    plain = uncut(parameters)
    if len(plain) == len(parameters):
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    cut = [parameter for parameter in parameters if isinstance(parameter, DTensor)]
    norms = [_norm_of(group) for group in (cut, plain) if group]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    scale = float(torch.clamp(max_norm / (norm + 1e-6), max=1.0))
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(scale)
    return norm


def _norm_of(parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    norm = torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def whole(value: Any) -> Any:
    """The same state with every cut tensor put together, on the CPU; all workers must ask for it together."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, Mapping):
        return {key: whole(each) for key, each in value.items()}
    return [whole(each) for each in value] if isinstance(value, list) else value


def cut_like(parameter: torch.Tensor, full: torch.Tensor) -> torch.Tensor:
    """``full`` cut as ``parameter`` is; ``full`` itself where that is whole, or of another shape (a counter)."""
    if not isinstance(parameter, DTensor) or full.shape != parameter.shape:
        return full
    return distribute_tensor(full.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None)
