"""One batch over all workers of a gang, for losses that are no plain mean over rows.

What belongs here: bringing rows and counts together so that values and averaged gradients are those of one worker. What
does not: any loss.
"""

import torch
from torch import distributed


def gathered(local: torch.Tensor) -> torch.Tensor:
    """The rows of all workers, (world_size B, ...), in the order of ranks; ``local`` itself without a gang.

    Each worker is to compute the whole loss from them, of no other rows. Gradients reach the local rows alone,
    ``world_size``-fold: the loop's average over workers undoes that.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return local
    world_size = distributed.get_world_size()
    pieces = [torch.empty_like(local) for _ in range(world_size)]
    distributed.all_gather(pieces, local.detach().contiguous())
    if local.requires_grad:
        pieces[distributed.get_rank()] = local * world_size - local.detach() * (world_size - 1)
    return torch.cat(pieces)


def share_of_all(count: torch.Tensor) -> torch.Tensor:
    """What a mean over ``count`` local items is multiplied by, so that the workers' average is the mean over all items.

    For losses over tokens or labels, of which each worker's rows hold another number. Exactly 1 without a gang.
    """
    counts = gathered(count.reshape(1).float())
    return count * len(counts) / counts.sum().clamp(min=1)
