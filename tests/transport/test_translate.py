"""Every exception of aiohttp becomes an UpstreamError with an outcome."""

from __future__ import annotations

import inspect
import ssl

import aiohttp
import pytest
import yarl
from aiohttp import client_exceptions, http_exceptions

from server.errors import UpstreamError
from server.transport.library import translate


def instance(kind: type[BaseException]) -> BaseException:
    """An exception of this class with whatever it needs to be printed."""
    error = kind.__new__(kind)
    BaseException.__init__(error, "secret")
    info = aiohttp.RequestInfo(yarl.URL("http://x"), "POST", None, yarl.URL("http://x"))  # type: ignore[arg-type]
    extra = {
        "_conn_key": aiohttp.client_reqrep.ConnectionKey("x", 1, False, True, None, None, None),
        "_os_error": OSError(1, "x"),
        "_path": "x",
        "_certificate_error": Exception("x"),
        "request_info": info,
        "status": 400,
        "message": "x",
        "headers": None,
        "_description": None,
        "_url": "x",
        "history": (),
    }
    for name, value in extra.items():
        try:
            setattr(error, name, value)
        except AttributeError:
            continue
    return error


KINDS = sorted(
    {
        kind
        for module in (client_exceptions, http_exceptions)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == module.__name__
    },
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reading", [False, True])
def test_every_exception_of_the_library_is_translated(
    kind: type[BaseException], reading: bool
) -> None:
    error = translate(instance(kind), reading=reading)
    assert isinstance(error, UpstreamError)
    assert error.outcome != "error"
    assert error.detail is not None
    assert error.detail.startswith(kind.__name__)
    assert "secret" not in error.message
    if reading:
        assert error.sent
    elif issubclass(kind, client_exceptions.ClientConnectorError):
        assert not error.sent


@pytest.mark.parametrize(
    ("error", "reading", "outcome"),
    [
        (ConnectionResetError(), False, "reset"),
        (BrokenPipeError(), True, "truncated"),
        (ssl.SSLError(), False, "tls"),
        (ssl.SSLError(), True, "truncated"),
        (aiohttp.ClientConnectionError("Connector is closed"), False, "reset"),
        (aiohttp.ClientPayloadError(), False, "truncated"),
        (aiohttp.InvalidURL("x"), False, "protocol"),
        (ValueError("x"), False, "protocol"),
    ],
)
def test_translations(error: Exception, reading: bool, outcome: str) -> None:
    assert translate(error, reading=reading).outcome == outcome
