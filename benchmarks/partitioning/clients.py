"""Who takes part, each with the options of its producer. Options that are not named are the library's defaults."""

from dataclasses import dataclass, field

# What Java's producer had for defaults when KIP-794's experiment was made, for all alike.
COMMON = {"acks": "all", "enable.idempotence": "true", "linger.ms": "0"}
JAVA_ROUND_ROBIN = "org.apache.kafka.clients.producer.RoundRobinPartitioner"


@dataclass(frozen=True)
class Client:
    """title: its name in tables; library: fastprod, confluent or java; options: besides COMMON."""

    title: str
    library: str
    options: dict[str, str] = field(default_factory=dict)


ADAPTIVE = Client("fastprod, `uniform_sticky`", "fastprod")
JAVA_ADAPTIVE = Client("Java", "java")

SLOW_BROKER = (
    ADAPTIVE,
    JAVA_ADAPTIVE,
    Client(
        "fastprod, `partitioner.availability.timeout.ms=5`", "fastprod", {"partitioner.availability.timeout.ms": "5"}
    ),
    Client("Java, `partitioner.availability.timeout.ms=5`", "java", {"partitioner.availability.timeout.ms": "5"}),
    Client("fastprod, not adaptive", "fastprod", {"partitioner.adaptive.partitioning.enable": "false"}),
    Client("Java, not adaptive", "java", {"partitioner.adaptive.partitioning.enable": "false"}),
    Client("fastprod, `sticky` (KIP-480)", "fastprod", {"partitioner": "sticky"}),
    Client("fastprod, `round_robin`", "fastprod", {"partitioner": "round_robin"}),
    Client("librdkafka, sticky for 10 ms", "confluent", {"sticky.partitioning.linger.ms": "10"}),
    Client("librdkafka, sticky for 100 ms", "confluent", {"sticky.partitioning.linger.ms": "100"}),
    Client("librdkafka, random", "confluent", {"sticky.partitioning.linger.ms": "0"}),
)

STICKY_CLAIM = (
    Client("fastprod, `uniform_sticky`", "fastprod"),
    Client("fastprod, `sticky`", "fastprod", {"partitioner": "sticky"}),
    Client("fastprod, `round_robin`", "fastprod", {"partitioner": "round_robin"}),
    Client("Java", "java"),
    Client("Java, `RoundRobinPartitioner`", "java", {"partitioner.class": JAVA_ROUND_ROBIN}),
    Client("librdkafka, sticky", "confluent"),
    Client("librdkafka, random", "confluent", {"sticky.partitioning.linger.ms": "0"}),
)
