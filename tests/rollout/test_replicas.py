"""A gateway in front of an engine's replicas, which it finds by DNS: all are replaced under load,
and no request is lost. A new one, which needs the GPUs of an old one, comes once that has gone."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from server.config.engine import Engine
from tests.fakes.client import RawClient
from tests.rollout.clients import Load, rests, whole
from tests.rollout.pods import FASTER, Deployment, Pod, cluster_dns, free_port
from tests.rollout.rendered import ENGINE, Life, Rendered

HERE: Final = Path(__file__).parent
GATEWAY: Final = "roundhouse.models.svc"
#: How often a gateway looks who is behind a name, and who is well there.
REFRESH: Final = float(Engine.model_fields["refresh"].default)


@pytest.fixture(scope="module")
def rendered() -> Rendered:
    return Rendered("http://127.0.0.1:9/v1")


class Engines:
    """Makes replicas, each on the next address."""

    def __init__(self, drain: float, folder: Path) -> None:
        self.port = free_port()
        self._drain, self._folder = drain, folder
        self._hosts = itertools.count(1)

    def gate(self, address: str) -> Path:
        """The file with which what this one holds goes on."""
        return self._folder / f"{address}.gate"

    def __call__(self) -> Pod:
        address = f"127.0.18.{next(self._hosts)}"
        given = (address, str(self.port), str(self.gate(address)), f"{self._drain:g}")
        argv = [sys.executable, str(HERE / "engine.py"), *given]
        return Pod(address, {"http": self.port}, argv, {}, self._folder / f"{address}.log")


def gateway(rendered: Rendered, port: int, dns: int, engines: int, folder: Path) -> Pod:
    """One that has the release's config, and looks as much more often as pods live shorter here."""
    config: dict[str, Any] = rendered.config
    engine = config["engines"][ENGINE]
    name, _, _ = engine["discover"].rpartition(":")
    engine |= {"discover": f"{name}:{engines}", "refresh": REFRESH / FASTER}
    config["server"] |= {"host": "127.0.18.100", "port": port, "admin": None}
    path = folder / "roundhouse.yaml"
    path.write_text(yaml.safe_dump(config))
    argv = [sys.executable, str(HERE / "named.py"), str(dns), "serve", str(path)]
    env = {"HOME": str(folder), **rendered.keys}
    return Pod("127.0.18.100", {"http": port}, argv, env, folder / "gateway.log")


def test_replicas_leave_dns_long_before_they_stop(rendered: Rendered) -> None:
    life = rendered.engines
    # A look may have begun just before, and answers of a cluster's DNS are kept for 5 s.
    assert life.pre_stop >= REFRESH + 5 + 5
    assert life.grace > life.pre_stop + rendered.engine_drain
    assert (life.surge, life.unavailable) == (0, 1)


@pytest.mark.timeout(300)
async def test_replacing_all_replicas_loses_no_request(rendered: Rendered, tmp_path: Path) -> None:
    life: Life = rendered.engines
    make = Engines(rendered.engine_drain, tmp_path)
    discovered = rendered.config["engines"][ENGINE]["discover"]
    name = discovered.removeprefix("dns://").partition(":")[0]
    async with cluster_dns(name, GATEWAY) as (names, (behind, front)):
        port = free_port()
        load = Load(names, GATEWAY, port, rendered.keys["ROUNDHOUSE_API_KEY"], ENGINE)
        held: dict[str, list[RawClient]] = {}

        async def hold() -> None:
            """Streams at every replica, whichever the gateway chooses for each."""
            while len(held) < life.replicas:
                client = await load.connect()
                await load.post(client, stream=True, text="hold")
                assert (await client.read_head()).status == 200
                event = await client.read_event()
                (address,) = (one for one in behind.addresses if one.encode() in event)
                held.setdefault(address, []).append(client)

        async def draining(pod: Pod) -> None:
            make.gate(pod.address).touch()
            assert all(map(whole, await rests(held.pop(pod.address))))

        async with Deployment(life, behind, make, load.arrived) as engines:
            pod = gateway(rendered, port, names.port, make.port, tmp_path)
            try:
                await pod.start()
                await pod.ready(f"/ready?model={ENGINE}", "http", 0.1)
                front.add(pod.address)
                before = behind.addresses
                async with load.running():
                    await load.more(50)
                    await hold()
                    await engines.roll(draining)
                    await load.more(50)
            finally:
                await pod.kill()
        assert load.lost == []
        assert held == {}
        assert len(behind.addresses) == 2
        assert not set(before) & set(behind.addresses)
