"""Interrupts, in short. FASTPROD_FULL=1, or `make lifecycle`, runs them in full."""

from __future__ import annotations

import pytest

from tests.lifecycle.test_programs import FULL, run

pytestmark = pytest.mark.mock


def test_interrupts_come_out_of_every_call_and_leave_no_record_half_accepted() -> None:
    run("interrupts", "--interrupts", 500 if FULL else 100)
