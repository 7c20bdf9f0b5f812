"""The way to the cluster: the configuration that Metaflow itself would use, and one HTTP client for all builds."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from prebuilt.core.errors import EngineError

_CONNECTIONS = 32  # kept: two for each of eight builds, and some


class Connection:
    """Makes the client of the Kubernetes API when it is first asked for. Any thread may ask.

    Source: metaflow/plugins/kubernetes/kubernetes_client.py: KUBECONFIG, else the pod that this runs in, else ``~/.kube/config``.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Look into `environ`; the process environment if None."""
        self._environ = os.environ if environ is None else environ
        self._lock = threading.Lock()
        self._client: Any = None

    def client(self, *, instead_of: object = None) -> Any:  # noqa: ANN401 - the client library has no types
        """Return the client; a new one where `instead_of`, whose login the server refused, is still the current one.

        Raises:
            EngineError: There is no cluster in the configuration, or its login cannot be made.
        """
        with self._lock:
            if self._client is None or self._client is instead_of:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:  # noqa: ANN401 - as above
        import yaml
        from kubernetes import client, config

        configuration = client.Configuration()
        try:
            self._load(config, configuration)
        except (config.ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError(
                "find the Kubernetes cluster",
                at=self._environ.get("KUBECONFIG", ""),
                reason=str(error),
                remedy="set KUBECONFIG to the file that kubectl uses, and its current context to the cluster",
            ) from error
        configuration.retries = False  # calls are tried again where it is known how long, and who may stop it
        configuration.connection_pool_maxsize = _CONNECTIONS
        return client.ApiClient(configuration)

    def _load(self, config: Any, configuration: Any) -> None:  # noqa: ANN401 - as above
        named = self._environ.get("KUBECONFIG")
        if not named and self._environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(client_configuration=configuration)
        else:
            # Named here: the library reads the variable once, when it is imported.
            config.load_kube_config(config_file=named or "~/.kube/config", client_configuration=configuration)
