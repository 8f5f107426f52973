"""A config that is wrong or half written: the last good one stays, and serves on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import yaml

from tests.fakes.client import RawClient
from tests.fakes.upstream import Gate, ScriptedUpstream, chat_answer, chat_stream
from tests.faults.conftest import ASK, CHAT, ONE, House, Serve, answered_by, config_of, events_of


def half(config: dict[str, Any]) -> str:
    """The file as far as a writer had come."""
    text = yaml.safe_dump(config, sort_keys=False)
    return text[: text.index("base_url") + 4]


BAD = {
    "half written": half,
    "empty": lambda _: "",
    "no YAML": lambda _: "server: [\n",
    "bytes": lambda _: "\x00\x01",
    "an unknown key": lambda config: yaml.safe_dump({**config, "servers": {}}),
    "a target without a provider": lambda config: yaml.safe_dump({**config, "providers": {}}),
    "a wrong value": lambda config: yaml.safe_dump({**config, "version": 2}),
}


@pytest.mark.parametrize("name", list(BAD))
async def test_the_last_good_one_stays(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream, name: str
) -> None:
    one.default = chat_answer("served")
    config = config_of(one, two)
    house = await serve(config)
    house.path.write_text(BAD[name](config))
    refused = await house.admin("POST", "/reload")
    assert refused.status_code == 400
    assert refused.json()["error"]["message"]
    assert await house.metric("config_reloads_total", result="rejected") == 1
    assert await house.metric("config_reloads_total", result="ok") == 0
    answered_by(await house.ask(), ONE)
    # And mended, it is taken.
    config["models"]["more"] = config["models"]["m"]
    await house.write(config)
    assert (await house.admin("POST", "/reload")).json()["result"] == "ok"
    assert await house.metric("config_reloads_total", result="ok") == 1
    answered_by(await house.ask(model="more"), ONE)


async def test_a_file_that_is_written_in_pieces_is_never_read_by_halves(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    """The watcher waits until the file is quiet; nobody asks for a reload here."""
    config = config_of(one, two)
    house = await serve(config)
    # The first half is a whole config in itself, which must not come into force either.
    first = yaml.safe_dump({**config, "log": {"level": "warning"}}, sort_keys=False)
    more = yaml.safe_dump({"default": "m"})
    house.path.write_text(first + more[:3])
    house.path.write_text(first + more)
    async with asyncio.timeout(30):
        while not await house.metric_now("config_reloads_total", result="ok"):
            await asyncio.sleep(0.05)  # the watcher looks once in a second
    assert await house.metric("config_reloads_total", result="rejected") == 0
    one.default = chat_answer("by default")
    answered_by(await house.ask(model="default"), ONE)


async def test_a_bad_config_under_load_disturbs_nobody(
    house: House, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    gate = Gate(2)
    one.queue(chat_stream(["a", "b"], gate=gate))
    one.default = chat_answer("beside it")
    async with RawClient(port=house.port) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        await client.read_head()
        for _ in range(20):
            house.path.write_text("server: [\n")
            asked = asyncio.create_task(house.ask())
            assert (await house.admin("POST", "/reload")).status_code == 400
            answered_by(await asked, ONE)
        gate.open()
        assert (await events_of(client))[-1] == b"data: [DONE]"
    assert await house.metric("config_reloads_total", result="rejected") == 20
    assert await house.metric("requests_total", model="m", status="200") == 21
    assert await house.metric("requests_total") == 21
