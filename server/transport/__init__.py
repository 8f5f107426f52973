"""Upstream HTTP behind one small seam: send → head, then "all bytes since the last read".

No type of an HTTP library leaves this package, and everything that goes wrong comes out as an
UpstreamError with its outcome. Nothing is ever sent twice: no redirects, no retries, no
decompression.
"""

from server.transport.client import LINGER, Transport, past_deadline
from server.transport.pool import IDLE
from server.transport.seam import AttemptTimeouts, Endpoint, Response
from server.transport.wire import READ_AHEAD

__all__ = [
    "IDLE",
    "LINGER",
    "READ_AHEAD",
    "AttemptTimeouts",
    "Endpoint",
    "Response",
    "Transport",
    "past_deadline",
]
