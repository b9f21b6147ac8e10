"""deploy/proxy: Caddy reads the file, and asks for a password before every UI, or for single sign-on."""

import base64
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.deploy.files import CADDYFILE, COMPOSE, filled
from tests.servers import free_ports

CADDY = str(Path(sys.executable).parent / "caddy")
SIGNED_IN = CADDYFILE.replace("import guarded", "import signed_in")
UIS = {"3443": "dagster-webserver:3000", "5443": "mlflow:5000", "8443": "ray-head:8265"}
Answer = Callable[[BaseHTTPRequestHandler], tuple[int, str]]


@dataclass(frozen=True)
class Proxied:
    """A running Caddy before servers that write down what reaches them."""

    ports: dict[str, int]
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def get(self, ui: str, path: str = "/", **headers: str) -> tuple[int, str]:
        """Status of an answer, and its body or where it leads; no redirect is followed."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[ui]}{path}", headers=headers)
        try:
            with urllib.request.build_opener(Unmoved).open(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Location") or error.read().decode()


class Unmoved(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None: ...


@contextmanager
def proxied(caddyfile: str, folder: Path, environment: dict[str, str], **others: Answer) -> Iterator[Proxied]:
    """Caddy on a deployment's file, with its names replaced by addresses here and without TLS."""
    here = Proxied(dict(zip(UIS, free_ports(len(UIS)), strict=True)))
    caddyfile = "{\n\tadmin off\n}\n" + caddyfile.replace("\ttls internal\n", "")
    for port, free in here.ports.items():
        caddyfile = caddyfile.replace(f"https://{{$PROXY_HOST:localhost}}:{port}", f"http://127.0.0.1:{free}")
    answers = {name: (lambda _, name=name: (200, name)) for name in UIS.values()} | others
    with ExitStack() as stack:
        for name, answer in answers.items():
            port = stack.enter_context(served(name, answer, here.seen))
            caddyfile = re.sub(rf"(?<!Host ){re.escape(name)}(?= \{{|\n)", f"127.0.0.1:{port}", caddyfile)
        file = folder / "Caddyfile"
        file.write_text(caddyfile)
        with (folder / "log").open("w") as log:
            command = [CADDY, "run", "--config", str(file), "--adapter", "caddyfile"]
            own = {**os.environ, **environment, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
            process = subprocess.Popen(command, env=own, stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        deadline = time.monotonic() + 120
        while not all(map(is_open, here.ports.values())):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield here


def is_open(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def served(name: str, answer: Answer, seen: list) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((name, self.path, dict(self.headers)))
            status, text = answer(self)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("caddyfile", [CADDYFILE, SIGNED_IN], ids=["password", "single sign-on"])
def test_caddy_reads_it(caddyfile, tmp_path):
    (tmp_path / "Caddyfile").write_text(caddyfile)
    command = [CADDY, "validate", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
    own = {**os.environ, "PROXY_USER": "", "PROXY_PASSWORD_HASH": "", "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(UIS) == {port.split(":")[0] for port in COMPOSE["services"]["proxy"]["ports"]}


def test_a_password_is_asked_before_every_ui(tmp_path):
    command = [CADDY, "hash-password", "--bcrypt-cost", "4", "--plaintext", "secret"]
    hashed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    known = f"Basic {base64.b64encode(b'me:secret').decode()}"
    with proxied(CADDYFILE, tmp_path, {"PROXY_USER": "me", "PROXY_PASSWORD_HASH": hashed}) as proxy:
        for port, ui in UIS.items():
            assert proxy.get(port)[0] == 401
            assert proxy.get(port, Authorization=known) == (200, ui)
    asked = {name: headers for name, _, headers in proxy.seen}
    assert asked["mlflow:5000"]["Host"] == "mlflow:5000"
    assert not any("Authorization" in asked[name] for name in ("mlflow:5000", "ray-head:8265"))


def test_nobody_enters_where_no_password_was_set(tmp_path):
    with proxied(CADDYFILE, tmp_path, {"PROXY_USER": "", "PROXY_PASSWORD_HASH": ""}) as proxy:
        assert proxy.get("3443", Authorization=f"Basic {base64.b64encode(b':').decode()}")[0] == 401
    assert proxy.seen == []


def test_single_sign_on_is_asked_about_every_request_and_shows_its_own_pages(tmp_path):
    def sign_on(request: BaseHTTPRequestHandler) -> tuple[int, str]:
        if request.path != "/oauth2/auth":
            return 200, "who are you?"
        return (202, "") if request.headers.get("Cookie") == "session=known" else (401, "")

    with proxied(SIGNED_IN, tmp_path, {}, **{"oauth2-proxy:4180": sign_on}) as proxy:
        for port, ui in UIS.items():
            assert proxy.get(port, "/runs") == (302, "/oauth2/start?rd=/runs")
            assert proxy.get(port, "/oauth2/start") == (200, "who are you?")
            assert proxy.get(port, "/runs", Cookie="session=known") == (200, ui)
    assert [path for name, path, _ in proxy.seen if name in UIS.values()] == ["/runs"] * 3


def test_mlflow_lets_the_browser_behind_it_change_things():
    from mlflow.server.security_utils import is_allowed_host_header, should_block_cors_request

    environment = COMPOSE["services"]["mlflow"]["environment"]
    origins = filled(environment["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"], {"PROXY_HOST": "atelier.example.org"})
    hosts = environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    (port,) = [port for port, ui in UIS.items() if ui == "mlflow:5000"]
    assert not should_block_cors_request(f"https://atelier.example.org:{port}", "POST", origins.split(","))
    assert should_block_cors_request("https://elsewhere.example.org", "POST", origins.split(","))
    for name in ("mlflow:5000", "127.0.0.1:5000", "localhost:5000"):
        assert is_allowed_host_header(hosts, name)
    assert not is_allowed_host_header(hosts, "elsewhere.example.org")
