"""The guard: a tiny process that stands over one engine, and outlives the server only to kill it.

Run by the server's Python as a script, ``python -I -S guard.py``; standard library only. Pipes:

- stdin: commands, JSON lines. The first is the order ``{argv, env, cwd, remove, parent, grace,
  nice}``, later ones are ``{"do": "term" | "kill"}``. End of file says that the server is gone: the
  engine gets SIGTERM, `grace` seconds, then SIGKILL.
- stdout: reports, JSON lines: ``started`` (pid, which is also the process group), ``exit``
  (code or signal of the engine's first process), ``gone`` (nothing of it is left), ``refused``.
- stderr: the engine's log. The engine's stdout and stderr go there too.

The engine runs in a session of its own, so that one signal reaches all of its processes; the guard
is a child subreaper, so that those which left that group are found as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess  # runs the engine; argv is the operator's config
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE = 0.5
REAP_DEADLINE = 10.0
TRACKER_DEADLINE = 1.0


# --- what Linux knows of processes (the supervisor uses these too, when a guard dies) -----------


def processes() -> dict[int, tuple[int, int, int]]:
    """pid → (parent, group, session) of all living processes; zombies are left out."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if fields[0] not in (b"Z", b"X"):
            found[int(entry)] = (int(fields[1]), int(fields[2]), int(fields[3]))
    return found


def members(pgid: int) -> set[int]:
    """Living processes of the engine's group or session."""
    return {pid for pid, (_, group, session) in processes().items() if pgid in (group, session)}


def descendants(root: int) -> set[int]:
    """Living processes below `root`, at any depth."""
    table = processes()
    found: set[int] = set()
    level = {root}
    while level:
        level = {pid for pid, (parent, _, _) in table.items() if parent in level} - found
        found |= level
    return found


def shared_memory(pids: Iterable[int]) -> set[str]:
    """Files under /dev/shm that these processes have mapped.

    Python's shared memory outlives a SIGKILL: vLLM leaves 400 MB per engine.
    """
    inodes = set()
    for pid in pids:
        try:
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
                # By inodes: a semaphore's maker has it mapped by a name that it had at first.
                inodes |= {int(line.split()[4]) for line in file if " /dev/shm/" in line}
        except OSError:
            continue
    found = set()
    with contextlib.suppress(OSError), os.scandir("/dev/shm") as entries:  # noqa: S108
        for entry in entries:
            if entry.inode() in inodes and entry.name.startswith(("psm_", "sem.mp-", "torch_")):
                found.add(entry.path)
    return found


def trackers(pids: Iterable[int]) -> set[int]:
    """Python's resource trackers: they unlink shared memory and end, once all others are dead."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"multiprocessing.resource_tracker" in file.read():
                found.add(pid)
    return found


def remove(paths: Iterable[str]) -> None:
    """Delete files and folders of ours; what is gone already or refuses is left."""
    for path in paths:
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
        except OSError:
            continue


def remove_empty(folder: str | None) -> None:
    """Delete a folder of ours in which nobody has anything any more."""
    if folder is not None:
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def kill_all(pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue


def kill_but_trackers(pids: set[int], alone: float | None) -> float | None:
    """One round of killing. Resource trackers have a second of their own once all else is dead.

    `alone` is what the round before returned: since when only trackers are left.
    """
    spared = trackers(pids)
    if pids - spared:
        kill_all(pids - spared)
        return None
    if alone is None:
        return time.monotonic()
    if time.monotonic() - alone > TRACKER_DEADLINE:
        kill_all(spared)
    return alone


# --- the guard itself ---------------------------------------------------------------------------


def prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def child_setup(guard: int, nice: int) -> Callable[[], None]:
    """What the engine's process does between fork and exec, in its new session already."""
    libc = ctypes.CDLL(None)  # loaded before the fork: no imports after it

    def setup() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guard:  # the guard died before the line above
            os._exit(1)
        try:  # when memory runs out, the engine goes before the server does
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("500")
        except OSError:
            pass
        if nice:
            # Its threads spin on every core, and would keep the server that relays for it waiting.
            # Where the kernel groups by session, only the group's own nice counts.
            try:
                os.nice(nice)
                with open("/proc/self/autogroup", "w") as file:
                    file.write(str(nice))
            except OSError:
                pass

    return setup


class Guard:
    def __init__(self) -> None:
        self.engine: subprocess.Popen[bytes] | None = None
        self.pid: int | None = None
        self.buffer = b""
        self.order: dict[str, Any] = {}
        self.exited = False
        self.server_gone = False
        self.kill_at: float | None = None
        self.shm: set[str] = set()

    def report(self, **event: object) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            os.write(1, json.dumps(event).encode() + b"\n")

    def run(self) -> int:
        wake, write = os.pipe()
        os.set_blocking(write, False)
        os.set_blocking(wake, False)
        # Handlers, not SIG_IGN: an ignored signal stays ignored in the engine after exec.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while not self.exited:
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                break
            wait = None if self.kill_at is None else max(0.0, self.kill_at - time.monotonic())
            ready = dict(poll.poll(None if wait is None else int(wait * 1000) + 1))
            if wake in ready:
                with contextlib.suppress(OSError):
                    os.read(wake, 4096)
                self.reap()
            if 0 in ready and not self.read():
                poll.unregister(0)
                if self.pid is None:
                    return 1
        return self.finish()

    def read(self) -> bool:
        """One read of the server's pipe. False when the server is gone."""
        try:
            chunk = os.read(0, 65536)
        except OSError:
            chunk = b""
        if not chunk:
            self.server_gone = True
            self.signal(signal.SIGTERM)
            self.deadline(float(self.order.get("grace", GRACE)))
            return False
        self.buffer += chunk
        *lines, self.buffer = self.buffer.split(b"\n")
        for line in lines:
            self.obey(json.loads(line))
        return True

    def obey(self, command: dict[str, Any]) -> None:
        if "argv" in command and self.pid is None:
            self.start(command)
        elif command.get("do") == "term":
            self.signal(signal.SIGTERM)
        elif command.get("do") == "kill":
            self.deadline(0)

    def deadline(self, seconds: float) -> None:
        at = time.monotonic() + seconds
        self.kill_at = at if self.kill_at is None else min(at, self.kill_at)

    def start(self, order: dict[str, Any]) -> None:
        self.order = order
        try:
            process = subprocess.Popen(
                order["argv"],
                env=order["env"],
                cwd=order["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=2,
                stderr=2,
                close_fds=True,
                start_new_session=True,
                preexec_fn=child_setup(os.getpid(), int(order.get("nice", 0))),  # one thread: safe
            )
        except (OSError, subprocess.SubprocessError) as exc:
            told = getattr(exc, "strerror", None) or exc
            what = getattr(exc, "filename", None) or order["argv"][0]
            self.report(
                event="refused",
                message=f"{what}: {told}",
                errno=getattr(exc, "errno", None),
            )
            self.exited = True
            return
        self.engine = process  # kept: a Popen that is dropped may reap the child behind our back
        self.pid = process.pid
        self.report(event="started", pid=process.pid)

    def signal(self, number: int) -> None:
        """To the engine's first process only: vLLM's API server ends its own children."""
        if self.pid is not None and not self.exited:
            self.shm |= shared_memory(members(self.pid))  # once they are dead nobody can tell
            os.kill(self.pid, number)

    def reap(self) -> bool:
        """Collect dead children. False when none, dead or alive, is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self.exited = True
                code = os.waitstatus_to_exitcode(status)
                self.report(
                    event="exit",
                    code=code if code >= 0 else None,
                    signal=-code if code < 0 else None,
                )

    def finish(self) -> int:
        """Kill what is left of the engine, tidy up, and tell."""
        give_up = time.monotonic() + REAP_DEADLINE
        alone: float | None = None
        left: set[int] = set()
        while self.pid is not None and time.monotonic() < give_up:
            left = descendants(os.getpid()) | members(self.pid)
            self.shm |= shared_memory(left)
            alone = kill_but_trackers(left, alone)
            if not self.reap() and not left:
                break
            time.sleep(0.01)
        remove(self.shm)
        remove(self.order.get("remove", ()))
        # The last guard takes the run directory with it: a server that is killed while it has no
        # engine could not. It makes it anew for the next.
        remove_empty(self.order.get("parent"))
        self.report(event="gone", left=len(left))
        return 0


def main() -> int:
    if not sys.platform.startswith("linux"):
        os.write(1, b'{"event": "refused", "message": "engines can be run on Linux only"}\n')
        return 1
    with contextlib.suppress(OSError):  # started as a session leader already
        os.setsid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    return Guard().run()


if __name__ == "__main__":
    sys.exit(main())
