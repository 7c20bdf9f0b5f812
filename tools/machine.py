"""What the integration tests need of the machine, and how it gets there. Standard library only: it runs before anything is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# What Debian and Ubuntu call the package that brings a program. The tests start the programs themselves.
APT_PACKAGES = {
    "dockerd": "docker.io",
    "ip": "iproute2",
    "iptables": "iptables",
    "update-ca-certificates": "ca-certificates",
    "docker-registry": "docker-registry",
    "podman": "podman",
    "setpriv": "util-linux",
    "skopeo": "skopeo",
    "umoci": "umoci",
    "busybox": "busybox-static",
    "unshare": "util-linux",
    "newuidmap": "uidmap",
    "containerd": "containerd",
    "runc": "runc",
    "etcd": "etcd-server",
    "host-local": "containernetworking-plugins",
    "git": "git",
}


# A mirror may stumble, and another apt-get may be at work.
_PATIENCE = ("--option=Acquire::Retries=5", "--option=DPkg::Lock::Timeout=300")


def install_engines() -> None:
    """Install what is missing where that is possible: on Debian and Ubuntu, as root. Say what is missing elsewhere.

    Raises:
        subprocess.CalledProcessError: It could not be installed, and CI is set: there nothing may be skipped.
    """
    missing = sorted({package for program, package in APT_PACKAGES.items() if not _is_there(program)})
    if not missing:
        return
    skipped = f"Some integration tests will be skipped. To run them: apt-get install {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(skipped, flush=True)
        return
    print(f"Installing for the integration tests: {' '.join(missing)}", flush=True)
    try:
        apt_get_install(*missing)
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            raise
        print(f"{error} {skipped}", flush=True)


@contextlib.contextmanager
def engines_on_their_way(root: Path) -> Iterator[None]:
    """Get the engines that take minutes while the body runs, out of its way. The tests wait for what they need and is not there yet.

    A machine that cannot run them is left alone: that takes root, and Debian's packages.
    """
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        yield
        return
    sources = os.pathsep.join(str(folder) for folder in sorted(root.glob("packages/*/src")))
    process = subprocess.Popen(
        ["nice", sys.executable, "-m", "prebuilt.testing.engines"],
        env={**os.environ, "PYTHONPATH": sources, "PYTHONDONTWRITEBYTECODE": "1"},
        start_new_session=True,
    )
    try:
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def apt_get_install(*packages: str) -> None:
    """Install Debian packages; needs root."""
    _apt_get("update")
    _apt_get("install", "--yes", *packages)


def _apt_get(*arguments: str) -> None:
    subprocess.run(
        ["apt-get", "--quiet", "--quiet", *_PATIENCE, *arguments],
        check=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NOWARNINGS": "yes"},
        stdout=subprocess.DEVNULL,
    )


def _is_there(program: str) -> bool:
    """Daemons and plugins live in folders that an ordinary PATH may lack."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin:/usr/lib/cni"
    return shutil.which(program, path=path) is not None
