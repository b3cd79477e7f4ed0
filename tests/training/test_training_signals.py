"""Ctrl-C and SIGTERM as requests."""

import signal
import threading

import pytest

from raytricks.errors import InterruptedRun
from raytricks.training.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_kept_not_raised(number):
    with StopSignals() as stop:
        stop.install()
        assert stop() == 0
        signal.raise_signal(number)
        assert stop() == number


def test_signals_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop:
        stop.install()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_outside_the_main_thread_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def enter() -> None:
        with StopSignals() as stop:
            seen.extend([signal.getsignal(signal.SIGTERM), stop()])

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before, 0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_at_once_what_nobody_can_save_yet(number):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedRun) as stopped, StopSignals():
        try:
            signal.raise_signal(number)
        except Exception:  # noqa: BLE001 (as libraries do)
            pytest.fail("a library could have swallowed it")
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(signal.SIGTERM) == before
