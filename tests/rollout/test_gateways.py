"""A rolling update of two gateways behind a name, under load: no request is lost."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from server.config.load import load
from tests.fakes.client import RawClient
from tests.fakes.upstream import Exchange, Gate, ScriptedUpstream, chat_answer, chat_stream
from tests.rollout.clients import Load, rests, whole
from tests.rollout.pods import Deployment, Pod, cluster_dns, free_port, roundhouse
from tests.rollout.rendered import Rendered

NAME: Final = "roundhouse.models.svc"
#: Streams that are open at each gateway when it gets its SIGTERM.
HELD: Final = 3


class Gateways:
    """Makes the pods of a rendered release, each on the next address."""

    def __init__(self, rendered: Rendered, folder: Path) -> None:
        self._rendered, self._folder = rendered, folder
        self.port, self._admin = free_port(), free_port()
        self._hosts = itertools.count(1)

    def config(self, address: str) -> dict[str, Any]:
        """The release's, with this machine's addresses, and without the engine."""
        config = self._rendered.config
        del config["engines"]
        config["server"] |= {
            "host": address,
            "port": self.port,
            "admin": f"{address}:{self._admin}",
        }
        return config

    def __call__(self) -> Pod:
        address = f"127.0.17.{next(self._hosts)}"
        folder = self._folder / address
        folder.mkdir()
        path = folder / "roundhouse.yaml"
        path.write_text(yaml.safe_dump(self.config(address)))
        return Pod(
            address,
            {"http": self.port, "admin": self._admin},
            roundhouse("serve", str(path)),
            {"HOME": str(folder), **self._rendered.keys},
            folder / "log",
        )


class Upstream(ScriptedUpstream):
    """Answers at once; what holds the word `hold` goes on when it is let go."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self._gates: dict[str, list[Gate]] = defaultdict(list)

    async def _answer(self, exchange: Exchange) -> None:
        asked = exchange.json()
        if not asked.get("stream"):
            await chat_answer()(exchange)
            return
        _, held, who = asked["messages"][0]["content"].partition("hold ")
        gate = Gate(2)
        if held:
            self._gates[who].append(gate)
        else:
            gate.open()
        await chat_stream(["a", "b", "c"], gate=gate)(exchange)

    def let_go(self, who: str) -> None:
        for gate in self._gates.pop(who):
            gate.open()


@pytest.fixture
def rendered() -> Rendered:
    return Rendered("http://127.0.0.1:9/v1")


def test_the_grace_period_outlasts_all_that_it_is_for(rendered: Rendered, tmp_path: Path) -> None:
    path = tmp_path / "roundhouse.yaml"
    path.write_text(yaml.safe_dump(rendered.config))
    times = load(path, environ=rendered.keys).config.server.timeouts
    life = rendered.gateways
    # The linger and the last words of `server.serving`, and some seconds for a busy machine.
    assert life.grace >= life.pre_stop + times.unready + times.drain + 1 + 2 + 5
    # A pod leaves a load balancer by its EndpointSlice or by its probe, whichever is seen first.
    assert life.pre_stop >= life.ready_period * 2
    assert (life.surge, life.unavailable) == (1, 0)


@pytest.mark.timeout(300)
async def test_a_rolling_update_loses_no_request(tmp_path: Path) -> None:
    async with Upstream() as upstream, cluster_dns(NAME) as (names, (behind,)):
        rendered = Rendered(f"{upstream.url}/v1")
        make = Gateways(rendered, tmp_path)
        load = Load(names, NAME, make.port, rendered.keys["ROUNDHOUSE_API_KEY"], "m")
        held: dict[str, list[RawClient]] = {}

        async def hold(address: str) -> None:
            held[address] = [await load.connect(address) for _ in range(HELD)]
            for client in held[address]:
                await load.post(client, stream=True, text=f"hold {address}")
                assert (await client.read_head()).status == 200
                assert await client.read_event()

        async def draining(pod: Pod) -> None:
            """It takes no new connection, and what was open goes on to its end."""
            upstream.let_go(pod.address)
            assert all(map(whole, await rests(held.pop(pod.address))))

        async with Deployment(rendered.gateways, behind, make, load.arrived) as gateways:
            before = behind.addresses
            assert len(before) == rendered.gateways.replicas == 2
            async with load.running():
                await load.more(50)
                for address in before:
                    await hold(address)
                await gateways.roll(draining)
                await load.more(50)
            assert load.lost == []
            assert held == {}
            assert len(behind.addresses) == 2
            assert not set(before) & set(behind.addresses)
            ended = [pod for pod in gateways.made if pod.address in before]
            assert [pod.told().count('"cut":0') for pod in ended] == [1, 1]
