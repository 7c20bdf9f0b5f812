"""What the environment says to clients of clouds, registries and clusters, kept out of tests."""

from __future__ import annotations

import os

import pytest

_BEGINNINGS = (
    "AWS_",
    "AZURE_",
    "CLOUDSDK_",
    "CONDA",
    "DOCKER_",
    "GCE_",
    "GCLOUD_",
    "GOOGLE_",
    "KUBE",
    "MAMBA",
    "METAFLOW_",
)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_NAMES = frozenset(
    {
        *_PROXIES,
        *(name.upper() for name in _PROXIES),
        "API_ENDPOINT_OVERRIDE",
        "CURL_CA_BUNDLE",
        "NO_GCE_CHECK",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "STORAGE_EMULATOR_HOST",
        "XDG_CONFIG_HOME",
    }
)


def forget_user_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out of the environment what whoever runs the tests has configured: accounts, endpoints, proxies, authorities.

    Files in the user's home stay where they are: set ``HOME`` as well where one may be read.
    """
    for name in list(os.environ):
        if name.startswith(_BEGINNINGS) or name in _NAMES:
            monkeypatch.delenv(name)
