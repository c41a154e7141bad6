"""Whether a function can be called back as fastprod calls it: with (metadata, error), and not a coroutine."""

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t

import re
from functools import partial
from types import CodeType

cdef extern from *:
    """
    #define FASTPROD_CO_COROUTINE 0x0080
    """
    enum:
        FASTPROD_CO_COROUTINE

cdef extern from "Python.h":
    bint PyFunction_Check(object)
    PyObject *PyFunction_GetCode(object)
    bint PyMethod_Check(object)
    PyObject *PyMethod_GET_FUNCTION(object)

cdef enum:
    MAX_CHECKED = 256

# Matches the names of a parameter that takes an error: err, error_or_none, kafkaError, _exc; but not message_or_error.
is_error_name = re.compile(
    r"(?!.*(?:meta|msg|message|record|result|outcome|success))(?:.*_)?(?:kafka)?"
    r"(?:e|err|error|ex|exc|exception|failure)(?:_or_none)?_*", re.IGNORECASE).fullmatch
cdef dict checked_codes = {}   # id of a function's code -> (the code, how many arguments are bound)


cdef int check_callback(object function, str what) except -1:
    if not callable(function):
        raise TypeError(f"{what} must be callable, not {type(function).__name__}: {function!r:.60}")
    _, code, _ = code_of(function)
    if code is not None and code.co_flags & FASTPROD_CO_COROUTINE:
        raise TypeError(f"{what} is a coroutine function, and nothing would await it: await the future instead")
    return 0


cdef tuple code_of(object function):
    """Returns (function, code, bound): the innermost function, its code or None, and how many arguments are bound.

    A functools.partial and a bound method hold a function. Another object is called by the __call__ of its class.
    """
    cdef Py_ssize_t bound = 0
    while True:
        if isinstance(function, partial):
            bound += len(function.args)
            function = function.func
        elif PyMethod_Check(function):
            bound += 1
            function = <object>PyMethod_GET_FUNCTION(function)
        else:
            break
    code = getattr(function, "__code__", None)
    if code is None and not isinstance(function, type):
        bound += 1
        function = type(function).__call__
        code = getattr(function, "__code__", None)
    return function, code if isinstance(code, CodeType) else None, bound


cdef int check_order(object function, str what) except -1:
    """Raises TypeError if the names of its parameters say that the error comes first, as in (err, msg)."""
    function, code, bound = code_of(function)
    while code is not None and code.co_argcount == 0 and hasattr(function, "__wrapped__"):
        function, code, _ = code_of(function.__wrapped__)   # of a decorator's (*args)
    if code is None:
        return 0
    names = code.co_varnames[bound:code.co_argcount]
    if names and is_error_name(names[0]) and not (len(names) > 1 and is_error_name(names[1])):
        raise TypeError(
            f"{what} is called with (metadata, error), one of which is None, but its first parameter is named "
            f"{names[0]!r}: swap the two. confluent-kafka passes the error first, fastprod the metadata")
    return 0


cdef int check_delivery_callback(object function) except -1:
    """Raises TypeError unless function(metadata, error) can be called. The last functions are cached by their code."""
    cdef object inner = function
    cdef Py_ssize_t bound = 0
    cdef PyObject *known
    if PyMethod_Check(inner):
        inner = <object>PyMethod_GET_FUNCTION(inner)
        bound = 1
    if PyFunction_Check(inner):
        code = <object>PyFunction_GetCode(inner)
    else:
        _, code, bound = code_of(function)
    if code is not None:
        known = PyDict_GetItem(checked_codes, <uintptr_t><PyObject *>code)
        if known is not NULL and (<tuple>known)[1] == bound:
            return 0
    check_callback(function, "on_delivery")
    check_order(function, "on_delivery")
    if code is not None and not hasattr(inner, "__wrapped__"):
        if len(checked_codes) >= MAX_CHECKED:
            checked_codes.clear()
        checked_codes[<uintptr_t><PyObject *>code] = code, bound
    return 0
