"""MetadataUpdater: when brokers are asked, and for which topics."""

import subprocess
import sys
import textwrap


def test_an_error_of_a_whole_metadata_answer_does_no_harm():
    """librdkafka 2.16 ends the process if it is the answer to an admin request (rd_kafka_admin_response_parse)."""
    script = """
        from fastprod import Producer
        from fastprod.testing import MockCluster
        with MockCluster(topics={}, process=True) as cluster:
            with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
                for i in range(10):
                    cluster.create_topic(f"t{i}", 2)
                    producer.send(f"t{i}", b"v")
                    cluster.push_request_errors("Metadata", [7, 7, 7])
                    producer.flush(30)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)
