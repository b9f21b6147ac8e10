"""The endpoint's client against a server of the test's own: requests, repetition, what is kept, the key's secrecy."""

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from components.data.lake import Lake
from components.families.prompt_upsampler.config import EndpointConfig
from components.families.prompt_upsampler.endpoint import EndpointError, EndpointUpsampler
from components.pipeline.judging import load_upsampler
from tests.workspaces import scenes_workspace

KEY = "sk-very-secret-0123"


class Endpoint(ThreadingHTTPServer):
    """Answers chat completions; ``script`` holds (status, headers, body) of the first answers, the rest succeed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.script: list[tuple[int, dict, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append({"path": self.path, **body})
        self.server.headers.append(dict(self.headers))
        said = f"a picture that shows\n {body['messages'][0]['content']}"
        answer = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]})
        status, headers, text = self.server.script.pop(0) if self.server.script else (200, {}, answer)
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_) -> None:
        """The test's output stays quiet."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def upsampler(endpoint: Endpoint, lake: Lake, waits: list[float] | None = None, **changes) -> EndpointUpsampler:
    settings = {"base_url": endpoint.url, "model": "m", "template": "<{prompt}>", "num_parallel": 1}
    config = EndpointConfig(**{**settings, **changes})
    return EndpointUpsampler(config, lake, wait=(waits if waits is not None else []).append)


def test_each_prompt_is_asked_once_and_a_rerun_asks_nothing(endpoint, lake):
    written = upsampler(endpoint, lake, num_parallel=3)(["star", "circle {x}", "star"])
    assert written == [f"a picture that shows <{prompt}>" for prompt in ("star", "circle {x}", "star")]
    assert sorted(request["messages"][0]["content"] for request in endpoint.requests) == ["<circle {x}>", "<star>"]
    assert {(request["path"], request["model"]) for request in endpoint.requests} == {("/v1/chat/completions", "m")}
    assert upsampler(endpoint, lake)(["circle {x}", "star"]) == written[1:]
    assert len(endpoint.requests) == 2
    upsampler(endpoint, lake, model="another")(["star"])
    assert len(endpoint.requests) == 3


def test_passing_failures_are_tried_again_with_growing_pauses(endpoint, lake):
    endpoint.script = [(503, {}, "busy"), (429, {"Retry-After": "7"}, "slow down"), (500, {}, "")]
    waits: list[float] = []
    assert upsampler(endpoint, lake, waits)(["star"]) == ["a picture that shows <star>"]
    assert waits == [1.0, 7.0, 14.0]


def test_a_failure_that_stays_is_named_and_keeps_what_is_done(endpoint, lake):
    ask = upsampler(endpoint, lake, num_retries=1)
    ask(["star"])
    endpoint.script = [(503, {}, "busy")] * 2
    with pytest.raises(EndpointError, match=r"did not rewrite 'circle' in 2 attempts \(status 503: busy\)"):
        ask(["star", "circle"])
    endpoint.script = [(404, {}, "no such model")]
    with pytest.raises(EndpointError, match=r"refused to rewrite 'circle' \(status 404: no such model\)"):
        ask(["star", "circle"])
    assert len(endpoint.requests) == 4


def test_a_timeout_and_a_closed_port_are_tried_again(lake):
    nowhere = EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m", num_retries=2, timeout_seconds=0.5)
    waits: list[float] = []
    with pytest.raises(EndpointError, match=r"in 3 attempts \(ConnectError"):
        EndpointUpsampler(nowhere, lake, wait=waits.append)(["star"])
    assert waits == [1.0, 2.0]


@pytest.mark.parametrize("body", ['{"choices": []}', "no json", '{"choices": [{"message": {"content": null}}]}'])
def test_an_answer_of_another_form_is_named(endpoint, lake, body):
    endpoint.script = [(200, {}, body)]
    with pytest.raises(EndpointError, match="another form than OpenAI's chat completions"):
        upsampler(endpoint, lake)(["star"])


def test_the_key_comes_from_the_environment_and_stands_nowhere(endpoint, lake, monkeypatch, caplog):
    ask = upsampler(endpoint, lake, key_variable="UPSAMPLER_KEY", num_retries=1)
    monkeypatch.delenv("UPSAMPLER_KEY", raising=False)
    with pytest.raises(EndpointError, match="the environment variable UPSAMPLER_KEY is not set"):
        ask(["star"])
    monkeypatch.setenv("UPSAMPLER_KEY", KEY)
    endpoint.script = [(503, {}, f"try again, {KEY}"), (401, {}, f"Incorrect API key provided: {KEY}")]
    with caplog.at_level(logging.DEBUG), pytest.raises(EndpointError, match=r"provided: \[key\]") as failed:
        ask(["star"])
    ask(["star"])
    assert endpoint.headers[0]["Authorization"] == f"Bearer {KEY}"
    kept = b"".join(path.read_bytes() for path in Path(lake.root).rglob("*") if path.is_file())
    shown = [str(failed.value), caplog.text, ask.config.model_dump_json(), repr(ask.config), kept.decode()]
    assert not [text for text in shown if KEY in text]


def test_an_endpoint_without_a_key_gets_none(endpoint, lake):
    upsampler(endpoint, lake)(["star"])
    assert "Authorization" not in endpoint.headers[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_url": "https://user:secret@host/v1"}, "without user, password and query"),
        ({"base_url": "host:8000"}, "give an http"),
        ({"template": "Rewrite this."}, "must hold {prompt}"),
        ({"key_variable": KEY}, "key_variable"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes, words):
    with pytest.raises(ValidationError, match=words):
        EndpointConfig(**{"base_url": "http://host/v1", "model": "m", **changes})


def test_a_recipe_with_an_endpoint_uses_it_in_the_t5s_place(endpoint, tmp_path):
    settings = EndpointConfig(base_url=endpoint.url, model="m", template="{prompt}").model_dump_json()
    ws = scenes_workspace(tmp_path, {"upsampler_endpoint": settings})
    rewrite = load_upsampler(ws)
    assert rewrite is not None
    assert rewrite(["large red circle"]) == ["a picture that shows large red circle"]
