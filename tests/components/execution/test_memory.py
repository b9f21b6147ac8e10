"""A process's peak memory is its own."""

import subprocess
import sys

from components.execution.memory import peak_memory

SAY = "from components.execution.memory import peak_memory; {}; print(peak_memory())"


def peak_of(code: str) -> int:
    done = subprocess.run([sys.executable, "-c", SAY.format(code)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_what_a_process_held_counts_and_what_its_parent_held_does_not() -> None:
    held = bytearray(b"x" * (300 * 2**20))
    assert peak_memory() > 300 * 2**20
    little, much = peak_of("pass"), peak_of(f"b'x' * {100 * 2**20}")
    assert little < 100 * 2**20 < much < 300 * 2**20
    assert len(held) == 300 * 2**20
