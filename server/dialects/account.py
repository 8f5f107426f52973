"""What an upstream says of our account with it, which is nothing for clients. Pure.

Most say it with 401, 402 and 403. Some do not, and a client would be told that its own request is
wrong, or that it should come back when no waiting helps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from server.errors import UpstreamError

#: Where an upstream may speak of the account in another status's clothes.
_STATUSES: Final = frozenset({400, 404, 412, 429})
_MONEY_CODES: Final = frozenset(
    {
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "enforced_spend_limit_reached",
        "exceeded_current_quota_error",
        "insufficient_balance",
        "insufficient_quota",
    }
)
_KEY_CODES: Final = frozenset(
    {"account_deactivated", "api_key_invalid", "authentication_error", "invalid_api_key"}
)
#: Of an organisation, its people and its encryption, as Anthropic has them.
_KEY_PREFIXES: Final = ("cmek_", "organization_")
#: As OpenAI, Anthropic, DeepSeek, Fireworks and Moonshot say it. What a client wrote may stand in
#: any message, but not at its beginning.
_MONEY: Final = re.compile(
    r"(your )?(credit|account) balance is too low|insufficient balance"
    r"|you (have )?(exceeded your current quota|reached your (specified )?api usage limits?)"
    r"|(your )?account \S{0,64} ?is suspended",
    re.IGNORECASE,
)
#: As xAI and Gemini do with 400, OpenAI with 404.
_KEY: Final = re.compile(
    r"(incorrect|invalid) api key|(your |the )?api key (is )?(not valid|invalid|expired)"
    r"|(the )?(user|organi[sz]ation|account)( that owns this key| associated with this api key)?"
    r" (has been|is|was) (deactivated|disabled)"
    r"|your organi[sz]ation must be verified",
    re.IGNORECASE,
)
#: Keys as the providers make them, masked or not, and ids of organisations, projects and teams. A
#: digit or a mask must stand in them, and not far from their beginning: names have neither.
_SECRET: Final = re.compile(
    r"\b(?:sk-|gsk_|hf_|xai-|nvapi-|fw_|r8_|tgp_)(?=[\w.-]{0,128}[0-9*])[\w*.-]{12,}[\w*.~+/=-]*"
    r"|\b(?:org[-_]|proj_|wrkspc_)(?=[A-Za-z]{0,128}[0-9])[A-Za-z0-9]{12,}"
    r"|\bAIza[\w-]{20,}|\bBearer +[^\s\"'`\\,;<>(){}\[\]]{12,}"
    r"|(?<=team[ /])[0-9a-f]{8}-[0-9a-f-]{27}",
)
#: Ids of requests at an upstream: for the log, which has them, and for nobody else.
_REQUEST: Final = re.compile(r"\breq_(?=[A-Za-z]{0,64}[0-9])[A-Za-z0-9]{12,}")
_HIDDEN: Final = "…"
#: Characters that a key may have. Where a text is cut, the word that is cut goes as a whole: half a
#: key is one that nothing knows again.
_SOLID: Final = "".join(chr(at) for at in range(0x21, 0x7F) if chr(at) not in "\"'`")
#: More of a text is looked at than is told, since what is taken out of it makes room.
_AHEAD: Final = 4
#: Characters of a message, of a parameter's name, and of a note in the log.
_MESSAGE: Final = 2000
_PARAM: Final = 256
_NOTE: Final = 500
#: Shorter ones are words that may stand anywhere.
_LEAST: Final = 8
#: How a header's value says what kind of credential follows.
_SCHEME: Final = re.compile(r"(?:bearer|basic|token|key|apikey|digest) +(\S+)", re.IGNORECASE)
NO_MONEY: Final = 402
NO_KEY: Final = 401


def status_of(status: int, code: object, kind: object, message: object) -> int:
    """The status that this error should have had: 401 or 402 where it is about our account."""
    if status not in _STATUSES:
        return status
    words = {word.lower() for word in (code, kind) if isinstance(word, str)}
    text = message if isinstance(message, str) else ""
    if not words.isdisjoint(_MONEY_CODES) or _MONEY.match(text):
        return NO_MONEY
    if not words.isdisjoint(_KEY_CODES) or _KEY.match(text):
        return NO_KEY
    return NO_KEY if any(word.startswith(_KEY_PREFIXES) for word in words) else status


def without_secrets(text: str) -> str:
    """The text without what looks like a key, or an id of an account's own."""
    return _SECRET.sub(_HIDDEN, text)


def told(text: str, most: int = _MESSAGE) -> str:
    """An upstream's words for a client: without secrets, and no longer than `most` characters."""
    text = without_secrets(_cut(text, _AHEAD * most))
    return _cut(_REQUEST.sub(_HIDDEN, text), most)


def place(param: object) -> str | None:
    """The parameter that an upstream names, for a client."""
    return told(param, _PARAM) or None if isinstance(param, str) else None


def noted(text: str | bytes) -> str:
    """An upstream's words, or the beginning of its answer, for the log."""
    if isinstance(text, bytes):
        # One character more than is looked at tells that there are more.
        text = text[: 4 * _AHEAD * _NOTE + 4].decode("utf-8", "replace")
    return _cut(without_secrets(_cut(text, _AHEAD * _NOTE)), _NOTE)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most].rstrip(_SOLID)


class Scrubber:
    """Takes what is an account's own out of what is told of an error: its keys and headers, and for
    clients its address, too. One for all the targets of an account; it is not looked at before
    something fails."""

    __slots__ = ("_addresses", "_all", "_secrets")

    def __init__(
        self, base_url: str, headers: Iterable[Mapping[str, str]], proxy: str | None = None
    ) -> None:
        """`headers`: those of all requests, and those with each of the keys."""
        values = (value for some in headers for value in some.values())
        self._secrets = {secret for value in values for secret in _secrets_of(value)}
        self._addresses: set[str] = set()
        for url in filter(None, (base_url, proxy)):
            secrets, addresses = _parts_of(url)
            self._secrets.update(secrets)
            self._addresses.update(addresses)
        self._all: tuple[re.Pattern[str], re.Pattern[str]] | None = None

    def clean(self, error: UpstreamError) -> None:
        """Do so in an error of one of the account's targets, in place."""
        if self._all is None:
            self._all = _any_of(self._secrets), _any_of(self._secrets | self._addresses)
        secret, own = self._all
        error.message = own.sub(_HIDDEN, error.message)
        error.args = (error.message,)
        if error.param is not None:
            error.param = own.sub(_HIDDEN, error.param)
        # These two are words to choose by: one that is no word says nothing.
        if own.search(error.code):
            error.code = type(error).code
        if own.search(error.type):
            error.type = "invalid_request_error" if error.status < 500 else type(error).type
        if error.detail is not None:
            error.detail = secret.sub(_HIDDEN, error.detail)


def _secrets_of(value: str) -> Iterator[str]:
    """Of a header: its value, and the credential in it."""
    yield value.strip()
    if (found := _SCHEME.fullmatch(value.strip())) is not None:
        yield found[1]


def _parts_of(url: str) -> tuple[set[str], set[str]]:
    """Of an address: what of it is secret, and in how many ways it is said."""
    parts = urlsplit(url)
    user, _, where = parts.netloc.rpartition("@")
    named = {user, *user.split(":", 1)}
    address = parts._replace(netloc=where).geturl()
    secrets = {url, *named, *map(unquote, named)} if user else set()
    return secrets, {address.rstrip("/"), where, parts.hostname or ""}


def _any_of(literals: set[str]) -> re.Pattern[str]:
    """The longest first, so that nothing is left of it. Matches nothing where there is none."""
    known = sorted((word for word in literals if len(word) >= _LEAST), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, known)) or r"(?!)", re.IGNORECASE)
