"""What `POST /engines` asks for, and the additions to the config that it comes to. Pure."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from server.config.additions import Additions
from server.errors import InvalidRequest, NotAllowed

EMBEDDED: Final = "embedded:"
#: A convenience beside the engine's keys: this flag of vLLM's.
CONTEXT: Final = "max-model-len"
_HUB: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
#: Keys with which a program of the caller's choice can run as the server's user.
_RUNS_CODE: Final = ("cmd", "env", "trust_remote_code")
#: A flag's value that names neither a file nor code.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]*")


class Asked(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body. `model`: a hub id, a folder, `embedded:…`, or what is there already. `as_` is the
    name for clients. `settings`: keys of an engine, and `context`."""

    model: str
    name: str | None = None
    as_: str | None = msgspec.field(default=None, name="as")
    settings: dict[str, Any] = {}
    default: bool = False

    @property
    def folder(self) -> bool:
        return self.model.startswith(("/", "~", "."))

    @property
    def weights(self) -> bool:
        """Does `model` name weights, rather than an engine or a model that is there?"""
        hub = _HUB.fullmatch(self.model) is not None
        return self.folder or hub or self.model.startswith(EMBEDDED)

    @property
    def engine(self) -> dict[str, Any]:
        """The entry for the config's `engines`."""
        return {"weights": self.model, **self.settings}


def read(body: bytes) -> Asked:
    """Raises InvalidRequest."""
    try:
        asked = msgspec.json.decode(body, type=Asked)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The body is not as it should be: {error}.") from None
    except msgspec.DecodeError:
        raise InvalidRequest(
            'The body is no JSON. Send an object such as {"model": "Qwen/Qwen3-8B"}.',
            code="invalid_json",
        ) from None
    if not asked.model.strip():
        raise InvalidRequest("`model` is empty.", param="model")
    if "weights" in asked.settings:
        raise InvalidRequest(
            "`model` says which weights; leave `settings.weights` out.", param="settings.weights"
        )
    return msgspec.structs.replace(asked, settings=_settings(asked.settings))


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """With `context` as the flag that it is."""
    settings = {key: value for key, value in given.items() if key != "context"}
    if "context" not in given:
        return settings
    context, args = given["context"], settings.get("args", {})
    if not isinstance(context, int) or isinstance(context, bool) or context < 1:
        raise InvalidRequest(
            "`context` is a number of tokens, such as 16384.", param="settings.context"
        )
    if isinstance(args, dict):
        if CONTEXT in args:
            raise InvalidRequest(
                f"`context` and `args.{CONTEXT}` say the same: give one of them.",
                param="settings.context",
            )
        settings["args"] = {**args, CONTEXT: context}
    return settings


def guard(asked: Asked, *, admin_key: bool) -> None:
    """Who reaches the admin listener is the operator. But where it asks for no key, that is every
    user of the machine, who must not become the server's user. Raises NotAllowed."""
    if admin_key:
        return
    args = asked.settings.get("args")
    risky = [f"`{key}`" for key in _RUNS_CODE if asked.settings.get(key)]
    if isinstance(args, dict):
        # A member of a flag that takes JSON may name a module.
        deep = {flag for flag, value in args.items() if "." in flag or not _plain(value)}
        risky += [f"`args.{flag[:200]}`" for flag in args if flag in deep]
    if risky:
        raise NotAllowed(
            f"{', '.join(risky)} can run programs or read files as the server's user, so this "
            "takes an admin key: set server.admin_key (ROUNDHOUSE_ADMIN_KEY), or write the engine "
            "into the config.",
            param="settings",
            code="admin_key_needed",
        )


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_plain, value))
    if isinstance(value, str):
        return _PLAIN.fullmatch(value) is not None
    return value is None or isinstance(value, int | float)


# --- names --------------------------------------------------------------------------------------


def model_name(weights: str) -> str:
    """What clients call it unless somebody says otherwise: a hub's id, a folder's own name."""
    if weights.startswith(EMBEDDED):
        return weights.removeprefix(EMBEDDED)
    name = Path(weights).name if weights.startswith("/") else weights
    return re.sub(r"[^A-Za-z0-9._:@/+-]", "-", name).lstrip("._:@/+-")[:200] or "model"


def engine_name(model: str, taken: Container[str]) -> str:
    """Free, and fit to be a file's name."""
    bare = re.sub(r"[^A-Za-z0-9._-]", "-", model.rpartition("/")[2]).lower().lstrip("._-")[:60]
    name, number = bare or "engine", 2
    free = name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


# --- to and fro ---------------------------------------------------------------------------------


def with_engine(
    before: Additions, name: str, model: str, engine: Mapping[str, Any], *, default: bool
) -> Additions:
    """One engine more, and a model of its own."""
    return replace(
        before,
        engines={**before.engines, name: engine},
        models={**before.models, model: {"targets": [{"engine": name}]}},
        default=model if default else before.default,
    )


def with_default(before: Additions, model: str | None) -> Additions:
    return replace(before, default=model)


def without_engine(before: Additions, name: str) -> tuple[Additions, list[str]]:
    """Without this engine, the models that were its own, and the default if that was one of them;
    and the names of those models."""
    gone = models_of(before, name)
    after = replace(
        before,
        engines={key: value for key, value in before.engines.items() if key != name},
        models={key: value for key, value in before.models.items() if key not in gone},
        default=None if before.default in gone else before.default,
    )
    return after, gone


def added_as(name: str, additions: Additions) -> str | None:
    """The added engine that a name means: its own, whatever its case, or its model's."""
    engines = {one.lower(): one for one in additions.engines}
    if (found := engines.get(name.lower())) is not None:
        return found
    return next((one for one in additions.engines if name in models_of(additions, one)), None)


def models_of(additions: Additions, name: str) -> list[str]:
    """The added models that this engine answers for."""
    return [model for model, entry in additions.models.items() if name in _engines_of(entry)]


def _engines_of(model: Mapping[str, Any]) -> list[object]:
    """Of one that is kept and not in force nobody has seen that it is a model."""
    targets = model.get("targets")
    found = targets if isinstance(targets, list | tuple) else ()
    return [target.get("engine") for target in found if isinstance(target, Mapping)]
