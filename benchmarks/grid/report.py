"""Tables of what was measured, and a heat map of each."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.grid.cells import CLIFF

Content = Mapping[str, Any]
UNITS = {"records_per_s": (1e6, "million records/s", False), "cpu_us": (1, "CPU us/record", True)}


def write_report(content: Content, directory: Path) -> str:
    """Writes grid.md, and grid.svg and .png; returns the tables."""
    parts = [content["machine"], f"Medians of {content['rounds']}. **Bold**: under {CLIFF} of the best of its row."]
    for table in content["tables"]:
        unit = UNITS[table["key"]][1]
        parts += [f"**{table['broker']}. {table['title']}**, {unit} and share of the row's best", markdown(table)]
    found = cliffs(content)
    parts += ["**Cliffs**", "\n".join(f"* {line}" for line in found) or "None."]
    text = "\n\n".join(parts) + "\n"
    (directory / "grid.md").write_text(text)
    plot(content, directory)
    return text


def medians(table: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By row and column; a cell that was not measured yet is not there."""
    return {
        row: {
            column: statistics.median(run[table["key"]] for run in runs) for column, runs in cells.items() if runs
        }
        for row, cells in table["rows"].items()
    }  # fmt: skip


def shares(table: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of the best of the row: 1 is the best, and more what is not among those that are compared (`others`)."""
    less_is_better = UNITS[table["key"]][2]
    found = {}
    for row, cells in medians(table).items():
        compared = [value for column, value in cells.items() if column not in table["others"]]
        if not compared:
            found[row] = {}
        elif less_is_better:
            found[row] = {column: min(compared) / value for column, value in cells.items()}
        else:
            found[row] = {column: value / max(compared) for column, value in cells.items()}
    return found


def cliffs(content: Content) -> list[str]:
    """What is under CLIFF of its row's best, or under produce(), in words."""
    lines = []
    for table in content["tables"]:
        for row, cells in shares(table).items():
            reference = cells.get("produce()")
            for column, share in cells.items():
                where = f"{table['broker']}, {table['name']}, {row}, {column}"
                if column == "produce()":
                    continue
                if share < CLIFF:
                    lines.append(f"{where}: {share:.2f} of the best of its row")
                if reference and share < reference:
                    lines.append(f"{where}: {share / reference:.2f} of produce()")
    return lines


def columns(table: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(column for cells in table["rows"].values() for column in cells))


def markdown(table: Mapping[str, Any]) -> str:
    scale = UNITS[table["key"]][0]
    titles = columns(table)
    lines = ["| | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    parts = shares(table)
    for row, cells in medians(table).items():
        line = [row]
        for column in titles:
            if column not in cells:
                line.append("")
                continue
            share = parts[row].get(column, 1.0)
            mark = "**" if share < CLIFF else ""
            line.append(f"{cells[column] / scale:.3g} {mark}({share:.2f}){mark}")
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def plot(content: Content, directory: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams |= {"svg.hashsalt": "fastprod", "svg.fonttype": "none"}
    from matplotlib import pyplot

    tables = [table for table in content["tables"] if any(medians(table).values())]
    heights = [len(table["rows"]) + 1.8 for table in tables]
    figure, all_axes = pyplot.subplots(
        len(tables), 1, figsize=(12, 0.45 * sum(heights)), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes, table in zip(all_axes[:, 0], tables, strict=True):
        draw(axes, table)
    figure.tight_layout()
    figure.savefig(directory / "grid.svg", metadata={"Date": None})
    figure.savefig(directory / "grid.png", dpi=80)
    pyplot.close(figure)


def draw(axes: Any, table: Mapping[str, Any]) -> None:
    """A cell's color is its share of the row's best, its text that and the figure; a cliff has a frame."""
    scale, unit, _ = UNITS[table["key"]]
    titles = columns(table)
    parts = shares(table)
    found = medians(table)
    image = [[parts[row].get(column, float("nan")) for column in titles] for row in found]
    axes.imshow(image, vmin=0.3, vmax=1.1, cmap="RdYlGn", aspect="auto")
    for y, (row, cells) in enumerate(found.items()):
        for x, column in enumerate(titles):
            if column not in cells or column not in parts[row]:
                continue
            share = parts[row][column]
            weight = "bold" if share < CLIFF else "normal"
            axes.text(
                x, y, f"{cells[column] / scale:.3g}\n{share:.2f}", ha="center", va="center", fontsize=7, weight=weight
            )
            if share < CLIFF and column not in table["others"]:
                axes.add_patch(_frame(x, y))
    axes.set_xticks(range(len(titles)), titles, fontsize=7)
    axes.set_yticks(range(len(found)), list(found), fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{table['broker']}. {table['title'].replace('`', '')}: {unit}", fontsize=8, loc="left")


def _frame(x: int, y: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, fill=False, edgecolor="#b00", linewidth=1.6)
