"""What the integration tests need of the machine, and how it gets there. Standard library only: it runs before anything is installed."""

from __future__ import annotations

import os
import shutil
import subprocess

# What Debian and Ubuntu call the package that brings a program. The tests start the programs themselves.
APT_PACKAGES = {
    "dockerd": "docker.io",
    "docker-registry": "docker-registry",
    "podman": "podman",
    "setpriv": "util-linux",
    "skopeo": "skopeo",
    "umoci": "umoci",
    "busybox": "busybox-static",
    "unshare": "util-linux",
    "newuidmap": "uidmap",
    "git": "git",
}


def install_engines() -> None:
    """Install what is missing where that is possible: on Debian and Ubuntu, as root. Say what is missing elsewhere."""
    missing = sorted({package for program, package in APT_PACKAGES.items() if not _is_there(program)})
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"Some integration tests will be skipped. To run them: apt-get install {' '.join(missing)}", flush=True)
        return
    print(f"Installing for the integration tests: {' '.join(missing)}", flush=True)
    apt_get_install(*missing)


def apt_get_install(*packages: str) -> None:
    """Install Debian packages; needs root."""
    _apt_get("update")
    _apt_get("install", "--yes", *packages)


def _apt_get(*arguments: str) -> None:
    subprocess.run(
        ["apt-get", "--quiet", "--quiet", *arguments],
        check=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NOWARNINGS": "yes"},
        stdout=subprocess.DEVNULL,
    )


def _is_there(program: str) -> bool:
    """Daemons live in folders that an ordinary PATH may lack."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") is not None
