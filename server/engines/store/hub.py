"""The hub, over huggingface_hub: what a repository has, its bytes, and why it says no.

huggingface_hub is imported when the first question is asked: it costs a fifth of a second, and most
commands ask none.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from server.engines.store.choice import Remote
from server.engines.store.errors import Broken, StoreError
from server.engines.store.lines import Lines
from server.engines.store.places import COMMIT

if TYPE_CHECKING:
    import httpx2

DEFAULT = "https://huggingface.co"
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def offline(environ: Mapping[str, str]) -> str | None:
    """The variable that forbids to ask the hub, if one does."""
    return next((name for name in _OFFLINE if _is_on(environ.get(name))), None)


@contextlib.contextmanager
def visit() -> Iterator[None]:
    """While the hub is asked. The library keeps one session for the whole process, whose idle
    connections nobody would close: the last who leaves does."""
    global _visitors
    with _door:
        _visitors += 1
    try:
        yield
    finally:
        with _door:
            _visitors -= 1
            if not _visitors and "huggingface_hub" in sys.modules:
                sys.modules["huggingface_hub"].close_session()


_door = threading.Lock()
_visitors = 0


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit."""

    repo: str
    commit: str
    files: tuple[Remote, ...]
    licence: str | None = None
    gated: bool = False


@dataclass(frozen=True, slots=True)
class Hub:
    """`connect` bounds the questions, `stall` the silence within a transfer; in seconds. `token`
    None: that of this process, or of `hf auth login`."""

    endpoint: str = DEFAULT
    connect: float = 10.0
    stall: float = 30.0
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ, **limits: float) -> Hub:
        """The hub that HF_ENDPOINT names, else the public one."""
        endpoint = environ.get("HF_ENDPOINT") or DEFAULT
        token = next((environ[name] for name in _TOKENS if environ.get(name)), None)
        return cls(endpoint=endpoint.rstrip("/"), environ=environ, token=token, **limits)

    def look(self, repo: str, revision: str) -> Repository:
        """What the repository has at a branch, tag or commit. Raises StoreError."""
        from huggingface_hub import HfApi

        self._online(repo)
        _quiet()
        api = HfApi(endpoint=self.endpoint, token=self.token, user_agent="roundhouse")
        with self._told(repo, revision):
            info = api.model_info(
                repo, revision=revision, files_metadata=True, timeout=self.connect
            )
        commit = str(info.sha)
        if not COMMIT.fullmatch(commit):
            raise StoreError(f"{self.endpoint} names no commit of {repo}.", reason="hub")
        files = tuple(_remote(one) for one in info.siblings or ())
        found = Repository(repo, commit, files, _licence(info), bool(info.gated))
        if found.gated:
            # Anybody may see what a gated repository has. That its bytes are to be had is another
            # question, and better asked before than after gigabytes of others.
            self._may_read(repo, revision)
        return found

    def _may_read(self, repo: str, revision: str) -> None:
        from huggingface_hub.errors import HfHubHTTPError

        with self._told(repo, revision):
            try:
                self._get(f"/api/models/{quote(repo)}/auth-check")
            except HfHubHTTPError as error:
                # Mirrors may not know the question; the files themselves then tell.
                if error.response.status_code in (401, 403):
                    page = f"{self.endpoint}/{repo}"
                    raise StoreError(self._gated(page), reason="gated") from None

    @contextlib.contextmanager
    def open(
        self,
        repo: str,
        commit: str,
        lines: Lines,
        path: str,
        start: int,
        end: int | None,
    ) -> Iterator[tuple[bool, Iterator[bytes]]]:
        """A file's bytes from `start` to before `end` (None: to its end), and whether they are
        these: else all of it comes. Raises Broken, or StoreError; once `lines` are cut, at once."""
        import httpx2
        from huggingface_hub import get_session, hf_raise_for_status
        from huggingface_hub.errors import HfHubHTTPError

        headers = self._headers() | {"accept-encoding": "identity"}
        if start or end is not None:
            headers["range"] = f"bytes={start}-{'' if end is None else end - 1}"
        url = f"{self.endpoint}/{quote(repo)}/resolve/{commit}/{quote(path)}"
        limits = httpx2.Timeout(self.stall, connect=self.connect)
        try:
            with get_session().stream("GET", url, headers=headers, timeout=limits) as response:
                hf_raise_for_status(response)
                with lines.holding(response):
                    yield response.status_code == 206, response.iter_raw()
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in (408, 429) or status >= 500:
                raise Broken(f"status {status}", wait=_wait(error.response)) from None
            raise self._refused(repo, commit, error.response) from None
        except httpx2.ReadTimeout:
            raise Broken(f"no byte for {self.stall:g} s") from None
        except (httpx2.TransportError, httpx2.StreamError) as error:
            raise Broken(_cause(error)) from None

    # --- what it says when it says no

    def _online(self, repo: str) -> None:
        if (name := offline(self.environ)) is not None:
            raise StoreError(
                f"{name} is set, so the hub is not asked for {repo}. Unset it to pull; what is "
                "here already (`roundhouse ls`) is served without a network.",
                reason="offline",
            )

    @contextlib.contextmanager
    def _told(self, repo: str, revision: str) -> Iterator[None]:
        """Turns what a question raises into a sentence."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        try:
            yield
        except HfHubHTTPError as error:
            raise self._refused(repo, revision, error.response) from None
        except httpx2.TimeoutException:
            raise StoreError(
                f"The hub at {self.endpoint} did not answer within {self.connect:g} s. Try again, "
                "or name a mirror in HF_ENDPOINT.",
                reason="stalled",
            ) from None
        except (httpx2.TransportError, OfflineModeIsEnabled) as error:
            raise StoreError(
                f"The hub at {self.endpoint} cannot be reached ({_cause(error)}). Check the "
                "network, or the proxy (HTTPS_PROXY); name a mirror in HF_ENDPOINT; or copy the "
                "model's folder here and pull that: roundhouse pull ./FOLDER.",
                reason="offline",
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StoreError(
                f"What answers at {self.endpoint} is not a hub. Check HF_ENDPOINT.", reason="hub"
            ) from None

    def _refused(self, repo: str, revision: str, response: httpx2.Response) -> StoreError:
        status = response.status_code
        code = response.headers.get("x-error-code", "")
        page = f"{self.endpoint}/{repo}"
        if code == "GatedRepo":
            return StoreError(self._gated(page), reason="gated")
        if status == 401 and "credentials" in response.headers.get("x-error-message", ""):
            return StoreError(
                f"The hub refuses the token that it was sent. Set HF_TOKEN to a valid one "
                f"({self.endpoint}/settings/tokens), or unset it for public models.",
                reason="gated",
            )
        if code == "RevisionNotFound":
            has = self._revisions(repo)
            return StoreError(
                f"{repo} has no revision {revision!r}.{has} {page}/commits shows all.",
                reason="not_found",
            )
        if status in (401, 403, 404):
            return StoreError(
                f"The hub has no model {repo}, or it is private and "
                + ("HF_TOKEN is not set." if not self._token() else "the token may not see it.")
                + self._near(repo),
                reason="not_found" if status == 404 or code == "RepoNotFound" else "gated",
            )
        down = status in (408, 429) or status >= 500
        again = " Try again in a moment." if down else ""
        return StoreError(
            f"The hub answered {status} for {repo}.{again}", reason="down" if down else "hub"
        )

    def _gated(self, page: str) -> str:
        tokens = f"{self.endpoint}/settings/tokens"
        if not self._token():
            return (
                f"This model is gated. Accept its terms at {page}, make a token that may read at "
                f"{tokens}, and pull again with HF_TOKEN set to it."
            )
        return (
            f"This model is gated, and the token in use may not read it yet. Accept its terms at "
            f"{page} with the token's account (some owners answer after days), and see at {tokens} "
            "that the token (HF_TOKEN) may read gated repositories."
        )

    def _token(self) -> bool:
        from huggingface_hub import get_token

        return bool(self.token or get_token())

    def _headers(self) -> dict[str, str]:
        """With the token."""
        _quiet()
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        found: dict[str, str] = build_hf_headers(token=self.token, user_agent="roundhouse")
        return found

    def _near(self, repo: str) -> str:
        """Names that are like it. Best effort: the answer is no, with or without them."""
        import difflib

        words = repo.rpartition("/")[2]
        try:
            rows = self._get("/api/models", search=words[:60], limit="20").json()
            names = [str(row["id"]) for row in rows]
        except Exception:  # noqa: BLE001
            return ""
        close = difflib.get_close_matches(repo, names, n=3, cutoff=0.4) or names[:3]
        return f" Did you mean {' or '.join(close)}?" if close else ""

    def _revisions(self, repo: str) -> str:
        try:
            rows = self._get(f"/api/models/{quote(repo)}/refs").json()
            names = [str(one["name"]) for kind in ("branches", "tags") for one in rows[kind]]
        except Exception:  # noqa: BLE001
            return ""
        return f" It has {', '.join(names[:8])}." if names else ""

    def _get(self, path: str, **query: str) -> httpx2.Response:
        from huggingface_hub import get_session, hf_raise_for_status

        response = get_session().get(
            self.endpoint + path,
            params=query,
            headers=self._headers(),
            timeout=self.connect,
        )
        hf_raise_for_status(response)
        return response


def _quiet() -> None:
    """The hub is told what is wanted, and not with what else this machine works. Without this the
    library also asks it, once a day, for the list of what else there may be."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True


def _remote(one: Any) -> Remote:
    size = one.size if one.size is not None else (one.lfs.size if one.lfs else None)
    if size is None or one.blob_id is None:
        raise StoreError(f"The hub does not say how large {one.rfilename} is.", reason="hub")
    return Remote(one.rfilename, size, one.blob_id, one.lfs.sha256 if one.lfs else None)


def _licence(info: Any) -> str | None:
    """From the model's card; `other` has a name of its own."""
    card = info.card_data
    found = getattr(card, "license", None)
    if found == "other":
        found = getattr(card, "license_name", None) or found
    if found is None:
        tags = [str(tag) for tag in info.tags or ()]
        found = next((tag[8:] for tag in tags if tag.startswith("license:")), None)
    if isinstance(found, list):
        found = ", ".join(map(str, found))
    return str(found) if found else None


def _is_on(value: str | None) -> bool:
    return (value or "").upper() in ("1", "ON", "YES", "TRUE")


def _wait(response: httpx2.Response) -> float | None:
    """Retry-After in seconds; dates are not worth a parser here."""
    text = response.headers.get("retry-after", "")
    return min(float(text), 60.0) if text.isdecimal() else None


def _cause(error: BaseException) -> str:
    """The system's own words, else the kind of error: never a text that quotes what was sent."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, socket.gaierror):
            return "its name is not known"
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return {"RemoteProtocolError": "the connection was cut"}.get(
        type(error).__name__, type(error).__name__
    )
