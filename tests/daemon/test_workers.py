"""Workers: a job that hangs costs one thread, and nobody waits for it at the end."""

import threading
from functools import partial

import pytest
from daemon.harness import eventually

from ckptd.daemon.mailbox import Mailbox
from ckptd.daemon.workers import Workers


@pytest.fixture
def release():
    event = threading.Event()
    yield event
    event.set()


def test_jobs_run_side_by_side(release):
    workers = Workers(3, "test")
    together = threading.Barrier(3, timeout=5.0)
    done: list[int] = []
    for _ in range(3):
        workers.submit(lambda: done.append(together.wait()))

    eventually(lambda: len(done) == 3)
    assert workers.stop(wait=5.0)


def test_threads_are_started_as_they_are_needed():
    workers = Workers(8, "test")
    done: list[int] = []
    for number in range(5):
        workers.submit(lambda: done.append(1))
        eventually(lambda: len(done) > number and not workers.busy)  # noqa: B023

    assert len(workers._threads) <= 2
    assert workers.stop(wait=5.0)


def test_one_that_hangs_is_replaced(release):
    workers = Workers(1, "test", patience=0.05)
    done = threading.Event()
    workers.submit(lambda: release.wait() and None)
    workers.submit(done.set)
    assert not done.wait(0.2)
    workers.relieve()

    assert done.wait(5.0)
    assert not workers.stop(wait=0.05)
    release.set()
    assert workers.stop(wait=5.0)


def test_what_has_not_begun_is_forgotten_at_the_end(release):
    workers = Workers(1, "test")
    done: list[int] = []
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        release.wait()

    workers.submit(hang)
    workers.submit(lambda: done.append(1))
    assert begun.wait(5.0)
    assert not workers.stop(wait=0.05)
    release.set()

    assert workers.stop(wait=5.0)
    workers.submit(lambda: done.append(2))
    assert done == []


def test_actions_are_taken_in_their_order_and_wake_whoever_waits():
    import select

    mailbox = Mailbox()
    found: list[int] = []
    for number in range(3):
        mailbox.post(partial(found.append, number))
    assert select.select([mailbox], [], [], 0)[0]
    for action in mailbox.take():
        action()

    assert found == [0, 1, 2]
    assert not select.select([mailbox], [], [], 0)[0]
    mailbox.close()
    mailbox.post(lambda: None)
