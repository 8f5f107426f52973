"""The seam between routing and the places that answer: engines and providers.

A Target sends one request in its dialect and yields the answer's head; the relay reads the rest.
"""

from __future__ import annotations

from typing import Final, Protocol

from server.dialects.base import Dialect, Outgoing
from server.errors import EngineNotReady, InvalidRequest, UpstreamError
from server.protocol.envelope import Surface
from server.protocol.request import Request
from server.transport import AttemptTimeouts, Response, Transport

JSON: Final = {"content-type": "application/json"}
#: vLLM's own, which no provider has.
ENGINE_ONLY_SURFACES: Final = frozenset({Surface.TOKENIZE, Surface.DETOKENIZE})


class Target(Protocol):
    """One place that can answer. `label` is its metric label and response header."""

    label: str
    timeouts: AttemptTimeouts
    retry_ambiguous: bool

    @property
    def dialect(self) -> Dialect | None:
        """Of its answers; None: OpenAI's, whose bytes pass untouched."""

    @property
    def account(self) -> tuple[str, int] | None:
        """The provider, and which of its keys from 1 on; None: an engine."""

    @property
    def local(self) -> str | None:
        """The engine of this server whose process answers; None: it is somebody else's."""

    @property
    def ready(self) -> bool:
        """Would an attempt now reach something that answers?"""

    @property
    def may_become_ready(self) -> bool:
        """Is waiting for it of use?"""

    def eta(self) -> float | None:
        """Seconds until it is ready, estimated; None: nobody knows."""

    def hopeless(self) -> EngineNotReady | None:
        """What a client is told while waiting for it is of no use; None: nothing of its own."""

    def loading(self) -> EngineNotReady:
        """What a client is told that shall not wait for it."""

    def refuses(self, request: Request) -> InvalidRequest | None:
        """Why this target can never answer this request, or None."""

    async def wait(self, timeout: float) -> None:
        """Until it is ready. Raises EngineNotReady or Overloaded."""

    def unsaid(self, request: Request) -> InvalidRequest | None:
        """What `translate` would raise: for who wants to know beforehand, of a body that is not
        long."""

    async def translate(self, request: Request) -> Outgoing:
        """The request in its dialect, where that is not OpenAI's. Raises InvalidRequest for what
        it has no word for."""

    async def send(
        self, request: Request, transport: Transport, outgoing: Outgoing | None = None
    ) -> Response:
        """Send, and wait for the head. `outgoing`: the request as `translate` has it. Raises
        UpstreamError, EngineNotReady."""

    def mark(self) -> int:
        """What `failed` needs to know later of the moment before `send`."""

    def want(self) -> None:
        """It was passed over because it is not loaded: load it, without waiting."""

    def failed(self, mark: int) -> None:
        """An answer broke off: look after this target now rather than later."""

    def scrub(self, error: UpstreamError) -> None:
        """Take what is the account's own out of the words of an error, in place: keys for the log,
        the address, too, for clients."""

    def lost(self) -> bool:
        """Is it gone, with all that it was doing? Asked a little after a failure."""

    def died(self, mark: int) -> bool | None:
        """Has the process that had this mark died, though nobody had asked it to end? None: it is
        well, as far as anybody knows."""


class Plain:
    """What most targets have in common: they are there, load nothing, speak OpenAI's dialect."""

    __slots__ = ()

    dialect: Dialect | None = None
    account: tuple[str, int] | None = None
    local: str | None = None

    @property
    def ready(self) -> bool:
        return True

    @property
    def may_become_ready(self) -> bool:
        return True

    def eta(self) -> float | None:
        return 0.0

    def hopeless(self) -> EngineNotReady | None:
        return None

    def loading(self) -> EngineNotReady:
        return EngineNotReady(
            "The model is loading.", code="engine_loading", retry_after=self.eta()
        )

    def refuses(self, request: Request) -> InvalidRequest | None:
        return None

    async def wait(self, timeout: float) -> None:
        return

    def unsaid(self, request: Request) -> InvalidRequest | None:
        return None

    async def translate(self, request: Request) -> Outgoing:
        raise NotImplementedError("nothing is translated into OpenAI's dialect")

    def mark(self) -> int:
        return 0

    def want(self) -> None:
        return

    def failed(self, mark: int) -> None:
        return

    def scrub(self, error: UpstreamError) -> None:
        return

    def lost(self) -> bool:
        return False

    def died(self, mark: int) -> bool | None:
        return False
