"""LogLimit: what is written, what is left out, and what is said of it."""

import logging

import pytest

from fastprod.internals.logs import LogLimit


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def limit(clock, caplog):
    caplog.set_level(logging.DEBUG, "fastprod")
    return LogLimit(clock)


def test_one_line_a_second_of_each_kind_and_a_count_of_the_others(limit, clock, caplog):
    for _ in range(20):
        limit.write(3, "FAIL: refused")
        limit.write(4, "CONFWARN: odd")
        clock.now += 0.049
    assert caplog.messages == ["FAIL: refused", "CONFWARN: odd"]
    clock.now += 0.1
    limit.write(3, "FAIL: refused again")
    assert caplog.messages[2:] == ["FAIL: refused again (19 more FAIL lines were left out before this one)"]
    clock.now += 1
    limit.write(3, "FAIL: later")
    assert caplog.messages[3:] == ["FAIL: later"]


def test_debug_lines_are_all_written(limit, caplog):
    for number in range(50):
        limit.write(7, f"PROTOCOL: {number}")
    assert len(caplog.messages) == 50


def test_the_last_lines_left_out_are_counted_at_the_end(limit, caplog):
    for _ in range(3):
        limit.write(6, "FAIL: refused")
    limit.close(dropped=5)
    assert caplog.messages[1:] == [
        "FAIL: 2 more lines were left out",
        "5 lines came faster than they could be logged and are lost",
    ]
    limit.close()
    assert len(caplog.messages) == 3


def test_syslogs_levels_become_loggings(limit, caplog):
    for level in range(8):
        limit.write(level, f"KIND{level}: text")
    assert [record.levelname for record in caplog.records] == [
        *["CRITICAL"] * 3,
        "ERROR",
        "WARNING",
        *["INFO"] * 2,
        "DEBUG",
    ]


def test_a_percent_sign_is_only_text(limit, caplog):
    limit.write(3, "FAIL: %s 100%")
    assert caplog.messages == ["FAIL: %s 100%"]
