"""What an upstream says of our account with it, which is nothing for clients. Pure.

Most say it with 401, 402 and 403. Some do not, and a client would be told that its own request is
wrong, or that it should come back when no waiting helps.
"""

from __future__ import annotations

import re
from typing import Final

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
#: digit or a mask must stand in them: names have neither.
_SECRET: Final = re.compile(
    r"\b(?:sk-|gsk_|hf_|xai-|nvapi-|fw_|r8_|tgp_)(?=[\w.-]*[0-9*])[\w*.-]{12,}"
    r"|\b(?:org[-_]|proj_|wrkspc_)(?=[A-Za-z]*[0-9])[A-Za-z0-9]{12,}"
    r"|\bAIza[\w-]{20,}|\bBearer +[\w.~+/=-]{12,}"
    r"|(?<=team[ /])[0-9a-f]{8}-[0-9a-f-]{27}",
)
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
    return _SECRET.sub("…", text)
