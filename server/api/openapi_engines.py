"""The admin API's engines and its default on the OpenAPI page."""

from __future__ import annotations

from typing import Final

from server.api.openapi_parts import Paths, json_of, ok, one, operation, path, plain, query
from server.api.openapi_schemas import (
    NULL,
    Schema,
    either,
    flag,
    many,
    number,
    ref,
    text,
    thing,
    whole,
)

_ENGINE: Final = {
    "name": "qwen3-8b",
    "state": "ready",
    "origin": "loaded",
    "weights": "Qwen/Qwen3-8B",
    "models": ["Qwen/Qwen3-8B"],
    "stage": "",
    "eta_s": 0.0,
    "since_s": 84.2,
    "restarts": 0,
    "pid": 4711,
    "waiting": 0,
    "in_flight": 3,
    "devices": ["cuda:0"],
    "memory": {"planned": 25769803776, "used": 24159191040},
    "pinned": False,
    "idle_s": 0.0,
    "idle_limit_s": 900.0,
    "unload_in_s": None,
    "error": None,
    "error_reason": None,
    "log": [],
    "instances": [],
}
_STARTING: Final = {
    **_ENGINE,
    "state": "starting",
    "stage": "loading weights (42%)",
    "eta_s": 31.0,
    "in_flight": 0,
    "idle_s": None,
}
_FORGOTTEN: Final = {
    "name": "qwen3-8b",
    "forgotten": True,
    "models": ["Qwen/Qwen3-8B"],
    "default_cleared": False,
}
_NAME: Final = path(
    "name",
    "The engine's name; or that of a model with one engine, or its weights. It may hold slashes.",
    "qwen3-8b",
)
_ASKED: Final = {
    "model": "Qwen/Qwen3-8B",
    "settings": {"context": 16384, "concurrency": 8, "idle": "15m"},
}
_DEFAULT: Final = {"model": "Qwen/Qwen3-8B", "origin": "loaded"}


ENGINES: Final[Paths] = {
    "/engines": {
        "get": operation(
            "engines",
            "listEngines",
            "Every engine and its state",
            ok("All engines.", json_of("Engines", one({"engines": [_ENGINE]}))),
            fails=("401", "403"),
        ),
        "post": operation(
            "engines",
            "addEngine",
            "Load what is there, or serve other weights from now on",
            ok("It is being loaded.", json_of("Engine", one(_STARTING))),
            status="202",
            description="An engine or a model of the server is loaded. Weights that it does not "
            "serve yet are added to what the config says, pulled if they are not on the disk, and "
            "kept for the next start. `settings` takes the keys of an engine in the config, and "
            "`context` for vLLM's `max-model-len`. What could run programs (`cmd`, `env`, "
            "`trust_remote_code`, flags with more than a number or a word) takes an admin key.",
            body=json_of("EngineRequest", one(_ASKED)),
            fails=("400", "401", "403", "404", "408", "409", "413", "503"),
        ),
    },
    "/engines/{name}": {
        "get": operation(
            "engines",
            "getEngine",
            "One engine",
            ok("As it is now.", json_of("Engine", one(_ENGINE))),
            fails=("401", "403", "404", "409"),
            parameters=(_NAME,),
        ),
        "delete": operation(
            "engines",
            "forgetEngine",
            "Drain and stop an engine that was added at run time, and forget it and its models",
            ok("It is gone.", json_of("Forgotten", one(_FORGOTTEN))),
            description="Answers when it has stopped. An engine of the config is refused: 409. One "
            "that is kept and left out is only forgotten.",
            fails=("400", "401", "403", "404", "409", "503"),
            parameters=(_NAME,),
        ),
    },
    "/engines/{name}/load": {
        "post": operation(
            "engines",
            "loadEngine",
            "Start an engine; answers before it is ready",
            ok("It is being loaded, or runs.", json_of("Engine", one(_STARTING))),
            status="202",
            fails=("400", "401", "403", "404", "409", "503"),
            parameters=(_NAME,),
        )
    },
    "/engines/{name}/unload": {
        "post": operation(
            "engines",
            "unloadEngine",
            "Drain and stop an engine; it stays stopped until it is loaded",
            ok("It has stopped.", json_of("Engine", one({**_ENGINE, "state": "stopped"}))),
            fails=("400", "401", "403", "404", "409"),
            parameters=(_NAME,),
        )
    },
    "/engines/{name}/logs": {
        "get": operation(
            "engines",
            "readLog",
            "The last lines of an engine's log, as it wrote them",
            ok("Until its end, or until you leave.", plain("text/plain", "INFO: ready\n")),
            fails=("400", "401", "403", "404", "409"),
            parameters=(
                _NAME,
                query("lines", "So many, over all kept files.", whole(default=200)),
                query("follow", "Go on with what comes.", flag(default=False)),
            ),
        )
    },
    "/events": {
        "get": operation(
            "engines",
            "watchEngines",
            "Server-sent events: each engine now, then each change",
            ok(
                "Until you leave.",
                plain("text/event-stream", 'event: engine\ndata: {"name":"qwen",…}\n\n'),
            ),
            fails=("401", "403"),
        )
    },
    "/default": {
        "get": operation(
            "engines",
            "getDefault",
            "The model of requests that name none",
            ok("`model` is null where there is none.", json_of("Default", one(_DEFAULT))),
            fails=("401", "403"),
        ),
        "put": operation(
            "engines",
            "setDefault",
            "Another default, kept for the next start",
            ok("It is in force.", json_of("Default", one(_DEFAULT))),
            description="409 where the config says which model is the default.",
            body=json_of("DefaultRequest", one({"model": "Qwen/Qwen3-8B"})),
            fails=("400", "401", "403", "404", "408", "409", "413", "503"),
        ),
        "delete": operation(
            "engines",
            "clearDefault",
            "No default any more",
            ok("There is none.", json_of("Default", one({"model": None, "origin": None}))),
            fails=("401", "403", "409", "503"),
        ),
    },
}

_STATES: Final = "stopped waiting starting ready draining asleep backoff failed".split()

ENGINE_SCHEMAS: Final[dict[str, Schema]] = {
    "Engine": thing(
        {
            "name": text(examples=["qwen"]),
            "state": text(enum=_STATES),
            "origin": text(
                "Who wants it: the config, or a call of this API.", enum=["config", "loaded"]
            ),
            "weights": either(text(), NULL),
            "models": many(text(), "Names of models that it answers for."),
            "stage": text("What it does or waits for. External: how many are well."),
            "eta_s": either(number(), NULL, description="Estimated seconds until ready."),
            "since_s": number("Seconds in this state."),
            "restarts": whole(),
            "pid": either(whole(), NULL),
            "waiting": whole("Requests waiting for it."),
            "in_flight": whole("Requests it is answering."),
            "devices": many(text(examples=["cuda:0"])),
            "memory": thing(
                {"planned": either(whole(), NULL), "used": either(whole(), NULL)},
                description="Bytes over its devices: set aside for it, and seen to be taken.",
            ),
            "pinned": flag("Is it never unloaded to make room?"),
            "idle_s": either(number(), NULL, description="Seconds without a request."),
            "idle_limit_s": either(number(), NULL, description="Unloaded after so many of them."),
            "unload_in_s": either(number(), NULL, description="Until then, as things are."),
            "error": either(text(), NULL),
            "error_reason": either(text(), NULL),
            "log": many(text(), "Of a failed one: its last lines."),
            "instances": many(ref("Instance"), "The processes of an engine that is run here."),
            "replicas": many(ref("Replica"), "Of an external engine alone."),
        },
        *("name", "state"),
    ),
    "Instance": thing(
        {
            "replica": whole(),
            "state": text(enum=_STATES),
            "pid": either(whole(), NULL),
            "devices": many(text()),
            "in_flight": whole(),
            "since_s": number("Seconds in this state."),
        },
        *("replica", "state"),
    ),
    "Replica": thing(
        {
            "address": text(examples=["10.0.0.3:8000"]),
            "well": flag("Is it sent requests?"),
            "model": either(text(), NULL, description="Its own name of the model."),
            "load": either(number(), NULL, description="Requests that it says it has."),
            "in_flight": whole("Requests of this server that it is answering."),
            "error": either(text(), NULL, description="Why it is not well."),
        },
        *("address", "well"),
    ),
    "Engines": thing(
        {
            "engines": many(ref("Engine")),
            "left_out": many(
                text(),
                "Names of engines that were added, and are not in force: the config has them, too, "
                "or they are no longer valid.",
            ),
        },
        "engines",
    ),
    "EngineRequest": thing(
        {
            "model": text(
                "An engine or a model of the server; or weights: a hub id, the whole path of a "
                "folder on the server's machine, or `embedded:guide`."
            ),
            "name": text("The new engine's name."),
            "as": text("What clients call the model. Default: the hub's id, the folder's name."),
            "settings": thing({}, description="Keys of an engine in the config, and `context`."),
            "default": flag("Make it the model of requests that name none.", default=False),
        },
        "model",
    ),
    "Forgotten": thing(
        {
            "name": text(),
            "forgotten": flag(),
            "models": many(text(), "The models that went with it."),
            "default_cleared": flag("Was one of them the default?"),
        },
        "name",
    ),
    "Default": thing(
        {
            "model": either(text(), NULL),
            "origin": either(text(enum=["config", "loaded"]), NULL),
        },
        *("model", "origin"),
    ),
    "DefaultRequest": thing({"model": text("A model of the server.")}, "model"),
}
