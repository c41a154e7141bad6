"""The code of benchmarks/grid, in short runs whose figures mean nothing."""

import json
from dataclasses import replace

import pytest

from benchmarks import __main__ as bench
from benchmarks.grid import __main__ as grid
from benchmarks.grid import cells, report
from benchmarks.grid.cells import FULL, SHORT, Cell
from benchmarks.grid.run import values_of


@pytest.fixture(scope="module")
def broker():
    with bench.mock_broker() as broker:
        yield broker


@pytest.fixture
def few(monkeypatch):
    """Also in the processes that measure."""
    monkeypatch.setenv("GRID_MAX_RECORDS", "3000")
    monkeypatch.setattr(cells, "MAX_RECORDS", 3000)


@pytest.mark.mock
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("client", ["send", "send_many", "send_arrow", "produce"])
def test_each_client_delivers_what_it_is_given_and_says_what_it_took(broker, few, client, keyed):
    if client == "send_arrow":
        pytest.importorskip("pyarrow")
    figures = grid.measure(broker, Cell(client, keyed=keyed, buffer_memory=1_000_000))
    assert figures["records_per_s"] > 0 and figures["cpu_us"] > 0
    assert ("records_per_request" in figures) == (client != "produce")


@pytest.mark.mock
@pytest.mark.parametrize("client", ["send", "produce"])
def test_records_that_come_now_and_then_have_a_latency(broker, client):
    figures = grid.measure(broker, Cell(client, linger_ms=0, every_ms=40))
    assert 0 < figures["p50_us"] <= figures["p99_us"]


@pytest.mark.mock
def test_a_run_whose_records_are_not_all_in_the_log_does_not_count(broker, few, monkeypatch):
    monkeypatch.setattr(bench.Broker, "records", lambda *_: 3999)
    with pytest.raises(SystemExit, match="3000 of 3000 records were acknowledged, 3999 of 4000 are in the logs"):
        grid.measure(broker, Cell())


def test_values_have_their_size_and_memory_of_their_own():
    values = values_of(replace(Cell(), size=5000))
    assert {len(value) for value in values} == {5000}
    assert len({id(value) for value in values}) == len(values) > 1000


def test_the_short_form_has_the_sizes_that_were_cliffs_and_the_full_one_more():
    assert {table.name for table in SHORT} == {table.name for table in FULL}
    short = {cell for table in SHORT for row in table.rows.values() for cell in row.values()}
    full = {cell for table in FULL for row in table.rows.values() for cell in row.values()}
    assert short < full
    assert Cell("send", size=100_000, batch_size=262_144) in short


def table(rows, key="records_per_s", others=("produce()",)):
    rows = {row: {column: [{key: value} for value in runs] for column, runs in found.items()}
            for row, found in rows.items()}  # fmt: skip
    return {"broker": "mock broker", "name": "t", "title": "A `table`", "key": key, "others": others, "rows": rows}


def content(*tables):
    return {"machine": "here", "rounds": 3, "tables": list(tables)}


def test_a_cell_is_compared_by_its_median_with_the_best_of_its_row():
    given = table({"1 kB": {"16384": (1e6, 9e6, 2e6), "262144": (1.3e6, 1.3e6, 1.3e6), "produce()": (4e6,)}})
    assert report.shares(given) == {"1 kB": {"16384": 1.0, "262144": 0.65, "produce()": 2.0}}
    assert "| 1 kB | 2 (1.00) | 1.3 **(0.65)** | 4 (2.00) |" in report.markdown(given)


def test_less_is_better_for_cpu():
    given = table({"each 1 ms": {"send()": (140,), "produce()": (100,)}}, key="cpu_us")
    assert report.shares(given)["each 1 ms"] == {"send()": 1.0, "produce()": 1.4}
    assert report.cliffs(content(given)) == ["mock broker, t, each 1 ms, send(): 0.71 of produce()"]


def test_a_cliff_is_reported_and_a_slope_is_not():
    given = table({"1 kB": {"a": (1.0,), "b": (0.7,), "c": (0.69,), "produce()": (0.68,)}})
    assert report.cliffs(content(given)) == ["mock broker, t, 1 kB, c: 0.69 of the best of its row"]


def test_the_report_has_each_table_and_a_picture_though_cells_are_missing(tmp_path):
    pytest.importorskip("matplotlib")
    given = content(table({"1 kB": {"a": (1e6,), "b": (), "produce()": (5e5,)}, "10 kB": {"a": (), "d": (2e6,)}}))
    text = report.write_report(json.loads(json.dumps(given)), tmp_path)
    assert "| 1 kB | 1 (1.00) |  | 0.5 **(0.50)** |  |" in text and text.rstrip().endswith("None.")
    assert text == (tmp_path / "grid.md").read_text()
    assert "<svg" in (tmp_path / "grid.svg").read_text()
    assert (tmp_path / "grid.png").stat().st_size > 1000
