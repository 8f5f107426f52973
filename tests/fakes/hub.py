"""A hub on a loopback socket: huggingface_hub really talks to it.

It knows what a pull asks for: a model's metadata, its refs, the check of access, a search, and the
files, of which the large ones (LFS) are behind a redirect to another host, as on the real one.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_of-the-tests"


def tensors(size: int = 64, seed: int = 0) -> bytes:
    """A whole safetensors file with one tensor of `size` bytes."""
    header = {"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    body = hashlib.shake_128(bytes([seed])).digest(size)
    return len(text).to_bytes(8, "little") + text + body


def model(size: int = 1000) -> dict[str, bytes]:
    """The files of a small model that an engine could serve."""
    return {
        "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
        "tokenizer.json": b"{}",
        "README.md": b"# A model\n",
        "model.safetensors": tensors(size),
    }


@dataclass
class Repo:
    """`files` at `commit`; `said` are the bytes that its metadata speaks of where they differ."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    private: bool = False
    card: Mapping[str, object] = field(default_factory=lambda: {"license": "apache-2.0"})
    tags: tuple[str, ...] = ()
    unsized: bool = False
    branches: tuple[str, ...] = ("main",)
    said: dict[str, bytes] = field(default_factory=dict)

    def metadata(self, repo: str) -> dict[str, Any]:
        siblings = []
        for path, held in self.files.items():
            data = self.said.get(path, held)
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            one: dict[str, Any] = {"rfilename": path, "blobId": git}
            if not self.unsized:
                one["size"] = len(data)
            if is_large(path) and not self.unsized:
                sha256 = hashlib.sha256(data).hexdigest()
                one["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
            siblings.append(one)
        return {
            "id": repo,
            "sha": self.commit,
            "siblings": siblings,
            "gated": "manual" if self.gated else False,
            "private": self.private,
            "cardData": self.card,
            "tags": self.tags,
        }


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin", ".model"))


@dataclass
class Seen:
    path: str
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


#: What a test does to the answer for a file: it gets the bytes to send and how to send them.
Send = Callable[[bytes], object]
Fault = Callable[[bytes, Send], object]


@dataclass
class FakeHub:
    """`faults`: by path, for one answer each; `status`: by path, an answer of its own."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    status: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    #: By path: an answer that does not come until the hub is gone; the event says that it waits.
    slow: dict[str, threading.Event] = field(default_factory=dict)
    ranges: bool = True
    #: Set when the hub is to be gone: answers that wait for it end.
    gone: threading.Event = field(default_factory=threading.Event)

    def add(self, repo: str, files: Mapping[str, bytes] | None = None, **facts: Any) -> Repo:
        self.repos[repo] = Repo(dict(model() if files is None else files), **facts)
        return self.repos[repo]

    def fault(self, path: str, *faults: Fault) -> None:
        self.faults.setdefault(path, []).extend(faults)

    def bytes_asked(self, path: str) -> list[str | None]:
        """The ranges in which a file's bytes were asked for."""
        return [one.range for one in self.seen if one.path.startswith(f"/cdn/{path}")]

    def hang(self, after: int = 0) -> Fault:
        """Sends so many bytes, then nothing until the hub is gone."""

        def fault(data: bytes, send: Send) -> None:
            send(data[:after])
            self.gone.wait()

        return fault


def cut(after: int) -> Fault:
    """Sends so many bytes and closes the connection."""
    return lambda data, send: send(data[:after])


def at(event: threading.Event, after: int, then: threading.Event) -> Fault:
    """Sends so many bytes, says so by `event`, and the rest once `then` is set."""

    def fault(data: bytes, send: Send) -> None:
        send(data[:after])
        event.set()
        then.wait()
        send(data[after:])

    return fault


@contextmanager
def running() -> Iterator[FakeHub]:
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = False
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.gone.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.hub.seen.append(Seen(path, headers))
        if path in self.hub.slow:
            self.hub.slow[path].set()
            self.hub.gone.wait()
            return self.answer(503, b"{}", {})
        if waiting := self.hub.status.get(path):
            status, extra = waiting.pop(0)
            return self.answer(status, b"{}", extra)
        if path == "/api/models":
            wanted = parse_qs(url.query).get("search", [""])[0].lower()
            found = [{"id": name} for name in self.hub.repos if wanted[:4] in name.lower()]
            return self.json(found)
        if path.startswith("/api/models/"):
            return self.api(path.removeprefix("/api/models/"))
        if path.startswith("/cdn/"):
            return self.cdn(path.removeprefix("/cdn/"))
        repo, _, rest = path[1:].partition("/resolve/")
        commit, _, name = rest.partition("/")
        return self.resolve(repo, commit, name)

    def api(self, rest: str) -> None:
        name = "/".join(rest.split("/")[:2])
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.allowed()):
            return self.error(401 if not self.token() else 404, "RepoNotFound")
        tail = rest.removeprefix(name).strip("/")
        if tail == "auth-check":
            if repo.gated and not self.allowed():
                return self.error(403 if self.token() else 401, "GatedRepo")
            return self.json({})
        if tail == "refs":
            rows = [{"name": one, "ref": one, "targetCommit": "x"} for one in repo.branches]
            return self.json({"branches": rows, "tags": [], "converts": []})
        revision = tail.removeprefix("revision/")
        if revision and revision not in (*repo.branches, repo.commit):
            return self.error(404, "RevisionNotFound")
        return self.json(repo.metadata(name))

    def resolve(self, name: str, commit: str, path: str) -> None:
        repo = self.hub.repos[name]
        if repo.gated and not self.allowed():
            return self.error(401, "GatedRepo")
        if commit != repo.commit or path not in repo.files:
            return self.error(404, "EntryNotFound")
        if is_large(path):
            # `localhost` is another host than 127.0.0.1: a token must not go there.
            port = urlsplit(self.hub.url).port
            where = f"http://localhost:{port}/cdn/{path}?repo={name}"
            return self.answer(302, b"", {"location": where})
        return self.send(path, repo.files[path])

    def cdn(self, path: str) -> None:
        name = parse_qs(urlsplit(self.path).query)["repo"][0]
        self.send(path, self.hub.repos[name].files[path])

    def send(self, path: str, data: bytes) -> None:
        start, end, status = 0, len(data), 200
        asked = self.headers.get("range")
        if asked and self.hub.ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, status = int(first), 206
            end = int(last) + 1 if last else end
        self.send_response(status)
        self.send_header("content-length", str(end - start))
        self.send_header("connection", "close")
        self.end_headers()
        fault = self.hub.faults.get(path)
        try:
            if fault:
                fault.pop(0)(data[start:end], self.wfile.write)
            else:
                self.wfile.write(data[start:end])
        except (BrokenPipeError, ConnectionResetError):
            pass

    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def allowed(self) -> bool:
        return self.token() == TOKEN

    def error(self, status: int, code: str) -> None:
        self.answer(status, b'{"error": "no"}', {"x-error-code": code})

    def json(self, body: Any) -> None:
        self.answer(200, json.dumps(body).encode(), {"content-type": "application/json"})

    def answer(self, status: int, body: bytes, extra: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in extra.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
