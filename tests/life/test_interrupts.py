"""Interrupts in a short form; FASTPROD_FULL=1, or `make life`, runs them for the full figure."""

from __future__ import annotations

import pytest

from tests.life.test_life import FULL, run

pytestmark = pytest.mark.mock


def test_interrupts_come_out_of_every_call_and_leave_no_record_half_accepted() -> None:
    run("interrupts", "--interrupts", 500 if FULL else 100)
