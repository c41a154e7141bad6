"""Options and records that nobody would think of: whatever is given works, or is refused by an error of the right kind.

python -m tests.fuzz SECONDS [SEED]: with atheris, which looks for input that reaches more of the code, if it is
installed, else by chance. python -m tests.fuzz FILE: once, with an input that failed.
"""

import contextlib
import enum
import inspect
import math
import os
import random
import sys
import time
import warnings

import fastprod.config.jaas
import fastprod.config.options
import fastprod.records
from fastprod import KafkaError, Producer, ProducerRecord, RecordMetadata, murmur2, partition_for_key
from fastprod.config.options import ALIASES, OPTIONS
from fastprod.config.producer_config import resolve
from fastprod.internals.handle import knows
from fastprod.testing import MockCluster
from tests.conftest import QUICK

try:
    import atheris
except ImportError:
    atheris = None

FAILED_INPUT = "build/fuzz/failed"
NAMES = [*OPTIONS, *ALIASES, "librdkafka.linger.ms", "debug", "socket.max.fails", "nothing.like.it"]
# Which would have librdkafka look for hosts, files and programs of this machine when a producer is made.
OUTWARD = ("server", "broker", "kerberos", "oauthbearer", "jaas", "ssl.", "plugin", "sasl", "security", "https", "url")
TEXTS = [
    *("", "0", "-1", "1e3", "1_000", "true", "all", "none", "uniform_sticky", "nan", "inf", "0x10", "\0", "\ud800"),
    *("a:1", "[::1]:9092", "PLAIN", "SSL", "lz4", "٣", " 5 ", "5\n", "99999999999999999999", "x" * 300, "é", "😀"),
    'org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="p";',
]
REFUSALS = (TypeError, ValueError, KafkaError)


class Mischief(Exception):
    """What the objects below raise, which goes through to the caller."""


class Unrepresentable:
    def __repr__(self):
        raise Mischief


class Text(str):
    pass


class Whole(int):
    pass


class Colour(str, enum.Enum):
    RED = "t"


class Pairs:
    def items(self):
        yield "name", b"v"
        raise Mischief


class Data:
    """Choices made by bytes: the same for the same bytes, and by the last of them when they run out."""

    def __init__(self, data):
        self.data = data
        self.place = 0

    def byte(self):
        self.place += 1
        return self.data[min(self.place, len(self.data)) - 1] if self.data else 0

    def whole(self, limit):
        return (self.byte() << 8 | self.byte()) % limit

    def pick(self, choices):
        return choices[self.whole(len(choices))]

    def bytes(self):
        size = self.pick([0, 1, 3, 8, 15, 16, 127, 128, 1000, 20_000])
        return bytes(self.byte() for _ in range(min(size, 16))) * (1 + size // 16)

    def text(self):
        match self.byte() % 4:
            case 0:
                return self.pick(TEXTS)
            case 1:
                return str(self.number())
            case 2:
                return "".join(chr(self.pick([self.byte(), 0x20AC, 0xD800, 0x1F600])) for _ in range(self.byte() % 9))
            case _:
                return self.pick(TEXTS) + self.pick(TEXTS)

    def number(self):
        base = self.pick([0, 1, 2, 5, 100, 16384, 1 << 20, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 1 << 200])
        return self.pick([1, -1]) * (base + self.pick([-1, 0, 1]))

    def anything(self, depth=2):
        match self.byte() % 16:
            case 0 | 1 | 2:
                return self.bytes()
            case 3 | 4:
                return self.text()
            case 5:
                return self.number()
            case 6:
                return self.pick([None, True, False, 0.0, -0.5, 1.5, math.nan, math.inf, 1e300, Colour.RED, ...])
            case 7:
                return self.pick([bytearray, memoryview])(self.bytes())
            case 8:
                return memoryview(self.bytes() + bytes(4))[:: self.pick([1, 2, -1])]
            case 9 if depth:
                return [self.anything(depth - 1) for _ in range(self.byte() % 4)]
            case 10 if depth:
                return tuple(self.anything(depth - 1) for _ in range(self.byte() % 4))
            case 11 if depth:
                return {self.text(): self.anything(depth - 1) for _ in range(self.byte() % 4)}
            case 12:
                return self.pick([Unrepresentable, Pairs])()
            case 13:
                return self.pick([Text("t"), Text("a\0"), Whole(1), object, repr, len, lambda *_: None, iter(())])
            case _:
                return None


class Fuzzer:
    def __init__(self, cluster):
        self.cluster = cluster
        self.producer = Producer(QUICK, bootstrap_servers=cluster.bootstrap_servers, linger_ms=5)
        self.producer.send("t", b"v").result(20)
        self.sent = []
        self.refused = self.rounds = 0
        warnings.simplefilter("ignore")
        sys.unraisablehook = lambda raised: None  # of callbacks with other arguments than it has

    def run(self, data):
        self.rounds += 1
        choices = Data(data)
        with contextlib.suppress(Mischief):
            self.pick_target(choices)(choices)

    def pick_target(self, choices):
        return [self.send, self.send, self.options, self.options, self.hash][choices.byte() % 5]

    @contextlib.contextmanager
    def refusal(self):
        try:
            yield
        except REFUSALS as error:
            self.refused += 1
            assert not isinstance(error, KafkaError) or str(error)

    def hash(self, choices):
        with self.refusal(), contextlib.suppress(BufferError):  # bytes that do not lie side by side
            assert -(1 << 31) <= murmur2(choices.anything()) < 1 << 31
        with self.refusal(), contextlib.suppress(BufferError):
            count = choices.anything()
            assert 0 <= partition_for_key(choices.anything(), count) < count

    def options(self, choices):
        given = {}
        for _ in range(1 + choices.byte() % 4):
            name = choices.pick(NAMES) if choices.byte() % 8 else choices.text()
            value = choices.text() if choices.byte() % 2 else choices.anything()
            given[name.replace(".", "_") if choices.byte() % 4 == 0 else name] = value
        settings = None
        with self.refusal():
            settings = resolve({"bootstrap.servers": "127.0.0.1:1"} | given, {}, knows, lambda *_, **__: None)
            assert all(isinstance(text, str) for text in settings.librdkafka.values())
        if settings is None or any(part in name.replace("_", ".") for name in given for part in OUTWARD):
            return
        if settings.buffer_memory < 1 << 40 and choices.byte() % 16 == 0:  # it takes some ms
            with self.refusal():
                Producer(given, bootstrap_servers="127.0.0.1:1", log_level=0).close(0)

    def send(self, choices):
        fields = {}
        topic = choices.pick(["t", "t", "t", Text("t"), Colour.RED])
        if choices.byte() % 16 == 0:
            topic = choices.anything()
        for name in ("value", "key", "headers", "partition", "timestamp", "on_delivery"):
            match choices.byte() % 4:
                case 0:
                    fields[name] = choices.anything()
                case 1 if name in ("value", "key"):
                    fields[name] = choices.bytes()
                case 1 if name == "headers":
                    fields[name] = [(choices.text(), choices.anything()) for _ in range(choices.byte() % 5)]
                case 1 if name == "partition":
                    fields[name] = choices.byte() % 5
                case 1 if name == "timestamp":
                    fields[name] = abs(choices.number())
        if topic not in ("t", Colour.RED) and isinstance(topic, str) and 0 < len(topic) < 250:
            topic += "/"  # else it may be the name of a topic, which would take its time to be unknown
        if fields.get("partition") == 4:
            del fields["partition"]
        before = len(self.sent)
        with self.refusal():
            if choices.byte() % 4 == 0:
                callback = {"on_delivery": fields.pop("on_delivery")} if "on_delivery" in fields else {}
                future = self.producer.send(ProducerRecord(topic, **fields), **callback)
            else:
                future = self.producer.send(topic, **fields)
            self.sent.append((future, self.size(fields.get("key")), self.size(fields.get("value"))))
        if len(self.sent) > before and len(self.sent) >= 100:
            self.check_sent()

    def size(self, value):
        if value is None:
            return -1
        return len(value.encode() if isinstance(value, str) else bytes(value))

    def check_sent(self):
        """All were delivered, whole."""
        self.producer.flush(60)
        for future, key_size, value_size in self.sent:
            metadata = future.result(0)
            assert type(metadata) is RecordMetadata
            assert (metadata.serialized_key_size, metadata.serialized_value_size) == (key_size, value_size)
        self.sent.clear()


def by_chance(fuzzer, seconds, seed):
    """Random input, mutated from what went before; the failing one is kept in a file."""
    rng = random.Random(seed)
    corpus = [rng.randbytes(40)]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = bytearray(rng.choice(corpus) if rng.random() < 0.5 else rng.randbytes(rng.randrange(200)))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data) + 1) :] = rng.randbytes(rng.randrange(1, 30))
        corpus = [*corpus[-50:], bytes(data)]
        try:
            fuzzer.run(bytes(data))
        except BaseException:
            os.makedirs(os.path.dirname(FAILED_INPUT), exist_ok=True)
            with open(FAILED_INPUT, "wb") as file:
                file.write(data)
            print(f"seed {seed}; the input that failed: python -m tests.fuzz {FAILED_INPUT}")
            raise


def by_coverage(fuzzer, seconds, seed):
    """Ends the process, with a code other than 0 if an input failed, which is kept in a file."""
    for module in (fastprod.config.producer_config, fastprod.config.jaas, fastprod.config.options, fastprod.records):
        for function in vars(module).values():
            if inspect.isfunction(function):
                atheris.instrument_func(function)
    folder = os.path.dirname(FAILED_INPUT)
    os.makedirs(folder, exist_ok=True)
    options = [f"-max_total_time={int(seconds)}", f"-seed={seed}", f"-artifact_prefix={folder}/", "-max_len=400"]
    atheris.Setup([sys.argv[0], *options, "-verbosity=0", "-print_final_stats=1"], fuzzer.run)
    atheris.Fuzz()


def main(what, seed="0"):
    seed = int(seed) or random.SystemRandom().randrange(1, 1 << 31)
    with MockCluster(topics={"t": 4}, process=True) as cluster:
        fuzzer = Fuzzer(cluster)
        with fuzzer.producer:
            if os.path.exists(what):
                with open(what, "rb") as file:
                    fuzzer.run(file.read())
            else:
                (by_coverage if atheris else by_chance)(fuzzer, float(what), seed)
            fuzzer.check_sent()
        print(f"{fuzzer.rounds} inputs, {fuzzer.refused} refusals, seed {seed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
