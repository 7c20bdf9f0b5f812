"""Deploys a flow of one step on Kubernetes as the launch process does, and prints what came out as JSON.

It runs in an environment with the wheels of this repository and of an outside backend. The cluster is not asked.
"""

from __future__ import annotations

import json
import sys

from metaflow import FlowSpec, decorators, kubernetes, pypi, step
from metaflow.plugins.kubernetes.kubernetes_decorator import KubernetesDecorator

KubernetesDecorator.step_init = lambda *_, **__: None


class OutsideFlow(FlowSpec):
    """Wants one wheel."""

    @kubernetes
    @pypi(packages={"six": "1.16.0"})
    @step
    def start(self) -> None:
        """Start."""
        self.next(self.end)

    @step
    def end(self) -> None:
        """End."""


def main() -> None:
    """Deploy it."""
    from metaflow_extensions.prebuilt.deploy.deployment import StepToDeploy, deploy
    from metaflow_extensions.prebuilt.plugins.conda.asked import asked_of, compute_of
    from metaflow_extensions.prebuilt.plugins.conda.environment import PrebuiltCondaEnvironment

    flow = OutsideFlow(use_cli=False)
    environment = PrebuiltCondaEnvironment(flow)
    for deco in (deco for each in flow for deco in each.decorators):
        deco.external_init()
    decorators._init_step_decorators(flow, flow._graph, environment, None, print)
    compute = compute_of(flow.start)
    order = StepToDeploy(name="start", asked=asked_of(flow.start), compute=compute)
    deploy([order], datastore_type="local", refresh=False, echo=_say, quiet=True)
    sys.stdout.write("\n" + json.dumps({name: compute.attributes[name] for name in _SHOWN}))


_SHOWN = ("image", "image_pull_policy", "image_pull_secrets")


def _say(line: str, **_: object) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main()
