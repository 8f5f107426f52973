"""Targets at providers: models behind an account at a remote API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from server.dialects import openai
from server.dialects.account import Scrubber
from server.dialects.base import Dialect, Outgoing
from server.dialects.passing import BESIDES, plain_history
from server.errors import InvalidRequest, UpstreamError
from server.protocol.aside import LONG, aside
from server.protocol.envelope import Surface
from server.protocol.parameters import Fill
from server.protocol.request import Request
from server.targets.seam import ENGINE_ONLY_SURFACES, JSON, Plain
from server.transport import AttemptTimeouts, Endpoint, Response, Transport

_EVERY_SURFACE: Final = frozenset(openai.PATHS)


@dataclass(slots=True)
class ProviderTarget(Plain):
    """A model at a provider, asked with one of the account's keys."""

    provider: str
    model: str
    base_url: str
    #: With the account's key, so no log shows them; a proxy's URL may hold a password.
    headers: dict[str, str] = field(repr=False)
    timeouts: AttemptTimeouts
    retry_ambiguous: bool = False
    label: str = ""
    proxy: str | None = field(default=None, repr=False)
    #: Authorities to trust in place of the system's: a file's path.
    ca: str | None = None
    fill: Fill | None = None
    drop: frozenset[str] = frozenset()
    dialect: Dialect | None = None
    #: The account's, for its dialect.
    settings: Mapping[str, object] = field(default_factory=dict)
    surfaces: frozenset[Surface] = _EVERY_SURFACE
    #: It refuses messages with members that OpenAI's API does not have, though clients send back
    #: what other providers' answers had.
    strict: bool = False
    #: Which of the account's keys, from 1 on.
    key: int = 1
    #: Of what is the account's own, its other keys too; None: made of what this target has.
    scrubber: Scrubber | None = field(default=None, repr=False)
    account: tuple[str, int] | None = field(init=False, default=None)
    #: Where every request goes, and what it carries: made once.
    _endpoint: Endpoint = field(init=False, repr=False)
    _carried: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.label = self.label or f"{self.provider}/{self.model}"
        self.account = self.provider, self.key
        self._endpoint = Endpoint(self.base_url, proxy=self.proxy, ca=self.ca)
        self._carried = {**JSON, **self.headers}

    def refuses(self, request: Request) -> InvalidRequest | None:
        surface = request.surface
        if surface in self.surfaces:
            return None
        where = " It works for models on engines of this server."
        return InvalidRequest(
            f"`{request.model}` is served by a remote provider, which has no /{surface}."
            f"{where if surface in ENGINE_ONLY_SURFACES else ''}",
            param="model",
            code="unsupported_endpoint",
        )

    def unsaid(self, request: Request) -> InvalidRequest | None:
        if self.dialect is None or self._long(request):
            return None
        try:
            self._translated(replace(request))
        except InvalidRequest as refusal:
            return refusal
        return None

    async def translate(self, request: Request) -> Outgoing:
        if not self._long(request):
            return self._translated(request)
        return await aside(self._translated, request)

    def _long(self, request: Request) -> bool:
        return sum(len(memoryview(value)) for value in request.members.values()) >= LONG

    def _translated(self, request: Request) -> Outgoing:
        """What the operator fills in is not the client's to answer for: where the dialect has no
        word for that, it is left out."""
        history, lost = self._history(request)
        members: dict[str, Any] = dict(history)
        clamped = () if self.fill is None else self.fill.into(members, request.surface)
        ours = members.keys() - request.members.keys()
        if request.legacy_functions:  # who speaks of functions said nothing of calls in parallel
            ours.add("parallel_tool_calls")
        while (outgoing := self._said(request, members, ours)) is None:
            pass
        dropped = (name for name in outgoing.dropped if _member_of(name) not in ours)
        request.dropped = tuple(dict.fromkeys((*dropped, *lost)))
        lowered = (name for name in outgoing.lowered if name not in ours)
        request.clamped = tuple(dict.fromkeys((*clamped, *lowered)))
        return outgoing

    def _history(self, request: Request) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """The members, and what went of the messages."""
        if not self.strict or request.surface is not Surface.CHAT:
            return request.members, ()
        messages, lost = plain_history(request.members["messages"], BESIDES)
        return ({**request.members, "messages": messages} if lost else request.members), lost

    def _said(self, request: Request, members: dict[str, Any], ours: set[str]) -> Outgoing | None:
        """None: to be asked again, without one of the members that are not the client's."""
        assert self.dialect is not None
        try:
            return self.dialect.request_out(
                request,
                model=self.model,
                members=members,
                drop=self.drop,
                settings=self.settings,
            )
        except InvalidRequest as refusal:
            name = _member_of(refusal.param or "")
            if name not in ours or name not in members:
                raise
            ours.discard(name)
            del members[name]
            return None

    def scrub(self, error: UpstreamError) -> None:
        if self.scrubber is None:
            self.scrubber = Scrubber(self.base_url, (self.headers,), self.proxy)
        self.scrubber.clean(error)

    async def send(
        self, request: Request, transport: Transport, outgoing: Outgoing | None = None
    ) -> Response:
        if outgoing is None:
            path, headers = openai.PATHS[request.surface], self._carried
            members, lost = self._history(request)
            body = openai.request_out(
                request,
                model=self.model,
                tenant=None,
                fill=self.fill,
                drop=self.drop,
                members=members,
            )
            if lost:
                request.dropped = (*request.dropped, *lost)
        else:  # the account's own headers, a version of its choice among them, come last
            path, body = outgoing.path, outgoing.body
            headers = {**outgoing.headers, **self._carried}
        return await transport.send(
            self._endpoint,
            "POST",
            path,
            headers=headers,
            body=body,
            timeouts=self.timeouts,
            deadline=request.deadline,
        )


def _member_of(path: str) -> str:
    """The member of the body that holds this: `tools` of `tools[0].function.strict`."""
    return path.partition(".")[0].partition("[")[0]
