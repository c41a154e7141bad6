"""TokenRequests: when librdkafka needs an OAUTHBEARER token, and which tokens it takes."""

import threading
import time

import pytest

from fastprod.internals.buffer_pool import BufferPool
from fastprod.internals.callbacks import Callbacks
from fastprod.internals.token_requests import TokenRequests
from fastprod.internals.transport import Transport

pytestmark = pytest.mark.mock
CONFIG = "principal=me"


@pytest.fixture
def requests():
    """Of a client that knows no broker."""
    properties = {
        "bootstrap.servers": "127.0.0.1:1",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.config": CONFIG,
    }
    transport = Transport(properties, Callbacks(BufferPool(1 << 20, 1 << 14)), True)
    yield TokenRequests(transport)
    transport.close()


def later(seconds=3600):
    return int(time.time() + seconds) * 1000


def test_a_token_is_wanted_at_first(requests):
    assert requests.wanted() == CONFIG


def waiting(requests, found):
    """A thread that waits until a token is wanted; close() ends it."""
    thread = threading.Thread(target=lambda: found.append(requests.wanted()), daemon=True)
    thread.start()
    return thread


def test_a_wait_ends_when_it_is_woken(requests):
    requests.wanted()
    found = []
    thread = waiting(requests, found)
    assert found == []
    requests.wake()
    thread.join(20)
    assert found == [None]


def test_a_wake_that_comes_before_the_wait_ends_it(requests):
    requests.wanted()
    requests.wake()
    found = []
    waiting(requests, found).join(20)
    assert found == [None]


def test_a_token_is_wanted_again_before_it_expires(requests):
    requests.wanted()
    requests.set("token", later(2), "me", {})
    found = []
    waiting(requests, found).join(20)
    assert found == [CONFIG]


@pytest.mark.parametrize(
    ("expiry_ms", "extensions", "said"),
    [
        (1_700_000_000_000, {}, r"the token has expired: its expiry is 1700000000, and now is \d{10} "),
        (None, {f"name{i}": "value" for i in range(17)}, "17 extensions are more than 16"),
        (None, {"no name!": "value"}, "no name!"),
    ],
    ids=["expired", "too many extensions", "bad extension"],
)
def test_what_librdkafka_would_not_take_is_refused(requests, expiry_ms, extensions, said):
    with pytest.raises(ValueError, match=said):
        requests.set("token", later() if expiry_ms is None else expiry_ms, "me", extensions)


def test_16_extensions_are_taken(requests):
    requests.set("token", later(), "me", {f"name{'abcdefghijklmnop'[i]}": "value" for i in range(16)})


def test_a_reason_that_is_not_valid_text_is_taken(requests):
    requests.fail("no token: \udc80")
