"""Calls of methods of builders and registries, which may be anybody's: what goes wrong in them names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prebuilt.core.errors import PluginError, PrebuiltError

P = ParamSpec("P")
T = TypeVar("T")

_OURS = ("prebuilt.", "metaflow_extensions.prebuilt.")  # other extensions of Metaflow are others'
_FOR_USERS = "MetaflowException"  # by its name: nothing here imports Metaflow, which prints it as it is


def called(method: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
    """Return what a method of a builder or registry returns.

    An exception of an outside class becomes an error that names the class, the method and the setting that chose it. Errors
    that were made for users, outside ones among them, pass; so do those of our own classes, whose traceback is wanted.

    Raises:
        PluginError: An outside class raised something else.
    """
    try:
        return method(*arguments, **named)
    except PrebuiltError:
        raise
    except (Exception, SystemExit) as error:  # a command line that was called as a function may exit
        plugin = getattr(method, "__self__", None)
        if plugin is None or _is_ours(type(plugin)) or _is_for_users(error):
            raise
        raise _plugin_error(plugin, method.__name__, error) from error


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith(_OURS)


def _is_for_users(error: BaseException) -> bool:
    return any(kind.__name__ == _FOR_USERS for kind in type(error).__mro__)


def _plugin_error(plugin: object, method: str, error: BaseException) -> PluginError:
    from prebuilt.core.plugins import BUILD_SERVICES, IMAGE_REGISTRIES  # which imports the contracts, which import this

    kinds = (BUILD_SERVICES, IMAGE_REGISTRIES)
    noun, setting = next((kind.noun, kind.setting) for kind in kinds if isinstance(plugin, kind.contract))
    return PluginError(
        f"call {method}() of the {noun} {type(plugin).__name__}",
        at=type(plugin).__module__,
        reason=f"{type(error).__name__}: {error}",
        remedy=f"mend it, or choose another with {setting}",
    )
