"""What `_target_` of a configuration names: a class or a function, imported by its path, checked, then called."""

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from profiling.errors import NotApplicableError, UserError, nearest
from profiling.out_of_memory import explain_out_of_memory

UNNAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def import_target(target: str, key: str, accepts: Callable[[Any], bool], allowed: str) -> Callable[..., Any]:
    """Import the class or function that the dotted path `target` names.

    It is checked before anybody calls it: `optimizer._target_=os.system` must not run a command. Not by
    hydra.utils.get_object, which cannot tell a module that is missing from one that fails, nor name what is nearest.

    Args:
        target: package.module.Name.
        key: its configuration key, for messages.
        accepts: whether an imported object is what the key promises.
        allowed: what `accepts` accepts, for messages.

    Raises:
        UserError: the module cannot be imported, has nothing of that name, or what it has is not accepted.
    """
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        known = isinstance(error, ImportError | ValueError)  # ValueError: the module's name is empty
        missing = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        hint = "; is its folder in PYTHONPATH?" if missing else ""
        raise UserError(f"{key}={target}: cannot be imported: {error if known else repr(error)}{hint}") from error
    imported: Callable[..., Any] | None = getattr(module, name, None)
    if imported is None:
        raise UserError(f"{key}={target}: {module_name} has no {name}{nearest(name, list(vars(module)))}")
    if not callable(imported) or not accepts(imported):
        raise UserError(f"{key}={target}: {_kind(imported)}; allowed: {allowed}")
    return imported


def is_class(imported: Any, base: type) -> bool:
    """Whether `imported` is a subclass of `base`, not `base` itself."""
    return isinstance(imported, type) and issubclass(imported, base) and imported is not base


def is_function_of(imported: Any, *parameters: str) -> bool:
    """Whether `imported` is a function of Python code, not of the standard library, that names all `parameters`."""
    if not inspect.isfunction(imported) or imported.__module__.partition(".")[0] in sys.stdlib_module_names:
        return False
    return set(parameters) <= named_parameters(imported).keys()


def named_parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a class or function that can be given by name; `**kwargs` names none."""
    parameters = inspect.signature(target).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind not in UNNAMED}


def fields_of(option: Any) -> dict[str, Any]:
    """What an option of a group passes to its target: its fields, with `params` of a custom one as fields."""
    fields = {field.name: getattr(option, field.name) for field in dataclasses.fields(option)}
    own: dict[str, Any] = fields.pop("params", {})
    del fields["_target_"]
    return fields | own


def call_target(target: Callable[..., Any], option: str, *arguments: Any, **fields: Any) -> Any:
    """Call what was imported; `option`, for example `model=models.cnn.CNN`, begins the message if it refuses.

    Raises:
        UserError: it rejects its arguments, or they need more memory than there is.
        OSError: a file or the network.
    """
    try:
        return target(*arguments, **fields)
    except (UserError, NotApplicableError, OSError):
        raise
    except Exception as error:  # the arguments are the user's, the code may be: HYDRA_FULL_ERROR=1 shows where
        reason = explain_out_of_memory(error) or str(error).strip() or repr(error)
        raise UserError(f"{option}: {reason.splitlines()[0]}") from error


def _kind(imported: Any) -> str:
    if isinstance(imported, type):
        return "a class of another kind"
    if inspect.isfunction(imported):
        return f"a function of ({', '.join(inspect.signature(imported).parameters)})"
    return "neither a class nor a function of Python code"
