"""Weights on the disk of a running server, by its admin API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import click

from server.cli import client

if TYPE_CHECKING:
    from server.cli.weights.meter import Meter
    from server.engines.store.progress import Look

_EVENT: Final = re.compile(rb"^event: ?(\w+)", re.MULTILINE)
_EVENT_LIMIT: Final = 1 << 20


class Mirror:
    """The progress of a pull that the server does, for a Meter."""

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {}
        self._notes: list[str] = []

    def took(self, kind: str, facts: dict[str, Any]) -> None:
        """An event of the feed."""
        if kind == "note":
            self._notes.append(str(facts.get("message", "")))
        elif kind in ("pull", "progress", "done"):
            self._facts = facts

    def said(self) -> list[str]:
        notes, self._notes = self._notes, []
        return notes

    def look(self) -> Look:
        from server.engines.store.progress import Look

        get = self._facts.get
        return Look(
            get("files", 0),
            get("files_done", 0),
            get("size", 0),
            get("done", 0),
            get("rate"),
            get("seconds_left"),
        )


def pull(
    model: str,
    revision: str | None,
    allow_code: bool,
    admin_url: str | None,
    admin_key: str | None,
    mirror: Mirror,
    meter: Meter,
) -> dict[str, Any]:
    """What the server has then. Raises ClientError; KeyboardInterrupt leaves it at it."""
    body = {"model": model, "revision": revision, "allow_code": allow_code}
    with client.admin(admin_url, admin_key) as server, server.stream("/weights", body) as chunks:
        for kind, facts in events(chunks, server.url):
            if kind == "error":
                said = client.error_text(facts) or "The server could not pull it."
                raise client.Refused(said, status=502, why=str(facts["error"].get("code")))
            mirror.took(kind, facts)
            meter.tick()
            if kind == "done":
                return facts
        raise client.ClientError(
            f"The connection to {server.url} broke. The server goes on; the same command shows it "
            "again."
        )


def events(chunks: Iterator[bytes], url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind, facts) of each event. Raises ClientError for what is none."""
    from server.errors import UpstreamError
    from server.protocol import sse

    splitter = sse.Splitter(_EVENT_LIMIT)
    try:
        for chunk in chunks:
            for event in sse.events(splitter.feed(chunk)):
                kind, payload = _EVENT.search(event), sse.data_of(event)
                if kind is None or payload is None:
                    continue  # a comment: it is alive
                facts = json.loads(payload)
                if not isinstance(facts, dict):
                    raise ValueError(facts)
                yield kind[1].decode(), facts
    except (UpstreamError, ValueError):
        raise client.ClientError(f"What answers at {url} is not the admin API.") from None


def listed(admin_url: str | None, admin_key: str | None) -> dict[str, Any]:
    """GET /weights."""
    with client.admin(admin_url, admin_key) as server:
        return _with(server.get("/weights"), server.url, ("store", "models", "usage"))


def shown(
    model: str, revision: str | None, admin_url: str | None, admin_key: str | None
) -> list[dict[str, Any]]:
    """GET /weights/MODEL."""
    with client.admin(admin_url, admin_key) as server:
        answer = server.get(_path(model, revision=revision))
        rows: list[dict[str, Any]] = _with(answer, server.url, ("models",))["models"]
    return rows


def removed(
    model: str,
    revision: str | None,
    admin_url: str | None,
    admin_key: str | None,
    *,
    force: bool,
    dry_run: bool,
) -> dict[str, Any]:
    """DELETE /weights/MODEL."""
    path = _path(model, revision=revision, force=force, dry_run=dry_run)
    with client.admin(admin_url, admin_key) as server:
        return _with(server.delete(path), server.url, ("name", "freed", "removed"))


def allowed(
    model: str,
    revision: str | None,
    store: Path,
    admin_url: str | None,
    admin_key: str | None,
    *,
    force: bool,
) -> None:
    """Asks the server whether one of its engines uses it, if one answers and has the same store.
    Raises StoreError if so."""
    from server.engines.store.errors import StoreError

    try:
        there = listed(admin_url, admin_key)
        if Path(str(there["store"])).resolve() != store.resolve():
            return
        removed(model, revision, admin_url, admin_key, force=force, dry_run=True)
    except client.Refused as error:
        if error.why == "weights_in_use":
            raise StoreError(str(error), reason="used") from None
        if error.status in (401, 403) and not force:
            raise StoreError(
                f"A server runs here and does not say which engines it has: {error} Or remove it "
                "all the same with --force.",
                reason="used",
            ) from None
    except client.ClientError:
        if admin_url is not None:  # somebody wants this one to be asked
            raise


def _path(model: str, **query: str | bool | None) -> str:
    told = {
        name: value if isinstance(value, str) else "true" for name, value in query.items() if value
    }
    name = "/".join(map(client.segment, model.split("/")))
    return f"/weights/{name}" + (f"?{urlencode(told)}" if told else "")


def _with(answer: Any, url: str, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(answer, dict) or any(name not in answer for name in names):
        raise client.ClientError(
            f"What answers at {url} is not the admin API. It has a listener of its own: "
            "server.admin in the config, http://127.0.0.1:8001 by default."
        )
    return answer


def leave(model: str) -> None:
    """What to say when somebody stops to watch."""
    click.echo(
        f"The server goes on. `roundhouse pull {model} --on-server` shows it again, "
        "with --stop it ends it.",
        err=True,
    )


def stop(model: str, admin_url: str | None, admin_key: str | None) -> list[str]:
    """End the server's pulls of a model; their ids."""
    with client.admin(admin_url, admin_key) as server:
        pulls = _with(server.get("/pulls"), server.url, ("pulls",))["pulls"]
        running = [one for one in pulls if one.get("state") == "running"]
        if not any(one.get("model") == model for one in running):
            model = _of_engine(server, model) or model
        ids = [str(one["id"]) for one in running if one.get("model") == model]
        for each in ids:
            server.delete(f"/pulls/{quote(each)}")
    return ids


def _of_engine(server: client.Client, name: str) -> str | None:
    """What a pull of it is called, if it is an engine's name."""
    try:
        told = server.get(f"/engines/{client.segment(name)}")
    except client.Refused as error:
        if error.status == 404:
            return None
        raise
    return told.get("weights") if isinstance(told, dict) else None
