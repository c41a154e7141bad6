"""Counts, and shows the counts beside the budget: ``python -m tests.instructions``; with --write they become it."""

import sys

from tests.instructions.budget import count, made_with, read_budget, valgrind, write_budget


def main():
    if not valgrind():
        sys.exit("valgrind is missing, which counts the instructions: apt-get install valgrind")
    counted = count()
    budget = read_budget()["instructions per record"]
    print(", ".join(f"{name} {value}" for name, value in made_with().items()))
    columns = list(next(iter(counted.values())))
    print(f"\n| instructions per record | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for way, costs in counted.items():
        cells = [f"{cost:.1f} (was {budget.get(way, {}).get(name, '?')})" for name, cost in costs.items()]
        print(f"| {way} | {' | '.join(cells)} |")
    if "--write" in sys.argv:
        write_budget(counted)


if __name__ == "__main__":
    main()
