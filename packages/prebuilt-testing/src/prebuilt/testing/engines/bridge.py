"""A network bridge of the test's own, for containers that are reached, and reach others, by address."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prebuilt.oci.containers.lock_file import locked
from prebuilt.testing.engines.cache import engine_cache
from prebuilt.testing.engines.process import EngineError, find_program

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """A bridge that is up.

    Attributes:
        name: Of the interface.
        address: The machine's on it: a server that listens there is reached by the containers.
    """

    name: str
    address: ipaddress.IPv4Interface


@contextlib.contextmanager
def network_bridge() -> Iterator[Bridge]:
    """Give a bridge with a network that nothing else here uses, from which the world is reached. Needs root.

    The three rules for that are this bridge's alone. A daemon that makes rules itself shares their chains with every other daemon
    of the machine, and leaves them behind.

    Raises:
        EngineError: A program is missing, or the kernel has no bridges.
    """
    bridge = Bridge(name=f"prebuilt-{secrets.token_hex(3)}", address=_free_address())
    with contextlib.ExitStack() as stack:
        _ip("link", "add", bridge.name, "type", "bridge")
        stack.callback(_ip, "link", "delete", bridge.name)
        _ip("address", "add", str(bridge.address), "dev", bridge.name)
        _ip("link", "set", bridge.name, "up")
        stack.enter_context(_forwarding())
        for table, chain, *rule in _rules(bridge):
            _iptables(table, "--insert", chain, *rule)
            stack.callback(_iptables, table, "--delete", chain, *rule)
        yield bridge


def remove_bridge(name: str) -> None:
    """Remove a bridge and its rules, which a process that was killed could not. Nothing happens where there is none.

    Raises:
        EngineError: A program is missing, or the kernel refuses.
    """
    for table, chain in (("nat", "POSTROUTING"), ("filter", "FORWARD")):
        for rule in _iptables(table, "--list-rules", chain).splitlines():
            words = rule.split()  # --append, as it was made
            if name in words:
                _iptables(table, "--delete", *words[1:])
    if Path("/sys/class/net", name).exists():
        _ip("link", "delete", name)


def _rules(bridge: Bridge) -> list[tuple[str, ...]]:
    network = str(bridge.address.network)
    return [
        ("nat", "POSTROUTING", "--source", network, "!", "--out-interface", bridge.name, "--jump", "MASQUERADE"),
        ("filter", "FORWARD", "--in-interface", bridge.name, "--jump", "ACCEPT"),
        ("filter", "FORWARD", "--out-interface", bridge.name, "--jump", "ACCEPT"),
    ]


@contextlib.contextmanager
def _forwarding() -> Iterator[None]:
    """Have the machine forward packets during the body. It is set back by the last of those, in any process, who want it."""
    users = engine_cache() / ".forwarding.users"
    with locked(users.with_name(".forwarding.lock")):
        fd = os.open(users, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        if _is_alone(fd):
            os.ftruncate(fd, 0)
            os.pwrite(fd, _FORWARDING.read_bytes(), 0)
            _FORWARDING.write_text("1", encoding="ascii")
        fcntl.flock(fd, fcntl.LOCK_SH)
    try:
        yield
    finally:
        with locked(users.with_name(".forwarding.lock")):
            if _is_alone(fd):
                _FORWARDING.write_bytes(os.pread(fd, 100, 0))
            os.close(fd)


def _is_alone(fd: int) -> bool:
    """Return whether nobody else holds a lock on a file."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free_address() -> ipaddress.IPv4Interface:
    """Return the first address of a random network of the private range that no route of the machine leads into."""
    routes = json.loads(_ip("-json", "-4", "route", "show", "table", "all"))
    taken = [
        ipaddress.ip_network(route["dst"], strict=False)
        for route in routes
        if route["dst"][0].isdigit() and route["dst"] != "0.0.0.0/0"
    ]
    for _ in range(_ATTEMPTS):
        network = ipaddress.ip_network(f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}.0/24")
        if not any(network.overlaps(other) for other in taken):
            return ipaddress.IPv4Interface(f"{network.network_address + 1}/24")
    raise EngineError("find a free network", reason=f"{_ATTEMPTS} of 10.200.0.0 to 10.249.0.0 are taken")


def _ip(*arguments: str) -> str:
    return _run(find_program("ip", brought_by="apt-get install iproute2"), *arguments)


def _iptables(table: str, *arguments: str) -> str:
    program = find_program("iptables", brought_by="apt-get install iptables")
    return _run(program, "--wait", "--table", table, *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"run {' '.join(command)}", reason=done.stderr.strip())
    return done.stdout
