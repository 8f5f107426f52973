"""Errors as bytes: endpoints raise, and only this module turns a raise into an answer."""

from __future__ import annotations

from typing import Final

import msgspec

from server.errors import InternalError, RoundhouseError, UpstreamError

NO_RETRY: Final = (b"x-should-retry", b"false")


def body(error: RoundhouseError) -> bytes:
    """The OpenAI-shaped JSON body."""
    return msgspec.json.encode(error.body())


def headers(error: RoundhouseError) -> tuple[tuple[bytes, bytes], ...]:
    """Extra headers: retry-after, www-authenticate, allow, and `x-should-retry: false`.

    The last one only where our own attempts are spent and nobody has named a time to come back:
    the SDKs let it overrule Retry-After, so it never stands on our own shed or loading answers.
    """
    found = [(k.encode(), v.encode()) for k, v in error.headers().items()]
    tried_again = error.status >= 429 or error.status in (408, 409)  # by the SDKs
    if isinstance(error, UpstreamError) and error.retry_after is None and tried_again:
        found.append(NO_RETRY)
    return tuple(found)


def internal(request_id: str) -> InternalError:
    """What a client hears of a fault of ours; the log has the rest under the same id."""
    return InternalError(
        f"Roundhouse failed while it served this request. The server's log has the details "
        f"under the request id {request_id}."
    )
