"""Prompts rewritten by a language model behind an OpenAI-compatible endpoint, each one once.

What belongs here: one request, its repetition after a passing failure, and the answers that are kept. What does not:
the T5 of our own (``sample``) and which of the two a run uses (``components.pipeline.judging``).

The key is read from the environment when it is needed and stands in no log, record or message.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from components.data.lake import Lake, digest_of

from .config import EndpointConfig

log = logging.getLogger(__name__)
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})  # statuses after which the same request may succeed
MAX_WAIT_SECONDS = 60.0
PLACE = "upsampled_prompts"


class EndpointError(RuntimeError):
    """The endpoint did not rewrite a prompt; the message says what it answered and what to do."""


class EndpointUpsampler:
    """Rewrites prompts; an answer is kept in the lake by settings and prompt, so that a rerun asks for nothing.

    ``wait`` is called with the seconds between two attempts.
    """

    def __init__(self, config: EndpointConfig, lake: Lake, wait: Callable[[float], None] = time.sleep) -> None:
        self.config, self.lake, self.wait = config, lake, wait
        self.place = f"{PLACE}/{digest_of(config.identity())}"

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """A descriptive prompt for each prompt, in order. Raises :class:`EndpointError`."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if not self.lake.exists(self._path(prompt))]
        if missing:
            log.info("%s rewrites %d of %d prompts", self.config.model, len(missing), len(set(prompts)))
            key = self._key()
            with (
                httpx.Client(timeout=self.config.timeout_seconds) as client,
                ThreadPoolExecutor(self.config.num_parallel) as pool,
            ):
                answers = pool.map(lambda prompt: self._ask(client, prompt, key), missing)
                for prompt, text in zip(missing, answers, strict=True):
                    self.lake.write_json(self._path(prompt), {"prompt": prompt, "text": text})
        return [self.lake.read_json(self._path(prompt))["text"] for prompt in prompts]

    def _path(self, prompt: str) -> str:
        return f"{self.place}/{hashlib.sha256(prompt.encode()).hexdigest()}.json"

    def _key(self) -> str | None:
        name = self.config.key_variable
        if name and not os.environ.get(name):
            raise EndpointError(
                f"the environment variable {name} is not set: it holds the key of {self.config.base_url}; set it, or "
                "set upsampler_endpoint.key_variable to null for an endpoint without keys"
            )
        return os.environ[name] if name else None

    def _ask(self, client: httpx.Client, prompt: str, key: str | None) -> str:
        config = self.config
        body = {
            "model": config.model,
            "messages": [{"role": "user", "content": config.template.replace("{prompt}", prompt)}],
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": config.seed,
        }
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        failure, pause = "", config.first_wait_seconds
        for attempt in range(1 + config.num_retries):
            if attempt:
                log.info("attempt %d after %s", attempt + 1, failure)
                self.wait(min(pause, MAX_WAIT_SECONDS))
                pause *= 2
            try:
                answer = client.post(f"{config.base_url}/chat/completions", json=body, headers=headers)
            except httpx.TransportError as error:
                failure = self._without_key(f"{type(error).__name__}: {error}", key)
                continue
            if answer.is_success:
                return self._text_of(answer, prompt)
            failure = self._without_key(f"status {answer.status_code}: {answer.text[:200]}", key)
            if answer.status_code not in PASSING:
                raise EndpointError(
                    f"{config.base_url} refused to rewrite {prompt!r} ({failure}); check model, key and template"
                )
            pause = max(pause, _seconds_asked(answer))
        raise EndpointError(
            f"{config.base_url} did not rewrite {prompt!r} in {1 + config.num_retries} attempts ({failure}); what is "
            "rewritten already is kept, so run the same again later"
        )

    def _text_of(self, answer: httpx.Response, prompt: str) -> str:
        try:
            content: Any = answer.json()["choices"][0]["message"]["content"]
            text = " ".join(content.split())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise EndpointError(
                f"{self.config.base_url} answered in another form than OpenAI's chat completions: {answer.text[:200]}"
            ) from error
        if not text:
            raise EndpointError(f"{self.config.base_url} answered {prompt!r} with nothing; check the template")
        return text

    @staticmethod
    def _without_key(message: str, key: str | None) -> str:
        """A message in which an answer does not give the key away."""
        return message.replace(key, "[key]") if key else message


def _seconds_asked(answer: httpx.Response) -> float:
    """What the endpoint says to wait; 0 where it says nothing that is a number."""
    try:
        return float(answer.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
