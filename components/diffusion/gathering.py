"""One batch over all workers of a gang, for losses that compare rows with each other.

What belongs here: bringing rows together so that values and averaged gradients are those of one worker. What does not:
any loss.
"""

import torch
from torch import distributed


def gathered(local: torch.Tensor) -> torch.Tensor:
    """The rows of all workers, (world_size B, ...), in the order of ranks; ``local`` itself without a gang.

    Gradients reach the local rows alone, ``world_size``-fold: the loop's average over workers undoes that.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return local
    world_size = distributed.get_world_size()
    pieces = [torch.empty_like(local) for _ in range(world_size)]
    distributed.all_gather(pieces, local.detach().contiguous())
    if local.requires_grad:
        pieces[distributed.get_rank()] = local * world_size - local.detach() * (world_size - 1)
    return torch.cat(pieces)
