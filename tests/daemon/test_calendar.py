"""The calendar: appointments are kept in memory, told to the loop, and made anew."""

import io
import threading

import pytest
from daemon.harness import eventually

from ckptd.config.values import LogSettings
from ckptd.daemon.calendar import Calendar
from ckptd.daemon.log import Log


@pytest.fixture
def calendar():
    stream = io.StringIO()
    heard = threading.Event()
    one = Calendar(
        Log(LogSettings(format="json"), stream),
        on_expiry=heard.set,
        on_scrub=heard.set,
        on_report=heard.set,
    )
    one.stream, one.heard_event = stream, heard  # type: ignore[attr-defined]
    yield one
    one.stop()


def jobs(calendar):
    return {job.id: job for job in calendar._scheduler.get_jobs()}


def test_each_job_runs_once_however_late(calendar):
    calendar.start()

    assert jobs(calendar).keys() == {"trash_expiry", "scrub", "daily_report"}
    for job in jobs(calendar).values():
        assert (job.coalesce, job.misfire_grace_time, job.max_instances) == (True, None, 1)
        assert str(job.next_run_time.tzinfo) == "UTC"


def test_a_job_that_is_due_is_told(calendar):
    calendar.start()
    jobs(calendar)["daily_report"].modify(
        next_run_time=jobs(calendar)["trash_expiry"].next_run_time
    )
    jobs(calendar)["daily_report"].reschedule("interval", seconds=0.01)

    assert calendar.heard_event.wait(5.0)


def test_a_job_that_fails_is_logged_and_the_rest_goes_on(calendar):
    calendar.start()
    calendar._scheduler.add_job(lambda: 1 / 0, id="broken")
    eventually(lambda: "broken" in calendar.stream.getvalue())

    assert "ZeroDivisionError" in calendar.stream.getvalue()
    assert calendar.fault() is None


def test_a_restart_makes_the_appointments_anew(calendar):
    calendar.start()
    before = jobs(calendar)["daily_report"]
    calendar.restart()

    assert jobs(calendar)["daily_report"] is not before
    assert calendar.fault() is None


def test_a_scheduler_that_does_not_run_is_a_fault(calendar):
    assert calendar.fault() is not None
    calendar.start()
    assert calendar.fault() is None
    calendar._heard -= 1000.0
    assert calendar.fault() is not None
