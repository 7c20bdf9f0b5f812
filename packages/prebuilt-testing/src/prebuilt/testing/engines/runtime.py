"""The machine's runc, made to work for privileged containers also where the machine lacks a capability."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

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


def fitting_runtime(folder: Path, runc: Path) -> Path:
    """Return a runtime for every container: `runc` itself, or where the machine lacks capabilities a program in `folder`."""
    missing = _missing_capabilities()
    if not missing:
        return runc
    runtime = folder / "runtime"
    runtime.write_text(_RUNTIME.format(missing="|".join(missing), runc=shlex.quote(str(runc))), encoding="utf-8")
    runtime.chmod(0o755)
    return runtime


def _missing_capabilities() -> list[str]:
    """Return the capabilities that not even root has here, as in many virtual machines and CI runners."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"^CapBnd:\s*(\w+)", status, re.MULTILINE)
    bounding = int(found[1], 16) if found else 0
    return [f"CAP_{name}" for number, name in enumerate(_CAPABILITIES) if not bounding >> number & 1]
