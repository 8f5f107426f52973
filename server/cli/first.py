"""The first process of a container, whatever starts it: Docker, or a pod that names the command.

The kernel hands PID 1 every process whose parent has died, and drops a signal that PID 1 has no
handler for. So `roundhouse` as PID 1 makes a second process that does the work, and is itself no
more than an init: it waits for whoever ends, passes signals on, and ends as the second one ends.
With it the kernel kills whatever is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final

PASSED_ON: Final = frozenset(
    {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)
#: `si_code` of a signal that the kernel sent by itself, such as a terminal's for Ctrl-C.
_SI_KERNEL: Final = 0x80


def stand_over() -> int | None:
    """Forks. None in the second process, which goes on; in the first one, when that has ended, the
    exit code to end with.

    To be called before there are threads.
    """
    awaited = PASSED_ON | {signal.SIGCHLD}
    # Blocked from before the fork: what comes early waits, and a blocked signal is kept for PID 1.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    worker = os.fork()
    if worker == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    while True:
        came = signal.sigwaitinfo(awaited)
        if came.si_signo == signal.SIGCHLD:
            if (code := _reap(worker)) is not None:
                return code
        elif came.si_code != _SI_KERNEL:  # a terminal has sent it to both of us already
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, came.si_signo)


def _reap(worker: int) -> int | None:
    """Waits for all that have ended, since several may share one signal; the worker's exit code."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == worker:
                code = os.waitstatus_to_exitcode(found[1])
    # As a shell says it of a program that a signal ended.
    return 128 - code if code is not None and code < 0 else code
