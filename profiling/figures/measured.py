"""The charts of a measured comparison, for the report and the tab."""

from collections.abc import Iterator, Mapping, Sequence

from profiling.analysis.memory import DeviceMemory
from profiling.figures.comparison import ARMS, PhasePair, pair_bars
from profiling.figures.memory import curve
from profiling.figures.style import LEGEND, LINES, Figure, axes_of, label, panels
from profiling.format import duration, ratio, size, size_unit
from profiling.verdict.judge import PhaseEffect
from profiling.verdict.wording import effect_interval
from profiling.vocabulary import COMPARED_ARMS


def phase_bars(phases: Sequence[PhaseEffect]) -> Figure:
    """Return bars: the measured time per sample of each phase and arm."""
    return pair_bars([_measured(effect) for effect in phases], ARMS, "sample")


def _measured(effect: PhaseEffect) -> PhasePair:
    a_us, b_us = effect.baseline_s_per_sample * 1e6, effect.variant_s_per_sample * 1e6
    hover = (
        f"{label(effect.phase)}<br>baseline {duration(a_us)}, variant {duration(b_us)} per sample<br>"
        f"{ratio(effect.ratio)} ({effect_interval(effect)}), {effect.verdict.value}"
    )
    return PhasePair(effect.phase, a_us, b_us, effect.ratio, hover)


def memory_curves(stages: Mapping[str, Mapping[str, DeviceMemory]]) -> Figure:
    """Return curves: allocated memory of both arms over the traced window, one panel for each stage."""
    names = list(stages)
    units = [size_unit(max(max(device.curve.bytes) for device in arms.values())) for arms in stages.values()]
    layout = panels(
        len(stages),
        lambda i: {"title": {"text": f"{label(names[i])}, ms"}, "rangemode": "tozero"},
        lambda i: {"title": {"text": units[i][0], "standoff": 4}, "rangemode": "tozero"},
        gap=0.09,
    )
    return {"data": list(_memory_lines(stages, units)), "layout": {"height": 250, "legend": LEGEND, **layout}}


def _memory_lines(
    stages: Mapping[str, Mapping[str, DeviceMemory]], units: Sequence[tuple[str, int]]
) -> Iterator[Figure]:
    named: set[str] = set()
    for number, (arms, (_, unit_bytes)) in enumerate(zip(stages.values(), units, strict=True)):
        for arm in COMPARED_ARMS:
            if arm in arms:
                device = arms[arm]
                yield {
                    **curve(device, f"{arm}, {device.device}", LINES[arm], unit_bytes),
                    # The report has a chart like this for each experiment: one text for all points keeps it small.
                    "text": f"{arm}, {label(device.device)}: peak {size(device.peak_bytes)}",
                    "name": arm,
                    "legendgroup": arm,
                    "showlegend": arm not in named,
                    **axes_of(number),
                }
                named.add(arm)
