"""TokenRefresher: what a provider may return, and that its failures and delays stay its own."""

import datetime
import decimal
import queue
import re
import threading
import time

import pytest

from fastprod.internals.tokens import TokenRefresher


class Sink:
    """Asks when a test makes it, and keeps what it is given."""

    def __init__(self):
        self.asks = queue.Queue()
        self.given = queue.Queue()

    def wanted(self):
        return self.asks.get(timeout=60)

    def wake(self):
        self.asks.put(None)

    def set(self, token, expiry_ms, principal, extensions):
        token.encode()
        self.given.put((token, expiry_ms, principal, extensions))

    def fail(self, reason):
        self.given.put(reason)


def given_by(provider):
    sink = Sink()
    refresher = TokenRefresher(sink, provider)
    refresher.start()
    sink.asks.put("the config")
    try:
        return sink.given.get(timeout=60)
    finally:
        refresher.close(60)


@pytest.mark.parametrize(
    ("returned", "given"),
    [
        (("t", 1.5), ("t", 1500, "", {})),
        (("t", 2, None, None), ("t", 2000, "", {})),
        (("t", 253_402_300_799), ("t", 253_402_300_799_000, "", {})),  # the year 9999: for ever, to some
        (("t", decimal.Decimal("1.5")), ("t", 1500, "", {})),
        (("t", -(10**400)), ("t", 0, "", {})),
        (("t", 2, "me"), ("t", 2000, "me", {})),
        (("t", 2, "me", {"a": "b"}), ("t", 2000, "me", {"a": "b"})),
    ],
)
def test_what_a_provider_may_return(returned, given):
    asked = []
    assert given_by(lambda config: asked.append(config) or returned) == given
    assert asked == ["the config"]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "must return .* not NoneType"),
        ("canary", "must return .* not str"),
        (("canary",), "must return"),
        (("canary", 1, "me", {}, 5), "must return"),
        ((b"canary", 1), "token must be str, not bytes"),
        (("canary", "soon"), "expiry must be a number of seconds .* not str"),
        (("canary", True), "expiry must be a number"),
        (("canary", datetime.datetime.now()), r"number of seconds .* not datetime: give its timestamp\(\)"),
        (("canary", datetime.timedelta(hours=1)), "number of seconds .* not timedelta"),
        (("canary", None), "number of seconds .* not NoneType"),
        (("canary", float("nan")), "number of seconds .* not nan"),
        (("canary", float("inf")), "inf, .* seconds, not ms"),
        (("canary", time.time() * 1000), "seconds, not ms"),
        (("canary", int(time.time()) * 1000), "seconds, not ms"),
        (("canary", time.time_ns()), "seconds, not ms"),
        (("canary", 10**5000), "seconds, not ms"),
        (("canary ", 1), "visible ASCII"),
        (("canary\n", 1), "visible ASCII"),
        (("canary\x7f", 1), "visible ASCII"),
        (("canaryé", 1), "visible ASCII"),
        (("", 1), "token is empty"),
        (("t", 1, "me", {"a": "canary\1"}), "extension 'a' holds"),
        (("canary", 1, 5), "principal must be str"),
        (("canary", 1, "me", [("a", "b")]), "dict of str to str"),
        (("canary", 1, "me", {"a": 1}), "dict of str to str"),
        (("canary\0", 1), "NUL"),
        (("canary", 1, "me\0"), "NUL"),
        (("canary", 1, "me", {"a\0": "b"}), "NUL"),
        (("canary\udc80", 1), "UnicodeEncodeError"),
    ],
)
def test_a_wrong_return_value_is_reported_without_the_token(returned, said):
    reason = given_by(lambda config: returned)
    assert re.search(said, reason) and reason.startswith("sasl.oauthbearer.token.provider: ")
    assert "canary" not in reason


def test_it_is_asked_again_after_a_failure():
    sink = Sink()
    answers = iter([LookupError("not now"), ("t", 1)])

    def provider(config):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    refresher = TokenRefresher(sink, provider)
    refresher.start()
    sink.asks.put("")
    assert sink.given.get(timeout=60) == "sasl.oauthbearer.token.provider: LookupError: not now"
    sink.asks.put("")
    assert sink.given.get(timeout=60) == ("t", 1000, "", {})
    refresher.close(60)


def test_close_leaves_a_provider_that_hangs_behind_and_its_token_goes_nowhere():
    sink, called, release = Sink(), threading.Event(), threading.Event()

    def provider(config):
        called.set()
        release.wait(60)
        return "t", 1

    refresher = TokenRefresher(sink, provider)
    refresher.start()
    sink.asks.put("")
    assert called.wait(60)
    started = time.monotonic()
    refresher.close(0.05)
    assert time.monotonic() - started < 50
    release.set()
    refresher.close(60)
    assert sink.given.empty() and sink.asks.qsize() <= 2
