"""Each contender comes up, answers and leaves nothing; what is read of a process; the locks."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.contenders import CONTENDERS, Contender, GatewayDiedError, Running, proc
from benchmarks.contenders.spawn import Command, free_ports, started
from benchmarks.peers import install
from benchmarks.upstream import TEXT, Upstream
from scripts.environments.venvs import Folder, SetupFailedError, Step
from tests.fakes.upstream import ScriptedUpstream, chat_answer, chat_stream

PEERS = [name for name in CONTENDERS if name not in ("roundhouse", "direct")]
LOCKS = sorted(install.LOCKS.glob("*.txt"))
SPIN = "print('up', flush=True)\nwhile True: pass"
SLEEP = "print('up', flush=True)\nimport time; time.sleep(600)"


@dataclass(frozen=True)
class Asked:
    """What one start of a contender gave."""

    running: Running
    whole: str
    streamed: str
    cores: set[int]


def ask(running: Running, *, stream: bool) -> str:
    """The text of one answer through a gateway."""
    address = urlsplit(running.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    body = {
        "model": running.model,
        "stream": stream,
        "messages": [{"role": "user", "content": "hello"}],
    }
    headers = {"content-type": "application/json", **running.headers}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    said = answer.read().decode()
    connection.close()
    assert answer.status == 200, said
    if not stream:
        return str(json.loads(said)["choices"][0]["message"]["content"])
    events = re.findall(r"^data: (.+)$", said, re.MULTILINE)
    assert events.pop() == "[DONE]"
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def through(contender: Contender, upstream: str, folder: Path) -> Asked:
    """Starts it on one core, asks both ways, ends it."""
    core = min(os.sched_getaffinity(0))

    def work() -> Asked:
        with contender.run(upstream, core=core, folder=folder) as running:
            return Asked(
                running,
                ask(running, stream=False),
                ask(running, stream=True),
                os.sched_getaffinity(running.pid),
            )

    return await asyncio.to_thread(work)


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has begun to run `code`, which prints a line first."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


# --- contenders


def test_the_contenders_are_known_by_their_names() -> None:
    assert [contender.name for contender in CONTENDERS.values()] == list(CONTENDERS)
    assert set(PEERS) == set(install.PEERS)


@pytest.mark.parametrize("peer", PEERS)
def test_what_is_missing_is_said_with_the_way_to_get_it(peer: str) -> None:
    assert f"make bench-peers PEERS={peer}" in CONTENDERS[peer].missing()


async def test_roundhouse_answers_with_everything_on_and_is_gone_afterwards(
    tmp_path: Path,
) -> None:
    async with ScriptedUpstream(default=chat_answer("ready", model="mock")) as upstream:
        upstream.queue(
            chat_answer("first", model="mock"),  # what the start waits for
            chat_answer("whole", model="mock"),
            chat_stream(["stre", "amed"], model="mock"),
        )
        asked = await through(CONTENDERS["roundhouse"], upstream.url, tmp_path)
    running = asked.running
    assert (asked.whole, asked.streamed) == ("whole", "streamed")
    assert len(asked.cores) == 1
    assert running.start_seconds > 0
    assert running.headers["authorization"].startswith("Bearer ")
    assert running.headers["authorization"] not in repr(running)
    assert proc.tree(running.pid) == []
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", urlsplit(running.url).port)
    log = (tmp_path / "roundhouse.log").read_text()
    assert log.count('"event":"request"') == 3


async def test_direct_is_the_upstream_itself(tmp_path: Path) -> None:
    server = await Upstream().listen()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    asked = await through(CONTENDERS["direct"], url, tmp_path)
    assert asked.running.url == url
    assert (asked.whole, asked.streamed) == (TEXT, TEXT)
    server.close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("peer", PEERS)
async def test_a_peer_answers_and_is_gone_afterwards(peer: str, tmp_path: Path) -> None:
    contender = CONTENDERS[peer]
    version = contender.installed()
    if version is None:
        pytest.skip(contender.missing())
    server = await Upstream().listen()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    asked = await through(contender, url, tmp_path)
    assert (asked.whole, asked.streamed) == (TEXT, TEXT)
    assert asked.running.version == version
    assert len(asked.cores) == 1
    assert proc.tree(asked.running.pid) == []
    server.close()


# --- starting and ending


def command(code: str, start_timeout: float = 60.0) -> Command:
    (port,) = free_ports(1)
    return Command("fake", "1", (sys.executable, "-c", code), port, start_timeout=start_timeout)


def test_a_gateway_that_dies_at_the_start_gives_its_last_lines(tmp_path: Path) -> None:
    code = "for n in range(99): print('line', n, flush=True)\nraise SystemExit('no such flag')"
    with (
        pytest.raises(GatewayDiedError, match=r"fake ended with 1") as failure,
        started(command(code), core=None, folder=tmp_path),
    ):
        pytest.fail("it came up")
    assert "no such flag" in str(failure.value)
    assert "line 98" in str(failure.value)
    assert "line 9\n" not in str(failure.value)


def test_a_gateway_that_never_answers_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('child', other.pid, flush=True); other.wait()"
    )
    with (
        pytest.raises(GatewayDiedError, match="no good answer in 1 s; the last: Connection"),
        started(command(code, start_timeout=1.0), core=None, folder=tmp_path),
    ):
        pytest.fail("it came up")
    pid = int((tmp_path / "fake.log").read_text().split()[1])
    assert proc.tree(pid) == []


def test_a_gateway_that_is_not_there_says_so(tmp_path: Path) -> None:
    nothing = Command("fake", "1", (str(tmp_path / "no-such-file"),), 1)
    with (
        pytest.raises(GatewayDiedError, match=r"fake cannot be started: .*No such file"),
        started(nothing, core=None, folder=tmp_path),
    ):
        pytest.fail("it came up")


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20


def test_what_belongs_to_the_person_does_not_reach_a_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "mine")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    code = "import os; print(*sorted(os.environ))"
    with (
        pytest.raises(GatewayDiedError) as failure,
        started(command(code), core=None, folder=tmp_path),
    ):
        pytest.fail("it came up")
    names = str(failure.value).split()
    assert "PATH" in names
    assert not {"OPENAI_API_KEY", "HTTPS_PROXY"} & set(names)


# --- what is read of a process


def test_a_child_that_spins_uses_cpu_and_one_that_sleeps_does_not() -> None:
    with child(SPIN) as spinning, child(SLEEP) as sleeping:
        busy, idle = proc.Tree(spinning.pid), proc.Tree(sleeping.pid)
        before, rest = busy.read(), idle.read()
        until = time.monotonic() + 30
        while busy.read().cpu_seconds < before.cpu_seconds + 0.2:
            assert time.monotonic() < until
        assert idle.read().cpu_seconds - rest.cpu_seconds < 0.1
        assert 1_000_000 < idle.read().rss_bytes < 200_000_000


def test_a_tree_holds_its_grandchildren_and_forgets_none_that_ended() -> None:
    code = (
        "import subprocess, sys\n"
        f"other = subprocess.Popen([sys.executable, '-c', {SPIN!r}])\n"
        "print('up', flush=True)\n"
        "sys.stdin.readline(); other.kill(); other.wait(); print('ended', flush=True)\n"
        "sys.stdin.readline()"
    )
    argv = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        tree = proc.Tree(process.pid)
        while tree.read().cpu_seconds < 0.3:
            pass
        both = tree.read()
        assert both.processes == 2
        process.stdin.write("\n")
        process.stdin.flush()
        while "ended" not in process.stdout.readline():
            pass
        one = tree.read()
        assert one.processes == 1
        assert one.rss_bytes < both.rss_bytes
        assert one.cpu_seconds >= both.cpu_seconds
        process.stdin.close()
        process.wait()
        gone = tree.read()
    assert (gone.rss_bytes, gone.processes) == (0, 0)
    assert gone.cpu_seconds >= one.cpu_seconds


def test_both_sources_of_cpu_time_agree() -> None:
    with child(SLEEP) as process:
        assert proc._schedstat(process.pid) == pytest.approx(proc._cpu(process.pid), rel=0.2)


def test_a_process_that_is_not_there_has_used_nothing() -> None:
    with child(SLEEP) as process:
        pass
    assert proc.usage(process.pid) == proc.Usage(0, 0.0, 0)


# --- locks


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.name))
def test_a_peers_lock_pins_and_hashes_all_and_names_no_place(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert not re.search(r"https?://|--index-url|--find-links", text)
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[\w.!+]+(?: ; .*)? \\\n", entry), entry.splitlines()[0]
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
    assert f"\n{lock.stem}==" in text


def test_no_lock_takes_the_hijacked_releases() -> None:
    text = (install.LOCKS / "litellm.txt").read_text(encoding="utf-8")
    assert not re.search(r"^litellm==1\.82\.[78]\b", text, re.MULTILINE)


def test_portkeys_lock_names_no_registry() -> None:
    text = (install.LOCKS / "portkey" / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in text
    every = json.loads(text)["packages"]
    assert all("integrity" in package for path, package in every.items() if path)


# --- the installer


def test_a_peer_that_cannot_be_installed_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(_peer: str) -> tuple[Folder, list[Step]]:
        raise SetupFailedError("failed\n    ERROR: No matching distribution found for x\n    more")

    def have(_peer: str) -> tuple[Folder, list[Step]]:
        return Folder(tmp_path), []

    monkeypatch.setattr(install, "BENCH", tmp_path)
    monkeypatch.setattr(install, "python_peer", refuse)
    monkeypatch.setattr(install, "node_peer", have)
    assert install.main(["litellm", "portkey"]) == 0
    said = capsys.readouterr().out
    assert "litellm       not installed: ERROR: No matching distribution found for x\n" in said
    assert "portkey: ready after" in said
    assert install.main(["litellm"]) == 1


def test_without_node_portkey_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(install, "BENCH", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install.main(["portkey"]) == 1
    assert "node and npm not found; it needs Node 20 or newer" in capsys.readouterr().out
