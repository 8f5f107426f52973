"""The admin API's engines: how they are, load, unload, add, forget, and what they have said.

Who reaches the admin listener is the operator: he names folders and settings as in the config. Only
what could run programs takes an admin key (`admin_additions.guard`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from server.api import admin_additions as asking
from server.api.admin_additions import Asked
from server.api.admin_views import CONFIG, Views
from server.api.plans import checked_body
from server.api.services import Services
from server.config.additions import Additions, KeepError
from server.config.reload import Watcher
from server.engines.logtail import MOST, LogTail
from server.engines.state import EngineState
from server.errors import Conflict, InvalidRequest, RouteNotFound, StartError, UnavailableError

#: Bytes of a body that asks for an engine.
_BODY: Final = 2**20
#: Seconds between two looks at a log.
_LOOK: Final = 0.25
_LINES: Final = 200
#: What else may be asked for than what is there.
_WEIGHTS: Final = (
    "Weights are named by their id on the hub (ORG/NAME), a folder's whole path, or embedded:guide."
)
_YES: Final = {"true": True, "1": True, "": True, "false": False, "0": False}


class EngineEndpoints:
    """`one_at_a_time`: additions are read, changed and written back under it."""

    def __init__(
        self, services: Services, watcher: Watcher, views: Views, one_at_a_time: asyncio.Lock
    ) -> None:
        self._services, self._watcher, self._views = services, watcher, views
        self._one_at_a_time = one_at_a_time

    async def index(self, request: HttpRequest) -> Response:
        """Every engine, and the names of those that are kept and not in force."""
        return JSONResponse(
            {
                "engines": [self._views.told(one) for one in self._views.all()],
                "left_out": list(self._watcher.loaded.left_out.engines),
            }
        )

    async def one(self, request: HttpRequest) -> Response:
        """One engine, by its name, its model's or its weights."""
        return self._told(self._views.find(_name(request)))

    async def load(self, request: HttpRequest) -> Response:
        """Start an engine that is stopped, failed or waiting; answers before it is ready."""
        return await self._load(self._views.own(_name(request)))

    async def unload(self, request: HttpRequest) -> Response:
        """Drain and stop an engine; it stays stopped until `load`."""
        name = self._views.own(_name(request))
        await self._services.supervisor.unload(name)
        return self._told(name)

    async def add(self, request: HttpRequest) -> Response:
        """Load what is there already, or add an engine and a model to what the config says."""
        asked = asking.read(await checked_body(request, _BODY, self._services.state))
        asking.guard(asked, admin_key=self._services.state.config.server.admin_key is not None)
        if asked.folder:
            asked = msgspec.structs.replace(asked, model=await _folder(asked.model))
        async with self._one_at_a_time:
            before = self._watcher.loaded.additions
            name = self._there(asked)
            if asked.default:
                refuse_default(self._watcher)
            if name is None:
                name, after = self._added(asked, before)
            else:
                after = self._again(asked, name, before)
            if after != before:
                await keep(self._watcher, after)
        return await self._load(name)

    async def forget(self, request: HttpRequest) -> Response:
        """Drain and stop an engine that was added at run time, and forget it. One that is kept and
        not in force is only forgotten: what runs under its name is the config's."""
        said = _name(request)
        if all(self._views.origin(one) == CONFIG for one in self._views.candidates(said)):
            left_out = self._watcher.loaded.left_out
            if (kept := asking.added_as(said, left_out)) is not None:
                return await self._forget_left_out(kept)
        name = self._views.own(said)
        if self._views.origin(name) == CONFIG:
            raise Conflict(
                f"Engine `{name}` is in {self._file()}: take it out there, and it is gone. "
                f"To stop it: POST /engines/{name}/unload (`roundhouse unload {name}`).",
                code="set_in_config",
            )
        await self._services.supervisor.unload(name)
        async with self._one_at_a_time:
            before = self._watcher.loaded.additions
            after, models = asking.without_engine(before, name)
            await keep(self._watcher, after)
        return _forgotten(name, models, before, after)

    async def _forget_left_out(self, name: str) -> Response:
        async with self._one_at_a_time:
            before = self._watcher.loaded.kept
            after, models = asking.without_engine(before, name)
            await forget(self._watcher, after)
        return _forgotten(name, models, before, after)

    async def logs(self, request: HttpRequest) -> Response:
        """The last lines of an engine's log, and with `follow` what comes."""
        name, query = self._views.own(_name(request)), request.query_params
        lines = _count(query.get("lines", str(_LINES)))
        follow = _YES.get(query.get("follow", "false").lower())
        if follow is None:
            raise InvalidRequest("`follow` is true or false.", param="follow")
        file = self._services.supervisor.log_file(name)
        pieces = _pieces(file, lines, lambda: follow and self._services.accepting)
        headers = {"x-accel-buffering": "no", "x-content-type-options": "nosniff"}
        return StreamingResponse(pieces, media_type="text/plain; charset=utf-8", headers=headers)

    # --- what is asked for ----------------------------------------------------------------------

    async def _load(self, name: str) -> Response:
        self._views.view(name)  # it may have been forgotten meanwhile
        await self._services.supervisor.load(name)
        return self._told(name, 202)

    def _told(self, name: str, status: int = 200) -> Response:
        return JSONResponse(self._views.told(self._views.view(name)), status)

    def _models(self, name: str) -> list[str]:
        """What clients call it; its own name where nobody has given it another."""
        return self._views.models(name) or [name]

    def _file(self) -> str:
        return str(self._watcher.loaded.path or "the config that the server was started with")

    def _there(self, asked: Asked) -> str | None:
        """The engine that is asked for; None: it is to be added. Raises Conflict, RouteNotFound,
        InvalidRequest."""
        if not asked.weights:
            try:
                name = self._views.own(asked.model)
            except RouteNotFound as error:
                raise RouteNotFound(f"{error} {_WEIGHTS}", code=error.code) from None
            if asked.name not in (None, name) or asked.as_ not in (None, *self._models(name)):
                raise InvalidRequest(
                    f"`{asked.model}` is there already, as the engine `{name}`. Under another name "
                    "its weights can be loaded once more: give them as `model`.",
                    param="model",
                )
            return name
        if asked.name is not None:
            there = asked.name in self._services.state.config.engines
            return self._views.own(asked.name) if there else None
        found = self._views.candidates(asked.model)
        if asked.as_ is not None:
            found = [one for one in found if asked.as_ in self._models(one)]
        if len(found) > 1:
            return self._views.own(asked.model)
        return self._views.own(found[0]) if found else None

    def _again(self, asked: Asked, name: str, before: Additions) -> Additions:
        """What there is to be when an engine is asked for that is there: with these settings if it
        was added at run time and does not run. Raises Conflict where it is another."""
        entry, models = before.engines.get(name), self._models(name)
        named = asked.as_ in (None, *models)
        if named and not asked.settings and name in self._views.candidates(asked.model):
            model = asked.as_ or (asked.model if asked.model in models else models[0])
            return asking.with_default(before, model) if asked.default else before
        if entry is None:
            raise Conflict(
                f"Engine `{name}` is in {self._file()}, with settings of its own: change them "
                'there, or load it under another name ("name" and "as", or --name and --as).',
                code="set_in_config",
            )
        model = asked.as_ or next(iter(asking.models_of(before, name)), models[0])
        weights = asked.model if asked.weights else entry.get("weights")
        engine = {**asked.engine, "weights": weights}
        default = asked.default or before.default == model
        if named and dict(entry) == engine:
            return asking.with_default(before, model) if default else before
        if self._views.view(name).state not in (EngineState.FAILED, EngineState.STOPPED):
            raise Conflict(
                f"Engine `{name}` was loaded with other settings. Unload it first (roundhouse "
                f'unload {name}), or load this one under another name ("name" and "as", or --name '
                "and --as).",
                code="name_taken",
            )
        if not named:
            self._refuse_model(model, name)
        rest, _ = asking.without_engine(before, name)
        return asking.with_engine(rest, name, model, engine, default=default)

    def _added(self, asked: Asked, before: Additions) -> tuple[str, Additions]:
        """A new engine's name, and what there is to be. Raises Conflict."""
        state, model = self._services.state, asked.as_ or asking.model_name(asked.model)
        models = {one for one, found in state.models.items() if not found.offered}
        name = asked.name or asking.engine_name(model, {*state.config.engines, *models})
        self._refuse_model(model, name)
        if name in models:
            raise Conflict(
                f"There is a model `{name}` already, and `{name}` would mean this engine from now "
                'on. Give it another name: "name", or --name.',
                code="name_taken",
            )
        after = asking.with_engine(before, name, model, asked.engine, default=asked.default)
        return name, after

    def _refuse_model(self, model: str, engine: str) -> None:
        """Raises Conflict where there is one of this name, or another engine."""
        there = self._services.state.models.get(model)
        if there is not None and not there.offered:
            raise Conflict(
                f'There is a model `{model}` already. Give this one another name: "as", or --as.',
                code="name_taken",
            )
        if model != engine and model in self._services.state.config.engines:
            raise Conflict(
                f"There is an engine `{model}`, and that is what the name would mean. Give the "
                'model another: "as", or --as.',
                code="name_taken",
            )


async def keep(watcher: Watcher, additions: Additions) -> None:
    """Have the server take them over. Raises InvalidRequest with the config's own words, and
    UnavailableError where they cannot be kept."""
    with _in_its_words():
        await watcher.add(additions)


async def forget(watcher: Watcher, kept: Additions) -> None:
    """Have the server keep no more than these, in force or not. Raises as `keep` does."""
    with _in_its_words():
        await watcher.forget(kept)


@contextmanager
def _in_its_words() -> Iterator[None]:
    try:
        yield
    except KeepError as error:  # nothing that was asked for is wrong
        raise UnavailableError(str(error), code="state_unwritable") from None
    except StartError as error:
        raise InvalidRequest(str(error), code="invalid_config") from None


def _forgotten(name: str, models: list[str], before: Additions, after: Additions) -> Response:
    return JSONResponse(
        {
            "name": name,
            "forgotten": True,
            "models": models,
            "default_cleared": before.default is not None and after.default is None,
        }
    )


def refuse_default(watcher: Watcher) -> None:
    """Raises Conflict where the config says which model is the default."""
    loaded = watcher.loaded
    if loaded.config.default is not None and loaded.additions.default is None:
        file = loaded.path or "the config that the server was started with"
        raise Conflict(
            f"The default is `{loaded.config.default}` by `default` in {file}: change it there.",
            code="set_in_config",
        )


async def _folder(said: str) -> str:
    """A folder on the server's machine, by its whole path. Raises InvalidRequest, RouteNotFound."""

    def look() -> str | None:
        path = Path(said).expanduser()
        return os.path.normpath(path) if path.is_dir() else None

    if not said.startswith(("/", "~")):
        raise InvalidRequest(
            f"`{said[:200]}` is relative, and nobody knows to what. Give the folder's whole path.",
            param="model",
        )
    try:
        found = await asyncio.to_thread(look)
    except (RuntimeError, ValueError, OSError):  # nobody's home, or no name of a file
        found = None
    if found is None:
        raise RouteNotFound(
            f"There is no folder `{said[:200]}` on the server's machine that it may read.",
            code="weights_not_found",
        )
    return found


def _name(request: HttpRequest) -> str:
    return str(request.path_params["name"])


def _count(said: str) -> int:
    if not said.isascii() or not said.isdigit() or int(said[:9]) > MOST:
        raise InvalidRequest(f"`lines` is a number up to {MOST}.", param="lines")
    return int(said[:9])


async def _pieces(file: Path, lines: int, more: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Ends with the log, or later while there may be `more`; the client's going cancels it."""
    with closing(await asyncio.to_thread(LogTail, file, lines)) as tail:
        while True:
            data = await asyncio.to_thread(tail.read)
            if data:
                yield data
            elif more():
                await asyncio.sleep(_LOOK)
            else:
                return
