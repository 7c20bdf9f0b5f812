"""What a build asks of the cluster's API, one method for each verb; a server that is away for a while is waited for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import EngineError
from prebuilt.kaniko.config import NAMESPACE_SETTING
from prebuilt.kaniko.connection import Connection
from prebuilt.kaniko.pod_state import refusal_remedy

Answer = TypeVar("Answer")
Object = Mapping[str, Any]

ROLE = "prebuilt-kaniko"
"""The Role of docs/how-to/kaniko-role.yaml."""

_TIMEOUT_S = (10.0, 30.0)
_SILENCE_S = 60.0  # of a log that is followed: by then a connection may be dead, and is made anew
_PATIENCE_S = 60.0  # with a server that has answered before
_FIRST_PATIENCE_S = 10.0  # with one that never has: its address may be wrong
_PAUSE_S = 1.0
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_NOBODY = '"system:anonymous"'
_ABSENT, _THERE, _CHANGED = "NotFound", "AlreadyExists", "Conflict"
"""Reasons of the API: a status does not tell a name that is taken from a quota that others used at the same moment.

Source: https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/types.go, StatusReason
"""
_PASSING = {429, 500, 502, 503, 504}
_REFUSED = "ask whoever runs the cluster"
_SHOWN = 300  # characters of what a proxy says, which may be a page of HTML


@dataclass(slots=True, kw_only=True)
class Cluster:
    """One namespace of a cluster, for one build.

    Attributes:
        connection: To its API.
        namespace: Where everything is made.
        cancellation: Ends waiting for a server that is away.
        note: Is told when it is.
        patience_s: How long it is waited for.
    """

    connection: Connection
    namespace: str
    cancellation: Cancellation = field(default_factory=Cancellation)
    note: Callable[[str], None] = lambda _: None
    patience_s: float = _PATIENCE_S
    _has_answered: bool = field(default=False, init=False)

    def create(self, resource: str, body: Object) -> Object:
        """Create an object of ``jobs``, ``configmaps`` or ``secrets`` under a name that nobody else uses; return it."""

        def call(api: Any) -> Any:  # noqa: ANN401 - the client library has no types
            return getattr(_group(api, resource), f"create_namespaced_{_SINGULAR[resource]}")(
                self.namespace, dict(body), _request_timeout=_TIMEOUT_S
            )

        made = self.ask("create", resource, call, absent=_THERE)
        # It is there: an answer was lost, and the call made again.
        return made if made is not None else self._there(resource, str(body["metadata"]["name"]))

    def find_job(self, name: str) -> Object | None:
        """Return the Job, or None if there is none."""
        return self.ask(
            "get",
            "jobs",
            lambda api: _group(api, "jobs").read_namespaced_job(name, self.namespace, _request_timeout=_TIMEOUT_S),
            absent=_ABSENT,
        )

    def delete_job(self, name: str) -> None:
        """Delete the Job, with all that it owns; nothing happens where it is gone. No cancellation stops this."""
        last = replace(self, cancellation=Cancellation(), patience_s=_FIRST_PATIENCE_S)

        def call(api: Any) -> Any:  # noqa: ANN401 - as above
            delete = _group(api, "jobs").delete_namespaced_job
            return delete(name, self.namespace, propagation_policy="Background", _request_timeout=_TIMEOUT_S)

        last.ask("delete", "jobs", call, absent=_ABSENT)

    def list_pods(self, selector: str) -> list[Object]:
        """Return the pods with the labels of `selector`."""
        return self._list("pods", label_selector=selector)

    def list_events(self, uid: str) -> list[Object]:
        """Return what happened to the object `uid`."""
        return self._list("events", field_selector=f"involvedObject.uid={uid}")

    def open_log(self, pod: str, container: str, since_s: int | None) -> Any:  # noqa: ANN401 - urllib3's response
        """Return a stream of the log of a container, which goes on until that ends; lines begin with their times.

        A failure is raised as the client library does: whoever reads a log has to go on after one anyway.
        """
        from kubernetes.client import ApiException

        since = {} if since_s is None else {"since_seconds": since_s}

        def call(api: Any) -> Any:  # noqa: ANN401 - as above
            return _group(api, "pods").read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                follow=True,
                timestamps=True,
                _preload_content=False,
                _request_timeout=(_TIMEOUT_S[0], _SILENCE_S),
                **since,
            )

        api = self.connection.client()
        try:
            return call(api)
        except ApiException as error:
            if not _lacks_login(error):
                raise
            return call(self.connection.client(instead_of=api))

    def refusal(self, verb: str, resource: str, error: Any) -> EngineError:  # noqa: ANN401 - an ApiException
        """Return the error for what the API answered; the verb and the resource are in it."""
        said = str(_said(error).get("message") or "")
        reason, remedy = _told(error), ""
        if f'namespaces "{self.namespace}" not found' in said:
            reason = "there is no such namespace"
            remedy = f"create it, or set {NAMESPACE_SETTING} to another one"
        elif _lacks_login(error):
            remedy = "log in to the cluster again: `kubectl auth whoami` says who you are"
        elif error.status == _FORBIDDEN and f" cannot {verb} " in said:
            # So it is for a namespace that is not there: only an administrator is told that.
            remedy = (
                f"grant the verb {verb} on {resource} in the namespace {self.namespace}: the Role {ROLE} of the documentation "
                f"has all that is needed; or set {NAMESPACE_SETTING} to the namespace where it is granted"
            )
        elif error.status == _FORBIDDEN:
            remedy = refusal_remedy(said) or _REFUSED
        return EngineError(f"{verb} {resource}", at=f"namespace {self.namespace}", reason=reason, remedy=remedy)

    def _there(self, resource: str, name: str) -> Object:
        found = self.find_job(name) if resource == "jobs" else {"metadata": {"name": name}}
        if found is None:
            raise EngineError(f"create {resource}", at=f"namespace {self.namespace}", reason=f"{name} is gone already")
        return found

    def _list(self, resource: str, **selector: str) -> list[Object]:
        def call(api: Any) -> Any:  # noqa: ANN401 - as above
            method = getattr(_group(api, resource), f"list_namespaced_{_SINGULAR[resource]}")
            return method(self.namespace, _request_timeout=_TIMEOUT_S, **selector)

        found = self.ask("list", resource, call)
        return list((found or {}).get("items") or [])

    def ask(self, verb: str, resource: str, call: Callable[[Any], Any], *, absent: str | None = None) -> Object | None:
        """Return what the API answers to `call`, or None if it refuses for the reason `absent`.

        Raises:
            CancelledError: The build was cancelled.
            EngineError: It refuses, with the verb and the resource; or it does not answer.
        """
        import urllib3
        from kubernetes.client import ApiException

        tried, began_s, has_logged_in, is_told = f"{verb} {resource}", time.monotonic(), False, False
        while True:
            self.cancellation.check()
            api = self.connection.client()
            try:
                answer: Object = api.sanitize_for_serialization(call(api))
            except ApiException as error:
                why = _said(error).get("reason")
                if absent is not None and why == absent:
                    self._has_answered = True
                    return None
                if _lacks_login(error) and not has_logged_in:
                    has_logged_in = True
                    self.connection.client(instead_of=api)
                    continue
                if error.status not in _PASSING and why != _CHANGED:
                    raise self.refusal(verb, resource, error) from error
                reason = f"the cluster's API answers {_told(error)}"
                remedy = "deploy again in a while, or ask whoever runs the cluster"
                self._check_patience(tried, reason, remedy, began_s, error)
            except urllib3.exceptions.HTTPError as error:
                reason = f"the cluster's API does not answer ({error})"
                self._check_patience(tried, reason, "see whether `kubectl version` reaches it", began_s, error)
            else:
                self._has_answered = True
                return answer
            if not is_told:  # once for each call, however long its first attempt took
                self.note(f"{reason}: trying again")
                is_told = True
            self.cancellation.wait(_PAUSE_S)

    def _check_patience(self, tried: str, reason: str, remedy: str, began_s: float, error: Exception) -> None:
        """Raise where a call was made again for long enough."""
        patience_s = self.patience_s if self._has_answered else min(self.patience_s, _FIRST_PATIENCE_S)
        if time.monotonic() - began_s > patience_s:
            raise EngineError(
                tried, at=str(self.connection.client().configuration.host), reason=reason, remedy=remedy
            ) from error


_SINGULAR = {"jobs": "job", "pods": "pod", "events": "event", "secrets": "secret", "configmaps": "config_map"}


def _group(api: Any, resource: str) -> Any:  # noqa: ANN401 - as above
    from kubernetes import client

    return client.BatchV1Api(api) if resource == "jobs" else client.CoreV1Api(api)


def _lacks_login(error: Any) -> bool:  # noqa: ANN401 - as above
    """Return whether the API does not know who asks: the client goes on as nobody where a kubeconfig's login command fails."""
    return error.status == _UNAUTHORIZED or (error.status == _FORBIDDEN and _NOBODY in _told(error))


def _told(error: Any) -> str:  # noqa: ANN401 - as above
    """Return an answer in a line: its status, and what the server said."""
    return f"{error.status} {error.reason}: {_said(error).get('message') or ''}".rstrip(": ")


def _said(error: Any) -> Object:  # noqa: ANN401 - as above
    """Return the Status that the server answered with; one of a message alone where a proxy has answered in its place."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
    try:
        status = json.loads(body)
    except ValueError:
        status = None
    return status if isinstance(status, dict) else {"message": " ".join(body.split())[:_SHOWN]}
