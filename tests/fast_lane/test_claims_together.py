"""Claims of messages that go to a process together: only what begins counts as a start (protocol 12)."""

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from conventions.broker.redis_broker import Broker
from conventions.core.canonical_json import encode
from conventions.execution.attempt import this_call
from conventions.fast_lane.claims_together import AskedTogether, short_arguments
from conventions.fast_lane.outcome_stream import OutcomeStream
from conventions.idempotency.claim_answers import Alone, Answer, Cancelled, Done, Granted, Parked, Poison, Stale
from conventions.idempotency.claims import ClaimRequest, Claims, Settlement
from conventions.records.journal import Event
from conventions.storage.redis_store import Store
from tests.claiming import (
    FIRST,
    asking,
    claim_fields,
    claim_key,
    end_lease,
    granted,
    handed_out,
    message,
    once_more,
    places,
    settle,
    take,
)
from tests.support import wait_until


@pytest.fixture
def claims(store: Store) -> Claims:
    """Claims on a server that knows the scripts: where it does not, outcomes are recorded after the last one."""
    claims = Claims(store, lease=30)
    store.run("succeed", [""] * 6)
    return claims


WORDS: dict[str, dict[str, Any]] = {
    "usual": {},
    "of another task": {"task": "team.tasks.B"},
    "of a task with a colon": {"task": "team:tasks"},
    "of one key": {"key": "key0"},
    "redriven": {"generation": 1},
    "tried before": {"attempt": 2},
    "of unknown time": {"sent_at": None},
    "too old": {"sent_at": datetime(2020, 1, 1, tzinfo=UTC)},
    "of another call": {"start": "another"},
    "known": {"key": "known"},
    "with odd text": {"fingerprint": "a\x1fb"},
}


def requests(broker: Broker, count: int) -> list[ClaimRequest]:
    """Messages in hand, each with a key of its own."""
    broker.publish([message(f"m{number}") for number in range(count)])
    names = [(f"key{number}", f"m{number}") for number in range(count)]
    return [
        asking(delivery, replace(FIRST, key=key, message_id=id_, sent_at=datetime.now(UTC)))
        for (key, id_), delivery in zip(names, broker.reserve(["q"], count), strict=True)
    ]


def together(claims: Claims, asked: list[ClaimRequest]) -> list[Answer]:
    """Ask as a group does."""
    with closing(AskedTogether(claims, asked)) as call:
        return list(call.answers())


def starts(store: Store, *asked: ClaimRequest) -> list[int]:
    """Starts without an outcome, of each claim."""
    return [int(claim_fields(store, one).get(b"starts", 0)) for one in asked]


def done(request: ClaimRequest) -> Settlement:
    """Its job has ended well."""
    return Settlement(request, "done", Event(request.message_id, "succeeded", token=request.token), 1)


def test_only_the_first_that_is_granted_starts(broker: Broker, claims: Claims, store: Store) -> None:
    """The others hold their claims; asked again, as after a lost reply, the answers are the same."""
    three = requests(broker, 3)
    granted(claims, replace(three[0], token="another", held=None))
    answers = together(claims, three)
    assert [type(one) for one in answers] == [Parked, Granted, Granted]
    assert starts(store, *three[1:]) == [1, 0]
    assert together(claims, three[1:]) == answers[1:]
    assert starts(store, *three[1:]) == [1, 0]


def test_the_next_begins_when_the_one_before_has_succeeded(broker: Broker, claims: Claims) -> None:
    """Nobody says so; of one whose predecessor ended otherwise it has to be said."""
    four = requests(broker, 4)
    together(claims, four)
    assert [claims.runs(one.claim, one.token) for one in four] == [True, False, False, False]
    settling = OutcomeStream(claims)
    settling.record(done(four[0]))
    assert settling.answers() == [(done(four[0]), True)]
    assert [claims.runs(one.claim, one.token) for one in four] == [False, True, False, False]
    settle(claims, four[1], "released", wait=5, action="retry")
    assert not claims.runs(four[2].claim, four[2].token)
    settling = OutcomeStream(claims)
    settling.begin(four[2])
    settling.record(done(four[2]))
    assert settling.answers() == [(done(four[2]), True)]
    assert claims.runs(four[3].claim, four[3].token)


def test_the_next_of_another_task_begins_so_too(broker: Broker, claims: Claims) -> None:
    """What it follows is named in full then, also where a part's last job comes before the next part's first one."""
    one, two, three, four = (
        replace(request, task=f"team.tasks.{task}") for request, task in zip(requests(broker, 4), "AABA", strict=True)
    )
    together(claims, [one, two])
    with closing(AskedTogether(claims, [three, four], two)) as call:
        call.answers()
    for before, after in ((one, two), (two, three), (three, four)):
        assert not claims.runs(after.claim, after.token)
        settling = OutcomeStream(claims)
        settling.record(done(before))
        assert settling.answers() == [(done(before), True)]
        assert claims.runs(after.claim, after.token)


def test_a_claim_of_a_group_is_kept_in_one_piece(broker: Broker, claims: Claims, store: Store) -> None:
    """It is remembered for days: a string, or a hash without a field that would make it a table (64 bytes)."""
    broker.publish([message(str(uuid4())) for _ in range(3)])
    three = [
        asking(delivery, FIRST, task="company.team.service.tasks.immediate.SendConfirmation", key=uuid4().hex,
               sent_at=datetime.now(UTC), fingerprint=uuid4().hex, message_id=delivery.tag.decode(), start=this_call())
        for delivery in broker.reserve(["q"], 3)
    ]  # fmt: skip
    together(claims, three)
    settling = OutcomeStream(claims)
    for one in three[:2]:
        settling.record(done(one))
    settling.answers()
    assert [store.redis.type(claim_key(store, one)) for one in three] == [b"hash", b"string", b"string"]
    assert all(store.redis.pttl(claim_key(store, one)) > 10**8 for one in three)
    first, second, third = (claim_fields(store, one) for one in three)
    assert {store.redis.object("encoding", claim_key(store, one)) for one in three} == {b"listpack"}
    assert all(store.redis.pttl(claim_key(store, one)) > 10**8 for one in three)
    assert (second[b"state"], second[b"result"], third[b"state"]) == (b"done", b"1", b"running")
    assert first.keys() - second.keys() == {b"starts", b"generation", b"followed"}
    assert second.keys() - third.keys() == {b"result"}


@pytest.mark.parametrize("odd", ["\x1f", "m\x1fD\x1f", ""])
def test_a_claim_of_an_odd_message_is_as_any_other(odd: str, broker: Broker, claims: Claims) -> None:
    """Its id has what stands between the fields of a string, or is not there."""
    one, two, three = (replace(request, message_id=odd) for request in requests(broker, 3))
    together(claims, [one, two, three])
    settling = OutcomeStream(claims)
    settling.record(done(two))
    settling.record(replace(done(three), result=encode("\x1f")))  # as a job does that has written it already
    assert [is_recorded for _, is_recorded in settling.answers()] == [True, True]
    answers = claims.take([replace(request, message_id="another", held=None) for request in (two, three)])
    assert [(one.result, one.message_id) for one in answers if isinstance(one, Done)] == [(1, odd), ("\x1f", odd)]


@pytest.mark.parametrize("died", [True, False])
def test_only_what_has_begun_has_a_start_when_it_goes_back(
    died: bool, broker: Broker, claims: Claims, store: Store
) -> None:
    """The one that ran when its process died, whichever goes back first; none where it went back in good order."""
    three = requests(broker, 3)
    together(claims, three)
    settling = OutcomeStream(claims)
    settling.record(done(three[0]))
    settling.answers()
    for one in reversed(three[1:]):
        assert one.held is not None
        broker.give_back([one.held._replace(claim=one.claim, token=one.token)], counted=died)
    assert starts(store, *three[1:]) == [int(died), 0]
    again = [asking(delivery, one) for delivery, one in zip(broker.reserve(["q"], 2), three[1:], strict=True)]
    answers = claims.take(again)
    assert [one.starts for one in answers if isinstance(one, Granted)] == [1 + died, 1]


def test_a_worker_that_is_gone_leaves_one_start(broker: Broker, claims: Claims, store: Store) -> None:
    """Nobody gave anything back: the leases have ended."""
    three = requests(broker, 3)
    together(claims, three)
    settling = OutcomeStream(claims)
    settling.record(done(three[0]))
    settling.answers()
    for one in three[1:]:
        end_lease(store, one)
    answers = claims.take([replace(one, token=f"later-{one.key}", held=None) for one in three[1:]])
    assert [one.starts for one in answers if isinstance(one, Granted)] == [2, 1]


@pytest.mark.parametrize("at_once", [False, True])
def test_the_next_has_begun_also_when_an_outcome_is_left(
    broker: Broker, claims: Claims, store: Store, at_once: bool
) -> None:
    """Its predecessor has not succeeded as far as anybody can tell: its own start is counted."""
    two = requests(broker, 2)
    together(claims, two)
    store.redis.hset(claim_key(store, two[0]), "token", "another")
    settling = OutcomeStream(claims)
    settling.at_once, settling.next_up = at_once, two[1] if at_once else None
    settling.record(done(two[0]))
    settling.begin(two[1])
    assert settling.answers() == [(done(two[0]), False)]
    assert starts(store, two[1]) == [1]


@pytest.mark.parametrize("place", [1, 2])
def test_what_follows_a_success_that_was_handed_over_at_once_needs_no_start(
    place: int, broker: Broker, claims: Claims, store: Store
) -> None:
    """Its claim stays in one piece. Another one that begins in its place is counted, as where it was given back meanwhile."""
    three = requests(broker, 3)
    together(claims, three)
    settling = OutcomeStream(claims)
    settling.at_once, settling.next_up = True, three[1]
    settling.record(done(three[0]))
    settling.begin(three[place])
    assert settling.answers() == [(done(three[0]), True)]
    assert store.redis.type(claim_key(store, three[place])) == (b"string" if place == 1 else b"hash")
    assert claims.runs(three[place].claim, three[place].token)
    assert starts(store, three[place]) == [place - 1]


def test_an_outcome_waits_for_nothing_but_the_next_start(broker: Broker, claims: Claims) -> None:
    """It is handed over before anything else begins; where nothing follows, with the question what is recorded."""
    two = requests(broker, 2)
    together(claims, two)
    settling = OutcomeStream(claims)
    settling.record(done(two[0]))
    assert not claims.is_done(two[0].claim, two[0].message_id)
    settling.begin(None)
    wait_until(lambda: claims.is_done(two[0].claim, two[0].message_id))
    settling.record(done(two[1]))
    assert settling.answers() == [(done(one), True) for one in two]


@pytest.mark.parametrize("ended", ["released", "dead"])
def test_a_success_without_a_result_keeps_none_of_before(ended: str, broker: Broker, claims: Claims) -> None:
    """Of an earlier message with its key, or what that one failed with."""
    (first,) = requests(broker, 1)
    settle(claims, take_it(claims, first), ended, result="TypeError: boom")
    broker.publish([message("m7")])
    (delivery,) = broker.reserve(["q"], 1)
    second = asking(delivery, replace(FIRST, key=first.key, message_id="m7"))
    together(claims, [second])
    settling = OutcomeStream(claims)
    settling.record(replace(done(second), result=None))
    assert [is_recorded for _, is_recorded in settling.answers()] == [True]
    (answer,) = claims.take([replace(second, token="later", message_id="m8", held=None)])
    assert isinstance(answer, Done)
    assert answer.result is None


def take_it(claims: Claims, request: ClaimRequest) -> ClaimRequest:
    """The claim is its own."""
    granted(claims, request)
    return request


def test_an_outcome_comes_after_all_for_what_was_given_back(broker: Broker, claims: Claims, store: Store) -> None:
    """A job that was thought dead, the second of a group: it is recorded as any other."""
    two = requests(broker, 2)
    together(claims, two)
    assert two[1].held is not None
    broker.give_back([two[1].held._replace(claim=two[1].claim, token=two[1].token)], counted=True)
    assert claims.settle([done(two[1])]) == ["recorded"]
    assert store.redis.hget(claim_key(store, two[1]), "state") == b"done"


def test_what_was_tried_goes_alone(broker: Broker, claims: Claims) -> None:
    """A retry, and what waited for another transaction."""
    (request,) = requests(broker, 1)
    granted(claims, request)
    settle(claims, request, "released", action="park")
    wait_until(lambda: broker.sweep().recovered or broker.sizes("q").ready)
    (again,) = broker.reserve(["q"], 1)
    assert (again.deliveries, again.alone) == (1, True)


def test_an_outcome_of_another_holder_is_refused(broker: Broker, claims: Claims, store: Store) -> None:
    """As alone; the one after it is recorded."""
    two = requests(broker, 2)
    together(claims, two)
    store.redis.hset(claim_key(store, two[0]), "token", "another")
    settling = OutcomeStream(claims)
    settling.record(done(two[0]))
    settling.record(done(two[1]))
    assert [is_recorded for _, is_recorded in settling.answers()] == [False, True]
    assert claims.settle([done(two[0])]) == ["refused"]


@pytest.mark.parametrize("place", [0, 1])  # a claim that is a hash, and one that is a string at first
def test_what_waits_for_a_job_of_a_group_comes_as_soon_as_that_has_ended(
    place: int, broker: Broker, claims: Claims, store: Store
) -> None:
    """The outcome is recorded at once, as any other: whoever waits does not put off when it is safe from a kill."""
    two = requests(broker, 2)
    together(claims, two)
    broker.publish([message("m9")])
    (other,) = broker.reserve(["q"], 1)
    twin = asking(other, replace(FIRST, key=two[place].key, message_id="m9"))
    assert isinstance(claims.take([twin])[0], Parked)
    settling = OutcomeStream(claims)
    for one in two[: place + 1]:
        settling.record(done(one))
    settling.flush()
    wait_until(lambda: claims.is_done(two[place].claim, two[place].message_id))
    wait_until(lambda: places(store, "m9") == ["queue"])
    assert settling.answers() == [(done(one), True) for one in two[: place + 1]]
    assert store.redis.xlen(store.key("journal")) == place + 1
    assert not store.redis.hexists(claim_key(store, two[place]), "awaited")
    (again,) = broker.reserve(["q"], 1)
    (answer,) = claims.take([asking(again, replace(twin, token="later"))])
    assert isinstance(answer, Done)
    assert answer.result == 1


def test_a_message_stays_in_hand_until_its_group_has_ended(broker: Broker, claims: Claims, store: Store) -> None:
    """Its outcome is recorded before: where its process dies meanwhile, the message finds it."""
    (request,) = requests(broker, 1)
    together(claims, [request])
    settling = OutcomeStream(claims)
    settling.record(done(request))
    settling.flush()
    wait_until(lambda: claims.is_done(request.claim, request.message_id))
    assert places(store, "m0") == ["inflight"]
    assert settling.answers() == [(done(request), True)]
    assert places(store, "m0") == []


def test_the_end_of_a_group_leaves_nothing_of_a_mate_that_asked_by_itself(
    broker: Broker, claims: Claims, store: Store
) -> None:
    """As where the server did not answer when all of them asked."""
    (request,) = requests(broker, 1)
    (answer,) = claims.take([request])
    assert isinstance(answer, Granted)
    assert store.redis.hexists(store.key("started"), "m0")
    settling = OutcomeStream(claims)
    settling.record(done(request))
    assert settling.answers() == [(done(request), True)]
    assert not store.redis.exists(store.key("started"), store.key("receipts"), store.key("message", "m0"))


def test_the_message_of_another_delivery_stays(broker: Broker, claims: Claims, store: Store) -> None:
    """The outcome is recorded all the same; whoever has the message finds it."""
    (request,) = requests(broker, 1)
    together(claims, [request])
    store.redis.hset(store.key("receipts"), "m0", "another")
    settling = OutcomeStream(claims)
    settling.record(done(request))
    assert settling.answers() == [(done(request), True)]
    assert places(store, "m0") == ["inflight"]


@pytest.mark.parametrize("number", [0, 1])  # the first one's claim is a hash, that of others a string
def test_the_short_script_leaves_what_the_whole_one_leaves(
    number: int, broker: Broker, claims: Claims, store: Store
) -> None:
    """The claim, the message and the journal's entry."""
    left = []
    for short in (True, False):
        asked = requests(broker, 2)
        together(claims, asked)
        request = asked[number]
        if short:
            settling = OutcomeStream(claims)
            settling.record(done(request))
            assert settling.answers() == [(done(request), True)]
        else:
            assert claims.settle([done(request)]) == ["recorded"]
        claim: Any = claim_fields(store, request)
        entries: Any = store.redis.xrange(store.key("journal"))
        ((id_, entry),) = entries
        times = {name: claim.pop(name) for name in (b"until", b"fence", b"token", b"start")}
        # What is not there reads as this.
        claim = {b"followed": b"0", b"generation": b"0"} | claim
        for name in (b"starts", b"after"):  # of a job that is done nobody counts them
            claim.pop(name, None)
        assert entry.pop(b"fence") == times[b"fence"]
        event = json.loads(entry.pop(b"event"))
        assert event.pop("token") == times[b"token"].decode()
        at = entry.pop(b"at", id_.partition(b"-")[0])
        assert abs(int(at) / 1000 - store.redis.time()[0]) < 5
        kept = store.redis.pttl(claim_key(store, request)) > 10**8
        left.append((claim, entry, event, places(store, f"m{number}"), kept))
        store.redis.flushdb()
    assert left[0] == left[1]


def test_an_outcome_that_may_be_lost_is_said_so(broker: Broker, claims: Claims, store: Store) -> None:
    """The connection was cut: recorded once more, it is recorded once."""
    two = requests(broker, 2)
    together(claims, two)
    settling = OutcomeStream(claims)
    settling.record(done(two[0]))
    store.redis.client_kill_filter(_type="normal", skipme=False)
    settling.record(done(two[1]))
    lost = [settlement for settlement, is_recorded in settling.answers() if not is_recorded]
    assert done(two[1]) in lost
    assert claims.settle([done(one) for one in two]) == ["recorded", "recorded"]
    assert store.redis.xlen(store.key("journal")) == 2


def test_what_has_not_begun_goes_back_without_a_start(broker: Broker, claims: Claims, store: Store) -> None:
    """Its process died, or an older one takes long: it goes with others again."""
    two = requests(broker, 2)
    together(claims, two)
    deliveries = [one.held._replace(claim=one.claim, token=one.token) for one in two if one.held]
    assert broker.give_back(deliveries, counted=True) == 2
    assert starts(store, *two) == [1, 0]
    again = [
        asking(delivery, replace(FIRST, key=f"key{number}", message_id=f"m{number}"))
        for number, delivery in enumerate(broker.reserve(["q"], 2))
    ]
    assert [type(one) for one in together(claims, again)] == [Alone, Granted]
    assert starts(store, again[1]) == [1]


def test_what_was_started_before_runs_alone(broker: Broker, claims: Claims, store: Store) -> None:
    """It is back in its queue at once, marked; alone it is granted, and after three starts it is poison."""
    (request,) = requests(broker, 1)
    assert isinstance(together(claims, [request])[0], Granted)
    for count in (2, 3):
        end_lease(store, request)
        request = asking(once_more(broker, store, "m0"), request)
        assert together(claims, [request]) == [Alone()]
        assert places(store, "m0") == ["queue"]
        delivery = handed_out(broker)
        assert delivery.alone
        request = asking(delivery, request)
        granted(claims, request)
        assert starts(store, request) == [count]
    end_lease(store, request)
    assert isinstance(take(claims, asking(once_more(broker, store, "m0"), request)), Poison)


@pytest.mark.parametrize("second", WORDS)
@pytest.mark.parametrize("follows", ["last", "la\x1fst", None])
def test_short_arguments_mean_the_same_as_long_ones(
    second: str, follows: str | None, broker: Broker, claims: Claims, store: Store
) -> None:
    """Claims that are asked for with short arguments, where possible, are answered and kept like any others."""
    found = []
    for is_short in (True, False):
        before, *three = requests(broker, 4)
        granted(claims, replace(three[0], key="known", token="another", held=None))
        three[1] = replace(three[1], **WORDS[second])
        after = replace(before, task="team.tasks.A", key=follows) if follows else None
        if is_short:
            with closing(AskedTogether(claims, three, after)) as asked:
                answers = list(asked.answers())
        else:
            with closing(claims.ask(three, together=True, after=after)) as call:
                answers = claims.answers(call)
        names = {token: f"token{n}" for n, token in enumerate([before.token, *(one.token for one in three)])}
        found.append([_kept(store, one, names) for one in three] + [_told(one) for one in answers])
        store.redis.flushdb()
    assert found[0] == found[1]


def _told(answer: Answer) -> Any:
    return ("granted", answer.starts) if isinstance(answer, Granted) else type(answer)


def _kept(store: Store, one: ClaimRequest, names: dict[str, str]) -> Any:
    kept = {name.decode(): value.decode() for name, value in claim_fields(store, one).items()}
    lives: Any = store.redis.pttl(claim_key(store, one))  # redis-py types sync and async as one
    for name, value in kept.items():
        for token, shown in names.items():
            kept[name] = kept[name].replace(token, shown)
        if name in ("fence", "until"):
            kept[name] = f"of {len(value)} digits"
    return kept, round(lives / 1e6)


@pytest.mark.parametrize("why", ["cancelled", "in other hands", "gone"])
def test_short_arguments_change_nothing_where_one_message_needs_more(
    why: str, broker: Broker, claims: Claims, store: Store
) -> None:
    """All are then asked for with long arguments."""
    three = requests(broker, 3)
    if why == "cancelled":
        store.redis.set(claims.cancel_key("m1"), "any")
    elif why == "in other hands":
        store.redis.hset(store.key("receipts"), "m1", "another")
    else:
        store.redis.delete(store.key("message", "m1"))
    arguments = short_arguments(three, 30, None)
    assert arguments is not None
    with closing(store.call("claim_new", arguments)) as call:
        assert call.answer() == 0
    assert not any(store.redis.exists(claim_key(store, one)) for one in three)
    first, second, third = together(claims, three)
    assert (first, third) == (Granted(first.fence, 1), Granted(third.fence, 0))  # type: ignore[union-attr]  # they are
    assert type(second) is (Cancelled if why == "cancelled" else Stale)


def test_the_usual_request_has_short_arguments(broker: Broker) -> None:
    """Otherwise the tests above would compare nothing. Each message has four arguments."""
    arguments = short_arguments(requests(broker, 100), 30, None)
    assert arguments is not None
    assert len(arguments) == 5 + 4 + 4 * 100
