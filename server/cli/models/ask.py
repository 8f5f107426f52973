"""Asking a provider for its list of models, with the account of the config.

Whatever goes wrong is one sentence that begins after the provider's name. Nothing that an upstream
says is repeated, so no key can come back in it.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from server.config.provider import Provider
from server.config.providers_table import AUTH_HEADERS, ROWS, account
from server.dialects import models

CONNECT: Final = 5.0
#: Bytes of one answer, and answers of one list.
MOST_BYTES: Final = 32 * 2**20
MOST_PAGES: Final = 50
#: Models of one list: the router of Hugging Face and OpenRouter have some hundreds. Every command
#: and the server read the overlay, and would be slow with more.
MOST_MODELS: Final = 10_000
#: What another key of the account may get past.
_REFUSED: Final = frozenset({401, 403, 429})


class NoAnswer(Exception):
    """The provider gives no list of models: the rest of the sentence after its name."""


class _KeyRefused(NoAnswer):
    """Another of its keys may have better luck."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where a provider's list is, and how to ask for it. `others`: what stands in place of some of
    the headers for each further key."""

    name: str
    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    others: tuple[Mapping[str, str], ...] = field(default=(), repr=False)
    proxy: str | None = field(default=None, repr=False)
    ca: str | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    connect: float = CONNECT
    like: str = ""

    @property
    def key_hint(self) -> str:
        """Where its key comes from."""
        row = ROWS.get(self.like or self.name)
        variable = f"{row.variables[0]}, or at " if row and row.variables else ""
        return f"Look at {variable}`providers.{self.name}.api_key` in the config."


def account_of(name: str, provider: Provider, folder: Path | None = None) -> Account:
    """Of a provider of a config that has passed its checks; `folder`: the config's."""
    known = account(name, provider, folder)
    place = models.place(known.dialect, known.base_url, known.settings)
    keys = [{**key.headers, **known.headers} for key in known.credentials]
    secrets = [*(key.get_secret_value() for key in provider.keys), *keys[0].values()]
    return Account(
        name,
        place.url,
        place.params,
        # What the config says for itself, a version of Anthropic's too, wins.
        {"accept": "application/json", **place.headers, **keys[0]},
        tuple(keys[1:]),
        known.proxy,
        known.ca,
        tuple(secret for secret in secrets if len(secret) >= 8),
        provider.timeouts.connect or CONNECT,
        known.like,
    )


def ask(place: Account, timeout: float) -> list[Any]:
    """All entries of its list, over all pages, within `timeout` seconds; with the next key of the
    account where one is refused. Raises NoAnswer."""
    deadline = time.monotonic() + timeout
    keys = [place.headers, *({**place.headers, **other} for other in place.others)]
    for headers in keys[:-1]:
        try:
            return _read(place, headers, timeout, deadline)
        except _KeyRefused:
            continue
    return _read(place, keys[-1], timeout, deadline)


def _read(place: Account, headers: Mapping[str, str], timeout: float, deadline: float) -> list[Any]:
    found: list[Any] = []
    params = dict(place.params)
    with httpx.Client(
        headers=headers,
        proxy=place.proxy,
        timeout=httpx.Timeout(timeout, connect=min(timeout, place.connect)),
        verify=ssl.create_default_context(cafile=place.ca),
        trust_env=False,  # as the server: the config says which proxy, and nothing else does
    ) as client:
        for _ in range(MOST_PAGES):
            answer = _decoded(place, _get(client, place, params, timeout, deadline))
            try:
                found += models.entries(answer)
            except models.NoList:
                raise NoAnswer(f"answers JSON that is no list of models ({place.url}).") from None
            if len(found) > MOST_MODELS:
                raise NoAnswer(f"lists more than {MOST_MODELS:,} models ({place.url}).")
            more = models.next_page(answer)
            if more is None or more.items() <= params.items():
                return found
            params |= more
    raise NoAnswer(f"does not come to the end of its list: {MOST_PAGES} pages were read.")


def _get(
    client: httpx.Client, place: Account, params: dict[str, str], timeout: float, deadline: float
) -> bytes:
    late = NoAnswer(f"does not answer within {timeout:g} s ({place.url}).")
    try:
        with client.stream("GET", place.url, params=params) as response:
            if response.status_code != 200:
                refused = _KeyRefused if response.status_code in _REFUSED else NoAnswer
                raise refused(_refused(place, response.status_code))
            read = bytearray()
            for chunk in response.iter_bytes():
                read += chunk
                # httpx waits so long for each piece; one that drips would hold us for ever.
                if time.monotonic() > deadline:
                    raise late
                if len(read) > MOST_BYTES:
                    raise NoAnswer(f"answers more than {MOST_BYTES >> 20} MiB ({place.url}).")
            return bytes(read)
    except httpx.TimeoutException:
        raise late from None
    except httpx.ProxyError:
        raise NoAnswer(
            f"cannot be reached: the proxy of `providers.{place.name}` refuses."
        ) from None
    except httpx.ConnectError as error:
        if "certificate" in str(error).lower() or "ssl" in str(error).lower():
            raise NoAnswer(f"has no certificate that can be trusted ({place.url}).") from None
        raise NoAnswer(f"cannot be reached at {place.url}.") from None
    except (httpx.HTTPError, httpx.InvalidURL):
        raise NoAnswer(f"broke the connection in the middle of its answer ({place.url}).") from None


def _refused(place: Account, status: int) -> str:
    if status in (401, 403):
        sent = not AUTH_HEADERS.isdisjoint(place.headers)
        refuses = "refuses the key" if sent else "wants a key"
        return f"{refuses} (HTTP {status}). {place.key_hint}"
    if status == 429:
        return "has had too many requests (HTTP 429). Try again in a while."
    if status in (404, 405):
        return f"has no list of models at {place.url} (HTTP {status}). Is its base_url right?"
    if 300 <= status < 400:
        return (
            f"sends elsewhere (HTTP {status}), where no key is taken to. "
            f"Set `providers.{place.name}.base_url` to the address it has now."
        )
    return f"answers HTTP {status} ({place.url})."


def _decoded(place: Account, body: bytes) -> Any:
    text = body.decode("utf-8", errors="replace")
    for secret in place.secrets:
        text = text.replace(secret, "…")  # an upstream that echoes it must not get it printed
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # also a number of thousands of digits
        page = text.lstrip()[:200].lower().startswith(("<!doctype", "<html", "<head", "<?xml"))
        what = "a web page" if page else "something that is no JSON"
        raise NoAnswer(
            f"answers {what}, not a list of models ({place.url}). Is its base_url right?"
        ) from None
