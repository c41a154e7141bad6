"""python -m tests.lifecycle.exits SERVERS TOPIC RECORDS end|exit|exception|daemon: sends, and ends without close()."""

from __future__ import annotations

import logging
import sys
import threading

from fastprod import Producer, ProducerClosedError


def main(servers: str, topic: str, records: str, way: str) -> None:
    logging.disable()  # only what the exit itself says is of interest
    producer = Producer(bootstrap_servers=servers)
    for i in range(int(records)):
        producer.send(topic, b"%09d" % i)
    if way == "daemon":
        sending = threading.Event()

        def load() -> None:
            try:
                while True:
                    producer.send(topic, b"more")
                    sending.set()
            except ProducerClosedError:
                pass

        threading.Thread(target=load, daemon=True).start()
        sending.wait()
    print(f"{len(producer)} of {records} records are under way at the end")
    if way == "exit":
        sys.exit(3)
    if way == "exception":
        raise LookupError("the job failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
