"""Headless Chromium, and a user's ways through the three web pages: Dagster, MLflow and the page of the champion.

The browser test walks them and asserts; ``tests.screenshots`` walks them for the README's pictures.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 300_000  # milliseconds for anything to appear on a busy machine
# MLflow opens the panel of its assistant on a first visit.
VISITED_BEFORE = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"


def find_chromium() -> str | None:
    """``ATELIER_CHROMIUM``, or the first Chromium on the path."""
    return os.environ.get("ATELIER_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium(executable: str) -> Iterator["Browser"]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def window(browser: "Browser", width: int = 1300, height: int = 900) -> Iterator["Page"]:
    """A window without a past."""
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(PATIENCE)
    context.add_init_script(VISITED_BEFORE)
    yield context.new_page()
    context.close()


# ------------------------------------------------------------------------------------------------------------- Dagster
def open_shard(page: "Page", dagster: str, asset: str, shard: str) -> None:
    """The metadata of a shard's latest materialization."""
    page.goto(f"{dagster}/assets/{asset}?view=partitions&partition={shard}")
    page.get_by_text("Latest materialization").wait_for()


def launch_shard(page: "Page") -> str:
    """Click the open shard's materialization through, from the button to the finished run; the first of its id."""
    page.get_by_role("button", name="Materialize…").click()
    page.get_by_role("button", name="Launch 1 run").click()
    page.get_by_role("link", name="View", exact=True).click()
    page.wait_for_url("**/runs/*")
    _reload_until(page, page.get_by_text("Success", exact=True).first)
    return page.url.partition("/runs/")[2][:8]


def _reload_until(page: "Page", locator: "Locator") -> None:
    """Wait for something that the page may show only after a reload: updates are lost on a busy machine."""
    from playwright.sync_api import TimeoutError as NotYet

    deadline = time.monotonic() + PATIENCE / 1000
    while True:
        try:
            return locator.wait_for(timeout=20_000)
        except NotYet:
            if time.monotonic() > deadline:
                raise
            page.reload()


def show_samples(page: "Page") -> None:
    """Open the picture ``samples`` in the metadata that is shown."""
    row = page.get_by_role("row").filter(has=page.get_by_text("samples", exact=True))
    row.get_by_text("[Show Markdown]").click()
    page.get_by_alt_text("samples").wait_for()


def open_asset_graph(page: "Page", dagster: str) -> None:
    """The whole graph, groups opened, from top to bottom."""
    page.goto(f"{dagster}/asset-groups")
    for words in ("Expand all groups", "Change graph to vertical orientation"):
        page.get_by_text("captioning").last.wait_for()
        size = page.viewport_size or {"width": 0, "height": 0}
        page.mouse.click(size["width"] - 150, size["height"] - 30, button="right")
        page.get_by_role("menuitem", name=words).click()
        page.get_by_text("latent_diffusion").last.wait_for()
    page.get_by_role("button", name="Hide navigation").click()
    page.reload()  # fits the graph into the window
    page.get_by_text("latent_diffusion").last.wait_for()
    page.get_by_role("img", name="zoom_out").click()


# -------------------------------------------------------------------------------------------------------------- MLflow
def open_model(page: "Page", mlflow: str, name: str) -> None:
    """From the list of registered models to the versions of one."""
    news = page.get_by_role("dialog")  # about the registry, on a first visit
    page.add_locator_handler(news, lambda: news.get_by_role("button", name="Close").click())
    page.goto(f"{mlflow}/#/models")
    page.get_by_role("link", name=name, exact=True).click()
    page.get_by_role("link", name="Version 1", exact=True).wait_for()


def open_source_run(page: "Page", name: str, version: str) -> None:
    """From a model's versions to the run that trained one of them."""
    page.get_by_role("link", name=f"Version {version}", exact=True).click()
    page.get_by_text("Source Run").wait_for()
    page.locator(f"a[href*='/runs/']:has-text('{name}')").click()
    page.get_by_text("About this run").wait_for()


# -------------------------------------------------------------------------------------------------- the champion's page
def draw(page: "Page", url: str, prompt: str, *, steps: int | None = None, is_upsampled: bool = False) -> None:
    """Open the page, type a prompt and wait for pictures or for words that say why there are none."""
    page.goto(url)
    page.get_by_label("Prompt", exact=True).fill(prompt)
    if steps:
        page.get_by_role("spinbutton", name="Steps").fill(str(steps))
    page.get_by_label("Upsample the prompt").set_checked(is_upsampled)
    page.get_by_role("button", name="Draw").click()
    page.locator(".drawn img, .drawn .problem").first.wait_for()
