"""Every error that Roundhouse tells somebody about, in one hierarchy.

::

    RoundhouseError
    ├── InternalError           500  a fault of ours; the log has the traceback
    ├── RequestError            the client's own: never retried, never a reason to fall back
    │   ├── InvalidRequest      400  wrong JSON, types, values; `param` names the field
    │   ├── PayloadTooLarge     413
    │   ├── UnsupportedMedia    415  content type or content encoding
    │   ├── RequestTimedOut     408  headers or body came too slowly
    │   ├── NotAuthenticated    401
    │   ├── NotAllowed          403
    │   ├── ModelNotFound       404  names near matches
    │   ├── RouteNotFound       404
    │   ├── MethodNotAllowed    405
    │   └── Conflict            409  admin API: what is there does not go with what is asked for
    ├── RateLimited             429  a limit of the client's key: carries x-ratelimit-*
    ├── UnavailableError        503  ours, and temporary: carries Retry-After
    │   ├── EngineNotReady      503  loading, restarting, stopped or failed
    │   ├── Overloaded          503  a queue or a budget of ours is full
    │   └── Draining            503  the server is shutting down
    ├── UpstreamError           502  one attempt at a target failed; `outcome` is its metric label
    │   ├── ConnectFailed       502  refused, dns, tls, connect_timeout: nothing was sent
    │   ├── UpstreamReset       502  the connection broke after sending
    │   ├── UpstreamTimeout     504  no first byte, or the stream stalled
    │   ├── UpstreamProtocol    502  bytes that are no answer: bad framing, bad UTF-8, no end
    │   ├── UpstreamTooLarge    502  an answer over a cap of ours, whoever gives it
    │   ├── UpstreamTruncated   502  the answer ended before it was complete
    │   ├── UpstreamAborted     502  the engine said `abort` or `error` as finish reason
    │   └── UpstreamStatus      any  the target answered with an error; status and body are its own
    ├── ClientGone              499  the client left; told to the log, not to the client
    └── StartError              no HTTP: one paragraph for the person at the terminal
        ├── ConfigError         file, line, key, way out
        ├── BindError           the address is taken or not ours
        └── EngineError         weights missing, no memory, bad arguments, a hang, a crash loop

Each class knows its HTTP status, OpenAI `type` and `code`, extra headers, and whether another
target may be tried (`retryable`). Endpoints only raise; the renderers live in `server.api.render`.
A message here may be shown to a client: it never holds a path, a traceback, a key or `str()` of
somebody else's exception. Details for operators go into `detail`, which only the log sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class RoundhouseError(Exception):
    """Base class. `message` is for the client, `detail` for the operator's log only."""

    status: int = 500
    type: str = "server_error"
    code: str = "internal_error"
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        #: Seconds until a new try makes sense, or None.
        self.retry_after = retry_after
        self.detail = detail

    def headers(self) -> dict[str, str]:
        """Extra response headers: `retry-after` in whole seconds, rounded up."""
        if self.retry_after is None:
            return {}
        return {"retry-after": str(max(1, int(-(-self.retry_after // 1))))}

    def body(self) -> dict[str, object]:
        """The OpenAI error object."""
        said = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": said}


def untrace(error: BaseException) -> None:
    """Forget the frames that it came by. It was told, and they may lead back to it: a circle."""
    found: BaseException | None = error
    while found is not None:
        found.__traceback__, found = None, found.__context__


class InternalError(RoundhouseError):
    """A fault of ours. The client gets the request id, the log gets the traceback."""


# --- the client's own -------------------------------------------------------------------------


class RequestError(RoundhouseError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidRequest(RequestError):
    code = "invalid_value"


class PayloadTooLarge(RequestError):
    status = 413
    code = "payload_too_large"


class UnsupportedMedia(RequestError):
    status = 415
    code = "unsupported_media_type"


class RequestTimedOut(RequestError):
    status = 408
    code = "request_timeout"


class NotAuthenticated(RequestError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "www-authenticate": "Bearer"}


class NotAllowed(RequestError):
    status = 403
    type = "permission_error"
    code = "model_not_allowed"


class ModelNotFound(RequestError):
    status = 404
    code = "model_not_found"


class RouteNotFound(RequestError):
    status = 404
    code = "unknown_url"


class MethodNotAllowed(RequestError):
    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "allow": ", ".join(self.allow)}


class Conflict(RequestError):
    status = 409
    code = "name_taken"


class RateLimited(RoundhouseError):
    """A limit of the key. `standings` are its x-ratelimit headers. Without `retry_after` waiting is
    of no use, and the SDKs are told so: they would try a 429 again."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        standings: Mapping[str, str],
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.standings = standings

    def headers(self) -> dict[str, str]:
        final = {"x-should-retry": "false"} if self.retry_after is None else {}
        return {**super().headers(), **self.standings, **final}


# --- ours, and temporary ----------------------------------------------------------------------


class UnavailableError(RoundhouseError):
    status = 503
    type = "server_error"
    code = "unavailable"

    def headers(self) -> dict[str, str]:
        """Retry-After always, since these pass: what was said, else 5 s."""
        return {"retry-after": "5", **super().headers()}


class EngineNotReady(UnavailableError):
    """The engine cannot answer now. `retryable`: another target of the plan may."""

    code = "engine_not_ready"
    retryable = True


class Overloaded(UnavailableError):
    code = "overloaded"


class Draining(UnavailableError):
    code = "shutting_down"


# --- one attempt at a target ------------------------------------------------------------------


class UpstreamError(RoundhouseError):
    """One attempt failed. `outcome` is a closed metric label. `sent` says that bytes of the request
    may have reached the target, so that the work may have been done, and billed, already."""

    status = 502
    type = "server_error"
    code = "upstream_error"
    retryable = True
    outcome: str = "error"
    sent: bool = True


class ConnectFailed(UpstreamError):
    code = "upstream_unreachable"
    sent = False
    OUTCOMES: ClassVar[frozenset[str]] = frozenset({"refused", "dns", "tls", "connect_timeout"})

    def __init__(self, message: str, *, outcome: str, detail: str | None = None) -> None:
        if outcome not in self.OUTCOMES:
            raise ValueError(outcome)
        super().__init__(message, detail=detail)
        self.outcome = outcome


class UpstreamReset(UpstreamError):
    code = "upstream_reset"
    outcome = "reset"


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
    OUTCOMES: ClassVar[frozenset[str]] = frozenset({"first_byte_timeout", "stall", "deadline"})

    def __init__(self, message: str, *, outcome: str, detail: str | None = None) -> None:
        if outcome not in self.OUTCOMES:
            raise ValueError(outcome)
        super().__init__(message, detail=detail)
        self.outcome = outcome


class UpstreamProtocol(UpstreamError):
    code = "upstream_protocol"
    outcome = "protocol"


class UpstreamTooLarge(UpstreamError):
    code = "upstream_too_large"
    retryable = False
    outcome = "too_large"


class UpstreamTruncated(UpstreamError):
    code = "upstream_truncated"
    outcome = "truncated"


class UpstreamAborted(UpstreamError):
    code = "upstream_aborted"
    outcome = "aborted"


class UpstreamStatus(UpstreamError):
    """The target itself answered with an error.

    The dialect has put its words into `message`, `type`, `code` and `param`. `CLIENT_OWN` statuses
    are the client's own and final. `ACCOUNT` ones speak of *our* account at the target: another
    target may be tried, and the client is told 502, since its own key is fine.
    """

    #: What a refusal is about, where another model may not refuse; see `dialects.trouble`.
    trouble: str | None = None
    CLIENT_OWN: ClassVar[frozenset[int]] = frozenset({400, 404, 405, 409, 413, 415, 422})
    ACCOUNT: ClassVar[frozenset[int]] = frozenset({401, 402, 403})

    def __init__(
        self,
        upstream_status: int,
        *,
        message: str,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code, retry_after=retry_after, detail=detail)
        self.upstream_status = upstream_status
        if upstream_status in self.CLIENT_OWN:
            self.status, self.retryable, self.outcome = upstream_status, False, "http_4xx"
        elif upstream_status in self.ACCOUNT:
            self.status, self.code = 502, "upstream_refused_credentials"
            self.outcome = "http_auth"
        elif upstream_status == 529:
            self.status, self.outcome = 503, "http_5xx"
        elif 400 <= upstream_status < 600:
            kind = "429" if upstream_status == 429 else f"{upstream_status // 100}xx"
            self.status, self.outcome = upstream_status, f"http_{kind}"
        else:  # a redirect or a 1xx is no answer of a model API
            self.status, self.outcome, self.code = 502, "protocol", "upstream_protocol"
        if type is not None:
            self.type = type
        elif self.status < 500:
            self.type = "rate_limit_error" if self.status == 429 else "invalid_request_error"


class ClientGone(RoundhouseError):
    status = 499
    code = "client_gone"


# --- for the person at the terminal -----------------------------------------------------------


class StartError(RoundhouseError):
    """Printed as one paragraph by the CLI, which then exits with `exit_code`."""

    exit_code: int = 1


class ConfigError(StartError):
    """A config that cannot be used.

    `file`, `line` (1-based) and `key` (dotted, `models.fast.alias`) say where; `hint` says what
    to do. `str()` is the whole paragraph: ``roundhouse.yaml:12: models.fast.alias: … Hint``.
    """

    exit_code = 2
    code = "invalid_config"

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.file, self.line, self.key, self.hint = file, line, key, hint

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        text = ": ".join(part for part in (where, self.key, self.message) if part)
        return f"{text} {self.hint}" if self.hint else text


class BindError(StartError):
    exit_code = 3
    code = "bind_failed"


class EngineError(StartError):
    """An engine cannot start or go on. `log_tail` holds the last lines of its log.

    `terminal` says that trying again cannot help (weights missing, bad arguments), so the
    supervisor does not.
    """

    exit_code = 4
    code = "engine_failed"

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        terminal: bool = False,
        log_tail: tuple[str, ...] = (),
        detail: str | None = None,
    ) -> None:
        super().__init__(message, detail=detail)
        #: Closed label; docs/troubleshooting.md explains each.
        self.reason = reason
        self.terminal = terminal
        self.log_tail = log_tail
