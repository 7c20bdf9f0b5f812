"""Argo's workflow templates, kept by a cluster that knows Argo's resources, and run without Argo: a pod for each task, one after the other.

What is understood is what linear flows need: a DAG of templates with containers, parameters, outputs that are files.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prebuilt.testing.engines.kubernetes.cluster import KubernetesCluster
from prebuilt.testing.engines.kubernetes.namespace import Namespace
from prebuilt.testing.engines.process import EngineError

_GROUP, _VERSION = "argoproj.io", "v1alpha1"
_KINDS = ("WorkflowTemplate", "Workflow", "CronWorkflow", "Sensor")
_EXPRESSION = re.compile(r"\{\{(.*?)\}\}")
_TO_BASE64 = re.compile(r"=toBase64\((.*)\)")
_TIMEOUT_S = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """One run of a ``WorkflowTemplate``.

    Attributes:
        manifest: The template, parsed.
        namespace: Where its pods run.
        folder: On the node, which is this machine: for files that tasks put out.
        values: What expressions of the whole workflow stand for.
    """

    manifest: Mapping[str, Any]
    namespace: Namespace
    folder: Path
    values: Mapping[str, str]

    @classmethod
    def submit(cls, manifest: Mapping[str, Any], namespace: Namespace, folder: Path, **parameters: str) -> Workflow:
        """Return a run that has not begun, with parameters other than the template's own; they are JSON, as Metaflow has them."""
        own = manifest["spec"].get("arguments", {}).get("parameters", ())
        given = {each["name"]: each["value"] for each in own} | parameters
        values = {
            "workflow.name": f"flow-{secrets.token_hex(3)}",
            "workflow.namespace": namespace.name,
            "workflow.creationTimestamp": "2026-01-01T00:00:00Z",
            "retries": "0",
            **{f"workflow.parameters.{name}": value for name, value in given.items()},
            **{f"workflow.parameters['{name}']": value for name, value in given.items()},
        }
        return cls(manifest=manifest, namespace=namespace, folder=folder, values=values)

    @property
    def templates(self) -> dict[str, Any]:
        """Its templates, by name."""
        return {template["name"]: template for template in self.manifest["spec"]["templates"]}

    def run(self) -> None:
        """Run each task of the DAG, in order, in a pod.

        Raises:
            EngineError: A pod failed, or did not end; the message has its log.
        """
        values = dict(self.values)
        for task in self._in_order(self.templates[self.manifest["spec"]["entrypoint"]]["dag"]["tasks"]):
            given = {each["name"]: _filled(each["value"], values) for each in task["arguments"]["parameters"]}
            inputs = {f"inputs.parameters.{name}": value for name, value in given.items()}
            template = self.templates[task["template"]]
            self.run_template(template, values | inputs)
            for output in template["outputs"]["parameters"]:
                value = (self.folder / task["template"] / Path(output["valueFrom"]["path"]).name).read_text("utf-8")
                values[f"tasks.{task['name']}.outputs.parameters.{output['name']}"] = value.strip()

    def run_template(self, template: Mapping[str, Any], values: Mapping[str, str]) -> str:
        """Run the container of one template in a pod, with `values` for its expressions; return what it printed."""
        place = self.folder / template["name"]
        place.mkdir(parents=True)
        pod = _filled(_pod(template, place), {**self.values, **values})
        api, pods = self.namespace.cluster.api, f"api/v1/namespaces/{self.namespace.name}/pods"
        name = api.ask("POST", pods, pod)["metadata"]["name"]
        deadline_s = time.monotonic() + _TIMEOUT_S
        while (phase := api.ask("GET", f"{pods}/{name}")["status"]["phase"]) in {"Pending", "Running"}:
            if time.monotonic() > deadline_s:
                break
            time.sleep(0.2)
        log = "" if phase == "Pending" else self.namespace.kubectl("logs", name)
        if phase != "Succeeded":
            said = log or self.namespace.kubectl("describe", "pod", name)
            raise EngineError(f"run the template {template['name']}", reason=f"{phase}:\n{said[-4000:]}")
        return log

    def _in_order(self, tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        done: set[str] = set()
        while len(done) < len(tasks):
            ready = [task for task in tasks if task["name"] not in done and _needed(task) <= done]
            if not ready:
                raise EngineError("order the tasks of a workflow", reason="they wait for each other")
            for task in ready:
                yield task
                done.add(task["name"])


def define_argo(cluster: KubernetesCluster) -> None:
    """Have a cluster keep what Argo Workflows and Argo Events are told; nothing acts on it. It is done once for a cluster.

    Raises:
        EngineError: The cluster refused, or does not serve them.
    """
    path = "apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for kind in _KINDS:
        cluster.api.ask("POST", path, _definition(kind))
    cluster.kubectl(
        "wait", "--for=condition=Established", "--timeout=120s", *(f"crd/{_plural(k)}.{_GROUP}" for k in _KINDS)
    )


def _definition(kind: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": _VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{_plural(kind)}.{_GROUP}"},
        "spec": {
            "group": _GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": _plural(kind)},
            "versions": [version],
        },
    }


def _plural(kind: str) -> str:
    return f"{kind.lower()}s"


def _needed(task: Mapping[str, Any]) -> set[str]:
    """Return the tasks that have to succeed first: ``start.Succeeded && other.Succeeded``."""
    return set(re.findall(r"([\w-]+)\.Succeeded", task.get("depends") or ""))


def _pod(template: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """Return the pod of a template, in which the volume of outputs is the folder `place`."""
    volumes = [
        {"name": volume["name"], "hostPath": {"path": str(place)}} if volume["name"] == "out" else volume
        for volume in template.get("volumes") or ()
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": f"{template['name']}-", **(template.get("metadata") or {})},
        "spec": {
            "restartPolicy": "Never",
            "containers": [template["container"]],
            "volumes": volumes,
            "nodeSelector": template.get("nodeSelector"),
            **json.loads(template.get("podSpecPatch") or "{}"),
        },
    }


def _filled(value: Any, values: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
    """Return `value` with each expression in it replaced."""
    if isinstance(value, str):
        return _EXPRESSION.sub(lambda found: _evaluate(found[1].strip(), values), value)
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    if isinstance(value, dict):
        return {name: _filled(each, values) for name, each in value.items()}
    return value


def _evaluate(expression: str, values: Mapping[str, str]) -> str:
    encoded = _TO_BASE64.fullmatch(expression)
    if encoded:
        return base64.b64encode(values[encoded[1]].encode()).decode()
    return values[expression]
