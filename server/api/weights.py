"""The admin listener's endpoints of weights: what is in the store, pulls, and removing.

Ids only: a folder of the server's machine is neither looked at nor registered from afar.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from server.api.plans import checked_body
from server.api.services import Services
from server.engines.state import EngineState
from server.engines.store import holdings
from server.engines.store.errors import DISK, StoreError
from server.engines.store.holdings import Holding
from server.engines.store.places import checked_id, checked_revision
from server.engines.store.service import Shared, StoreService
from server.errors import (
    Conflict,
    InvalidRequest,
    NotAllowed,
    RoundhouseError,
    RouteNotFound,
    UnavailableError,
    UpstreamError,
)

#: Bytes; what is asked for is a name.
_BODY: Final = 64 << 10
#: States in which an engine has nothing of its weights in hand.
_AT_REST: Final = frozenset({EngineState.STOPPED, EngineState.FAILED})


class Ask(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a pull. `model` may be the name of an engine, which then says the rest.
    `allow_code`: the repository's own Python, too."""

    model: str
    revision: str | None = None
    allow_code: bool = False


class WeightsEndpoints:
    """Reads and writes of the disk are done in threads."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def _store(self) -> StoreService:
        store = self._services.store
        assert store is not None, "a server has one"
        return store

    # --- what is there

    async def index(self, request: HttpRequest) -> Response:
        """Every model in the store, and every registered folder."""
        store = self._store
        with told():
            found = await asyncio.to_thread(self._holdings)
            free = await asyncio.to_thread(_free, store.folder)
            used = await asyncio.to_thread(holdings.usage, store.folder)
        return JSONResponse(
            {
                "store": str(store.folder),
                "size": sum(one.size for one in used),
                "free": free,
                "models": [holdings.facts_of(one, self._users(one)) for one in found],
                "usage": [
                    {"name": one.name, "size": one.size, "partial": one.partial} for one in used
                ],
            }
        )

    async def one(self, request: HttpRequest) -> Response:
        """All that is known of one model."""
        with told():
            found = await self._named(request)
        rows = [
            {
                **holdings.facts_of(one, self._users(one)),
                "record": msgspec.to_builtins(one.record) if one.record else None,
            }
            for one in found
        ]
        return JSONResponse({"models": rows})

    async def remove(self, request: HttpRequest) -> Response:
        """Free the disk of a model that no engine uses; `?force=true`: or only engines that are
        stopped or have failed."""
        store, force = self._store, _flag(request, "force")
        with told():
            chosen = await self._named(request)
            name = chosen[0].name
            if any(one.record is not None and one.record.path is not None for one in chosen):
                raise InvalidRequest(
                    f"`{name}` is a folder that was registered on the server's machine. "
                    f"`roundhouse rm {name}` there forgets it."
                )
            self._see_that_nobody_uses(chosen, force)
            done = await asyncio.to_thread(
                holdings.remove,
                chosen,
                store.folder,
                store.home,
                dry_run=_flag(request, "dry_run"),
            )
        return JSONResponse(
            {
                "name": done.name,
                "commits": list(done.commits),
                "freed": done.freed,
                "removed": not _flag(request, "dry_run"),
            }
        )

    def _holdings(self) -> list[Holding]:
        return holdings.holdings(self._store.folder, self._store.home)

    async def _named(self, request: HttpRequest) -> list[Holding]:
        name = _id(str(request.path_params["id"]))
        revision = request.query_params.get("revision")
        if revision is not None:
            revision = _revision(revision)
        found = await asyncio.to_thread(self._holdings)
        return holdings.named(name, revision, found, show="roundhouse ls --on-server")

    def _users(self, holding: Holding) -> list[str]:
        return holdings.users(holding, self._services.state.config.engines, self._store.base)

    def _see_that_nobody_uses(self, chosen: Sequence[Holding], force: bool) -> None:
        """Raises Conflict. Engines of the config and those that were loaded since are the same."""
        users = sorted({user for one in chosen for user in self._users(one)})
        view = self._services.supervisor.view
        active = [
            name for name in users if (at := view(name)) is not None and at.state not in _AT_REST
        ]
        name = chosen[0].name
        if active:
            raise Conflict(
                f"The engine `{active[0]}` is served from {name}. Unload it first "
                f"(`roundhouse unload {active[0]}`); what the config names takes force then.",
                code="weights_in_use",
            )
        if users and not force:
            raise Conflict(
                f"The engine `{users[0]}` has {name} as its weights, though it does not run now: "
                "its next start would pull them again. Take it out of the config, or remove with "
                "force.",
                code="weights_in_use",
            )

    # --- pulls

    async def pull(self, request: HttpRequest) -> Response:
        """Bring a model here: a feed of how far it is, or, for who accepts JSON alone, the end. The
        pull goes on when the client leaves."""
        ask = await self._ask(request)
        engine = self._services.state.config.engines.get(ask.model)
        model, revision, allow_code = ask.model, ask.revision, ask.allow_code
        if engine is not None and engine.weights is not None:
            model, revision = engine.weights, revision or engine.revision
            allow_code = allow_code or engine.trust_remote_code
        shared = self._store.pull(
            _id(model, "model"),
            _revision(revision or "main"),
            allow_code=allow_code,
            asked_by="the admin API",
        )
        if _takes_events(request):
            return EventSourceResponse(
                _feed(shared), sep="\n", ping=15, headers={"x-accel-buffering": "no"}
            )
        await shared.ended.wait()
        if (error := refusal(shared)) is not None:
            raise error
        return JSONResponse(shared.facts())

    async def pulls(self, request: HttpRequest) -> Response:
        """Pulls that clients asked for: those under way, and the last that ended."""
        return JSONResponse({"pulls": [one.facts() for one in self._store.pulls]})

    async def stop(self, request: HttpRequest) -> Response:
        """Stop a pull, for all who watch it. What has come is kept."""
        name = str(request.path_params["id"])
        shared = next((one for one in self._store.pulls if one.id == name), None)
        if shared is None:
            raise RouteNotFound(
                f"There is no pull `{name[:64]}`. GET /pulls lists them.", code="pull_not_found"
            )
        shared.stop.set()
        await shared.ended.wait()
        return JSONResponse(shared.facts())

    async def _ask(self, request: HttpRequest) -> Ask:
        body = await checked_body(request, _BODY, self._services.state)
        try:
            return msgspec.json.decode(body, type=Ask)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"The body of a pull: {error}.", code="invalid_type") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InvalidRequest(
                'The body is not valid JSON. It looks like {"model": "Qwen/Qwen3-8B"}.',
                code="invalid_json",
            ) from None


async def _feed(shared: Shared) -> AsyncIterator[ServerSentEvent]:
    yield _event("pull", shared.facts())
    async for kind, facts in shared.follow():
        yield _event(kind, facts)
    if (error := refusal(shared)) is not None:
        yield _event("error", error.body())
    else:
        yield _event("done", shared.facts())


def _event(kind: str, facts: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(data=msgspec.json.encode(facts).decode(), event=kind, sep="\n")


def _takes_events(request: HttpRequest) -> bool:
    """Unless the client says what it takes, and that is something else."""
    accepted = request.headers.get("accept", "*/*").lower()
    return any(kind in accepted for kind in ("text/event-stream", "text/*", "*/*"))


def _flag(request: HttpRequest, name: str) -> bool:
    value = request.query_params.get(name, "false").lower()
    if value not in ("", "1", "0", "true", "false"):
        raise InvalidRequest(f"`{name}` is true or false.", param=name)
    return value in ("", "1", "true")


def _free(folder: Path) -> int:
    there = next(one for one in (folder, *folder.parents) if one.exists())
    return shutil.disk_usage(there).free


def refusal(shared: Shared) -> RoundhouseError | None:
    """Why a pull that has ended brought nothing."""
    if shared.state == "stopped":
        return Conflict(
            "The pull was stopped. What has come is kept; the next one goes on there.",
            code="pull_stopped",
        )
    return None if shared.error is None else of_store(shared.error)


def of_store(error: StoreError) -> RoundhouseError:
    """The same for a client of the admin API, who is an operator: paths of the store are told."""
    said, reason = error.message, error.reason
    if reason == "not_found":
        return RouteNotFound(said, code="weights_not_found")
    if reason == "gated":
        return NotAllowed(said, code="weights_gated")
    if reason == "busy":
        return Conflict(said, code="weights_in_use")
    if reason in ("unsafe", "folder", "used"):
        return InvalidRequest(said, code="unsafe_weights")
    if reason in DISK:
        return UnavailableError(said, code="disk_full")
    if reason == "store":
        return UnavailableError(said, code="store_unusable")
    return UpstreamError(said, code="pull_failed")


@contextmanager
def told() -> Iterator[None]:
    """Turns what the store and the system say of it into an answer."""
    try:
        yield
    except StoreError as error:
        raise of_store(error) from None
    except OSError as error:
        raise UnavailableError(
            f"The store cannot be used ({error.strerror or type(error).__name__}).",
            code="store_unusable",
        ) from None


def _id(text: str, param: str | None = None) -> str:
    """A hub's id. Nothing else: not a folder, and no address."""
    try:
        if "://" in text:
            raise StoreError("", reason="not_found")
        return checked_id(text)
    except StoreError:
        raise InvalidRequest(
            f"`{text[:200]}` is no id of a model on the hub, like Qwen/Qwen3-8B. Folders are "
            "registered on the server's machine: roundhouse pull ./FOLDER.",
            param=param,
        ) from None


def _revision(text: str) -> str:
    try:
        return checked_revision(text)
    except StoreError as error:
        raise InvalidRequest(error.message, param="revision") from None
