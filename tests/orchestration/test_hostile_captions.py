"""Captions from outside are shown as text wherever people read them: Dagster's Markdown and the report's HTML."""

import html
import re
from html.parser import HTMLParser

import dagster as dg
import numpy as np
import pytest
from markdown_it import MarkdownIt

from components.data.lake import Record
from components.evaluation.figures import Report
from components.evaluation.report import CaptionExample, Examples, Gallery, render_html
from components.pipeline.workspace import Outcome
from orchestration.present import escaped, metadata_of
from tests.workspaces import scenes_workspace

HOSTILE = [
    "<script>alert(1)</script>",
    "</td></tr></table><img src=x onerror=alert(1)>",
    "[click](javascript:alert(1)) and ![x](http://evil.example/x.png)",
    "<http://evil.example> http://evil.example www.evil.example me@evil.example",
    "`code` ``more`` ~~struck~~ **bold** _it_ # title",
    "a | b || c \\| d",
    "first\n\n| new | table |\n|---|---|\n- list\n> quote",
    'it\'s "quoted" & &lt;escaped&gt; &#60;b&#62;',
    "\\[x\\](y) \\<b> $x$ {{ 7 * 7 }} {% raw %}",
    "[ref]: http://evil.example\n<!-- --> <![CDATA[x]]>",
]
JOINER = "\u2060"
# As the extension of Dagster's Markdown renderer looks for links in finished text (GitHub Flavored Markdown, 6.9).
LINKS = (re.compile(r"(https?://|www(?=\.))[-.\w]+", re.IGNORECASE), re.compile(r"[-.\w+]+@[-\w]+(?:\.[-\w]+)+"))


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of table cells."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def rendered(markdown: str) -> Tags:
    return Tags(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Tags:
    """The samples of a model with hostile captions, as the metadata of its materialization."""
    ws = scenes_workspace(tmp_path_factory.mktemp("hostile"), {})
    record = Record(
        asset="dsc_captioner",
        kind="model",
        dataset="scenes",
        recipe="smoke",
        fingerprint="f",
        data_version="v",
        path="",
        metadata={"samples": [{"key": text, "caption": text} for text in HOSTILE]},
    )
    value = metadata_of(ws, Outcome(record, is_reused=False))["samples_table"]
    assert isinstance(value, dg.MarkdownMetadataValue)
    assert value.md_str is not None
    return rendered(value.md_str)


def test_markdown_shows_each_caption_as_it_is_in_its_own_cell(shown: Tags) -> None:
    assert {tag for tag, _ in shown.tags} == {"table", "thead", "tbody", "tr", "th", "td"}
    plain = [" ".join(text.split()) for text in HOSTILE]
    cells = [cell.replace(JOINER, "").strip() for cell in shown.cells]
    assert cells == [text for text in plain for _ in range(2)]


def test_markdown_makes_no_links_of_addresses(shown: Tags) -> None:
    for cell in shown.cells:
        assert not [found for pattern in LINKS if (found := pattern.search(cell))]
    assert LINKS[0].search(HOSTILE[3])
    assert LINKS[1].search(HOSTILE[3])


def test_text_outside_a_table_is_escaped_too() -> None:
    for text in HOSTILE:
        assert {tag for tag, _ in rendered(escaped(text)).tags} == {"p"}
    assert rendered("| x |\n|---|\n| **b** [l](http://x) |").tags != rendered("| x |\n|---|\n| b |").tags


def test_the_report_shows_hostile_captions_as_text() -> None:
    pixels = np.zeros((len(HOSTILE), 4, 4, 3), np.uint8)
    gallery = Gallery(HOSTILE[0], HOSTILE, {HOSTILE[1]: pixels})
    page = render_html(
        Report(dataset=HOSTILE[0], recipe=HOSTILE[2], atelier_version="1", seed=0, verdict=tuple(HOSTILE)),
        Examples(
            captions=[CaptionExample(pixels[0], dict.fromkeys(("raw", "ssc", "dsc"), text)) for text in HOSTILE],
            generation=[gallery],
            decoder=gallery,
            disagreements=gallery,
        ),
    )
    harmless = Tags(render_html(Report(dataset="d", recipe="r", atelier_version="1", seed=0), Examples()))
    assert harmless.tags
    found = Tags(page)
    assert not {"script", "iframe", "object", "embed", "form", "base", "link"} & {tag for tag, _ in found.tags}
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
        assert tag != "img" or str(attributes["src"]).startswith("data:image/png;base64,")
    for text in HOSTILE:
        assert html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
