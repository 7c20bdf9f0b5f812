"""``@container``: a step runs in its image on this machine. Imported in tasks: Metaflow and the standard library only."""

from __future__ import annotations

import platform
import sys
from typing import Any

from metaflow.decorators import StepDecorator
from metaflow.exception import MetaflowException
from metaflow.metaflow_config import (
    DEFAULT_CONTAINER_IMAGE,
    DEFAULT_CONTAINER_REGISTRY,
    FEAT_ALWAYS_UPLOAD_CODE_PACKAGE,
)
from metaflow.plugins.aws.aws_utils import compute_resource_attributes, get_docker_registry
from metaflow.plugins.timeout_decorator import get_run_time_limit_for_task


class ContainerException(MetaflowException):
    """A step cannot run in a container."""

    headline = "Container"


class ContainerDecorator(StepDecorator):
    """Specifies that this step should run in a container on this machine.

    The image and the command line are those that the step would get on a cluster.

    Parameters
    ----------
    cpu : int, default 1
        Number of CPUs required for this step. If `@resources` is
        also present, the maximum value from all decorators is used.
    gpu : int, default 0
        Number of GPUs required for this step. If `@resources` is
        also present, the maximum value from all decorators is used.
    memory : int, default 4096
        Memory size (in MB) required for this step. If
        `@resources` is also present, the maximum value from all decorators is
        used.
    image : str, optional, default None
        Image to run in, or to build on if the step has `@conda` or `@pypi`. If not specified,
        METAFLOW_DEFAULT_CONTAINER_IMAGE is used, or else an image with the current version of Python.
    """

    name = "container"
    defaults = {"cpu": None, "gpu": None, "memory": None, "image": None}  # noqa: RUF012 - as all Metaflow decorators
    resource_defaults = {"cpu": "1", "gpu": "0", "memory": "4096"}  # noqa: RUF012
    package_metadata: str | None = None
    package_url: str | None = None
    package_sha: str | None = None

    supports_conda_environment = True
    target_platform = "linux-aarch64" if platform.machine() in {"aarch64", "arm64"} else "linux-64"

    def init(self) -> None:
        """Fill in the default image, as ``@batch`` and ``@kubernetes`` do."""
        if not self.attributes["image"]:
            self.attributes["image"] = DEFAULT_CONTAINER_IMAGE or f"python:{sys.version_info[0]}.{sys.version_info[1]}"
        image = self.attributes["image"]
        if DEFAULT_CONTAINER_REGISTRY and not image.startswith("oci:") and not get_docker_registry(image):
            self.attributes["image"] = f"{DEFAULT_CONTAINER_REGISTRY.rstrip('/')}/{image}"

    def step_init(
        self, flow: Any, graph: Any, step: str, decos: Any, environment: Any, flow_datastore: Any, logger: Any
    ) -> None:
        """Refuse what cannot work; merge ``@resources``."""
        del flow, graph, logger
        if environment.TYPE != "prebuilt":
            raise ContainerException("The *@container* decorator requires --environment=prebuilt.")
        other = next((deco.name for deco in decos if deco.name in {"batch", "kubernetes"}), None)
        if other:
            raise ContainerException(f"Step *{step}* has *@container* and *@{other}*: choose one.")
        for name in self.resource_defaults:
            _check_number(step, name, self.attributes[name])
        self.environment = environment
        self.flow_datastore = flow_datastore
        self.attributes.update(compute_resource_attributes(decos, self, self.resource_defaults))
        self.run_time_limit = get_run_time_limit_for_task(decos)

    def runtime_init(self, flow: Any, graph: Any, package: Any, run_id: str) -> None:
        """Keep the code package; see to the engine before the first task of the run starts, wherever that is."""
        del flow, graph, run_id
        self.package = package
        self.environment.settle_container_engine()

    def runtime_task_created(
        self, task_datastore: Any, task_id: str, split_index: Any, input_paths: Any, is_cloned: Any, ubf_context: Any
    ) -> None:
        """Store the code package, from which the container gets its code."""
        del task_datastore, task_id, split_index, input_paths, ubf_context
        if not is_cloned:
            self._save_package_once(self.flow_datastore, self.package)

    def runtime_step_cli(self, cli_args: Any, retry_count: int, max_user_code_retries: int, ubf_context: Any) -> None:
        """Start ``container step`` in place of ``step``; the fallback of ``@catch`` needs no container."""
        del ubf_context
        if retry_count <= max_user_code_retries:
            cli_args.commands = ["container", "step"]
            cli_args.command_args += [self.package_metadata, self.package_sha, self.package_url]
            cli_args.command_options.update(self.attributes)
            cli_args.command_options["run-time-limit"] = self.run_time_limit
            cli_args.entrypoint[0] = sys.executable

    @classmethod
    def _save_package_once(cls, flow_datastore: Any, package: Any) -> None:
        if cls.package_url is not None:
            return
        if FEAT_ALWAYS_UPLOAD_CODE_PACKAGE:
            cls.package_url, cls.package_sha = package.package_url(), package.package_sha()  # waits for the upload
        else:
            cls.package_url, cls.package_sha = flow_datastore.save_data([package.blob], len_hint=1)[0]
        cls.package_metadata = package.package_metadata


def _check_number(step: str, name: str, value: Any) -> None:
    try:
        float(value or 0)
    except (TypeError, ValueError) as error:
        unit = " of MB" if name == "memory" else ""
        raise ContainerException(
            f"Step *{step}* has *@container* with {name}={value!r}: write a number{unit}."
        ) from error
