"""Callback check: which functions are refused as callbacks, because a call with (metadata, error) would go wrong."""

import functools
import types
import unittest.mock
import weakref

import pytest

from fastprod_core_access import check_on_delivery
from tests.bad_input import TOPIC, check_refused
from tests.conftest import shown

pytestmark = pytest.mark.mock


async def coroutine_function(metadata, error):
    raise AssertionError("never awaited")


class AsyncMethod:
    async def notified(self, metadata, error):
        raise AssertionError("never awaited")

    async def __call__(self, metadata, error):
        raise AssertionError("never awaited")


@pytest.mark.parametrize(
    ("on_delivery", "expected", "said"),
    [
        (5, TypeError, "on_delivery must be callable, not int: 5"),
        ("print", TypeError, "on_delivery must be callable, not str: 'print'"),
        (False, TypeError, "on_delivery must be callable, not bool: False"),
        ([], TypeError, r"on_delivery must be callable, not list: \[\]"),
        (coroutine_function, TypeError, "coroutine function, and nothing would await it: await the future instead"),
    ],
    ids=shown,
)
def test_a_bad_callback_is_refused_by_send(producer, on_delivery, expected, said):
    check_refused(producer, lambda: producer.send(TOPIC, b"v", on_delivery=on_delivery), expected, said)


@pytest.mark.parametrize(
    "on_delivery",
    [AsyncMethod().notified, AsyncMethod(), functools.partial(coroutine_function, None)],
    ids=["method", "__call__", "partial"],
)
def test_a_coroutine_function_in_disguise_is_refused_by_send(producer, on_delivery):
    check_refused(
        producer, lambda: producer.send(TOPIC, b"v", on_delivery=on_delivery), TypeError, "coroutine function"
    )


def confluents(err, msg):
    raise AssertionError("the arguments are the other way round")


def forwarding(function):
    @functools.wraps(function)
    def forward(*arguments):
        return function(*arguments)

    return forward


class Confluents:
    def notified(self, error, metadata):
        raise AssertionError("the arguments are the other way round")

    def __call__(self, exc, metadata):
        raise AssertionError("the arguments are the other way round")

    @classmethod
    def of_the_class(cls, err, msg):
        raise AssertionError("the arguments are the other way round")

    @staticmethod
    def of_nothing(kafka_error, _):
        raise AssertionError("the arguments are the other way round")


SWAPPED = {
    "function": (confluents, "err"),
    "lambda": (lambda e, m: None, "e"),
    "error_or_none": (lambda error_or_none, metadata_or_none: None, "error_or_none"),
    "one alone": (lambda exception: None, "exception"),
    "method": (Confluents().notified, "error"),
    "__call__": (Confluents(), "exc"),
    "classmethod": (Confluents.of_the_class, "err"),
    "staticmethod": (Confluents.of_nothing, "kafka_error"),
    "partial": (functools.partial(lambda key, err, msg: None, b"key"), "err"),
    "partial of a method": (functools.partial(Confluents().notified), "error"),
    "decorated": (forwarding(confluents), "err"),
}


@pytest.mark.parametrize("way", SWAPPED)
def test_a_callback_that_expects_the_error_first_is_refused_by_send(producer, way):
    on_delivery, name = SWAPPED[way]
    said = rf"on_delivery is called with \(metadata, error\), .* first parameter is named '{name}': swap the two"
    for _ in range(2):  # what is known of the first must not let the second pass
        check_refused(producer, lambda: producer.send(TOPIC, b"v", on_delivery=on_delivery), TypeError, said)


STRAIGHT = {
    "anything": lambda a, b: None,
    "unnamed": lambda _, error: None,
    "either in the first": lambda metadata_or_error, error: None,
    "both alike": lambda err_or_metadata, err: None,
    "an event": lambda event, error: None,
    "bound": functools.partial(lambda error_count, metadata, error: None, 0),
    "any number": lambda *errors: None,
    "decorated": forwarding(lambda metadata, error: None),
    "builtin": print,
    "method of a builtin": [].__init__,
    "mock": unittest.mock.Mock(),
}


@pytest.mark.parametrize("way", STRAIGHT)
def test_a_callback_whose_parameters_do_not_say_that_is_taken(producer, way, monkeypatch):
    monkeypatch.setattr("sys.unraisablehook", lambda raised: None)  # some cannot be called with two
    assert producer.send(TOPIC, b"v", on_delivery=STRAIGHT[way]).result(20).topic == TOPIC
    producer.flush(20)


def test_one_function_may_be_a_good_callback_bound_and_a_bad_one_unbound(producer):
    def notified(err, metadata, error):
        pass

    said = "first parameter is named 'err'"
    for _ in range(2):
        assert producer.send(TOPIC, b"v", on_delivery=functools.partial(notified, 1)).result(20).topic == TOPIC
        assert producer.send(TOPIC, b"v", on_delivery=types.MethodType(notified, 1)).result(20).topic == TOPIC
        check_refused(producer, lambda: producer.send(TOPIC, b"v", on_delivery=notified), TypeError, said)


@pytest.mark.parametrize("way", ["partial", "class", "__call__"])
def test_any_other_callable_is_taken(producer, way):
    outcomes = []

    class Notified:
        def __init__(self, *outcome):
            outcomes.extend(outcome)

    class Callable:
        def __call__(self, *outcome):
            outcomes.extend(outcome)

    ways = {
        "partial": functools.partial(lambda nothing, *outcome: outcomes.extend(outcome), None),
        "class": Notified,
        "__call__": Callable(),
    }
    metadata = producer.send(TOPIC, b"v", on_delivery=ways[way]).result(20)
    producer.flush(20)
    assert outcomes == [metadata, None]


@pytest.mark.parametrize("on_delivery", [lambda: None, lambda one: None, lambda one, two, three: None])
def test_a_callback_of_the_wrong_arity_is_reported_and_harms_nothing(producer, monkeypatch, on_delivery):
    unraisable = []
    monkeypatch.setattr("sys.unraisablehook", lambda raised: unraisable.append(raised.exc_type))
    assert producer.send(TOPIC, b"v", on_delivery=on_delivery).result(20).topic == TOPIC
    producer.flush(20)
    assert unraisable == [TypeError]
    assert producer.send(TOPIC, b"good").result(20).topic == TOPIC


def test_functions_that_were_checked_are_kept_in_a_bounded_number():
    def checked(number):
        function = eval(f"lambda metadata, error: {number}")
        check_on_delivery(function)
        return weakref.ref(function.__code__)

    first = checked(0)
    assert first() is not None  # so a function of the same code is not checked again
    for number in range(1, 1000):
        checked(number)
        if first() is None:
            break
    assert number <= 256


def test_an_object_that_was_made_callable_is_checked_by_the_call_of_its_class():
    class Callable:
        pass

    with pytest.raises(TypeError, match="on_delivery must be callable, not Callable"):
        check_on_delivery(Callable())
    Callable.__call__ = lambda self, metadata, error: None
    check_on_delivery(Callable())
    Callable.__call__ = lambda self, error, metadata: None
    with pytest.raises(TypeError, match="first parameter is named 'error'"):
        check_on_delivery(Callable())
