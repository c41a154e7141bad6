"""murmur2 and partition_for_key against Kafka's, librdkafka's and a reference of our own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprod import murmur2, partition_for_key
from fastprod.internals.partitioner import key_partitions_of
from tests.conftest import shown

MASK = (1 << 32) - 1

JAVA = {  # UtilsTest.testMurmur2
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
LIBRDKAFKA = {  # rdmurmur2.c, unsigned
    b"kafka": 0xD067CF64,
    b"giberish123456789": 0x8F552B0C,
    b"1234": 0x9FC97B14,
    b"234": 0xE7C009CA,
    b"34": 0x873930DA,
    b"4": 0x5A4B5CA1,
    b"PreAmbleWillBeRemoved,ThePrePartThatIs": 0x78424F1C,
    b"reAmbleWillBeRemoved,ThePrePartThatIs": 0x4A62B377,
    b"eAmbleWillBeRemoved,ThePrePartThatIs": 0xE0E4E09E,
    b"AmbleWillBeRemoved,ThePrePartThatIs": 0x62B8B43F,
    b"": 0x106E08D9,
}
SHORT = {  # each length of the tail, and bytes whose sign bit is set
    b"": 275646681,
    b"a": -1563381124,
    b"ab": 316155434,
    b"abcd": -1323649548,
    b"\xff\xfe\xfd": 998637092,
}
SIGNED = JAVA | SHORT | {key: (h ^ 0x80000000) - 0x80000000 for key, h in LIBRDKAFKA.items()}


def reference(data):
    """Utils.murmur2, word for word, unsigned."""
    m = 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) - len(data) % 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & MASK
        k ^= k >> 24
        k = k * m & MASK
        h = h * m & MASK ^ k
    if whole < len(data):
        h ^= int.from_bytes(data[whole:], "little")
        h = h * m & MASK
    h ^= h >> 13
    h = h * m & MASK
    return h ^ h >> 15


@pytest.mark.parametrize(("data", "expected"), SIGNED.items(), ids=shown)
def test_vector(data, expected):
    assert murmur2(data) == expected


@pytest.mark.parametrize("offset", range(8))
@pytest.mark.parametrize("data", SIGNED, ids=shown)
def test_vector_at_any_alignment(data, offset):
    padded = memoryview(b"#" * offset + data + b"#" * 8)
    assert murmur2(padded[offset : offset + len(data)]) == SIGNED[data]


@given(st.binary(max_size=300))
def test_equals_the_reference(data):
    assert murmur2(data) & MASK == reference(data)


def splittable_random_bytes(lengths, arrays):
    """Java's SplittableRandom(0).nextBytes, `arrays` arrays of each length, concatenated per length.

    Its 64-bit outputs are independent of each other (splitmix64), so those of one
    length are computed at once, as the lanes of one large integer, 128 bits apart.
    """
    gamma = 0x9E3779B97F4A7C15
    lanes = max(lengths, default=0) // 8 * arrays + arrays
    ones = int.from_bytes((b"\1" + bytes(15)) * lanes, "little")
    low = ones * ((1 << 64) - 1)
    steps = int.from_bytes(b"".join(((i + 1) * gamma).to_bytes(16, "little") for i in range(lanes)), "little")
    drawn = 0
    for length in lengths:
        words = -(-length // 8)
        cut = (1 << 128 * words * arrays) - 1
        z = (steps + ones * (drawn * gamma % (1 << 64))) & low & cut
        z = ((z ^ z >> 30) & low) * 0xBF58476D1CE4E5B9 & low
        z = ((z ^ z >> 27) & low) * 0x94D049BB133111EB & low
        z = (z ^ z >> 31) & low
        drawn += words * arrays
        packed = memoryview(z.to_bytes(16 * words * arrays, "little")).cast("Q")[::2].tobytes()
        yield [packed[8 * words * i : 8 * words * i + length] for i in range(arrays)]


def test_the_lanes_are_the_generator():
    seed, state = (1 << 64) - 1, 0
    expected = b""
    for _ in range(10):
        state = state + 0x9E3779B97F4A7C15 & seed
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & seed
        z = (z ^ z >> 27) * 0x94D049BB133111EB & seed
        expected += (z ^ z >> 31).to_bytes(8, "little")
    ((first, second),) = splittable_random_bytes([37], 2)
    assert (first, second) == (expected[:37], expected[40:77])


def test_checksum_of_java():
    """UtilsTest.testMurmur2Checksum: 100 random arrays of each length from 0 to 1000."""
    total = 0
    for length, arrays in enumerate(splittable_random_bytes(range(1001), 100)):
        total += sum(murmur2(data) & MASK for data in arrays)
        if length == 59:
            assert hex(total) == "0xb955434e7b7"
    assert hex(total) == "0xc3b8cf7c99fc"


def test_partition_vectors():
    assert partition_for_key(b"kafka", 100) == 80
    assert partition_for_key(b"21", 10) == 0


@pytest.mark.parametrize("key", ["ключ", "", "21"])
def test_a_str_key_is_hashed_as_utf8(key):
    assert partition_for_key(key, 1000) == partition_for_key(key.encode(), 1000)


def test_any_bytes_like_object_is_hashed():
    for data in (bytearray(b"foobar"), memoryview(b"foobar"), memoryview(bytearray(b"__foobar"))[2:]):
        assert murmur2(data) == JAVA[b"foobar"]
        assert partition_for_key(data, 97) == partition_for_key(b"foobar", 97)


@given(st.binary(max_size=40), st.integers(1, (1 << 31) - 1))
def test_partition_masks_the_sign(key, num_partitions):
    assert partition_for_key(key, num_partitions) == (reference(key) & 0x7FFFFFFF) % num_partitions


@pytest.mark.parametrize("num_partitions", [0, -1, -(1 << 31)])
def test_too_few_partitions(num_partitions):
    with pytest.raises(ValueError, match="num_partitions"):
        partition_for_key(b"key", num_partitions)


@pytest.mark.parametrize(
    ("num_partitions", "error"), [(1 << 31, ValueError), (None, TypeError), ("3", TypeError), (1.5, TypeError)]
)
def test_num_partitions_of_the_wrong_kind(num_partitions, error):
    with pytest.raises(error):
        partition_for_key(b"key", num_partitions)


@pytest.mark.parametrize("key", [None, 5, 1.5, object(), [1]], ids=shown)
def test_a_key_of_the_wrong_kind(key):
    with pytest.raises(TypeError):
        murmur2(key)
    with pytest.raises(TypeError):  # None too: a null key is never hashed
        partition_for_key(key, 10)


def test_murmur2_takes_bytes_not_text():
    with pytest.raises(TypeError):
        murmur2("21")


def test_a_key_with_gaps_is_refused():
    with pytest.raises((BufferError, ValueError)):
        murmur2(memoryview(b"abcdef")[::2])
    with pytest.raises((BufferError, ValueError)):
        partition_for_key(memoryview(b"abcdef")[::2], 10)


def test_a_lone_surrogate_is_refused():
    with pytest.raises(UnicodeEncodeError):
        partition_for_key("\ud800", 10)


@given(st.lists(st.binary(max_size=40), max_size=256), st.integers(1, (1 << 31) - 1))
def test_keys_of_mixed_lengths_get_the_same_partitions_together(keys, count):
    assert key_partitions_of(keys, count) == [partition_for_key(key, count) for key in keys]


@pytest.mark.parametrize("length", [*range(40), 63, 64, 65, 300])
@pytest.mark.parametrize("count", [1, 2, 3, 12, 1000, (1 << 30) + 1, (1 << 31) - 1])
def test_keys_of_one_length_get_the_same_partitions_together(rng, length, count):
    keys = [rng.randbytes(length) for _ in range(256)]
    assert key_partitions_of(keys, count) == [partition_for_key(key, count) for key in keys]


@given(st.integers(0, 300), st.lists(st.integers(0, 7), min_size=8, max_size=32), st.randoms(use_true_random=False))
def test_keys_of_almost_one_length_get_the_same_partitions_together(length, more, random):
    keys = [random.randbytes(length + extra) for extra in more]
    assert key_partitions_of(keys, 97) == [partition_for_key(key, 97) for key in keys]
