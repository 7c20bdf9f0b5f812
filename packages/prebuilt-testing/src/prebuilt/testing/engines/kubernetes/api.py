"""The API server of a cluster, spoken to with the standard library: JSON there and back."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prebuilt.testing.engines.process import EngineError

_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesAPI:
    """Where the server is, and as whom it is spoken to.

    Attributes:
        url: ``https://address:port``.
        authority: File with the certificate that the server's is signed by.
        token: Of the user.
    """

    url: str
    authority: Path
    token: str = field(repr=False)

    def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """Return what the server answers, parsed.

        Raises:
            EngineError: It refused, or does not answer.
        """
        request = urllib.request.Request(  # noqa: S310 - the test's own server
            f"{self.url}/{path.lstrip('/')}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=self._context()) as response:  # noqa: S310
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                reason = error.read().decode(errors="replace")
            raise EngineError(f"{method} {path}", reason=reason) from error
        except OSError as error:
            raise EngineError(f"{method} {path}", reason=str(error)) from error

    def kubeconfig(self, namespace: str = "default") -> str:
        """Return a file for ``KUBECONFIG``, as JSON, which is YAML, too."""
        cluster = {"server": self.url, "certificate-authority": str(self.authority)}
        context = {"cluster": "test", "user": "test", "namespace": namespace}
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "test", "user": {"token": self.token}}],
                "contexts": [{"name": "test", "context": context}],
            }
        )

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))
