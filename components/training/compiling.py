"""torch.compile of a training's networks.

What belongs here: turning it on for a module in place, and off for a while. What does not: when it pays
(``TrainingConfig.compile``).
"""

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch

from components.execution.device import has_cpu_compiler


class NoCompiler(RuntimeError):
    """torch.compile needs a C++ compiler on CPUs and this machine has none; the message says what to do."""


def compile_in_place(module: torch.nn.Module, device: torch.device) -> None:
    """Compile the module's calls; its class, its weights' names and what it saves stay as they are."""
    if device.type == "cpu" and not has_cpu_compiler():
        raise NoCompiler(
            "compile=true needs a C++ compiler, and none of c++, g++, clang++ is on the PATH: install g++, or set the "
            "training's compile to false"
        )
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")  # of diffusers
    module.compile()


def eagerly(is_compiled: bool) -> AbstractContextManager[None]:
    """Within the block compiled modules run as written: sampling comes in other shapes than training."""
    return torch.compiler.set_stance("force_eager") if is_compiled else nullcontext()
