"""Refuses to be imported in a subinterpreter: the core's state and threads are the process's."""

import importlib

for _name in ("_interpreters", "_xxsubinterpreters"):  # since 3.13, and before; without either there are none
    try:
        _interpreters = importlib.import_module(_name)
    except ImportError:
        continue
    if _interpreters.get_current() != _interpreters.get_main():
        raise ImportError(
            "fastprod works in the main interpreter only, and this is a subinterpreter: import it there, or use "
            "processes; under mod_wsgi set WSGIApplicationGroup %{GLOBAL}"
        )
    break
