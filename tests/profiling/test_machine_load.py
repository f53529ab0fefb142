"""What other processes use of the cores, and what is said of it."""

import os
import subprocess
import sys
import time

import pytest

from profiling import machine_load
from profiling.machine_load import OthersMeter, described, warning

SPIN = "import time\nend = time.perf_counter() + 20\nwhile time.perf_counter() < end: pass"


@pytest.fixture
def clock(monkeypatch):
    """A machine whose cores have worked for `clock["busy_s"]` seconds after `clock["now_s"]`."""
    state = {"now_s": 0.0, "busy_s": 0.0}
    monkeypatch.setattr(machine_load.time, "monotonic", lambda: state["now_s"])
    monkeypatch.setattr(machine_load, "_busy_s", lambda: state["busy_s"])
    return state


def test_work_that_is_not_this_process_own_is_that_of_others(clock):
    meter = OthersMeter()
    clock.update(now_s=10.0, busy_s=6.6)
    assert meter.cores() == pytest.approx(0.66, abs=0.05)
    assert meter.cores() is None, "no time has passed since"
    clock.update(now_s=20.0, busy_s=6.6)
    assert meter.cores() == 0.0


def test_a_system_that_does_not_tell_claims_nothing(monkeypatch):
    monkeypatch.setattr(machine_load, "_busy_s", lambda: None)
    assert OthersMeter().cores() is None
    assert warning(None) is None


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="the system does not tell it")  # noqa: PTH110
def test_a_child_is_this_process_own_and_a_stranger_is_not():
    with subprocess.Popen([sys.executable, "-c", SPIN]) as spinning:
        time.sleep(0.3)
        own, others = OthersMeter(), OthersMeter(root_pid=spinning.pid)
        without = OthersMeter(root_pid=1 << 30)
        time.sleep(2.0)
        seen = [meter.cores() for meter in (own, others, without)]
        spinning.kill()
    assert seen[2] - seen[0] > 0.3
    assert seen[1] == pytest.approx(seen[0], abs=0.2)


def test_a_warning_says_how_much_of_how_many_cores(monkeypatch):
    monkeypatch.setattr(machine_load, "_usable_cores", lambda: {0, 1})
    assert warning(0.1) is None
    assert warning(0.66).startswith("other processes use 66 % of a core of 2: ")
    assert (described(0.66), described(1.34)) == ("66 % of a core", "1.3 cores")
