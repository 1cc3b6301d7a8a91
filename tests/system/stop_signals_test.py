"""Signals in a process that belongs to the caller: what asks to stop, and what passes through."""

import os
import signal
import threading

import pytest

from trainer.system.stop_signals import shared_with_caller, watched


def send(number):
    os.kill(os.getpid(), number)


@pytest.fixture
def received():
    """Signals that the caller's own handlers received."""
    found = []
    handled = (signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.signal(each, lambda n, _: found.append(n)) for each in handled}
    yield found
    for each, handler in before.items():
        signal.signal(each, handler)


def test_the_first_signal_after_a_question_asks_to_stop(received):
    with shared_with_caller() as stopped:
        assert not stopped()
        send(signal.SIGTERM)
        assert stopped()
    assert received == []


def test_a_signal_before_any_question_is_the_callers(received):
    with shared_with_caller() as stopped:
        send(signal.SIGTERM)
        assert not stopped()
    assert received == [signal.SIGTERM]


def test_ctrl_c_before_any_question_is_a_keyboard_interrupt():
    with shared_with_caller(), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_a_second_signal_is_the_callers_unless_a_terminal_hangs_up_twice(received):
    with shared_with_caller() as stopped:
        stopped()
        send(signal.SIGHUP)
        send(signal.SIGHUP)
        assert (stopped(), received) == (True, [])
        send(signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with shared_with_caller() as stopped:
            stopped()
            send(signal.SIGINT)
            assert not stopped()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_callers_handlers_come_back(received):
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyError), shared_with_caller():
        raise KeyError
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_another_thread_watches_nothing():
    found = []

    def watch():
        with shared_with_caller() as stopped:
            found.append(stopped())

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert found == [False]


def test_a_signal_while_the_watch_begins_is_not_lost(received, monkeypatch):
    """A signal between the handlers of two signals ends the process at once."""
    statuses, ended = [], threading.Event()

    def end(status):
        statuses.append(status)
        ended.set()

    system_signal = signal.signal

    def interrupted(number, handler):
        before = system_signal(number, handler)
        monkeypatch.setattr(signal, "signal", system_signal)
        send(signal.SIGTERM)
        return before

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(signal, "signal", interrupted)
    with watched():
        assert ended.wait(5)
    assert (statuses, received) == ([75], [])


def test_a_background_job_of_a_script_ignores_sigint():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with watched() as stopped:
            stopped()
            send(signal.SIGINT)
            assert (stopped(), signal.getsignal(signal.SIGINT)) == (False, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_program_of_its_own_returns_the_callers_wakeup_descriptor():
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write)
    try:
        with watched():
            pass
        assert signal.set_wakeup_fd(write) == write
    finally:
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)
