"""Programs of other architectures, run by emulation: switched on for a test that wants it, off for one that proves it needs none.

The kernel has one list of interpreters for the whole machine, so whoever changes it holds a lock.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from prebuilt.oci.containers.lock_file import locked
from prebuilt.testing.engines.cache import engine_cache, kept
from prebuilt.testing.engines.debian import debian_suite
from prebuilt.testing.engines.process import EngineError

_LIST = Path("/proc/sys/fs/binfmt_misc")
_NAME = "qemu-aarch64"  # as Debian's package calls it
_SUITE = "bookworm"

# The head of a 64-bit little-endian ELF program for AArch64, and which of its bits count. F: the interpreter is opened now, so that
# containers need not have it. Source: https://docs.kernel.org/admin-guide/binfmt-misc.html and QEMU's qemu-binfmt-conf.sh
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


def is_arm64_emulated() -> bool:
    """Return whether this machine runs programs for arm64 by emulation now."""
    entry = _LIST / _NAME
    return entry.exists() and entry.read_text(encoding="ascii").startswith("enabled")


def is_arm64_emulated_at_rest() -> bool:
    """Return the same for times when no test has changed it; waits until none has."""
    with _the_list():
        return is_arm64_emulated()


def emulator() -> Path:
    """Return the emulator of arm64, unpacked and not installed: installing it would register it for good.

    Raises:
        EngineError: It cannot be got.
    """

    def unpack(folder: Path) -> None:
        with debian_suite(_SUITE) as suite:
            suite.unpack(["qemu-user-static"], folder)

    return kept(f"qemu-user-static-{_SUITE}", unpack) / "usr" / "bin" / f"{_NAME}-static"


@contextlib.contextmanager
def arm64_emulation() -> Iterator[None]:
    """Have the machine run programs for arm64 during the body, in containers too. Needs root; as it was afterwards.

    Raises:
        EngineError: QEMU cannot be got, or the kernel knows no interpreters.
    """
    with _the_list():
        if is_arm64_emulated():
            yield
            return
        qemu = emulator()
        with _restored():
            if (_LIST / _NAME).exists():
                _write(_LIST / _NAME, "1")
            else:
                _write(_LIST / "register", f":{_NAME}:M::{_MAGIC}:{_MASK}:{qemu}:F")
            yield


@contextlib.contextmanager
def no_arm64_emulation() -> Iterator[None]:
    """Have the machine fail to run programs for arm64 during the body, whatever it does otherwise. Needs root.

    Raises:
        EngineError: The kernel knows no interpreters.
    """
    with _the_list(), _restored():
        if is_arm64_emulated():
            _write(_LIST / _NAME, "0")
        yield


@contextlib.contextmanager
def _the_list() -> Iterator[None]:
    """Hold the kernel's list, mounted if it was not."""
    with locked(engine_cache() / ".binfmt.lock"), contextlib.ExitStack() as stack:
        if not (_LIST / "register").exists():
            _mount("mount", "--types", "binfmt_misc", "binfmt_misc", str(_LIST))
            stack.callback(_mount, "umount", str(_LIST))
        yield


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    entry = _LIST / _NAME
    was_there, was_enabled = entry.exists(), is_arm64_emulated()
    try:
        yield
    finally:
        if not was_there and entry.exists():
            _write(entry, "-1")  # which removes it
        elif was_there:
            _write(entry, "1" if was_enabled else "0")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="ascii")
    except OSError as error:
        raise EngineError("change the list of interpreters", at=str(path), reason=str(error)) from error


def _mount(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"{command[0]} the kernel's list of interpreters", reason=done.stderr.strip())
