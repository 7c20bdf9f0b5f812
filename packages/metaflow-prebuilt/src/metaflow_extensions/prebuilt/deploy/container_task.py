"""One task of a ``@container`` step: its command line, what it sees of this machine, and its run."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from metaflow.metaflow_config import SERVICE_HEADERS
from metaflow.metaflow_config_funcs import config_values
from metaflow.plugins.datastores.local_storage import LocalStorage
from metaflow.util import get_username

from metaflow_extensions.prebuilt.deploy.errors import clean_errors
from metaflow_extensions.prebuilt.plugins.conda.decorators import IMAGE_VARIABLE
from metaflow_extensions.prebuilt.plugins.conda.shell_line import within_quotes
from prebuilt.core.home import home_folder
from prebuilt.core.settings import Settings
from prebuilt.oci.containers import ContainerRun, Mount, run_to_end, select_engine

HOME = "/metaflow-home"
"""Where tasks start, and their home: a folder that whoever the task runs as may write to."""

TIMED_OUT = 124
_GRACE_S = (
    60  # in which a task may come to its end by itself after its @timeout: it has @catch, artifacts and logs to see to
)

# Configuration that a task needs, as `batch step` forwards it; names about this machine's folders stay here.
_FORWARDED_SETTINGS = (
    "METAFLOW_AWS_SECRETS_MANAGER_",
    "METAFLOW_AZURE_",
    "METAFLOW_CARD_",
    "METAFLOW_CONDA_",
    "METAFLOW_DATASTORE_SYSROOT_",
    "METAFLOW_DATATOOLS_",
    "METAFLOW_DEBUG_",
    "METAFLOW_DEFAULT_SECRETS_BACKEND_TYPE",
    "METAFLOW_GCP_",
    "METAFLOW_GS_",
    "METAFLOW_OTEL_",
    "METAFLOW_S3_",
    "METAFLOW_SERVICE_",
)

# A cluster gives tasks a role; here they act as the user, who may be behind a proxy.
_FORWARDED_VARIABLES = (
    "AWS_",
    "AZURE_",
    "GOOGLE_",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)
_FORWARDED_FILES = (
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
)
_FORWARDED_HOME_FOLDERS = (".aws", ".azure", ".config/gcloud")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerTask:
    """One attempt of one task.

    Attributes:
        step_command: The ``step`` command, as a line for a shell.
        image: By digest; by tag where only the engine may ask the registry.
        variables: Environment variables of this step.
    """

    step_name: str
    step_command: str
    image: str
    cpus: float
    gpus: int
    memory_mb: int
    time_limit_s: int
    code_package_metadata: str
    code_package_sha: str
    code_package_url: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, environment: Any, flow_datastore: Any, metadata: Any) -> int:
        """Run the task and return its exit code; 124, as of ``timeout``, if it had to be stopped.

        What it writes goes to this process's stdout and stderr as it is written.

        Raises:
            PrebuiltEnvironmentException: The container could not be run.
        """
        with clean_errors(), tempfile.TemporaryDirectory(prefix="metaflow-task-", ignore_cleanup_errors=True) as home:
            mounts = (Mount(source=Path(home), target=HOME), *_mounts(flow_datastore))
            run = ContainerRun(
                image=self.image,
                command=self.command(environment, flow_datastore.TYPE),
                env=self.environment_variables(flow_datastore.TYPE, metadata.TYPE),
                mounts=mounts,
                workdir=HOME,
                memory_mb=self.memory_mb,
                cpus=self.cpus,
                gpus=self.gpus,
            )
            # On a cluster, too, time counts from when the image is there.
            launch = select_engine(Settings.load()).prepare(run)
            try:
                with _time_limit(self.time_limit_s + _GRACE_S):
                    return run_to_end(launch)
            except _TimeLimitExceededError:
                return TIMED_OUT

    def command(self, environment: Any, datastore_type: str) -> tuple[str, ...]:
        """Return what a cluster would run, but for the log capture.

        There, logs must be stored by the task, or they are lost; that costs seconds before and after each step. Here the process
        that launched the run reads and stores them, as it does for tasks that run without a container.
        """
        package_commands = environment.get_package_commands(
            self.code_package_url, datastore_type, self.code_package_metadata
        )
        lines = [
            "export PYTHONUNBUFFERED=x MFLOG_STDOUT=/dev/null",
            # Files of the code package belong to their user, whom a container without root does not know.
            "tar() { command tar $@ --no-same-owner; }",
            *(command for command in package_commands if command != "flush_mflogs"),
            *environment.bootstrap_commands(self.step_name, datastore_type),
            # `exec`, so that signals reach the task and not a shell that waits for it.
            within_quotes(f"exec {self.step_command}"),
        ]
        # Metaflow's commands are escaped for exactly this: metaflow/plugins/aws/batch/batch.py, _command.
        return tuple(shlex.split('bash -c "{}"'.format(" && ".join(lines))))

    def environment_variables(self, datastore_type: str, metadata_type: str) -> dict[str, str]:
        """Return the task's environment variables, which are laid over those of the image."""
        here = {name: value for name, value in os.environ.items() if name.startswith(_FORWARDED_VARIABLES)}
        files = {name: str(path) for name, path in _forwarded_files().items()}
        settings = {name: str(value) for name, value in config_values() if _is_forwarded(name)}
        if SERVICE_HEADERS:  # config_values() leaves out what a profile has as a JSON object
            settings["METAFLOW_SERVICE_HEADERS"] = json.dumps(SERVICE_HEADERS)
        return {
            **here,
            **files,
            **settings,
            "HOME": HOME,
            "METAFLOW_CODE_METADATA": self.code_package_metadata,
            "METAFLOW_CODE_SHA": self.code_package_sha,
            "METAFLOW_CODE_URL": self.code_package_url,
            "METAFLOW_CODE_DS": datastore_type,
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(_local_root().parent),
            "METAFLOW_DEFAULT_DATASTORE": datastore_type,
            "METAFLOW_DEFAULT_METADATA": metadata_type,
            "METAFLOW_RUNTIME_ENVIRONMENT": "container",
            "METAFLOW_USER": get_username() or "",
            IMAGE_VARIABLE: self.image,
            **self.variables,
        }


def _is_forwarded(name: str) -> bool:
    return name.startswith(_FORWARDED_SETTINGS) and "LOCAL" not in name


def _mounts(flow_datastore: Any) -> Iterator[Mount]:
    """Yield the local datastore, where local metadata are too, at its own path; and credentials, read-only."""
    roots = {_local_root()}
    if flow_datastore.TYPE == "local":
        roots.add(Path(flow_datastore.datastore_root).absolute())
    for root in sorted(roots):
        root.mkdir(parents=True, exist_ok=True)
        yield Mount(source=root, target=str(root))
    for path in sorted(set(_forwarded_files().values())):
        if path.exists():  # some may be folders
            yield Mount(source=path, target=str(path), read_only=True)
    for folder in _FORWARDED_HOME_FOLDERS:
        source = home_folder(os.environ) / folder
        if source.is_dir():
            yield Mount(source=source, target=f"{HOME}/{folder}", read_only=True)


def _forwarded_files() -> dict[str, Path]:
    """Return where the files are that variables name: a task starts in another folder than this process, and has another home."""
    return {name: Path(os.environ[name]).expanduser().absolute() for name in _FORWARDED_FILES if os.environ.get(name)}


def _local_root() -> Path:
    return Path(LocalStorage.get_datastore_root_from_config(lambda *_, **__: None)).absolute()


class _TimeLimitExceededError(Exception):
    pass


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raise in the body after `seconds`: the last resort for a task that does not stop at its ``@timeout``."""

    def expire(_: int, __: FrameType | None) -> NoReturn:
        raise _TimeLimitExceededError

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
