"""A record costs the instructions that tests/instructions/budget.json says; ``make budget`` counts anew."""

import os

import pytest

from tests.instructions import budget

TOOLS = {"machine": "x86_64", "python": "3.11", "compiler": "GCC 12", "libc": "glibc 2.36", "librdkafka": "2.16.0"}
KEPT = {"made with": TOOLS, "instructions per record": {"send()": {"sending": 1000.0, "everything": 4000.0}}}


@pytest.mark.skipif(not budget.valgrind(), reason="valgrind is missing, which counts: apt-get install valgrind")
def test_no_way_of_sending_costs_more_or_less_than_its_budget():
    counted = budget.count()
    print(*counted.items(), sep="\n")
    wrong = budget.compare(counted, budget.read_budget(), budget.made_with())
    assert not wrong, "\n".join(wrong)


def test_the_budget_has_every_way_of_sending_and_no_other():
    assert list(budget.read_budget()["instructions per record"]) == list(budget.WAYS)


@pytest.mark.parametrize(("sending", "everything"), [(1049, 4000), (951, 4000), (1000, 4390), (1000, 3610)])
def test_what_is_near_the_budget_is_within_it(sending, everything):
    assert not budget.compare({"send()": {"sending": sending, "everything": everything}}, KEPT, TOOLS)


@pytest.mark.parametrize(
    ("sending", "everything", "said"),
    [
        (1120, 4000, "send(), sending: 1120.0 instructions per record where the budget has 1000.0, 12.0% more"),
        (880, 4000, "12.0% less, so the budget would let that be lost again: run `make budget`"),
        (1000, 4500, "send(), everything: 4500.0 instructions per record where the budget has 4000.0, 12.5% more"),
        (1000, 3500, "12.5% less"),
    ],
)
def test_what_is_not_says_by_how_much(sending, everything, said):
    (wrong,) = budget.compare({"send()": {"sending": sending, "everything": everything}}, KEPT, TOOLS)
    assert said in wrong


@pytest.mark.parametrize("tool", ["machine", "python", "compiler"])
def test_code_that_was_made_otherwise_has_more_room(tool):
    others = TOOLS | {tool: "another"}
    assert not budget.compare({"send()": {"sending": 1200, "everything": 9000}}, KEPT, others)
    assert not budget.compare({"send()": {"sending": 500, "everything": 9000}}, KEPT, others)
    (wrong,) = budget.compare({"send()": {"sending": 1300, "everything": 9000}}, KEPT, others)
    assert "30.0% more" in wrong


@pytest.mark.parametrize("tool", ["libc", "librdkafka"])
def test_other_libraries_change_only_what_everything_costs(tool):
    others = TOOLS | {tool: "another"}
    assert not budget.compare({"send()": {"sending": 1000, "everything": 9000}}, KEPT, others)
    assert budget.compare({"send()": {"sending": 1100, "everything": 9000}}, KEPT, others)


def test_what_was_called_does_not_count_for_the_caller_too(tmp_path):
    """As callgrind writes it: names once, then their numbers; relative line numbers; a call's cost on its own line."""
    (tmp_path / "out").write_text(
        "events: Ir\n\nob=(1) /a/_sender.so\nfl=(1) x.c\nfn=(1) f\n10 5\n+2 7\ncob=(2) /b/libc.so.6\ncfi=(2) y.c\n"
        "cfn=(2) g\ncalls=3 4\n* 90\n-1 1\n\nob=(2)\nfl=(2)\nfn=(2)\n4 90\n\nfn=(3) h\ncfn=(1)\ncob=(1)\ncalls=1 2\n"
        "0 13\n\nob=(1)\nfn=(1)\n3 2\n"
    )
    assert budget.self_costs(tmp_path / "out") == {"_sender.so": 5 + 7 + 1 + 2, "libc.so.6": 90}


def test_the_tools_of_this_build_are_known():
    assert all(budget.made_with().values()), os.linesep.join(map(str, budget.made_with().items()))
    assert budget.made_with()["compiler"] != "unknown"
