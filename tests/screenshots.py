"""The README's pictures, from a finished demo: ``python -m tests.screenshots`` (``make screenshots``).

Serves the home, walks through the pages as the browser test does, and writes small PNG files to ``deploy/screenshots``.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.browser import (
    chromium,
    draw,
    find_chromium,
    open_asset_graph,
    open_model,
    open_shard,
    show_samples,
    window,
)
from tests.servers import dev_server, page_server

FOLDER = Path(__file__).parents[1] / "deploy" / "screenshots"
WIDTH = 1200
MAX_BYTES = 150_000
PROMPT = "large red circle top left, small blue star bottom right, on a gray background"


def main() -> int:
    """Write all pictures; the exit status is 0 where that worked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default=os.environ.get("ATELIER_RECIPE", "tiny"))
    parser.add_argument(
        "--home", type=Path, default=os.environ.get("ATELIER_HOME"), help="of a finished demo of scenes"
    )
    parsed = parser.parse_args()
    home = parsed.home or Path.cwd() / ".atelier" / f"scenes-{parsed.recipe}"
    executable = find_chromium()
    if executable is None or not (home / "lake").is_dir():
        print(f"needed: Chromium (found: {executable}) and a finished demo (looked in {home})", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        chromium(executable) as browser,
        dev_server(home.absolute(), parsed.recipe) as urls,
        page_server(home.absolute(), parsed.recipe) as page_url,
    ):
        dagster, mlflow = urls["dagster"], urls["mlflow"]
        shots: dict[str, tuple[tuple[int, int], Callable[[Any], object]]] = {
            "asset-graph": ((1600, 1000), lambda page: open_asset_graph(page, dagster)),
            "shard": (
                (1200, 760),
                lambda page: (open_shard(page, dagster, "recaptioned", "00000"), show_samples(page)),
            ),
            "registry": (
                (1200, 620),
                lambda page: open_model(page, mlflow, f"scenes-{parsed.recipe}-latent_diffusion"),
            ),
            "page": ((1200, 800), lambda page: draw(page, page_url, PROMPT)),
        }
        for name, (size, walk) in shots.items():
            with window(browser, *size) as page:
                walk(page)
                page.wait_for_timeout(8000)  # animations and colours have no end that could be waited for
                path = FOLDER / f"{name}.png"
                path.write_bytes(smaller(page.screenshot()))
                print(f"{path}  {path.stat().st_size / 1000:.0f} kB")
    return 0


def smaller(png: bytes) -> bytes:
    """The picture as wide as the README shows it, in as many colours as its size allows."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, picture.height * WIDTH // picture.width), Image.Resampling.LANCZOS)
    for colours in (256, 128, 64, 32):
        data = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(data, format="PNG", optimize=True)
        if len(data.getvalue()) <= MAX_BYTES:
            return data.getvalue()
    raise ValueError(f"a screenshot of {picture.size} pixels does not fit into {MAX_BYTES} bytes")


if __name__ == "__main__":
    sys.exit(main())
