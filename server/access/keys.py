"""Who may ask: named static keys, held as digests only."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from server.access.limits import UNLIMITED, KeyLimits
from server.config.schema import Config, Key
from server.errors import NotAuthenticated

#: Names in lower case, as ASGI has them.
Headers = Iterable[tuple[bytes, bytes]]

_DIGEST: Final = "sha256:"
#: What a miss is compared with, so that it costs what a hit costs.
_NOBODY: Final = hashlib.sha256(b"nobody's key").digest()
#: How the providers' own keys look.
_PROVIDERS: Final = (
    (re.compile(r"sk-ant-"), "an Anthropic key"),
    (re.compile(r"sk-or-"), "an OpenRouter key"),
    (re.compile(r"sk-(proj|svcacct|admin)-"), "an OpenAI key"),
    (re.compile(r"sk-[A-Za-z0-9]{40,}$"), "an OpenAI key"),
    (re.compile(r"sk-[0-9a-f]{32}$"), "a DeepSeek key"),
    (re.compile(r"hf_"), "a Hugging Face token"),
    (re.compile(r"gsk_"), "a Groq key"),
    (re.compile(r"xai-"), "an xAI key"),
    (re.compile(r"AIza"), "a Google key"),
)


_ALL: Final = ("*",)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """Whom a request is from. `tenant` separates prefix caches and cannot be turned back into the
    key; None for everybody, when there are no keys. `limits` is UNLIMITED itself without any."""

    name: str
    models: tuple[str, ...] = ("*",)
    tenant: str | None = None
    limits: KeyLimits = UNLIMITED

    def allows(self, model: str) -> bool:
        """May this key use the model? A trailing `*` of a pattern stands for anything."""
        if self.models == _ALL:
            return True
        return any(
            model.startswith(pattern[:-1]) if pattern.endswith("*") else model == pattern
            for pattern in self.models
        )


#: Whom a server without keys serves.
EVERYONE: Final = KeyInfo("anonymous")


class Keyring:
    """The keys of one config. Looked up by digest; the keys themselves are not kept."""

    __slots__ = ("_admin", "_keys", "_metrics")

    def __init__(
        self, keys: Sequence[Key], admin_key: str | None = None, metrics_key: str | None = None
    ) -> None:
        self._keys: dict[bytes, KeyInfo] = {}
        for key in keys:
            digest = _digest(key.key.get_secret_value())
            self._keys[digest] = KeyInfo(key.name, key.models, _tenant(digest), _limits(key))
        self._admin = None if admin_key is None else _digest(admin_key)
        self._metrics = None if metrics_key is None else _digest(metrics_key)

    @classmethod
    def from_config(cls, config: Config) -> Keyring:
        """The keys of a checked config; those of the keys file and the environment are in it."""
        admin, metrics = config.server.admin_key, config.server.metrics_key
        return cls(
            config.server.keys,
            admin.get_secret_value() if admin else None,
            metrics.get_secret_value() if metrics else None,
        )

    def __repr__(self) -> str:
        return f"Keyring({', '.join(key.name for key in self._keys.values())})"

    @property
    def names(self) -> list[str]:
        """Of all keys, in the config's order."""
        return [key.name for key in self._keys.values()]

    def named(self, name: str) -> KeyInfo | None:
        """The key of this name: for operators' questions, which need no secret."""
        return next((key for key in self._keys.values() if key.name == name), None)

    def authenticate(self, headers: Headers) -> KeyInfo:
        """The key in `authorization: Bearer …` or `x-api-key`. Raises NotAuthenticated.

        Without keys everybody is EVERYONE, whatever they send: SDKs always send something.
        """
        if not self._keys:
            return EVERYONE
        secret = _secret(headers)
        digest = hashlib.sha256(secret).digest()
        found = self._keys.get(digest)
        if not hmac.compare_digest(digest if found else _NOBODY, digest) or found is None:
            raise NotAuthenticated(_unknown(secret, "server.keys"))
        return found

    def authenticate_admin(self, headers: Headers, *, metrics: bool = False) -> None:
        """Raises NotAuthenticated unless the admin key is sent, or none is set. `metrics`: the
        metrics are asked for, which have a key of their own, too."""
        if self._admin is None:
            return
        secret = _secret(headers)
        digest = hashlib.sha256(secret).digest()
        if hmac.compare_digest(self._admin, digest):
            return
        if self._metrics is not None and hmac.compare_digest(self._metrics, digest):
            if metrics:
                return
            raise NotAuthenticated(
                "This key opens the metrics alone. The admin API's is server.admin_key, or "
                "ROUNDHOUSE_ADMIN_KEY."
            )
        if digest in self._keys:
            raise NotAuthenticated(
                "This key is a client's. The admin API has a key of its own: server.admin_key, or "
                "ROUNDHOUSE_ADMIN_KEY."
            )
        raise NotAuthenticated(_unknown(secret, "server.admin_key"))


def _digest(secret: str) -> bytes:
    if secret.startswith(_DIGEST):
        return bytes.fromhex(secret.removeprefix(_DIGEST))
    return hashlib.sha256(secret.encode()).digest()


def _limits(key: Key) -> KeyLimits:
    limits = KeyLimits(key.rpm, key.tpm, key.max_in_flight)
    return UNLIMITED if limits == UNLIMITED else limits


def _tenant(digest: bytes) -> str:
    return hmac.new(digest, b"roundhouse tenant", hashlib.sha256).hexdigest()[:32]


def _secret(headers: Headers) -> bytes:
    sent = [value for name, value in headers if name == b"authorization"]
    if not sent:
        own = [value.strip() for name, value in headers if name == b"x-api-key"]
        if len(own) == 1 and own[0]:
            return own[0]
        raise NotAuthenticated(
            "No key was sent. Send one as `Authorization: Bearer <key>`.", code="missing_api_key"
        )
    scheme, _, secret = sent[0].strip().partition(b" ")
    secret = secret.strip()
    if len(sent) > 1 or scheme.lower() != b"bearer" or not secret or b" " in secret:
        raise NotAuthenticated(
            "The Authorization header is not of the form `Authorization: Bearer <key>`.",
            code="malformed_api_key",
        )
    return secret


def _unknown(secret: bytes, setting: str) -> str:
    """What to say of a key that is not ours; never a part of it."""
    text = secret.decode("latin-1")
    for pattern, what in _PROVIDERS:
        if pattern.match(text):
            return (
                f"This looks like {what}. Roundhouse has keys of its own ({setting} in its "
                "config); providers' keys stay with the server."
            )
    return "The key is not one of this server's."
