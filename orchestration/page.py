"""``atelier page``: a web page that draws prompts with the champion.

What belongs here: the page's fields, words and HTML. What does not: drawing (``components.pipeline.studio``). No other
host is asked for anything, texts are escaped where they become HTML, and pictures never touch the disk.
"""

import argparse
import base64
import html
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .lake_commands import LakeCommand

log = logging.getLogger(__name__)

NAMES = {"vae": "VAE", "consistency": "two-step decoder"}
CRISP_BELOW = 128  # pixels of a side; smaller pictures are enlarged without blur
MAX_EXAMPLES = 4
MAX_WAITING = 16  # wishes in the queue; who comes later is told so
POLICY = (  # the browser holds the page to what the docstring promises
    "default-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'self'"
)
CSS = """
.drawn .note {color: var(--body-text-color-subdued); margin: 0 0 .6rem}
.drawn .note b {color: var(--body-text-color); font-weight: 600}
.drawn .problem {border-left: 3px solid #c2410c; padding: .4rem .8rem}
.drawn .pictures {display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr))}
.drawn .seed {border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .7rem}
.drawn .pair {display: flex; gap: .7rem}
.drawn figure {flex: 1; margin: 0}
.drawn figure img {border-radius: 4px; display: block; margin: 0 !important; width: 100%}
.drawn img.crisp {image-rendering: pixelated}
.drawn figcaption {color: var(--body-text-color-subdued); font-size: .85em; margin-top: .35rem}
"""


def build_page(studio: Any) -> Any:
    """The page of a studio as Gradio blocks. Raises RuntimeError where Gradio is not installed."""
    gradio = _gradio()
    from components.pipeline.studio import MAX_GUIDANCE, MAX_PICTURES, MAX_PROMPT_LENGTH, MAX_SEED, MAX_STEPS, read_wish

    ws = studio.ws
    usual = ws.recipe.evaluation

    def heading() -> str:
        return heading_html(studio.versions(), studio.alias, ws.dataset.name, ws.recipe.name)

    def draw(prompt: str, seed: int, num: int, steps: int, guidance: float, is_upsampled: bool) -> tuple[str, str]:
        try:
            wish = read_wish(
                prompt=prompt.strip(),
                seed=seed,
                num_pictures=num,
                num_inference_steps=steps,
                guidance_scale=guidance,
                is_upsampled=is_upsampled,
            )
            artist, drawings = studio.draw(wish)
        except (RuntimeError, ValueError, OSError) as error:  # what a user can mend, as in the command line
            log.warning("nothing was drawn: %s", error)
            return problem_html(str(error)), heading()
        return drawings_html(drawings, [str(version) for version in artist.versions.values() if version]), heading()

    with gradio.Blocks(title="Atelier", analytics_enabled=False, fill_width=True) as page:
        shown = gradio.HTML(heading, padding=False)
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                prompt = gradio.Textbox(
                    label="Prompt",
                    placeholder="what to draw",
                    max_lines=6,  # it grows; with one line at first, Enter draws
                    max_length=MAX_PROMPT_LENGTH,
                    autofocus=True,
                )
                button = gradio.Button("Draw", variant="primary")
                is_upsampled = gradio.Checkbox(
                    label="Upsample the prompt", info="Lets the prompt upsampler make it descriptive first."
                )
                with gradio.Row():
                    num = gradio.Slider(1, MAX_PICTURES, value=2, step=1, label="Pictures", min_width=140)
                    seed = gradio.Number(
                        0, label="Seed of the first", precision=0, minimum=0, maximum=MAX_SEED, min_width=140
                    )
                with gradio.Row():
                    steps = gradio.Slider(
                        1, MAX_STEPS, value=usual.num_inference_steps, step=1, label="Steps", min_width=140
                    )
                    guidance = gradio.Slider(
                        1, MAX_GUIDANCE, value=usual.guidance_scale, step=0.5, label="Guidance", min_width=140
                    )
                if examples := example_prompts(ws):
                    gradio.Examples(examples, prompt, label="For example", cache_examples=False)
            with gradio.Column(scale=3, min_width=340):
                drawn = gradio.HTML('<div class="drawn"><p class="note">Pictures appear here.</p></div>', padding=False)
        gradio.on(
            [button.click, prompt.submit],
            draw,
            [prompt, seed, num, steps, guidance, is_upsampled],
            [drawn, shown],
            concurrency_limit=1,
            api_visibility="private",
        )
    return page.queue(max_size=MAX_WAITING)


def serve(page: Any, host: str, port: int) -> None:
    """Serve the page until the process is interrupted. Raises OSError where the port is taken."""
    gradio = _gradio()
    from starlette.middleware import Middleware

    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        show_error=True,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        max_file_size=1,  # nobody uploads anything
        css=CSS,
        theme=gradio.themes.Default(primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        app_kwargs={"middleware": [Middleware(HeldToPolicy)], "docs_url": None, "redoc_url": None},
    )


class HeldToPolicy:
    """ASGI middleware that adds the page's Content-Security-Policy to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def heading_html(versions: Mapping[str, str], alias: str, dataset: str, recipe: str) -> str:
    """Who would draw now, or that nobody can yet."""
    title = f"<h2>Atelier <small>{html.escape(dataset)}, recipe {html.escape(recipe)}</small></h2>"
    if "latent_diffusion" not in versions:
        missing = (
            f"There is no {alias} yet. Materialize latent_diffusion and the evaluation_report, whose gate makes "
            "champions; this page then draws with it at once."
        )
        return f'<div class="drawn">{title}<p class="problem">{html.escape(missing)}</p></div>'
    said = f"{html.escape(alias)} <b>{html.escape(versions['latent_diffusion'])}</b>"
    if "consistency_decoder" in versions:
        said += f", decoded by its VAE and by <b>{html.escape(versions['consistency_decoder'])}</b>"
    else:
        said += f", decoded by its VAE; the two-step decoder has no {html.escape(alias)} yet"
    return f'<div class="drawn">{title}<p class="note">{said}</p></div>'


def drawings_html(drawings: Sequence[Any], drawn_by: Sequence[str]) -> str:
    """The pictures, a card for each seed with its decoders side by side, below what the model read."""
    first = drawings[0]
    notes = [("Upsampled to", first.written)] if first.written != first.prompt else []
    if first.read != first.written:
        notes.append(("Too long, the model read only", first.read))
    elif not notes:
        notes.append(("The model read", first.read))
    notes.append(("Drawn by", ", ".join(drawn_by)))
    said = "".join(f'<p class="note">{words} <b>{html.escape(text)}</b></p>' for words, text in notes)
    cards = []
    for seed in dict.fromkeys(drawing.seed for drawing in drawings):
        pair = "".join(_figure(drawing) for drawing in drawings if drawing.seed == seed)
        cards.append(f'<div class="seed"><div class="pair">{pair}</div></div>')
    return f'<div class="drawn">{said}<div class="pictures">{"".join(cards)}</div></div>'


def problem_html(message: str) -> str:
    """Why nothing was drawn, in the place of the pictures."""
    return f'<div class="drawn"><p class="problem">{html.escape(message)}</p></div>'


def _figure(drawing: Any) -> str:
    uri = f"data:image/png;base64,{base64.b64encode(drawing.png()).decode()}"
    kind = ' class="crisp"' if max(drawing.image.size) < CRISP_BELOW else ""
    words = f"{NAMES[drawing.decoder]}, seed {drawing.seed}"
    image = f'<img{kind} src="{uri}" alt="{html.escape(f"{drawing.prompt} ({words})")}">'
    link = f'<a download="{drawing.name}" href="{uri}" title="save as PNG">{image}</a>'
    return f"<figure>{link}<figcaption>{words}</figcaption></figure>"


def example_prompts(ws: Any) -> list[str]:
    """Some short prompts like those the text-to-image model learned from; none where it has not been trained."""
    record = ws.lake.record("latent_diffusion", "model")
    samples = record.metadata.get("samples", ()) if record else ()
    return sorted((row["prompt"] for row in samples if "prompt" in row), key=len)[:MAX_EXAMPLES]


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    try:
        import gradio
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise RuntimeError('the page needs Gradio: pip install "atelier[page]"') from error
    return gradio


# ------------------------------------------------------------------------------------------------------------- command
def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; this machine alone sees the default")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--alias", default="champion", help="which version draws: champion or candidate")


def _run(ws: Any, parsed: argparse.Namespace) -> int:
    _gradio()
    from components.pipeline.studio import Studio

    studio = Studio(ws, parsed.alias)
    drawn_by = studio.versions().get("latent_diffusion") or f"no {parsed.alias} yet; the page says what to do"
    print(f"Atelier http://{parsed.host}:{parsed.port}\ndraws with {drawn_by}\nCtrl-C ends it", flush=True)
    serve(build_page(studio), parsed.host, parsed.port)
    return 0


PAGE_COMMANDS = (LakeCommand("page", "serve a web page that draws prompts with the champion", _arguments, _run),)
