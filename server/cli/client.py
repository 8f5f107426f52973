"""HTTP to a running server, for the commands that ask one. Faults come as one helpful paragraph."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx

from server.config import load
from server.config.listeners import is_loopback, split
from server.config.resolve import ResolvedModel, resolve_models
from server.errors import StartError

PUBLIC: Final = "http://127.0.0.1:8000"
ADMIN: Final = "http://127.0.0.1:8001"
_CONNECT: Final = 3.0


class ClientError(StartError):
    """A command that asks a server cannot go on."""

    code = "client_error"


class NotRunning(ClientError):
    """Nothing answers at the address."""


class AdminOff(ClientError):
    """The config here has no admin listener."""


class Refused(ClientError):
    """The server said no, with `status` and the error's code, `why`."""

    def __init__(self, message: str, *, status: int, why: str) -> None:
        super().__init__(message)
        self.status, self.why = status, why


@dataclass(frozen=True, slots=True)
class Here:
    """What the config of this folder says of the server that would run from it."""

    public: str = PUBLIC
    admin: str | None = ADMIN
    key: str | None = None
    admin_key: str | None = None
    models: dict[str, ResolvedModel] | None = None
    home: Path | None = None


def here() -> Here:
    """From ROUNDHOUSE_CONFIG or ./roundhouse.yaml, with the environment; defaults when there is
    none, or none that is valid: a client must not fail over that."""
    try:
        found = load.find(os.environ, Path())
        loaded = load.load_quickstart() if found is None else load.load(found)
    except (StartError, OSError):
        return Here()
    server = loaded.config.server
    secrets = [key.key.get_secret_value() for key in server.keys if "*" in key.models]
    usable = [secret for secret in secrets if not secret.startswith("sha256:")]
    admin = None
    if server.admin is not None:
        admin = _url(*split(server.admin))
    return Here(
        _url(server.host, server.port),
        admin,
        usable[0] if usable else None,
        server.admin_key.get_secret_value() if server.admin_key else None,
        resolve_models(loaded.config, loaded.catalog) if found is not None else None,
        loaded.home,
    )


def _url(host: str, port: int) -> str:
    if host in ("", "0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def normal(url: str) -> str:
    """`URL`, with or without `/v1`, to the form without. Raises ClientError."""
    bare = url.strip()
    if "://" not in bare:
        bare = f"http://{bare}"
    bare = bare.rstrip("/").removesuffix("/v1")
    try:
        parts = urlsplit(bare)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ClientError(f"{url!r} is no URL. Write it like {PUBLIC}.")
    return bare


def segment(name: str) -> str:
    """A name as one part of a path, also one of dots alone, which would mean another path."""
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")


class Client:
    """One server's public or admin API.

    `key_hint` says how to give a key when the server wants one. Use as a context manager.
    """

    def __init__(self, url: str, key: str | None, *, key_hint: str, start_hint: str) -> None:
        self.url = normal(url)
        self._key_hint, self._start_hint = key_hint, start_hint
        key = key.strip() if key else None
        if key and not (key.isascii() and key.isprintable()):
            raise ClientError("The key holds a sign that cannot stand in a header.")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        # A proxy of the environment would be asked for 127.0.0.1, too.
        parts = urlsplit(self.url)
        beyond = not is_loopback(parts.hostname or "")
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(30, connect=_CONNECT),
            trust_env=beyond,
            # To read all authorities takes longer than most commands.
            verify=beyond or parts.scheme != "http" or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        """The answer's JSON. Raises ClientError."""
        return self._json("GET", path)

    def post(self, path: str, body: bytes = b"", *, patient: bool = False) -> Any:
        """The answer's JSON; `body` is JSON, too. Raises ClientError."""
        return self._json("POST", path, body, patient=patient)

    def put(self, path: str, body: bytes) -> Any:
        """Like `post`."""
        return self._json("PUT", path, body)

    def delete(self, path: str, *, patient: bool = False) -> Any:
        """The answer's JSON. `patient`: it takes as long as it takes. Raises ClientError."""
        return self._json("DELETE", path, patient=patient)

    def _json(self, method: str, path: str, body: bytes = b"", *, patient: bool = False) -> Any:
        headers = {"content-type": "application/json"} if body else None
        timeout = httpx.Timeout(None, connect=_CONNECT) if patient else self._http.timeout
        with self._faults():
            response = self._http.request(
                method, path, content=body or None, headers=headers, timeout=timeout
            )
        return self._checked(response)

    @contextmanager
    def lines(self, path: str) -> Iterator[Iterator[bytes]]:
        """GET, and the bytes of the answer as they come, for as long as they come. Raises
        ClientError."""
        timeout = httpx.Timeout(None, connect=_CONNECT)
        with self._faults(), self._http.stream("GET", path, timeout=timeout) as response:
            if response.status_code != 200:
                response.read()
                self._checked(response)
            yield response.iter_bytes()

    @contextmanager
    def stream(self, path: str, body: dict[str, Any]) -> Iterator[Iterator[bytes]]:
        """POST, and the bytes of a streamed answer as they come. Raises ClientError."""
        # The first token may be minutes away while an engine loads; Ctrl-C ends the wait.
        timeout = httpx.Timeout(None, connect=_CONNECT)
        with (
            self._faults(),
            self._http.stream("POST", path, json=body, timeout=timeout) as response,
        ):
            if response.status_code != 200:
                response.read()
                self._checked(response)
            yield response.iter_bytes()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise NotRunning(f"No server answers at {self.url}. {self._start_hint}") from None
        except httpx.TimeoutException:
            raise ClientError(f"The server at {self.url} does not answer in time.") from None
        except httpx.HTTPError:
            raise ClientError(f"The connection to {self.url} broke.") from None

    def _checked(self, response: httpx.Response) -> Any:
        try:
            answer = response.json()
        except ValueError:
            raise ClientError(
                f"What answers at {self.url} is no Roundhouse server "
                f"(HTTP {response.status_code}, not JSON). {self._start_hint}"
            ) from None
        if response.is_success:
            return answer
        said = error_text(answer) or f"The server answered HTTP {response.status_code}."
        if response.status_code == 401:
            said += f" {self._key_hint}"
        raise Refused(said, status=response.status_code, why=_code(answer))


def _code(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("code")) if isinstance(error, dict) else ""


def error_text(answer: Any) -> str | None:
    """The message of an OpenAI-shaped error object."""
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return printable(message) if isinstance(message, str) and message else None


def printable(text: str) -> str:
    """Without control characters, which could draw on the terminal; line ends and tabs stay."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


_START: Final = (
    "Start one with `roundhouse serve`, or say where it is: --base-url or ROUNDHOUSE_BASE_URL."
)


def public(base_url: str | None, api_key: str | None) -> Client:
    """The public API: what was given, else what the config here says."""
    found = here()
    # A key of the config here is for the server of the config here, and for no other.
    key = api_key or (found.key if base_url is None else None)
    return Client(
        base_url or found.public,
        key,
        key_hint="Give the key with ROUNDHOUSE_API_KEY=… or --api-key.",
        start_hint=_START,
    )


def anybody(base_url: str | None) -> Client:
    """The public API as who has no key sees it."""
    return Client(base_url or here().public, None, key_hint="", start_hint=_START)


def admin(admin_url: str | None, admin_key: str | None) -> Client:
    """The admin API: what was given, else what the config here says."""
    found = here()
    url = admin_url or found.admin
    if url is None:
        raise AdminOff(
            "The config here switches the admin API off (server.admin: null). "
            "Give it an address, or say where it is: --admin-url or ROUNDHOUSE_ADMIN_URL."
        )
    key = admin_key or (found.admin_key if admin_url is None else None)
    return Client(
        url,
        key,
        key_hint="Give the admin key with ROUNDHOUSE_ADMIN_KEY=… or --admin-key.",
        start_hint="Start one with `roundhouse serve`, or say where its admin API is: --admin-url "
        "or ROUNDHOUSE_ADMIN_URL.",
    )
