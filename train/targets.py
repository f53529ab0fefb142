"""What `_target_` of a configuration names: a class or a function, imported by its dotted path."""

import importlib
from collections.abc import Callable
from typing import Any

from profiling.errors import UserError, nearest


def import_target(target: str, key: str) -> Callable[..., Any]:
    """Import the class or function that the dotted path `target` names; `key` is its configuration key, for messages.

    Raises:
        UserError: the module cannot be imported, or has nothing callable of that name.
    """
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:  # ValueError: the module's name is empty
        raise UserError(f"{key}={target}: cannot be imported: {error}") from error
    imported: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(imported):
        raise UserError(f"{key}={target}: {module_name} has no {name}{nearest(name, list(vars(module)))}")
    return imported
