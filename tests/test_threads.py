"""Threads and locks without greenlets: test_greenlets.py has those of gevent and eventlet."""

import threading
import time

import pytest

from fastprod.internals import threads
from tests.conftest import Interrupted, eventually, signalled


def test_where_nothing_replaces_threading_a_thread_is_threadings():
    thread = threads.make_thread(print, "fastprod-name")
    assert type(thread) is threading.Thread
    assert (thread.name, thread.daemon) == ("fastprod-name", True)


def test_a_thread_of_ones_own_runs_its_target_once_and_ends():
    calls = []
    thread = threads.Thread(lambda *arguments: calls.append((arguments, threading.get_ident())), "name", (1, 2))
    assert not thread.is_alive()
    thread.join()  # it was not started
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    (arguments, ident) = calls.pop()
    assert arguments == (1, 2) and ident != threading.get_ident() and not calls


def test_a_join_ends_at_its_timeout():
    ending = threading.Event()
    thread = threads.Thread(ending.wait, "name", (60,))
    thread.start()
    began = time.monotonic()
    thread.join(0.05)
    assert thread.is_alive() and 0.05 <= time.monotonic() - began < 20
    ending.set()
    thread.join(20)
    assert not thread.is_alive()


def test_a_thread_lets_its_target_go_when_it_ends():
    class Target:
        alive = 0

        def __init__(self):
            Target.alive += 1

        def __call__(self):
            pass

        def __del__(self):
            Target.alive -= 1

    thread = threads.Thread(Target(), "name")
    assert Target.alive == 1
    thread.start()
    thread.join(20)
    assert eventually(lambda: Target.alive == 0)


def test_all_threads_are_started():
    started = [threading.Event() for _ in range(5)]
    made = [threads.make_thread(event.set, "name") for event in started]
    threads.start_threads(made)
    assert all(event.wait(20) for event in started)


def test_the_error_of_a_thread_that_cannot_start_comes_out():
    class Failing:
        def start(self):
            raise LookupError("no thread")

    first = threads.make_thread(lambda: None, "name")
    with pytest.raises(LookupError, match="no thread"):
        threads.start_threads([first, Failing()])
    first.join(20)  # it was started


def test_a_lock_may_be_entered_again_by_its_holder_and_by_no_other():
    lock, entered = threads.Lock(), []

    def enter():
        with lock:
            entered.append(True)

    other = threading.Thread(target=enter)
    with lock:
        with lock:
            other.start()
        other.join(0.05)
        assert other.is_alive() and not entered  # it leaves only with the outermost block
    other.join(20)
    assert entered == [True]


def test_a_signal_handler_that_raises_ends_the_wait_for_a_lock_and_it_is_not_taken():
    lock, holding, ending = threads.Lock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            holding.set()
            ending.wait(60)

    def interrupt():
        raise Interrupted

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(20)
    with pytest.raises(Interrupted), signalled(interrupt, 0.05), lock:
        pytest.fail("the lock is another thread's")
    ending.set()
    holder.join(20)
    with lock:  # free
        pass


def test_current_names_the_thread():
    found = [threads.current()]
    thread = threading.Thread(target=lambda: found.append(threads.current()))
    thread.start()
    thread.join(20)
    assert found[0] == threads.current() != found[1]
