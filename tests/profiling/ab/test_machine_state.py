"""Cores that share a cache or do not: which launches are marked, and how long a round waits."""

from profiling.ab import machine_state
from profiling.ab.machine_state import CoreWatch, cores_apart


def probes(*seconds: float):
    """A probe that returns these times, one at a call."""
    remaining = list(seconds)
    return lambda: remaining.pop(0), remaining


def test_launches_are_marked_by_the_best_probe_of_all():
    assert cores_apart([75e-6, 127e-6, 90e-6], None) == [False, True, False]
    assert cores_apart([127e-6] * 3, None) == [False] * 3, "nothing better is known"
    assert cores_apart([127e-6] * 3, 80e-6) == [True] * 3, "an earlier comparison of the ladder knows better"


def test_a_round_waits_until_the_probe_is_as_fast_as_it_has_been(monkeypatch):
    monkeypatch.setattr(machine_state, "RETRY_S", 0.001)
    probe, remaining = probes(74e-6, 127e-6, 126e-6, 80e-6, 127e-6)
    cores = CoreWatch(patience_s=10.0)
    assert cores.wait(probe) == 74e-6
    assert len(remaining) == 4, "nothing is known of these cores yet"
    assert cores.wait(probe) == 80e-6
    assert remaining == [127e-6]


def test_an_earlier_comparison_tells_how_fast_the_probe_can_be(monkeypatch):
    monkeypatch.setattr(machine_state, "RETRY_S", 0.001)
    probe, _ = probes(150e-6, 74e-6)
    assert CoreWatch(patience_s=10.0, best_probe_s=75e-6).wait(probe) == 74e-6


def test_waiting_ends_when_the_patience_is_used_up(monkeypatch):
    monkeypatch.setattr(machine_state, "RETRY_S", 0.02)
    cores = CoreWatch(patience_s=0.05, best_probe_s=74e-6)
    probe, remaining = probes(*[127e-6] * 10)
    assert cores.wait(probe) == 127e-6
    assert cores.waited_s > 0.05
    assert len(remaining) < 9, "it looked more than once"
    left = len(remaining)
    assert cores.wait(probe) == 127e-6
    assert len(remaining) == left - 1, "no patience is left for a second round"
