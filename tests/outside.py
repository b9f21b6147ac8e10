"""Programs that see the libraries but not Atelier, as a user has them who was given a model folder alone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

DECODE = """
import hashlib, numpy, torch
from diffusers import ConsistencyDecoderVAE
decoder = ConsistencyDecoderVAE.from_pretrained(folder)
latents = torch.from_numpy(numpy.load("latents.npy").astype("float32"))

def noise_of(row):  # the report's: a generator for each row
    digest = hashlib.blake2b(f"decoder/5/{row}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)

with torch.no_grad():
    rows = [noise_of(row) for row in range(len(latents))]
    pictures = decoder.decode(latents / decoder.config.scaling_factor, generator=rows, num_inference_steps=2).sample
numpy.save("pictures.npy", pictures.numpy())
"""


def outside(program: str, folder: Path, tmp_path: Path) -> str:
    """Output of a program that is run in ``tmp_path`` without the repository and its editable install.

    The program finds ``folder`` under that name.
    """
    libraries = [p for p in sys.path if p.endswith("site-packages")]
    header = f"import sys; sys.path[:0] = {libraries!r}; folder = {str(folder)!r}\n"
    guard = "import importlib.util as u; assert not u.find_spec('components') and not u.find_spec('orchestration')\n"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-S", "-c", header + guard + program],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def decoded_alike(folder: Path, latents: np.ndarray, tmp_path: Path) -> None:
    """Assert that stock diffusers decodes latents (N, 4, h, w) to our pictures: less than 1/255 apart everywhere."""
    import torch

    from components.diffusion.latent_decoder import sample_pixel_values
    from components.families.consistency_decoder.sample import load_consistency_decoder

    np.save(tmp_path / "latents.npy", latents)
    outside(DECODE, folder, tmp_path)
    theirs = torch.from_numpy(np.load(tmp_path / "pictures.npy"))
    ours = sample_pixel_values(load_consistency_decoder(folder), latents, 2, seed=5)
    assert ours.shape == theirs.shape
    assert ours.std() > 0.05  # pictures, not one gray
    assert float((ours - theirs).abs().max()) / 2 < 1 / 255  # of the range [-1, 1]
