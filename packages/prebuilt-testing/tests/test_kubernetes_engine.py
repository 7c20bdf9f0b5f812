"""What a cluster is configured with, what is cleared away after it, and how workflows are read: no cluster is started."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prebuilt.testing.engines.kubernetes import node
from prebuilt.testing.engines.kubernetes.api import KubernetesAPI
from prebuilt.testing.engines.kubernetes.argo import Workflow
from prebuilt.testing.engines.process import EngineError


class TestNode:
    def test_pods_of_somebody_else_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """A second kubelet would end the first one's pods; empty groups that a kubelet has left are no obstacle."""
        monkeypatch.setattr(node, "_CGROUPS", tmp_path)
        group = tmp_path / "memory" / "kubepods" / "pod1"
        group.mkdir(parents=True)
        (group / "cgroup.procs").write_text("\n")
        node.refuse_other_kubelets()
        (group / "cgroup.procs").write_text("4711\n")
        with pytest.raises(EngineError, match="another one has its pods on this machine"):
            node.refuse_other_kubelets()

    def test_what_is_left_is_cleared_away(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """Groups, links to logs and network results of the cluster go; those of others stay."""
        for name in ("_CGROUPS", "_POD_LOGS", "_CNI_RESULTS"):
            monkeypatch.setattr(node, name, tmp_path / name)
            (tmp_path / name).mkdir()
        (tmp_path / "_CGROUPS" / "kubepods" / "pod1").mkdir(parents=True)
        (tmp_path / "_POD_LOGS" / "ours").symlink_to(tmp_path / "cluster" / "log")
        (tmp_path / "_POD_LOGS" / "other").symlink_to("/elsewhere/log")
        for name in (f"{node.NETWORK}-1-eth0", "other-1-eth0"):
            (tmp_path / "_CNI_RESULTS" / name).touch()
        node.clear_node(tmp_path / "cluster")
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
        assert left - {"_CGROUPS", "_POD_LOGS", "_CNI_RESULTS"} == {"_POD_LOGS/other", "_CNI_RESULTS/other-1-eth0"}

    def test_containers_are_killed_by_what_is_known_of_them(self, tmp_path: Path):
        """A number that now belongs to another process is left alone."""
        task = tmp_path / "containerd" / "state" / "io.containerd.runtime.v2.task" / "k8s.io" / ("f" * 64)
        task.mkdir(parents=True)
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            (task / "init.pid").write_text(str(process.pid))
            node.stop_containers(tmp_path)
            assert process.poll() is None

    def test_folders_of_the_system_are_left_as_they_were(self, tmp_path: Path):
        """What the body made is removed, what was there stays."""
        (tmp_path / "there").mkdir()
        with node.left_as_it_was(tmp_path / "there", tmp_path / "made"):
            (tmp_path / "made" / "deep").mkdir(parents=True)
        assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_token_is_in_the_kubeconfig_and_in_no_repr():
    """What logs in is written for kubectl, and not into messages of tests."""
    api = KubernetesAPI(url="https://10.0.0.1:6443", authority=Path("/ca.crt"), token="hush")
    config = json.loads(api.kubeconfig("flows"))
    assert config["users"][0]["user"] == {"token": "hush"}
    assert config["contexts"][0]["context"]["namespace"] == "flows"
    assert "hush" not in repr(api)


class FakeNamespace:
    """A namespace whose pods succeed at once; `start` puts a file out, as its container would."""

    name = "flows"

    def __init__(self, folder: Path, phase: str = "Succeeded") -> None:
        self.folder, self.phase, self.pods = folder, phase, []
        self.cluster = type("Cluster", (), {"api": self})

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Take a pod, or say how it does."""
        if method == "POST":
            self.pods.append(body)
            (out,) = [each["hostPath"]["path"] for each in body["spec"]["volumes"] if "hostPath" in each]
            Path(out, "task_id").write_text("t-1\n")
            return {"metadata": {"name": "pod"}}
        assert path.endswith("/pods/pod")
        return {"status": {"phase": self.phase}}

    def kubectl(self, *arguments: str) -> str:
        """Read a log."""
        return f"log of {arguments[-1]}"


def workflow_template() -> dict[str, Any]:
    """Return two steps in the wrong order, the second of which takes what the first puts out."""
    output = {"name": "task-id", "valueFrom": {"path": "/mnt/out/task_id"}}

    def template(name: str, command: str, *outputs: Any) -> dict[str, Any]:
        container = {"name": name, "image": "x", "command": ["sh", "-c", command], "args": None}
        volumes = [{"name": "out", "emptyDir": {}}, {"name": "dhsm", "emptyDir": {"medium": "Memory"}}]
        patch = '{"imagePullSecrets": [{"name": "one"}]}'
        return {
            "name": name,
            "container": container,
            "volumes": volumes,
            "outputs": {"parameters": list(outputs)},
            "podSpecPatch": patch,
        }

    path = {"name": "input-paths", "value": "{{workflow.name}}/start/{{tasks.start.outputs.parameters.task-id}}"}
    tasks = [
        {"name": "end", "template": "end", "depends": "start.Succeeded", "arguments": {"parameters": [path]}},
        {"name": "start", "template": "start", "depends": "", "arguments": {"parameters": []}},
    ]
    templates = [
        {"name": "Flow", "dag": {"tasks": tasks}},
        template("start", "{{=toBase64(workflow.parameters['word'])}}", output),
        template("end", "{{inputs.parameters.input-paths}}"),
    ]
    arguments = {"parameters": [{"name": "word", "value": '"plain"'}]}
    return {"spec": {"entrypoint": "Flow", "arguments": arguments, "templates": templates}}


class TestWorkflow:
    def test_tasks_run_in_order_with_what_went_before(self, tmp_path: Path):
        """Dependencies decide the order; parameters, outputs and patches arrive in the pods."""
        namespace: Any = FakeNamespace(tmp_path)
        workflow = Workflow.submit(workflow_template(), namespace, tmp_path, word='"ab"')
        workflow.run()
        first, second = (pod["spec"] for pod in namespace.pods)
        assert first["containers"][0]["command"][-1] == "ImFiIg=="
        assert second["containers"][0]["command"][-1] == f"{workflow.values['workflow.name']}/start/t-1"
        assert first["imagePullSecrets"] == [{"name": "one"}]

    def test_a_pod_that_fails_is_shown_with_its_log(self, tmp_path: Path):
        """Nothing runs after it."""
        namespace: Any = FakeNamespace(tmp_path, "Failed")
        with pytest.raises(EngineError, match=r"run the template start: Failed:\nlog of pod"):
            Workflow.submit(workflow_template(), namespace, tmp_path).run()
        assert len(namespace.pods) == 1

    def test_tasks_that_wait_for_each_other_are_an_error(self, tmp_path: Path):
        """A circle is named, and does not hang."""
        template = workflow_template()
        template["spec"]["templates"][0]["dag"]["tasks"][1]["depends"] = "end.Succeeded"
        namespace: Any = FakeNamespace(tmp_path)
        with pytest.raises(EngineError, match="they wait for each other"):
            Workflow.submit(template, namespace, tmp_path).run()
