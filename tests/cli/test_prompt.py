from __future__ import annotations

import builtins
import os
import signal

import pytest

from server.cli.prompt import Prompt
from server.cli.show import show


def test_a_lost_ctrl_c_is_nudged(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupts = []
    before = signal.signal(signal.SIGINT, lambda *_: interrupts.append(1))

    def wait_for_a_signal(prompt: str) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        assert prompt == ">>> "
        signal.pause()  # without a nudge this lasts for ever
        return "line"

    monkeypatch.setattr(builtins, "input", wait_for_a_signal)
    try:
        with Prompt() as prompt:
            assert prompt.read(">>> ") == "line"
    finally:
        signal.signal(signal.SIGINT, before)
    assert interrupts


def test_it_leaves_the_signals_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "input", lambda prompt: prompt)
    before = signal.getsignal(signal.SIGURG)
    with Prompt() as prompt:
        assert prompt.read("a") == "a"
        os.kill(os.getpid(), signal.SIGURG)
    assert signal.getsignal(signal.SIGURG) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_drawn_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show(("NAME", "STATE"), [("[bold]a", "ready")], empty="none")
    out = capsys.readouterr().out
    assert "─" in out
    assert "[bold]a" in out
