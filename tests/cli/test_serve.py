from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from server.cli.options import SETTINGS
from server.cli.serve import Greeter, serve
from server.config import additions, load
from server.config.additions import Additions
from server.config.cards import SERVED
from server.config.listeners import new_key
from server.config.load import Loaded
from server.config.providers_table import account
from server.config.resolve import resolve_models
from server.config.variables import BY_PATH
from server.engines import launcher, runtimes
from server.engines.state import EngineState, EngineView
from server.errors import BindError, EngineError
from server.registry.cards import AccessMethod, Status

Run = Callable[..., Result]


class House:
    """Stands in for `server.serving`."""

    def __init__(self) -> None:
        self.loaded: Loaded | None = None
        self.error: Exception | None = None
        self.states = [EngineState.STARTING, EngineState.READY]

    def serve(self, loaded: Loaded, greet: Callable[[Any], None]) -> int:
        self.loaded = loaded
        if self.error is not None:
            raise self.error
        for state in self.states:
            greet(self.server(loaded, state))
        return 0

    @staticmethod
    def server(loaded: Loaded, state: EngineState) -> Any:
        views = tuple(EngineView(name, state) for name in loaded.config.engines)
        return SimpleNamespace(
            url="http://127.0.0.1:8000",
            admin_url="http://127.0.0.1:8001",
            supervisor=SimpleNamespace(views=lambda: views),
            fleet=SimpleNamespace(views=lambda: ()),
            services=SimpleNamespace(
                state=SimpleNamespace(
                    config=loaded.config, models=resolve_models(loaded.config, loaded.catalog)
                )
            ),
        )


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    found = House()
    module = ModuleType("server.serving")
    module.serve = found.serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "server.serving", module)
    return found


def test_nothing_is_the_embedded_model(run: Run, house: House) -> None:
    result = run("serve")
    assert result.exit_code == 0
    assert "guide  engine guide  loading" in result.stdout
    assert "curl http://127.0.0.1:8000/v1/chat/completions" in result.stdout
    assert result.stdout.endswith("guide is ready.\n")


def test_what_was_loaded_last_time_is_there_again(run: Run, house: House, nowhere: Path) -> None:
    home = nowhere / "home"
    more = Additions({"big": {"weights": "Qwen/Qwen3-8B"}}, {}, "big")
    additions.write(home, more)
    assert run("serve", "--home", str(home)).exit_code == 0
    assert house.loaded is not None
    assert house.loaded.additions == more
    assert house.loaded.config.default == "big"
    (home / additions.FILE).write_text("{")
    result = run("serve", "--home", str(home))
    assert result.exit_code == 0
    assert "state.json is no JSON: nothing of it is served. It is kept as" in result.stderr
    assert not house.loaded.additions


def test_a_config_in_the_folder_or_the_environment(
    run: Run, house: House, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nowhere / "roundhouse.yaml").write_text("version: 1\nengines: {here: {weights: w}}")
    assert "serves roundhouse.yaml\n" in run("serve").stdout
    (nowhere / "other.yaml").write_text("version: 1\nengines: {other: {weights: w}}")
    monkeypatch.setenv("ROUNDHOUSE_CONFIG", "other.yaml")
    assert "serves other.yaml\n" in run("serve").stdout


def test_models_and_flags(run: Run, house: House) -> None:
    arguments = "serve a/b embedded:guide --port 9 --admin off --no-docs --log-level debug".split()
    assert run(*arguments).exit_code == 0
    assert house.loaded is not None
    config = house.loaded.config
    assert list(config.models) == ["a/b", "guide"]
    assert (config.server.port, config.server.admin, config.server.docs) == (9, None, False)
    assert config.log.level == "debug"


def test_every_flag_is_a_setting_with_its_twin(run: Run) -> None:
    flags = {option.name for option in serve.params if option.param_type_name == "option"}
    assert flags == set(SETTINGS)
    for setting in SETTINGS.values():
        twin = BY_PATH[tuple(setting.split("."))]
        names = [o.opts + o.secondary_opts for o in serve.params]
        assert twin.flag is not None
        assert set(twin.flag.split("/")) <= {name for group in names for name in group}
        assert f"[{twin.name}]" in " ".join(run("serve", "--help").stdout.split())


def test_what_does_not_go_together(run: Run, house: House) -> None:
    result = run("serve", "a.yaml", "b/c")
    assert result.exit_code == 2
    assert "Give one config file, or models" in result.stderr
    assert run("serve", "a.yaml", "b.yaml").exit_code == 2


def test_faults_before_and_after_the_start(run: Run, house: House, nowhere: Path) -> None:
    result = run("serve", "nope.yaml")
    assert (result.exit_code, house.loaded) == (2, None)
    (nowhere / "c").write_text("version: 1\nx: 1\ny: 2")
    result = run("serve", "c")
    assert result.stderr.startswith("Error: 2 things to mend:\n  c:2: x: is not a known key.")
    result = run("serve", "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "--host: server.host: 0.0.0.0 can be reached" in result.stderr
    house.error = BindError("The port is taken.")
    result = run("serve")
    assert (result.exit_code, result.stderr) == (3, "Error: The port is taken.\n")


def test_advice_is_given(run: Run, house: House, nowhere: Path) -> None:
    (nowhere / "roundhouse.yaml").write_text("version: 1")
    result = run("serve")
    assert result.stderr == (
        "Note: No engine, provider or model is configured: every request will be refused.\n"
    )


def test_the_greeter_asks_for_a_key_where_one_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load.load_quickstart(environ={"ROUNDHOUSE_API_KEY": "k" * 20})
    Greeter(loaded)(House.server(loaded, EngineState.READY))
    out = capsys.readouterr().out
    assert "$ROUNDHOUSE_API_KEY" in out
    assert "k" * 20 not in out


# --- keys alone


KEYS = {"OPENAI_API_KEY": "k", "MISTRAL_API_KEY": "k"}


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> Path:
    """Where a Python for engines would be; there is none."""
    python = nowhere / ".venv-engine" / "bin" / "python"
    monkeypatch.setattr(runtimes, "candidates", lambda runtime, *, base: [python])
    return python


def with_keys(monkeypatch: pytest.MonkeyPatch, **keys: str) -> None:
    for name, key in keys.items():
        monkeypatch.setenv(name, key)


def test_keys_alone_are_a_gateway(
    run: Run, house: House, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keys(monkeypatch, **KEYS)
    result = run("serve")
    assert house.loaded is not None
    config = house.loaded.config
    assert (list(config.providers), list(config.engines)) == (["openai", "mistral"], [])
    models = resolve_models(config, house.loaded.catalog)
    missing = [
        card.model_id
        for card in house.loaded.catalog.values()
        if card.provider in config.providers
        and card.type in SERVED
        and card.access_method is not AccessMethod.LOCAL
        and card.status is not Status.RETIRED
        and card.model_id not in models
    ]
    assert (missing, len(models) > 50) == ([], True)
    assert "  PROVIDER  KEY FROM         MODELS  SUCH AS\n  openai    OPENAI_" in result.stdout
    assert "\n  mistral   MISTRAL_API_KEY  " in result.stdout
    assert "(`OPENAI_API_KEY= roundhouse serve`), or write a roundhouse.yaml" in result.stdout
    assert len(result.stdout.splitlines()) < 20
    assert "MODEL " not in result.stdout
    assert result.stderr == ""


def test_a_key_in_dot_env_is_enough(run: Run, house: House, runtime: Path, nowhere: Path) -> None:
    (nowhere / ".env").write_text("ANTHROPIC_API_KEY=k\nROUNDHOUSE_PORT=9\n")
    run("serve", "--no-docs")
    assert house.loaded is not None
    config = house.loaded.config
    assert list(config.providers) == ["anthropic"]
    assert (config.server.port, config.server.docs) == (9, False)


def test_with_vllm_the_embedded_model_is_served_too(
    run: Run, house: House, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keys(monkeypatch, **KEYS)
    runtime.parent.mkdir(parents=True)
    runtime.touch()
    monkeypatch.setattr(launcher, "check_static", lambda *given, **more: None)
    result = run("serve")
    assert "  guide  engine guide  loading\n" in result.stdout
    assert "  openai    " in result.stdout
    assert "Once it is ready, try:" in result.stdout
    assert '"model": "guide"' in result.stdout  # which costs nothing

    def lacks(*given: object, **more: object) -> None:
        raise EngineError("Engine 'guide': It needs more memory.\nSee …", reason="memory")

    monkeypatch.setattr(launcher, "check_static", lacks)
    result = run("serve")
    assert "engine guide" not in result.stdout
    assert result.stderr == (
        "Note: The embedded model is left out: Engine 'guide': It needs more memory.\n"
    )


def test_a_key_of_a_file_that_is_named_or_found_is_the_files(
    run: Run, house: House, runtime: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keys(monkeypatch, **KEYS)
    (nowhere / "roundhouse.yaml").write_text("version: 1\nengines: {here: {weights: w}}")
    run("serve")
    assert house.loaded is not None
    assert not house.loaded.config.providers
    run("serve", "a/b")
    assert not house.loaded.config.providers


def test_where_our_clients_find_us_is_not_where_we_ask(
    run: Run, house: House, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keys(monkeypatch, OPENAI_API_KEY="k", OPENAI_BASE_URL="http://127.0.0.1:8000/v1")
    run("serve")
    assert house.loaded is not None
    provider = house.loaded.config.providers["openai"]
    assert account("openai", provider).base_url == "https://api.openai.com/v1"
    # What our clients send here is no key of OpenAI's.
    monkeypatch.setenv("OPENAI_API_KEY", new_key())
    run("serve")
    assert not house.loaded.config.providers


def test_with_neither_the_error_names_both_ways_out(
    run: Run, house: House, runtime: Path, nowhere: Path
) -> None:
    house.error = EngineError("No Python.\nRun it.", reason="environment", terminal=True)
    result = run("serve")
    assert result.exit_code == 4
    assert result.stderr.startswith("Error: No Python.\nRun it.\nTo serve the models of a provider")
    assert "set its key in the environment or in .env: OPENAI_API_KEY, " in result.stderr
    (nowhere / "c.yaml").write_text("version: 1\nengines: {here: {weights: w}}")
    assert run("serve", "c.yaml").stderr == "Error: No Python.\nRun it.\n"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("k\nl", "holds a line break"),
        ('"sk-1"', "has quotes in it, and they are sent as part of the key."),
        ("'sk-1'", "has quotes in it, and they are sent as part of the key."),
        ("Bearer sk-1", "has a space in it, which no key has. Give the key alone"),
    ],
)
def test_a_bad_key_is_told_by_its_variable(
    key: str, said: str, run: Run, house: House, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keys(monkeypatch, MISTRAL_API_KEY=key)
    result = run("serve")
    assert (result.exit_code, house.loaded) == (2, None)
    assert result.stderr.startswith(f"Error: MISTRAL_API_KEY: providers.mistral.api_key: {said}")
    assert "sk-1" not in result.stderr


@pytest.mark.parametrize("blank", ["", " ", "\n", " \t\n"])
def test_a_blank_key_is_none(
    blank: str, run: Run, house: House, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keys(monkeypatch, OPENAI_API_KEY=blank)
    assert run("serve").exit_code == 0
    assert house.loaded is not None
    assert (list(house.loaded.config.providers), list(house.loaded.config.engines)) == (
        [],
        ["guide"],
    )


def test_the_line_break_of_a_mounted_secret_is_no_part_of_it(
    run: Run, house: House, runtime: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keys(monkeypatch, OPENAI_API_KEY=" sk-1\r\n")
    (nowhere / ".env").write_text('MISTRAL_API_KEY="sk-2\\n"\n')
    assert run("serve").exit_code == 0
    assert house.loaded is not None
    found = {n: p.keys[0].get_secret_value() for n, p in house.loaded.config.providers.items()}
    assert found == {"openai": "sk-1", "mistral": "sk-2"}


@pytest.mark.parametrize("others", [{}, KEYS])
def test_a_hubs_token_keeps_nobody_from_the_embedded_model(
    others: dict[str, str],
    run: Run,
    house: House,
    runtime: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_keys(monkeypatch, HF_TOKEN="hf_1", **others)
    runtime.parent.mkdir(parents=True)
    runtime.touch()
    monkeypatch.setattr(launcher, "check_static", lambda *given, **more: None)
    out = run("serve").stdout
    assert out.index("guide  engine guide  loading") < out.index("PROVIDER ")
    assert re.search(r"\n  huggingface +HF_TOKEN +\d+ ", out)
    first = next(iter([*others, "HF_TOKEN"]))
    assert f"empty its variable\n  (`{first}= roundhouse serve`)" in out
    assert '"model": "guide"' in out
    monkeypatch.setenv("HF_TOKEN", "")
    assert "huggingface" not in run("serve").stdout


def test_a_provider_of_which_no_card_is_known_is_shown_all_the_same(
    run: Run, house: House, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keys(monkeypatch, GROQ_API_KEY="k", MISTRAL_API_KEY="k")
    out = run("serve").stdout
    assert re.search(r"\n  groq +GROQ_API_KEY +any +groq/ITS-OWN-ID\n", out)


def test_a_key_of_ours_that_is_left_out_is_told(
    run: Run, house: House, runtime: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = (
        "Note: OPENAI_API_KEY holds a key of this server itself, so it is sent to nobody, and "
        "openai is not served by it.\n"
    )
    with_keys(monkeypatch, OPENAI_API_KEY="house-key", ROUNDHOUSE_API_KEY="house-key")
    assert run("serve").stderr == note
    with_keys(monkeypatch, MISTRAL_API_KEY="k")
    assert run("serve").stderr == note
    assert note in run("check").stdout
    (nowhere / "roundhouse.yaml").write_text("version: 1\nengines: {here: {weights: w}}")
    assert run("serve").stderr == ""  # nobody asked for openai


def test_a_file_says_itself_what_is_here(
    run: Run, house: House, runtime: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keys(monkeypatch, **KEYS)
    (nowhere / "roundhouse.yaml").write_text("version: 1\ncatalog: auto\n")
    out = run("serve").stdout
    assert "PROVIDER  MODELS  SUCH AS" in out
    assert "To leave one out" not in out
