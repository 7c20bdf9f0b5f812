"""What the node of a cluster runs: containerd and the kubelet, and what they leave behind when they stop."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from prebuilt.testing.engines.bridge import Bridge
from prebuilt.testing.engines.process import EngineError
from prebuilt.testing.mounts import unmount_below
from prebuilt.testing.processes import command_lines

NETWORK = "prebuilt-kubernetes"
_CGROUPS = Path("/sys/fs/cgroup")
_CNI_RESULTS = Path("/var/lib/cni/results")
_POD_LOGS = Path("/var/log/containers")
_SHIM_S = 60.0

_CONTAINERD = """\
version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{runtime}"
        SystemdCgroup = false
        Root = "{folder}/containerd/runc"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{folder}/certs.d"
"""


def containerd_config(folder: Path, *, pause: str, plugins: Path, runtime: Path) -> str:
    """Return the configuration of a containerd whose files are all below `folder`."""
    return _CONTAINERD.format(folder=folder, pause=pause, plugins=plugins, runtime=runtime)


def network_config(folder: Path, bridge: Bridge) -> str:
    """Return the CNI configuration that puts pods on `bridge`."""
    network, gateway = str(bridge.address.network), str(bridge.address.ip)
    plugin = {
        "type": "bridge",
        "bridge": bridge.name,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": f"{folder}/ipam",
            "ranges": [[{"subnet": network, "gateway": gateway}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return json.dumps({"cniVersion": "0.4.0", "name": NETWORK, "plugins": [plugin]})


def kubelet_config(folder: Path, *, address: str, port: int, authority: Path) -> str:
    """Return the configuration of a kubelet that takes what comes: it evicts nothing and manages no firewall."""
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": address,
            "port": port,
            "readOnlyPort": 0,
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(authority)},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
            "cgroupDriver": "cgroupfs",  # a test machine need not have systemd
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "enableControllerAttachDetach": False,
            "serializeImagePulls": False,
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {
                "memory.available": "1Mi",
                "nodefs.available": "1Mi",
                "nodefs.inodesFree": "1",
                "imagefs.available": "1Mi",
            },
            "podLogsDir": f"{folder}/podlogs",
            "volumePluginDir": f"{folder}/kubelet/volume-plugins",
            "syncFrequency": "10s",
            "kubeAPIQPS": 100,
            "kubeAPIBurst": 200,
        }
    )


def refuse_other_kubelets() -> None:
    """Make sure that no pods of anybody else are on this machine: a kubelet ends those that it does not know.

    Raises:
        EngineError: There are.
    """
    for cgroup in _pod_cgroups():
        if any(path.read_text(encoding="ascii").strip() for path in cgroup.rglob("cgroup.procs")):
            raise EngineError("start a kubelet", at=str(cgroup), reason="another one has its pods on this machine")


def stop_containers(folder: Path) -> None:
    """Kill the containers of the containerd whose files are below `folder`, and the processes that look after them."""
    for file in folder.glob("containerd/state/io.containerd.runtime.v2.task/*/*/init.pid"):
        with contextlib.suppress(OSError, ValueError):  # it may end by itself at any moment
            pid = int(file.read_text(encoding="ascii"))
            if file.parent.name in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii"):
                os.kill(pid, signal.SIGKILL)
    deadline_s = time.monotonic() + _SHIM_S
    while list(_shims(folder)) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    for pid in _shims(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def clear_node(folder: Path) -> None:
    """Take away what the node's programs leave outside of `folder`, and what is mounted in it."""
    stop_containers(folder)
    unmount_below(folder)
    for top in _pod_cgroups():
        for cgroup, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # of pods that are not ours
                Path(cgroup).rmdir()
    for link in _POD_LOGS.glob("*"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{folder}/"):
            link.unlink()
    for result in _CNI_RESULTS.glob(f"{NETWORK}-*"):
        result.unlink()


@contextlib.contextmanager
def left_as_it_was(*folders: Path) -> Iterator[None]:
    """Remove those of `folders` that the body makes."""
    absent = [folder for folder in folders if not folder.exists()]
    try:
        yield
    finally:
        for folder in absent:
            shutil.rmtree(folder, ignore_errors=True)


def _shims(folder: Path) -> Iterator[int]:
    for pid, command in command_lines():
        if "containerd-shim" in command[0] and f"{folder}/containerd.sock" in command:
            yield pid


def _pod_cgroups() -> list[Path]:
    """Return where pods and their containers are: once in each hierarchy, of which cgroup v2 has but one."""
    return [
        path
        for name in ("kubepods", "k8s.io")
        for path in (_CGROUPS / name, *_CGROUPS.glob(f"*/{name}"))
        if path.is_dir()
    ]
