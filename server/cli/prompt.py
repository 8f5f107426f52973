"""Reading a line in the terminal so that no Ctrl-C gets lost."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from typing import Final

#: Between two nudges.
_SOON: Final = 0.05


class Prompt:
    """`input` with arrow keys and history. Use as a context manager, in the main thread.

    Readline's wait does not see a SIGINT that came just before it began, or that another thread
    took: the Ctrl-C would count only after the next key. So a thread that hears of every signal
    interrupts the wait with a harmless one until Python has seen to it.
    """

    def __enter__(self) -> Prompt:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
        self._reading = threading.Event()
        self._closed = threading.Event()
        self._main = threading.get_ident()
        self._heard, self._tell = socket.socketpair()
        self._tell.setblocking(False)
        self._old_handler = signal.signal(signal.SIGURG, lambda *_: None)
        self._old_fd = signal.set_wakeup_fd(self._tell.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._nudge, name="prompt", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        signal.set_wakeup_fd(self._old_fd)
        signal.signal(signal.SIGURG, self._old_handler)
        self._closed.set()
        self._tell.close()
        self._thread.join()
        self._heard.close()

    def read(self, prompt: str) -> str:
        """A line. Raises EOFError for Ctrl-D, KeyboardInterrupt for Ctrl-C."""
        self._reading.set()
        try:
            return input(prompt)
        finally:
            self._reading.clear()

    def _nudge(self) -> None:
        while numbers := self._heard.recv(64):
            if signal.SIGINT not in numbers:
                continue
            while self._reading.is_set() and not self._closed.wait(_SOON):
                signal.pthread_kill(self._main, signal.SIGURG)
