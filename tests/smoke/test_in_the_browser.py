"""A user's ways through the three web pages on what the demo left, in headless Chromium."""

import base64
import io
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.browser import (
    draw,
    launch_shard,
    open_asset_graph,
    open_model,
    open_shard,
    open_source_run,
    show_samples,
    window,
)

pytestmark = pytest.mark.smoke
PROMPT = '<i>star</i> ${1+1} "'


@pytest.fixture
def page(browser) -> Iterator:
    """A window that asks nobody but this machine."""
    asked: set[str] = set()
    with window(browser) as opened:
        opened.on("request", lambda request: asked.add(urlsplit(request.url).hostname or "none"))
        yield opened
    assert asked <= {"127.0.0.1", "none"}  # none: data and blob addresses


def test_a_shard_is_materialized_by_clicking_and_shows_captions_and_pictures(page, urls, lake):
    open_shard(page, urls["dagster"], "recaptioned", "00000")
    run = launch_shard(page)
    open_shard(page, urls["dagster"], "recaptioned", "00000")
    page.locator(f"a[href*='/runs/{run}']").wait_for()
    page.get_by_text("Materialized", exact=True).first.wait_for()
    page.get_by_text("dsc_captioner", exact=True).wait_for()
    first = lake.read_table(lake.record("recaptioned", "table", "00000").path).to_pylist()[0]
    samples = page.get_by_role("row").filter(has=page.get_by_text("samples_table", exact=True))
    samples.get_by_text("[Show Markdown]").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("cell", name=first["dsc"], exact=True).first.wait_for()
    dialog.get_by_role("button", name="Close").click()
    show_samples(page)
    size = page.get_by_alt_text("samples").evaluate(
        "async picture => { await picture.decode(); return [picture.naturalWidth, picture.naturalHeight] }"
    )
    assert min(size) > 100


def test_the_asset_graph_shows_every_asset(page, urls):
    open_asset_graph(page, urls["dagster"])
    for asset in ("raw_pairs", "recaptioned", "vae", "latent_diffusion", "evaluation_report"):
        page.get_by_text(asset, exact=True).first.wait_for(state="attached")


def test_the_registry_shows_aliases_and_lineage(page, urls):
    name = "scenes-smoke-latent_diffusion"
    open_model(page, urls["mlflow"], name)
    champion = page.get_by_role("row").filter(has=page.get_by_text("champion"))
    version = champion.get_by_role("link").first.inner_text().removeprefix("Version ")
    open_source_run(page, name, version)
    for words in ("training_set", "dagster.run_id", f"v{version}"):
        page.get_by_text(words).first.wait_for()
    for parent in ("scenes-smoke-text_encoder", "scenes-smoke-vae"):
        page.get_by_role("row").filter(has_text=parent).filter(has_text="Input").wait_for()


def test_a_prompt_becomes_pictures(page, page_url):
    draw(page, page_url, PROMPT, steps=2)
    drawn = page.locator(".drawn").last
    assert f"The model read {PROMPT}" in drawn.inner_text()
    assert "Drawn by scenes-smoke-latent_diffusion/" in drawn.inner_text()
    captions = drawn.locator("figcaption").all_inner_texts()
    assert captions == [f"{decoder}, seed {seed}" for seed in (0, 1) for decoder in ("VAE", "two-step decoder")]
    pictures = drawn.locator("figure img")
    files = [base64.b64decode(one.get_attribute("src").partition(",")[2]) for one in pictures.all()]
    assert len({Image.open(io.BytesIO(file)).tobytes() for file in files}) == 4
    with Image.open(io.BytesIO(files[0])) as picture:
        assert picture.size == (32, 32)
        assert picture.text["prompt"] == PROMPT
    assert pictures.first.evaluate("one => getComputedStyle(one).imageRendering") == "pixelated"
    assert pictures.first.bounding_box()["width"] > 100


def test_the_page_says_what_is_wrong_in_the_place_of_pictures(page, page_url):
    draw(page, page_url, "   ")
    assert "prompt: String should have at least 1 character" in page.locator(".drawn .problem").inner_text()
