"""``--environment=prebuilt``: steps run in images, or local environments, that hold their packages already."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from metaflow._vendor import click
from metaflow.metaflow_environment import MetaflowEnvironment
from metaflow.util import parse_spin_pathspec

from .asked import Asked, PrebuiltEnvironmentException, asked_of, compute_of, is_disabled
from .decorators import IMAGE_VARIABLE
from .local_code import LocalCode
from .shell_line import word

PYTHON = "/opt/prebuilt/env/bin/python"
"""The interpreter of every image; :data:`prebuilt.core.spec.PREFIX`, which tasks cannot import."""

# Carries the launch process's answer to the processes that it starts for each task (step name to image).
_IMAGES_VARIABLE = "METAFLOW_PREBUILT_IMAGES"


class PrebuiltCondaEnvironment(MetaflowEnvironment):
    """Bakes what a flow's steps need before the first of them starts.

    Only the launch process bakes. Every other process sees an image in the compute decorator, or on its own command line,
    and finds out what a step asks for from the step's decorators.
    """

    TYPE = "prebuilt"
    _force_rebuild = False  # set by Metaflow from --force-rebuild-environments
    _filecache = None  # Metaflow's client looks for it

    def __init__(self, flow: Any) -> None:
        """Know the flow; nothing is read yet."""
        super().__init__(flow)
        self.flow = flow
        self._interpreters: dict[str, str] = {}
        self._local_code: LocalCode | None = None
        self._engine_search: Any | None = None
        self._datastore_type = "local"

    def set_local_root(self, local_root: str) -> None:
        """Ignore the datastore's root, which the stock decorators announce: nothing is kept there."""

    def validate_environment(self, echo: Callable[..., None], datastore_type: str) -> None:
        """Note the datastore, which decides what Metaflow itself needs in a task."""
        del echo
        self._datastore_type = datastore_type

    def pylint_config(self) -> list[str]:
        """Let pylint accept imports of packages that are not installed here."""
        return [*super().pylint_config(), "--disable=F0401"]

    def is_disabled(self, step: Any) -> bool:
        """Return whether `step` runs without an environment of its own."""
        return is_disabled(step)

    def init_environment(self, echo: Callable[..., None], only_steps: Any = None) -> None:
        """Bake the images of all steps that run elsewhere, and make the environments of those that run here."""
        context = click.get_current_context(silent=True)
        wanting = self._wanting(context, only_steps)
        os.environ.pop(_IMAGES_VARIABLE, None)  # of a flow whose task starts this one
        if not wanting:
            return
        try:
            from metaflow_extensions.prebuilt.deploy.deployment import StepToDeploy, deploy
        except ModuleNotFoundError as error:
            # A task that starts a flow has the extension from the code package, and of its needs what the task's step asks for.
            if error.name != "prebuilt":
                raise
            raise PrebuiltEnvironmentException(
                f"tried to deploy {self.flow.name} with {sys.executable}: metaflow-prebuilt is not installed there;"
                " add it to the packages of the step that starts this flow"
            ) from error

        deployed = deploy(
            [StepToDeploy(name=name, asked=asked, compute=compute) for name, asked, compute in wanting],
            datastore_type=self._datastore_type,
            refresh=bool(self._force_rebuild),
            echo=echo,
            quiet=bool(context and context.find_root().params.get("quiet")),
        )
        self._interpreters = dict(deployed.interpreters)
        os.environ[_IMAGES_VARIABLE] = json.dumps(dict(deployed.images))
        containers = {name: compute for name, _, compute in wanting if _is_container(compute)}
        if containers:
            from metaflow_extensions.prebuilt.deploy.container_engine import EngineSearch

            self._engine_search = EngineSearch(containers, echo)

    def _wanting(self, context: Any | None, only_steps: Any) -> list[tuple[str, Asked | None, Any | None]]:
        """Return the steps that something is to be done for, in the flow's order: what they ask for and where they run.

        None for commands that only look at the code package. ``spin`` runs one step, here, whatever its decorators say.
        """
        command = context.info_name if context else None
        if command == "package" or (context and context.params.get("skip_decorators")):
            return []
        spun = _spun_step(context.params["pathspec"], self.flow.name) if context and command == "spin" else None
        order = {name: place for place, name in enumerate(self.flow._graph.sorted_nodes)}  # noqa: SLF001
        wanting = []
        for step in sorted(self.flow, key=lambda step: order.get(step.name, len(order))):
            if spun not in (None, step.name) or (only_steps and step.name not in only_steps):
                continue
            asked, compute = asked_of(step), None if spun else compute_of(step)
            if asked or _is_container(compute):
                wanting.append((step.name, asked, compute))
        return wanting

    def settle_container_engine(self) -> None:
        """Have the tasks of ``@container`` steps use the engine that was found; end the run before it begins if there is none for all of them."""
        if self._engine_search is not None:
            os.environ["METAFLOW_PREBUILT_CONTAINER_ENGINE"] = self._engine_search.name()
            self._engine_search = None

    def interpreter(self, step_name: str) -> str | None:
        """Return the interpreter for a step that runs here in an environment of its own; None for all others."""
        return self._interpreters.get(step_name)

    def local_code(self, package: Any) -> LocalCode:
        """Return the code package unpacked on this machine, which is done once."""
        if self._local_code is None:
            self._local_code = LocalCode(package)
        return self._local_code

    def forget_local_code(self) -> None:
        """Remove what :meth:`local_code` unpacked."""
        if self._local_code is not None:
            self._local_code.remove()
            self._local_code = None

    def executable(self, step_name: str, default: str | None = None) -> str:
        """Return the interpreter that runs a step in its container; Metaflow also asks for steps of its own making."""
        step = next((step for step in self.flow if step.name == step_name), None)
        if step is not None and asked_of(step) and compute_of(step):
            return PYTHON
        return str(super().executable(step_name, default))

    def bootstrap_commands(self, step_name: str, datastore_type: str) -> list[str]:
        """Return what a task's shell does before the step.

        The start step of Argo, Step Functions and Airflow runs commands of this flow without ``--environment``, which
        would be refused; hence the default.
        """
        exports = ["METAFLOW_DEFAULT_ENVIRONMENT=prebuilt"]
        image = json.loads(os.environ.get(_IMAGES_VARIABLE, "{}")).get(step_name)
        if image:
            exports.append(f"{IMAGE_VARIABLE}={word(image)}")
        return [*super().bootstrap_commands(step_name, datastore_type), "export " + " ".join(exports)]

    @classmethod
    def get_client_info(cls, flow_name: str, metadata: dict[str, Any]) -> str:
        """Return what the client says about a task's environment."""
        del flow_name
        image = metadata.get("prebuilt-image")
        return f"Image {image}" if image else "Local environment"

    def _get_install_dependencies_cmd(self, datastore_type: str) -> str:
        """Return what an image that was not baked needs to run a task; baked images skip it.

        Metaflow knows no answer for the local datastore, because it never runs containers on it. We do (``@container``).
        """
        if datastore_type != "local":
            return str(super()._get_install_dependencies_cmd(datastore_type))
        python = self._python()
        return (
            f"if [ -z $METAFLOW_SKIP_INSTALL_DEPENDENCIES ]; then {python} -c 'import requests' 2>/dev/null || "
            f"{python} -m pip install -qqq --no-compile --no-cache-dir --disable-pip-version-check requests || "
            "{ mflog 'The image has neither the package requests, which Metaflow needs, nor pip to install it'; exit 1; }; fi"
        )

    def _get_download_code_package_cmd(self, code_package_url: str, datastore_type: str) -> str:
        """Return what puts the code package at ``job.tar``; a local datastore is mounted where it is on the host."""
        if datastore_type != "local":
            return str(super()._get_download_code_package_cmd(code_package_url, datastore_type))
        return f"cp {word(code_package_url)} job.tar"


def _is_container(compute: Any | None) -> bool:
    return compute is not None and compute.name == "container"


def _spun_step(pathspec: str, flow_name: str) -> str:
    return str(parse_spin_pathspec(pathspec, flow_name)[0])
