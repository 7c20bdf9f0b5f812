"""The program that becomes a rootless container. Started by :mod:`prebuilt.oci.containers.rootless`, never imported by it.

It runs as ``python -I -S launcher.py STATUS_FD LOCK_FD`` on the bare standard library and reads what to do from its standard input.
Three processes come of it:

* the *launcher*, in this machine's PID namespace: makes the user, PID and IPC namespaces, passes signals and the exit code on;
* the *init*, PID 1 of the container: makes the mounts, reaps orphans, passes signals on;
* the *command*.

Each is killed by the kernel when the one before it dies, and the kernel kills all of a PID namespace with its PID 1, so nothing
outlives the caller, whatever kills it. Mounts live in the namespace of the init and vanish with it.

The description is JSON: ``parent`` (the caller's PID), ``layers`` (a folder), ``lowers`` (names in it, top layer first), ``scratch``
(relative to ``layers``; has folders ``upper``, ``work`` and ``root``), ``command``, ``env``, ``workdir``, ``mounts`` (``source``, ``target``, ``read_only``); without
``command`` all is set up and torn down again. A failure before the command starts is written to the status pipe as JSON (``step``,
``errno``); the pipe is closed without a word when the command starts.

Needs Linux 5.12: overlay mounts in user namespaces (5.11) and ``mount_setattr`` (5.12).
"""

# Importing pathlib would cost more than all that is done here.
# ruff: noqa: PTH101, PTH102, PTH103, PTH110, PTH120, PTH123, PTH211

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import stat
import sys
import warnings  # noqa: F401 - os.execvpe imports it (Python 3.10), when this machine's library is out of sight
from collections.abc import Iterator
from typing import Any, NoReturn

# Source: <linux/sched.h>, <linux/mount.h>, <linux/prctl.h>, <linux/fcntl.h>. System call numbers since 424 are the same on all processors.
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x0002_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_SLAVE = 0x2, 0x4, 0x8, 0x4000, 0x8_0000
MNT_DETACH = 2
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_RDONLY = 1, 4, 1
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
KERNEL_CONTROLS = ("bus", "fs", "irq", "sys", "sysrq-trigger")
"""Below /proc; read-only as in Docker, since root inside may be root outside."""
HOST_FILES = ("/etc/resolv.conf", "/etc/hosts")
"""The network is the machine's, so names are looked up as on the machine."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Docker's, for images that set none."""
NOT_EXECUTABLE, NOT_FOUND = 126, 127
KILL_REQUEST = signal.SIGRTMAX
"""Has the launcher kill the init and wait for its end, which comes after that of all others in its PID namespace."""

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class SetupError(Exception):
    """A step failed before the command could start."""

    def __init__(self, step: str, number: int) -> None:
        """Keep what was tried and the errno."""
        super().__init__(step, number)
        self.step, self.number = step, number


def main() -> None:
    """Run the described container; exit with its code."""
    status_fd, lock_fd = (int(argument) for argument in sys.argv[1:3])
    for fd in (status_fd, lock_fd):  # the lock is held until the last process but the command is gone
        os.set_inheritable(fd, False)
    description = json.load(sys.stdin)
    with reported(status_fd):
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = launch(description, status_fd)
    os._exit(code)


@contextlib.contextmanager
def reported(status_fd: int) -> Iterator[None]:
    """Write a failure of the body to the status pipe and end this process."""
    try:
        yield
    except SetupError as error:
        report = {"step": error.step, "errno": error.number}
    except OSError as error:
        report = {
            "step": f"use {error.filename}" if error.filename else "set the container up",
            "errno": error.errno or 0,
        }
    else:
        return
    os.write(status_fd, json.dumps(report).encode())
    os._exit(1)


def launch(description: dict[str, Any], status_fd: int) -> int:
    """Make the namespaces and the init; return the exit code."""
    die_with_parent()
    if os.getppid() != description["parent"]:  # it died before it could be watched
        return 1
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller that ignores it has this program ignore it too
    signal.pthread_sigmask(signal.SIG_SETMASK, passed_on())
    enter_user_namespace()
    alive, held = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(held)
        with reported(status_fd):
            code = become_init(description, status_fd, alive)
        os._exit(code)
    os.close(status_fd)
    return wait_for(init)


def become_init(description: dict[str, Any], status_fd: int, alive: int) -> int:
    """Make the mounts and the command; return its exit code."""
    die_with_parent()
    if select.select([alive], [], [], 0)[0]:  # end of file: the launcher died before it could be watched
        return 1
    make_root(description)
    if "command" not in description:
        return 0
    command = os.fork()
    if command == 0:
        with reported(status_fd):
            become_command(description)
    os.close(status_fd)
    return wait_for(command)


def become_command(description: dict[str, Any]) -> NoReturn:
    """Execute the command; if the image lacks it, say so as a shell would."""
    os.umask(0o022)
    os.makedirs(description["workdir"], exist_ok=True)
    os.chdir(description["workdir"])
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):  # the C library keeps some for itself
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    command, env = description["command"], description["env"]
    os.environ["PATH"] = env.setdefault("PATH", DEFAULT_PATH)
    try:
        os.execvpe(command[0], command, env)  # noqa: S606 - no shell is the point
    except OSError as error:
        missing = error.errno in {errno.ENOENT, errno.ENOTDIR}
        os.write(2, f"{command[0]}: {os.strerror(error.errno or 0)}\n".encode(errors="surrogateescape"))
        os._exit(NOT_FOUND if missing else NOT_EXECUTABLE)


def passed_on() -> set[signal.Signals]:
    """Return the signals that are taken one by one and passed on: all that can be blocked and are not the sign of a bug."""
    faults = {
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGABRT,
        signal.SIGTRAP,
        signal.SIGSYS,
    }
    return signal.valid_signals() - faults


def wait_for(child: int) -> int:
    """Pass signals on to `child` and reap orphans until it ends; return its exit code, 128 and more for a signal."""
    while True:
        number = signal.sigwait(passed_on())
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL if number == KILL_REQUEST else number)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if pid == 0:
                break


def enter_user_namespace() -> None:
    """Become root of a new user namespace, in which the caller's user is root, or every id is itself if the caller is root.

    Only a process outside may map more than the caller's own id: a short-lived child does it.
    """
    if os.geteuid() == 0:
        ids = {name: identity(f"/proc/self/{name}") for name in ("uid_map", "gid_map")}
    else:
        ids = {"setgroups": "deny", "uid_map": f"0 {os.geteuid()} 1", "gid_map": f"0 {os.getegid()} 1"}
    ready, go = os.pipe()
    mapper = os.fork() if os.geteuid() == 0 else -1
    if mapper == 0:
        os.close(go)
        os.read(ready, 1)
        os._exit(0 if write_maps(os.getppid(), ids) else 1)
    os.close(ready)
    checked("make a user namespace", libc.unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWIPC))
    os.close(go)
    mapped = write_maps(os.getpid(), ids) if mapper == -1 else os.waitpid(mapper, 0)[1] == 0
    if not mapped:
        raise SetupError("map user ids into a user namespace", errno.EPERM)


def write_maps(pid: int, ids: dict[str, str]) -> bool:
    """Write the id maps of a process; return whether the kernel took them."""
    try:
        for name, text in ids.items():
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(text)
    except OSError:
        return False
    return True


def identity(path: str) -> str:
    """Return a map of every id that the map at `path` has, to itself."""
    with open(path) as file:
        rows = [line.split() for line in file]
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in rows)


def make_root(description: dict[str, Any]) -> None:
    """Mount the container's root and what belongs into it; leave the machine's root behind.

    What comes from outside is opened before the root changes and put in place after it, so that the kernel looks the targets up
    inside: no symbolic link of the image can lead a mount out of it.
    """
    checked("make a mount namespace", libc.unshare(CLONE_NEWNS))
    mount("", "/", "", MS_REC | MS_SLAVE)
    os.chdir(
        description["layers"]
    )  # names relative to it: options of a mount must fit into one page, with 127 layers too
    lowers, scratch = ":".join(description["lowers"]), description["scratch"]
    options = f"lowerdir={lowers},upperdir={scratch}/upper,workdir={scratch}/work,userxattr,volatile"
    mount("overlay", f"{scratch}/root", "overlay", 0, options)
    system = open_tree("/sys", read_only=True)
    devices = {name: open_tree(f"/dev/{name}") for name in DEVICES}
    names = {path: open_tree(os.path.realpath(path), read_only=True) for path in HOST_FILES if os.path.exists(path)}
    mounts = [(open_tree(m["source"], read_only=m["read_only"]), m["target"]) for m in description["mounts"]]
    os.chdir(f"{scratch}/root")
    checked("change the root", libc.pivot_root(b".", b"."))
    for path in ("/proc", "/sys", "/dev", "/tmp"):  # noqa: S108 - the image's own
        os.makedirs(path, exist_ok=True)
    os.chmod("/tmp", 0o1777)  # noqa: S103, S108 - as everywhere
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)  # while the machine's is visible: else refused
    checked("leave the machine's root", libc.umount2(b".", MNT_DETACH))
    os.chdir("/")
    for name in KERNEL_CONTROLS:
        if os.path.exists(f"/proc/{name}"):
            attach(open_tree(f"/proc/{name}", read_only=True), f"/proc/{name}")
    attach(system, "/sys")
    make_devices(devices)
    for path, tree in names.items():
        attach(tree, path)
    for tree, target in mounts:
        attach(tree, target)


def make_devices(devices: dict[str, int]) -> None:
    """Fill /dev with the few devices that every program may count on."""
    mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=755,size=64k")
    for name, tree in devices.items():
        attach(tree, f"/dev/{name}")
    for name, target in DEVICE_LINKS.items():
        os.symlink(target, f"/dev/{name}")
    os.mkdir("/dev/shm")  # noqa: S108 - its standard place
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")  # noqa: S108
    os.mkdir("/dev/pts")
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount a file system, or change how one is shared."""
    result = libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())
    checked(f"mount {kind or 'nothing new'} on {target}", result)


def open_tree(path: str, *, read_only: bool = False) -> int:
    """Return a copy of the mount at `path` with all below it, not yet in place."""
    flags = OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC
    tree = checked(f"bind {path}", syscall(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags))
    if read_only:
        attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)  # set, clear, propagation, user namespace
        done = syscall(
            SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH | AT_RECURSIVE, attributes, ctypes.sizeof(attributes)
        )
        checked(f"make {path} read-only", done)
    return tree


def attach(tree: int, target: str) -> None:
    """Put a tree in place at `target`, which is made if it is not there."""
    target = os.path.realpath(target)
    if not os.path.exists(target):
        make_target(target, folder=stat.S_ISDIR(os.fstat(tree).st_mode))
    done = syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)
    checked(f"mount on {target}", done)
    os.close(tree)


def make_target(target: str, *, folder: bool) -> None:
    """Make a folder, or an empty file and the folders above it, to mount on."""
    os.makedirs(target if folder else os.path.dirname(target), exist_ok=True)
    if not folder:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def syscall(number: int, *arguments: object) -> int:
    """Make a system call for which the C library may be too old to have a function; integers are passed as C longs."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(libc.syscall(ctypes.c_long(number), *converted))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process."""
    zero = ctypes.c_ulong(0)
    checked("set a process attribute", libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero))


def checked(step: str, result: int) -> int:
    """Return the result of a C function; raise if it is -1."""
    if result == -1:
        raise SetupError(step, ctypes.get_errno())
    return result


if __name__ == "__main__":
    main()
