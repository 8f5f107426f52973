"""Images and containers in miniature, with what the kernel has and no Docker.

A base image is this machine's `/usr` and `/etc`, seen through overlays that keep all changes apart;
whatever else is in an image is a plain folder. Steps run in it by `chroot` with nothing of this
process's environment. A container has that root read-only, its own processes, network and temporary
folders, an unprivileged user and no capabilities. Needs Linux and root.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OVERLAID = ("usr", "etc")
_LINKS = ("bin", "sbin", "lib", "lib64")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
#: Loopback is down in a new network namespace; `ip` may not be here.
_LOOPBACK_UP = (
    "import fcntl, socket, struct; s = socket.socket(); "
    "fcntl.ioctl(s, 0x8914, struct.pack('16sh', b'lo', 1))"
)


def missing() -> str:
    """Why this machine cannot do it; empty if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "images in miniature need Linux and root"
    tools = [tool for tool in ("unshare", "nsenter", "setpriv", "chroot") if not shutil.which(tool)]
    if tools or not Path("/usr/bin/python3").exists() or not Path("/lib").is_symlink():
        return f"no {' '.join(tools) or 'Debian with python3'} here"
    with TemporaryDirectory(prefix="roundhouse-image-") as folder:
        for part in ("usr", "changed", "work"):
            Path(folder, part).mkdir()
        options = f"lowerdir=/usr,upperdir={folder}/changed,workdir={folder}/work"
        tried = f"mount --make-rprivate / && mount -t overlay overlay -o {options} {folder}/usr"
        done = subprocess.run(
            ["unshare", "-mpnf", "sh", "-c", tried], check=False, capture_output=True, text=True
        )
    return f"no namespaces or overlays here: {done.stderr.strip()}" if done.returncode else ""


@dataclass
class Root:
    """An image's files. `shown`: places where folders of this machine are seen, read-only
    in containers: what a base image has in addition."""

    folder: Path
    shown: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("proc", "sys", "dev", "tmp", "root", "run", "opt", "var/lib", "var/cache"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "tmp").chmod(0o1777)
        for name in _LINKS:
            if Path("/", name).is_symlink():
                (self.folder / name).symlink_to(os.readlink(Path("/", name)))
        for name in _OVERLAID:
            (self.folder / name).mkdir()
            for part in ("changed", "work"):
                (self.folder.with_name(f"{self.folder.name}.{part}") / name).mkdir(parents=True)
        for place in self.shown:
            self.at(place).mkdir(parents=True)

    def at(self, path: str) -> Path:
        """Where a path of the image lies on this machine, for what is not below an overlay."""
        assert path.strip("/").split("/")[0] not in _OVERLAID, path
        return self.folder / path.strip("/")

    def changed(self, path: str) -> Path:
        """The same, for what is below one."""
        return self.folder.with_name(f"{self.folder.name}.changed") / path.strip("/")

    def mounts(self, *, read_only: bool = False) -> list[str]:
        """Shell lines that put it together, in a mount namespace of their own."""
        here = shlex.quote(str(self.folder))
        lines = ["set -e", "mount --make-rprivate /", f"mount --bind {here} {here}"]
        for name in _OVERLAID:
            parts = [self.folder.with_name(f"{self.folder.name}.{p}") for p in ("changed", "work")]
            options = f"lowerdir=/{name},upperdir={parts[0]}/{name},workdir={parts[1]}/{name}"
            lines.append(f"mount -t overlay overlay -o {shlex.quote(options)} {here}/{name}")
        for place, path in self.shown.items():
            lines.append(f"mount --bind {shlex.quote(str(path))} {here}{shlex.quote(place)}")
        lines.append(f"mount -t tmpfs -o mode=0755 tmpfs {here}/dev && mkdir {here}/dev/shm")
        for name in _DEVICES:
            lines += [f"touch {here}/dev/{name}", f"mount --bind /dev/{name} {here}/dev/{name}"]
        lines.append(f"mount -t tmpfs -o mode=1777 tmpfs {here}/dev/shm")
        if read_only:
            where = ["", *(f"/{name}" for name in _OVERLAID), *self.shown]
            lines += [f"mount -o remount,bind,ro {here}{shlex.quote(one)}" for one in where]
        return lines

    def run(
        self,
        command: str,
        env: Mapping[str, str],
        *,
        binds: Mapping[str, Path],
        folder: str = "/",
    ) -> None:
        """A step of a build, as root, with folders of this machine at places of the image. Raises
        AssertionError with what it said."""
        here = shlex.quote(str(self.folder))
        lines = [*self.mounts(), f"mount --bind /proc {here}/proc"]
        for place, path in binds.items():
            target = shlex.quote(f"{self.folder}{place}")
            made = "mkdir -p" if path.is_dir() else "touch"
            lines += [f"{made} {target}", f"mount --bind {shlex.quote(str(path))} {target}"]
        inner = f"cd {shlex.quote(folder)} && {command}"
        given = [f"{name}={value}" for name, value in env.items()]
        lines.append(f"exec chroot {here} {shlex.join(['env', '-i', *given, 'sh', '-c', inner])}")
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", "\n".join(lines)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"


@dataclass
class Image:
    """What a build makes: files, and how to run them."""

    root: Root
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    user: str = ""
    folder: str = "/"
    stop: signal.Signals = signal.SIGTERM

    def _as(self, user: str, env: Mapping[str, str], words: Sequence[str]) -> str:
        """A command line that runs `words` as containers do."""
        uid, _, gid = user.partition(":")
        given = [f"{name}={value}" for name, value in (self.env | dict(env)).items()]
        kept = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        bare = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
        inner = f"cd {shlex.quote(self.folder)} && exec {shlex.join(['env', '-i', *given, *words])}"
        return shlex.join([*kept, *bare, "sh", "-c", inner])

    @contextmanager
    def container(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, Path] | None = None,
        entrypoint: Sequence[str] | None = None,
        user: str | None = None,
    ) -> Iterator[Container]:
        """`docker run --read-only`, with more variables, and folders of this machine in place of
        the image's, read-only. Ended, if it still runs, when left."""
        user, env = user or self.user, env or {}
        here = shlex.quote(str(self.root.folder))
        lines = [*self.root.mounts(read_only=True), f"mount -t proc proc {here}/proc"]
        lines.append(f"mount -t sysfs -o ro sysfs {here}/sys")
        for place in self.volumes:
            options = "mode=1777" if place == "/tmp" else "mode=0770,uid=10001,gid=0"
            lines.append(f"mount -t tmpfs -o {options} tmpfs {here}{place}")
        for place, path in (files or {}).items():
            lines.append(f"mount --bind {shlex.quote(str(path))} {here}{shlex.quote(place)}")
            lines.append(f"mount -o remount,bind,ro {here}{shlex.quote(place)}")
        lines.append(shlex.join([sys.executable, "-I", "-c", _LOOPBACK_UP]))
        words = [*(self.entrypoint if entrypoint is None else entrypoint)]
        words += arguments or (self.command if entrypoint is None else ())
        lines.append(f"exec chroot {here} {self._as(user, env, words)}")
        unshare = ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child"]
        with subprocess.Popen(
            [*unshare, "sh", "-c", "\n".join(lines)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            container = Container(self, process, user, dict(env))
            try:
                yield container
            finally:
                # By its PID 1, with which all of it ends: that the kernel does so when `unshare`
                # is killed is forgotten as soon as the user changes.
                with suppress(ProcessLookupError, FileNotFoundError, ValueError):
                    os.kill(container.first, signal.SIGKILL)
                process.kill()


@dataclass
class Container:
    image: Image
    process: subprocess.Popen[str]
    user: str
    env: dict[str, str]
    said: list[str] = field(default_factory=list)

    def until(self, part: str, never: str = "\0") -> str:
        """The next line of its output with `part` in it. Raises AssertionError with all of it when
        the container ends without, or says what it is `never` to say."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if part in line:
                return line
            if never in line:
                break
        raise AssertionError(f"{part!r} was not said:\n{''.join(self.said)}")

    @property
    def first(self) -> int:
        """Its PID 1, as this machine numbers it."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        (pid,) = path.read_text().split()
        return int(pid)

    def call(self, *words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """`docker exec`."""
        spaces = ["nsenter", f"--target={self.first}", "--mount", "--pid", "--net", "--ipc"]
        there = f"chroot {shlex.quote(str(self.image.root.folder))}"
        return subprocess.run(
            [*spaces, "sh", "-c", f"exec {there} {self.image._as(self.user, self.env, words)}"],
            input=input or "",
            capture_output=True,
            text=True,
            check=False,
        )

    def healthy(self) -> bool:
        """What its HEALTHCHECK says now."""
        return self.call(*self.image.health).returncode == 0

    def stop(self) -> int:
        """`docker stop`, with all the patience that there is; the exit code."""
        os.kill(self.first, self.image.stop)
        return self.wait()

    def wait(self) -> int:
        assert self.process.stdout is not None
        self.said += self.process.stdout
        return self.process.wait()
