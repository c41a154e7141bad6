"""Finds librdkafka: the copy that the installed confluent-kafka itself uses.

The wheel's file name carries a hash that changes with each release, so the
library is reached through confluent-kafka's own extension module, whose
dependency it is: the dynamic loader searches dependencies when a symbol is
looked up by that module's handle. Nothing of confluent_kafka is imported.
"""

import ctypes
import functools
import importlib.util
import os

MINIMUM_VERSION = (2, 11, 0)  # the first that knows every property fastprod sets


@functools.cache
def load() -> ctypes.CDLL:
    """The library, loaded once. ``FASTPROD_LIBRDKAFKA`` names another file.

    ImportError if there is none, or if it is older than ``MINIMUM_VERSION``.
    """
    path = os.environ.get("FASTPROD_LIBRDKAFKA") or _confluent_extension()
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"fastprod cannot load librdkafka from {path}: {error}") from error
    try:
        version = library.rd_kafka_version()
    except AttributeError:
        raise ImportError(f"fastprod found no librdkafka in {path}: it lacks rd_kafka_version") from None
    found = (version >> 24 & 0xFF, version >> 16 & 0xFF, version >> 8 & 0xFF)
    if found < MINIMUM_VERSION:
        raise ImportError(
            f"fastprod needs librdkafka {_dotted(MINIMUM_VERSION)} or newer, but {path} "
            f"is {_dotted(found)}: pip install --upgrade confluent-kafka"
        )
    return library


def address(name: str) -> int:
    """The address of a function; ImportError naming it if this copy lacks it."""
    library = load()
    try:
        function = getattr(library, name)
    except AttributeError:
        raise ImportError(
            f"fastprod needs {name}, which this librdkafka lacks ({library._name}): "
            "pip install --upgrade confluent-kafka"
        ) from None
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def version() -> str:
    """The version of the loaded library, such as ``2.16.0``."""
    function = load().rd_kafka_version_str
    function.restype = ctypes.c_char_p
    text: bytes = function()
    return text.decode()


def _confluent_extension() -> str:
    spec = importlib.util.find_spec("confluent_kafka")
    for folder in (spec and spec.submodule_search_locations) or ():
        for name in os.listdir(folder):
            if name.startswith("cimpl") and name.endswith(".so"):
                return os.path.join(folder, name)
    raise ImportError("fastprod needs librdkafka from confluent-kafka: pip install confluent-kafka")


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


@functools.cache
def describe(code: int) -> str:
    """librdkafka's text for an error code, such as ``Broker: Unknown topic or partition``."""
    function = load().rd_kafka_err2str
    function.restype = ctypes.c_char_p
    text: bytes = function(code)
    return text.decode()
