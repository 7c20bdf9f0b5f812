"""A real Docker Engine of the test's own: its daemon, socket and data in one folder, gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prebuilt.testing.engines.process import EngineError, find_program, running

_PACKAGE = "apt-get install docker.io"

# By their numbers. Source: <linux/capability.h>
_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST "
    "NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE "
    "SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM "
    "BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()

_RUNTIME = """\
#!/bin/sh
# runc, but without the capabilities that this machine lacks: a privileged container asks for all that exist.
bundle=. process= previous= creates=
for argument in "$@"; do
  case "$previous" in --bundle|-b) bundle=$argument ;; --process|-p) process=$argument ;; esac
  case "$argument" in create|run|exec) creates=1 ;; --bundle=*) bundle=${{argument#*=}} ;; --process=*) process=${{argument#*=}} ;; esac
  previous=$argument
done
if [ -n "$creates" ]; then
  for file in "$bundle/config.json" "$process"; do
    [ -f "$file" ] && sed -i -E 's/"({missing})",//g; s/,?"({missing})"//g' "$file"
  done
fi
exec {runc} "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """A running daemon.

    Attributes:
        host: For ``DOCKER_HOST``.
        version: Of the daemon: ``20.10.24``.
    """

    host: str
    version: str

    @property
    def environ(self) -> dict[str, str]:
        """Variables that have a ``docker`` command talk to it and to no other."""
        return {"DOCKER_HOST": self.host, "DOCKER_CONTEXT": ""}


@contextlib.contextmanager
def docker_engine() -> Iterator[Docker]:
    """Give a Docker Engine without images and containers, for the time of the body. Needs root, and Debian's ``docker.io``.

    Raises:
        EngineError: A program is missing, this process is not root, or the daemon did not start.
    """
    programs = {name: find_program(name, brought_by=_PACKAGE) for name in ("dockerd", "containerd", "runc", "docker")}
    if os.geteuid() != 0:
        raise EngineError("start dockerd", reason="this process is not root")
    with tempfile.TemporaryDirectory(prefix="prebuilt-docker-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        host = f"unix://{folder}/docker.sock"
        environ = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "DOCKER_HOST": host}
        command = [
            programs["dockerd"],
            f"--config-file={_config(folder, programs['runc'])}",
            f"--host={host}",
            f"--data-root={folder}/data",
            f"--exec-root={folder}/run",
            f"--pidfile={folder}/pid",
            "--bridge=none",  # containers use the machine's network: no bridge, no rules, nothing to clean up
            "--iptables=false",
            "--ip6tables=false",
        ]
        with running(
            command, log=folder / "log", ready=lambda: bool(_version(programs["docker"], host)), environ=environ
        ):
            yield Docker(host=host, version=_version(programs["docker"], host))
        _unmount(folder)


def _config(folder: Path, runc: str) -> Path:
    """Write the daemon's configuration; return its path."""
    config: dict[str, object] = {}
    missing = _missing_capabilities()
    if missing:
        runtime = folder / "runtime"
        runtime.write_text(_RUNTIME.format(missing="|".join(missing), runc=shlex.quote(runc)), encoding="utf-8")
        runtime.chmod(0o755)
        config = {"runtimes": {"fitting": {"path": str(runtime)}}, "default-runtime": "fitting"}
    path = folder / "daemon.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def _missing_capabilities() -> list[str]:
    """Return the capabilities that not even root has here, as in many virtual machines and CI runners."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"^CapBnd:\s*(\w+)", status, re.MULTILINE)
    bounding = int(found[1], 16) if found else 0
    return [f"CAP_{name}" for number, name in enumerate(_CAPABILITIES) if not bounding >> number & 1]


def _version(docker: str, host: str) -> str:
    """Return the version of the daemon, or an empty string while it does not answer."""
    done = subprocess.run(
        [docker, f"--host={host}", "version", "--format={{.Server.Version}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _unmount(folder: Path) -> None:
    """Unmount what a daemon leaves behind when it stops, so that its folder can be removed."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    for point in sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=True)
