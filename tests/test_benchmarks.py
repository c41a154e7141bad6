"""benchmarks: what it refuses to count, and what it says of the figures; short runs whose figures mean nothing."""

import json
import subprocess
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks import __main__ as bench
from benchmarks import peers, report
from benchmarks.workload import BASE, BY_RECORDS, DISTINCT, FULL, KEYED, Workload, distinct_keys, distinct_values
from tests.kafka.fixtures import consume_all

FEW = replace(BASE, records=3000)
INSTALLED = (
    "plain_c",
    *peers.FASTPROD,
    "confluent_plain",
    "confluent_callback",
    "confluent_batch",
    "confluent_asyncio",
)


@pytest.fixture(scope="module")
def broker():
    with bench.mock_broker() as broker:
        yield broker


@pytest.mark.mock
@pytest.mark.parametrize("workload", [FEW, replace(FEW, keyed=True, compression="lz4", idempotence=True)])
@pytest.mark.parametrize("name", INSTALLED)
def test_each_peer_delivers_what_it_is_given_and_says_what_it_took(broker, name, workload):
    figures = bench.measure(broker, name, "throughput", workload)
    assert figures["records_per_s"] > 0 and figures["cpu_ns"] > 0 and figures["rss_mib"] >= 0


@pytest.mark.mock
def test_plain_c_sends_the_records_that_the_others_send(broker):
    workload = replace(FEW, records=150_000, keyed=True)  # more than its queue takes at once
    topic = "plain-c-content"
    broker.make(topic, workload.partitions)
    try:
        subprocess.run(peers.load("plain_c").command(broker.servers, topic, workload), check=True, capture_output=True)
        log = Counter((message.key(), message.value()) for message in consume_all(broker.servers, topic))
    finally:
        broker.remove(topic)
    sent = list(zip(workload.keys(), workload.values(), strict=True))
    assert log == Counter(sent[: workload.warm_up] + sent)


@pytest.mark.mock
@pytest.mark.parametrize("name", bench.LATENCY_PEERS)
def test_the_latency_of_a_record_is_measured_one_by_one(broker, name):
    figures = bench.measure(broker, name, "latency", replace(FEW, records=20))
    assert 0 < figures["p50_us"] <= figures["p99_us"]


@pytest.mark.kafka
@pytest.mark.parametrize("name", ["java", "fastprod_send"])
def test_on_a_real_broker_the_batches_are_measured_too(kafka, name):
    broker = bench.Broker("", kafka.bootstrap_servers, kafka.create_topic, kafka.delete_topic, kafka.dump_logs)
    figures = bench.measure(broker, name, "throughput", FEW)
    assert figures["bytes_per_batch"] > 100 and figures["records_per_request"] >= 1


@pytest.mark.mock
def test_a_run_whose_records_are_not_all_in_the_log_does_not_count(broker, monkeypatch):
    monkeypatch.setattr(bench.Broker, "records", lambda *_: 3999)
    with pytest.raises(SystemExit, match="3000 of 3000 records were acknowledged, 3999 of 4000 are in the logs"):
        bench.measure(broker, "fastprod_send", "throughput", FEW)


def test_values_are_distinct_and_compress_and_keys_spread():
    assert len(set(distinct_keys())) == DISTINCT == len(set(distinct_values(100)))
    assert all(len(value) == 100 and b"\n" not in value for value in distinct_values(100))
    assert len({workload.title for workload in FULL}) == len(FULL)
    assert len({id(value) for value in FEW.values()}) == FEW.records


def run(peer, broker=report.MOCK, workload=BASE, what="throughput", **figures):
    runs = [{"rss_mib": 10.0, **dict(zip(figures, row, strict=True))} for row in zip(*figures.values(), strict=True)]
    return {
        "broker": broker, "what": what, "workload": workload.title, "records": 1, "batch_size": 100, "peer": peer,
        "title": peers.load(peer).NAME, "runs": runs,
    }  # fmt: skip


def content(*runs):
    return {"machine": "here", "rounds": 3, "runs": list(runs)}


def test_a_goal_is_met_by_the_ratio_of_medians():
    text = report.goals_table(
        content(
            run("plain_c", records_per_s=(90, 100, 900), cpu_ns=(1, 100, 100)),
            run("fastprod_send", records_per_s=(1, 70, 71), cpu_ns=(141, 141, 1)),
            run("fastprod_arrow", workload=KEYED, records_per_s=(1, 1, 1), cpu_ns=(1, 1, 1)),
        )
    )
    rows = [line for line in text.splitlines() if "plain C" in line]
    assert [row.split("|")[2:5] for row in rows] == [
        [" >= 0.7 ", " 0.70 ", " yes "],
        [" <= 1.4 ", " 1.41 ", " **no** "],
    ]


def test_memory_is_judged_by_the_worst_run_of_all():
    worst = run("fastprod_many", workload=Workload(partitions=1000), records_per_s=(1, 1), cpu_ns=(1, 1))
    worst["runs"][1]["rss_mib"] = 56.5
    row = report.goals_table(content(run("fastprod_send", records_per_s=(1,), cpu_ns=(1,)), worst)).splitlines()[2]
    assert "fastprod send_many(), 100 B, 1000 partitions" in row and "**no**" in row


@pytest.mark.parametrize(("costs", "verdict"), [((270, 300, 330), "yes"), ((300, 300, 331), "**no**")])
def test_what_a_record_costs_is_to_stay_within_ten_per_cent(costs, verdict):
    runs = [
        run("fastprod_many", workload=workload, records_per_s=(1,), cpu_ns=(cost,))
        for workload, cost in zip(BY_RECORDS, costs, strict=True)
    ]
    (row,) = (
        line for line in report.goals_table(content(*runs)).splitlines() if "100,000 to 10,000,000 records" in line
    )
    assert row.endswith(f"| {verdict} |")


def test_the_report_has_a_table_of_each_workload_and_a_plot(tmp_path):
    pytest.importorskip("matplotlib")
    given = content(
        run("fastprod_send", records_per_s=(2e6,), cpu_ns=(400,), bytes_per_batch=(95.0,)),
        run("confluent_plain", records_per_s=(1e6,), cpu_ns=(800,), bytes_per_batch=(2000.0,)),
        run("fastprod_send", what="latency", p50_us=(100,), p99_us=(200,)),
    )
    text = report.write_report(json.loads(json.dumps(given)), tmp_path)
    assert "| confluent produce() | 1,000,000 | 2.00 x | 800 | 10 MiB | 2,000 B |" in text
    assert "| fastprod send() | 100 us | 200 us |" in text
    assert text == (tmp_path / "bench.md").read_text()
    assert "<svg" in (tmp_path / "bench.svg").read_text()
