from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from server.config.additions import FILE, NONE, Additions, Found, read
from server.config.load import Loaded, from_models, load
from server.config.reload import INTERVAL, ReloadReport, Watcher, differences
from server.errors import ConfigError, EngineError
from server.telemetry.metrics import Metrics

ONE = "version: 1\nengines: {a: {weights: w}}\n"
TWO = "version: 1\nengines: {a: {weights: w}, b: {weights: w}}\n"
BAD = "version: 1\nengins: {}\n"


class Ticks:
    """A sleep that lasts until the test says so."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()

    async def __call__(self, seconds: float) -> None:
        assert seconds == INTERVAL
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(future)
        await future

    async def next(self) -> asyncio.Future[None]:
        """The sleep that is on now, once the watcher has come to it."""
        while (future := await self.asked.get()).done():
            pass
        return future

    async def pass_one(self) -> None:
        """Let one interval pass, and wait until the watcher sleeps again."""
        (await self.next()).set_result(None)
        future = await self.next()
        self.asked.put_nowait(future)


class House:
    """A watched config file, and what was applied of it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "roundhouse.yaml"
        self.file.write_text(ONE)
        self.applied: list[list[str]] = []
        self.fault: Exception | None = None
        self.metrics = Metrics()
        self.ticks = Ticks()
        self.home = folder / "home"
        self.watch(self.load())

    def load(self) -> Loaded:
        return load(self.file, environ={}, overrides={"server.home": str(self.home)})

    def watch(self, loaded: Loaded) -> None:
        self.watcher = Watcher(loaded, self.apply, self.metrics, sleep=self.ticks)

    async def apply(self, loaded: Loaded) -> None:
        if self.fault is not None:
            raise self.fault
        self.applied.append(list(loaded.config.engines))

    def count(self, result: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "roundhouse_config_reloads_total", {"result": result}
        )
        return value or 0

    def counts(self) -> tuple[float, ...]:
        return tuple(self.count(result) for result in ("ok", "unchanged", "rejected"))

    async def watching(self, body: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(self.watcher.run())
        try:
            await body()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_a_good_config_is_swapped_in(house: House) -> None:
    house.file.write_text(TWO)
    report = await house.watcher.reload()
    assert report == ReloadReport("ok", ["engines.b"])
    assert house.applied == [["a", "b"]]
    assert list(house.watcher.loaded.config.engines) == ["a", "b"]
    assert house.counts() == (1, 0, 0)


async def test_the_same_content_changes_nothing(house: House) -> None:
    house.file.write_text(ONE)
    assert await house.watcher.reload() == ReloadReport("unchanged")
    assert house.applied == []
    assert house.counts() == (0, 1, 0)


async def test_the_metric_says_whether_the_file_is_the_config(house: House) -> None:
    def good() -> float | None:
        return house.metrics.registry.get_sample_value("roundhouse_config_last_reload_successful")

    assert good() == 1
    text = house.file.read_text()
    house.file.write_text("version: 2")
    await house.watcher.reload()
    assert good() == 0
    house.file.write_text(text)
    await house.watcher.reload()
    assert good() == 1


async def test_a_bad_config_leaves_the_good_one(house: House) -> None:
    house.file.write_text(BAD)
    report = await house.watcher.reload()
    assert report.result == "rejected"
    assert report.error == f"{house.file}:2: engins: is not a known key. Did you mean `engines`?"
    assert list(house.watcher.loaded.config.engines) == ["a"]
    assert house.counts() == (0, 0, 1)


async def test_a_config_that_cannot_be_applied_is_rejected(house: House) -> None:
    house.file.write_text(TWO)
    house.fault = EngineError("No such weights.", reason="weights")
    assert (await house.watcher.reload()).error == "No such weights."
    house.fault = RuntimeError("a secret detail")
    report = await house.watcher.reload()
    assert report.result == "rejected"
    assert "secret" not in (report.error or "")
    house.fault = None
    assert (await house.watcher.reload()).result == "ok"


async def test_what_waits_for_a_restart_is_named(house: House) -> None:
    house.file.write_text(f"{TWO}server: {{port: 9000, admin: null, docs: false}}\n")
    report = await house.watcher.reload()
    assert report.changed == ["server.port", "server.admin", "server.docs", "engines.b"]
    assert report.warnings == [
        "server.port, server.admin, server.docs: in force after the next start of the server."
    ]


async def test_flags_and_the_environment_stay(house: House) -> None:
    house.watch(
        load(house.file, environ={"ROUNDHOUSE_PORT": "7"}, overrides={"server.host": "::1"})
    )
    house.file.write_text(TWO)
    await house.watcher.reload()
    server = house.watcher.loaded.config.server
    assert (server.host, server.port) == ("::1", 7)


async def test_without_a_file_nothing_changes(house: House) -> None:
    house.watch(from_models(["a/b"], environ={}))
    assert (await house.watcher.reload()).result == "unchanged"


# --- watching


async def test_a_changed_file_is_read_once_it_is_quiet(house: House) -> None:
    async def body() -> None:
        await house.ticks.pass_one()
        assert house.applied == []
        house.file.write_text("version: 1\nengi")
        await house.ticks.pass_one()  # seen
        house.file.write_text(TWO)
        await house.ticks.pass_one()  # seen again, still moving
        assert house.counts() == (0, 0, 0)
        await house.ticks.pass_one()  # quiet
        assert house.applied == [["a", "b"]]
        await house.ticks.pass_one()
        assert house.counts() == (1, 0, 0)

    await house.watching(body)


async def test_a_bad_file_is_rejected_once_and_mended(house: House) -> None:
    async def body() -> None:
        house.file.write_text(BAD)
        for _ in range(4):
            await house.ticks.pass_one()
        assert house.counts() == (0, 0, 1)
        house.file.write_text(TWO)
        for _ in range(3):
            await house.ticks.pass_one()
        assert house.counts() == (1, 0, 1)

    await house.watching(body)


async def test_a_removed_file_is_rejected_once(house: House) -> None:
    async def body() -> None:
        house.file.unlink()
        for _ in range(4):
            await house.ticks.pass_one()
        assert house.counts() == (0, 0, 1)

    await house.watching(body)


async def test_a_symlink_that_is_swapped_as_in_kubernetes(tmp_path: Path) -> None:
    for version, text in (("v1", ONE), ("v2", TWO)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "roundhouse.yaml").write_text(text)
        os.utime(tmp_path / version / "roundhouse.yaml", ns=(1, 1))
    (tmp_path / "mount").mkdir()
    house = House(tmp_path / "mount")
    house.file.unlink()
    data = tmp_path / "mount" / "..data"
    data.symlink_to(tmp_path / "v1")
    house.file.symlink_to("..data/roundhouse.yaml")
    house.watch(load(house.file, environ={}))

    async def body() -> None:
        await house.ticks.pass_one()
        fresh = tmp_path / "mount" / "..data_tmp"
        fresh.symlink_to(tmp_path / "v2")
        fresh.rename(data)
        for _ in range(2):
            await house.ticks.pass_one()
        assert house.applied == [["a", "b"]]

    await house.watching(body)


async def test_dot_env_and_the_keys_file_are_watched(house: House, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("- {name: a, key: k}")
    house.file.write_text(f"{ONE}server: {{keys_file: keys.yaml}}")
    house.watch(load(house.file, environ={}))

    async def body() -> None:
        (tmp_path / "keys.yaml").write_text("- {name: a, key: other}")
        for _ in range(2):
            await house.ticks.pass_one()
        assert house.count("ok") == 1
        (tmp_path / ".env").write_text("ROUNDHOUSE_LOG_LEVEL=debug")
        for _ in range(2):
            await house.ticks.pass_one()
        assert house.count("ok") == 2
        assert house.watcher.loaded.config.log.level == "debug"

    await house.watching(body)


async def test_a_signal_reloads_at_once(house: House) -> None:
    async def body() -> None:
        await house.ticks.next()
        house.file.write_text(TWO)
        house.watcher.trigger()
        await house.ticks.next()  # it sleeps again, and the first sleep was cut short
        assert house.applied == [["a", "b"]]

    await house.watching(body)


async def test_a_file_that_is_being_written_gets_another_chance(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [(BAD, TWO)]
    again = Loaded.again

    def busy(loaded: Loaded) -> Loaded:
        if not texts:
            return again(loaded)
        now, later = texts.pop()
        house.file.write_text(now)
        try:
            return again(loaded)
        finally:
            house.file.write_text(later)

    monkeypatch.setattr(Loaded, "again", busy)
    task = asyncio.create_task(house.watcher.reload())
    (await house.ticks.next()).set_result(None)
    assert (await task).result == "ok"
    assert house.applied == [["a", "b"]]
    # It never gets quiet: the last word counts.
    texts[:] = [(BAD + "#3", BAD + "#333"), (BAD + "#2", BAD + "#22"), (ONE + "#", ONE + "##")]
    task = asyncio.create_task(house.watcher.reload())
    for _ in range(2):
        (await house.ticks.next()).set_result(None)
    assert (await task).result == "rejected"


async def test_reloads_come_one_after_the_other(house: House) -> None:
    house.file.write_text(TWO)
    reports = await asyncio.gather(*(house.watcher.reload() for _ in range(3)))
    assert sorted(report.result for report in reports) == ["ok", "unchanged", "unchanged"]


# --- additions

MORE = Additions({"big": {"weights": "v"}}, {}, "big")


async def test_what_is_added_is_applied_and_kept(house: House) -> None:
    loaded = await house.watcher.add(MORE)
    assert house.watcher.loaded is loaded
    assert house.applied == [["a", "big"]]
    assert read(house.home) == Found(MORE)
    # It stays when the config is read again, which changes nothing else.
    assert await house.watcher.reload() == ReloadReport("unchanged")
    house.file.write_text(TWO)
    assert (await house.watcher.reload()).changed == ["engines.b"]
    assert house.applied[1:] == [["a", "b", "big"]]
    # And with the next start.
    assert house.load().with_state().additions == MORE
    # Until it is taken out.
    await house.watcher.add(NONE)
    assert house.applied[2:] == [["a", "b"]]
    assert read(house.home) == Found(NONE)


async def test_what_is_wrong_is_neither_applied_nor_kept(house: House) -> None:
    with pytest.raises(ConfigError, match=r"^engines\.x\.weights: is missing\.$"):
        await house.watcher.add(Additions({"x": {}}))
    assert house.applied == []
    assert not house.home.exists()


async def test_what_cannot_be_kept_is_not_applied(house: House) -> None:
    house.home.write_text("no folder")
    with pytest.raises(ConfigError, match="so that nothing was changed"):
        await house.watcher.add(MORE)
    assert house.applied == []
    assert house.watcher.loaded.additions == NONE


async def test_what_cannot_be_applied_is_not_kept(house: House) -> None:
    await house.watcher.add(MORE)
    house.fault = EngineError("No such weights.", reason="weights")
    with pytest.raises(EngineError):
        await house.watcher.add(Additions({"x": {"weights": "v"}}))
    assert read(house.home) == Found(MORE)
    assert house.watcher.loaded.additions == MORE
    assert [path.name for path in house.home.iterdir()] == [FILE]


async def test_of_what_is_added_and_what_is_read_neither_is_lost(house: House) -> None:
    house.file.write_text(TWO)
    await asyncio.gather(house.watcher.add(MORE), house.watcher.reload())
    assert list(house.watcher.loaded.config.engines) == ["a", "b", "big"]
    assert read(house.home) == Found(MORE)


async def test_a_config_that_takes_a_name_over_tells_so(house: House) -> None:
    await house.watcher.add(MORE)
    house.file.write_text(f"{ONE[:-2]}, big: {{weights: mine}}}}\n")
    report = await house.watcher.reload()
    assert report.changed == ["engines.big"]
    assert report.warnings == [
        "Engine `big`, loaded while the server ran, is left out: the config has an engine `big`."
    ]
    assert house.watcher.loaded.left_out == Additions(MORE.engines)
    assert read(house.home) == Found(MORE)
    # Until it is kept no more.
    loaded = await house.watcher.forget(Additions(default="big"))
    assert house.watcher.loaded is loaded
    assert (loaded.left_out, loaded.config.default) == (NONE, "big")
    assert read(house.home) == Found(Additions(default="big"))


async def test_a_new_home_is_for_the_next_start(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.file.write_text(f"{ONE}server: {{home: {tmp_path / 'one'}}}\n")
    house.watch(load(house.file, environ={}))
    house.file.write_text(f"{ONE}server: {{home: {tmp_path / 'two'}}}\n")
    assert (await house.watcher.reload()).changed == ["server.home"]
    await house.watcher.add(MORE)
    assert read(tmp_path / "one") == Found(MORE)
    assert not (tmp_path / "two").exists()


def test_differences_name_what_came_and_went(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"{ONE}models: {{x: {{targets: [{{engine: a}}]}}}}\nlog: {{level: info}}")
    old = load(file, environ={})
    file.write_text(
        "version: 1\nengines: {a: {weights: v}}\nlog: {level: debug}\n"
        "routing: {breaker: {failures: 2}}"
    )
    assert differences(old, load(file, environ={})) == [
        "log.level",
        "routing.breaker",
        "engines.a",
        "models.x",
    ]
