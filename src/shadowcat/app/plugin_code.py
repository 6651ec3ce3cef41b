"""A plugin's code: finds the class in a module or file, loads it afresh each time, passes its options."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from shadowcat.core.interceptor import Interceptor
from shadowcat.errors import PluginError


class PluginCode:
    def __init__(self, use: str, options: dict[str, Any], *, is_watched: bool = True) -> None:
        """Raises `PluginError` for what does not name a class, and for a module that is not there."""
        where, _, name = use.rpartition(":") if ":" in use else (use, "", "")
        self._class_name = name
        self._options = options
        self.label = f"plugin {use}"
        if where.endswith(".py"):
            if not Path(where).is_file():
                raise PluginError(f"{self.label}: there is no file {where}")
            module = f"shadowcat_plugin_{Path(where).stem}"
            self._spec = importlib.util.spec_from_file_location(module, where)
            self._is_fresh = True
        elif where and name:
            self._spec = self._found(where)
            self._is_fresh = False
        else:
            raise PluginError(f"{self.label}: a plugin is module:Class, file.py or file.py:Class")
        self.file = self._spec.origin if is_watched and self._spec is not None else None

    def make(self) -> Interceptor:
        """Raises `PluginError`."""
        if self._spec is None or self._spec.origin is None:
            raise PluginError(f"{self.label}: it has no source to load")
        cls = self._class_in(self._loaded(self._spec, self._spec.origin))
        try:
            return self._instance(cls)
        except msgspec.ValidationError as error:
            raise PluginError(f"{self.label}, options: {error}") from error
        except PluginError:
            raise
        except Exception as error:
            where = _line(error, self._spec.origin)
            raise PluginError(
                f"{self.label}{where}: {cls.__name__} cannot be made: {_told(error)}"
            ) from error

    def _found(self, module: str) -> ModuleSpec | None:
        try:
            found = importlib.util.find_spec(module)
        except (Exception, SystemExit) as error:
            # To find it, the packages that it is in are run.
            raise PluginError(f"{self.label}: {_told(error)}") from error
        if found is None:
            raise PluginError(f"{self.label}: there is no module {module}; for a file, write path/to/file.py")
        return found

    def _loaded(self, spec: ModuleSpec, origin: str) -> ModuleType:
        try:
            if self._is_fresh:
                return _fresh(spec, origin)
            # The first time as others import it; they share its classes then.
            self._is_fresh = True
            return importlib.import_module(spec.name)
        except (Exception, SystemExit) as error:
            raise PluginError(f"{self.label}{_line(error, origin)}: {_told(error)}") from error

    def _class_in(self, module: ModuleType) -> type[Interceptor]:
        if self._class_name:
            found = getattr(module, self._class_name, None)
            if found is None:
                raise PluginError(f"{self.label}: there is no {self._class_name} in it")
            if not (inspect.isclass(found) and issubclass(found, Interceptor)):
                raise PluginError(f"{self.label}: {self._class_name} is no shadowcat.Interceptor")
            return found
        own = [
            one
            for one in vars(module).values()
            if inspect.isclass(one) and issubclass(one, Interceptor) and one.__module__ == module.__name__
        ]
        if len(own) != 1:
            names = ", ".join(one.__name__ for one in own) or "none"
            raise PluginError(
                f"{self.label}: it must say which class, for there are several or none: {names}"
            )
        return own[0]

    def _instance(self, cls: type[Interceptor]) -> Interceptor:
        if cls.Options is None:
            if self._options:
                raise PluginError(
                    f"{self.label}: {cls.__name__} takes no options, for it has no Options struct"
                )
            return cls()
        make: Any = cls
        return make(msgspec.convert(self._options, cls.Options))


def _fresh(spec: ModuleSpec, origin: str) -> ModuleType:
    """Not by `reload`, which would change the module that is in use, and not from a cache of bytecode."""
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(spec.name)
    # Annotations are looked up there.
    sys.modules[spec.name] = module
    try:
        exec(compile(Path(origin).read_bytes(), origin, "exec"), module.__dict__)
    except BaseException:
        if before is None:
            del sys.modules[spec.name]
        else:
            sys.modules[spec.name] = before
        raise
    return module


def _line(error: BaseException, origin: str) -> str:
    """The last line of the plugin that had to do with it."""
    if isinstance(error, SyntaxError) and error.filename == origin:
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == origin]
    return f", line {lines[-1]}" if lines else ""


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
