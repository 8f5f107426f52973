"""An endpoint's own authorities: who is believed, directly and by a proxy, and from when on."""

from __future__ import annotations

import asyncio
import datetime
import errno
import gc
import os
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server.errors import ConnectFailed, Overloaded, UpstreamTimeout
from server.transport import AttemptTimeouts, Endpoint, Response, Transport, threads, trust
from tests.fakes.tls import Tls, make_tls
from tests.fakes.upstream import ScriptedUpstream, answer_bytes
from tests.transport.asking import TIMES
from tests.transport.proxies import proxy


@pytest.fixture(params=["directly", "through a proxy"])
async def by(request: pytest.FixtureRequest) -> AsyncIterator[str | None]:
    """The URL of a proxy, or None."""
    if request.param == "directly":
        yield None
        return
    async with proxy() as running:
        yield running.url


@pytest.fixture(scope="module")
def tls() -> Tls:
    return make_tls("localhost")


@pytest.fixture
def right(tmp_path: Path, tls: Tls) -> str:
    """The file with the authority of `tls`."""
    path = tmp_path / "right.pem"
    path.write_bytes(tls.ca_pem)
    return str(path)


@pytest.fixture
def wrong(tmp_path: Path) -> str:
    path = tmp_path / "wrong.pem"
    path.write_bytes(trustme.CA().cert_pem.bytes())
    return str(path)


@pytest.fixture
async def upstream(tls: Tls) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(answer_bytes(200, b"hello"), ssl=tls.server) as running:
        yield running


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is looked at for every connection."""
    monkeypatch.setattr(trust, "KEPT", 0.0)


async def ask(
    transport: Transport,
    upstream: ScriptedUpstream | str,
    by: str | None,
    ca: str | None,
    *,
    times: AttemptTimeouts = TIMES,
    deadline: float | None = None,
) -> Response:
    url = upstream if isinstance(upstream, str) else f"https://localhost:{upstream.port}"
    return await transport.send(
        Endpoint(url, proxy=by, ca=ca),
        "POST",
        "/v1/x",
        headers={},
        body=b"{}",
        timeouts=times,
        deadline=deadline,
    )


async def answered(*args: Any) -> None:
    response = await ask(*args)
    assert await response.read_all(10) == b"hello"
    response.close()


async def refused(*args: Any) -> ConnectFailed:
    with pytest.raises(ConnectFailed) as caught:
        await ask(*args)
    assert (caught.value.outcome, caught.value.sent) == ("tls", False)
    return caught.value


# --- who is believed


async def test_an_endpoints_own_authority(
    transport: Transport, upstream: ScriptedUpstream, by: str | None, right: str
) -> None:
    for _ in range(3):
        await answered(transport, upstream, by, right)
    assert len(upstream.requests) == 3
    # The first may go: tickets for later sessions come unasked.
    assert len(upstream.connections) <= 2


async def test_a_stranger_is_refused(
    transport: Transport, upstream: ScriptedUpstream, by: str | None, wrong: str
) -> None:
    error = await refused(transport, upstream, by, wrong)
    assert wrong in str(error.detail)
    assert "wrong.pem" not in error.message
    assert upstream.requests == []


async def test_the_systems_authorities_are_not_trusted_besides(
    transport: Transport,
    upstream: ScriptedUpstream,
    by: str | None,
    right: str,
    wrong: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", right)
    await refused(transport, upstream, by, wrong)
    assert len(trust.made(wrong).get_ca_certs()) == 1
    assert trust.made().get_ca_certs() == trust.made(right).get_ca_certs()


async def test_names_are_checked(
    transport: Transport, by: str | None, tmp_path: Path, right: str
) -> None:
    other = make_tls("elsewhere.test")
    path = tmp_path / "other.pem"
    path.write_bytes(other.ca_pem)
    async with ScriptedUpstream(ssl=other.server) as upstream:
        error = await refused(transport, upstream, by, str(path))
        assert "ostname mismatch" in str(error.detail)
        assert upstream.requests == []


async def test_two_authorities_for_one_host(
    transport: Transport, upstream: ScriptedUpstream, by: str | None, right: str, wrong: str
) -> None:
    """A connection that one endpoint trusts is nothing to another."""
    for _ in range(2):
        await answered(transport, upstream, by, right)
        await refused(transport, upstream, by, wrong)
        await refused(transport, upstream, by, None)
    assert len(upstream.requests) == 2


async def test_several_authorities_in_one_file(
    transport: Transport, upstream: ScriptedUpstream, by: str | None, right: str, wrong: str
) -> None:
    Path(wrong).write_bytes(Path(wrong).read_bytes() + b"# Zo\xc3\xab\n" + Path(right).read_bytes())
    await answered(transport, upstream, by, wrong)


async def test_without_tls_nobody_looks(transport: Transport, by: str | None) -> None:
    async with ScriptedUpstream(answer_bytes(200, b"hello")) as upstream:
        await answered(transport, upstream.url, by, "/absent.pem")


def test_tls_is_never_lowered(right: str) -> None:
    context: Any = trust.made(right)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.options == trust.made().options
    assert context.verify_flags == trust.made().verify_flags


# --- files


def revoked() -> bytes:
    """A list of certificates that are no more, and of none that are."""
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateRevocationListBuilder(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "us")]), now, now
    )
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def broken() -> Iterator[tuple[str, bytes]]:
    pem = trustme.CA().cert_pem.bytes()
    yield "empty", b""
    yield "no PEM", b"hello"
    yield "cut off", pem[: len(pem) // 2]
    yield "cut off in the second", pem + pem[: len(pem) // 2]
    yield "no certificate", pem.replace(b"\nM", b"\nA", 1)
    yield "a key", trustme.CA().issue_cert("localhost").private_key_pem.bytes()
    yield "no authority", revoked()


@pytest.mark.parametrize("content", [pytest.param(data, id=name) for name, data in broken()])
async def test_a_broken_file(
    transport: Transport,
    upstream: ScriptedUpstream,
    by: str | None,
    right: str,
    tls: Tls,
    content: bytes,
) -> None:
    Path(right).write_bytes(content)
    error = await refused(transport, upstream, by, right)
    assert right in str(error.detail)
    assert "right.pem" not in error.message
    Path(right).write_bytes(tls.ca_pem)  # nothing was learnt
    await answered(transport, upstream, by, right)


@pytest.mark.parametrize("kind", ["missing", "a folder", "a pipe", "no path"])
async def test_no_file(
    transport: Transport, upstream: ScriptedUpstream, by: str | None, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "ca.pem"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    error = await refused(transport, upstream, by, f"{path}\0" if kind == "no path" else str(path))
    assert str(path) in str(error.detail)


@pytest.mark.usefixtures("at_once")
async def test_a_renewed_file(
    transport: Transport, upstream: ScriptedUpstream, by: str | None, tls: Tls, wrong: str
) -> None:
    """As it is renewed in place, or by another that takes its name."""
    await refused(transport, upstream, by, wrong)
    Path(wrong).write_bytes(tls.ca_pem)
    await answered(transport, upstream, by, wrong)
    other = Path(wrong).with_suffix(".new")
    other.write_bytes(trustme.CA().cert_pem.bytes())
    other.replace(wrong)
    await transport.close()
    transport = Transport()
    await refused(transport, upstream, by, wrong)
    Path(wrong).unlink()
    await refused(transport, upstream, by, wrong)
    await transport.close()


@pytest.mark.usefixtures("at_once")
async def test_a_file_is_read_once(right: str) -> None:
    first = await trust.trusting(right)
    assert await trust.trusting(right) is first
    os.utime(right, (1, 1))
    assert await trust.trusting(right) is not first


async def test_a_file_is_looked_at_now_and_then(
    transport: Transport,
    upstream: ScriptedUpstream,
    by: str | None,
    right: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trust, "KEPT", 3600.0)
    context = await trust.trusting(right)
    Path(right).unlink()
    assert await trust.trusting(right) is context
    await answered(transport, upstream, by, right)


async def test_few_files_are_remembered(
    tmp_path: Path, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "FILES", 2)
    monkeypatch.setattr(trust, "_known", {})
    paths = [tmp_path / f"{number}.pem" for number in range(3)]
    for path in paths:
        path.write_bytes(tls.ca_pem)
        await trust.trusting(str(path))
    assert list(trust._known) == [str(path) for path in paths[1:]]


# --- reading


class Reading:
    """Reading a file takes until `go`."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.times = 0
        self._made = trust.made

    def made(self, ca: str | None = None) -> ssl.SSLContext:
        self.times += 1
        assert self.go.wait(30)
        return self._made(ca)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reading]:
    reading = Reading()
    monkeypatch.setattr(trust, "made", reading.made)
    yield reading
    reading.go.set()
    for thread in threading.enumerate():
        if thread.name == "trust":
            thread.join()


async def test_one_reads_for_all(reading: Reading, right: str) -> None:
    asking = [asyncio.create_task(trust.trusting(right)) for _ in range(50)]
    for _ in range(5):
        await asyncio.sleep(0)  # the loop goes on, meanwhile
    assert not any(task.done() for task in asking)
    reading.go.set()
    assert len(set(await asyncio.gather(*asking))) == 1
    assert reading.times == 1


async def test_reading_counts_as_connecting(
    transport: Transport,
    upstream: ScriptedUpstream,
    by: str | None,
    right: str,
    reading: Reading,
) -> None:
    with pytest.raises(ConnectFailed) as caught:
        await ask(transport, upstream, by, right, times=AttemptTimeouts(0.05, 5, 5))
    assert (caught.value.outcome, caught.value.sent) == ("connect_timeout", False)
    with pytest.raises(UpstreamTimeout) as late:
        await ask(transport, upstream, by, right, deadline=time.monotonic() + 0.05)
    assert late.value.outcome == "deadline"
    assert upstream.requests == []
    reading.go.set()  # what comes when all have left is good for the next
    await answered(transport, upstream, by, right)
    assert reading.times == 1


async def test_too_few_descriptors(
    transport: Transport,
    upstream: ScriptedUpstream,
    by: str | None,
    right: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(ca: str) -> ssl.SSLContext:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(trust, "made", none)
    with pytest.raises(Overloaded) as caught:
        await ask(transport, upstream, by, right)
    assert caught.value.code == "out_of_descriptors"


async def test_no_thread_is_left(
    right: str, monkeypatch: pytest.MonkeyPatch, upstream: ScriptedUpstream
) -> None:
    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        with pytest.raises(ConnectFailed, match="No secure connection") as caught:
            await trust.trusting(right)
    assert "can't start new thread" in str(caught.value.detail)
    assert threads._running == {}
    assert await trust.trusting(right)


async def test_failures_leave_no_circles() -> None:
    async def fail() -> None:
        try:
            await trust.trusting("/absent.pem")
        except ConnectFailed:
            return

    await fail()
    gc.collect()
    gc.disable()
    try:
        await fail()
        assert gc.collect() == 0
    finally:
        gc.enable()
