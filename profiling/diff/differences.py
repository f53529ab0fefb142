"""What a comparison of two traces or runs returns; every difference is B minus A."""

from msgspec import Struct

from profiling.diff.call_tree import CallNode


class StageDifference(Struct, frozen=True):
    """All phases of one stage; `stage` is empty where no record tells it."""

    stage: str
    a_us: float
    b_us: float
    difference_us: float


class PhaseDifference(Struct, frozen=True):
    """One phase, without the phases inside it; `difference_us` is the sum of the four fields after it.

    `derived`: at least one side does not mark the phase, see `profiling.analysis.derived_phases`. `uncertain`: these
    windows do not show a difference, as the times of single steps of A and of B overlap, or a side has only one step.
    """

    phase: str
    a_us: float
    b_us: float
    difference_us: float
    operators_us: float
    python_us: float
    waiting_us: float
    unattributed_us: float
    derived: bool
    uncertain: bool


class OperatorDifference(Struct, frozen=True):
    """One operator in one phase; on the side where it does not occur, everything is 0."""

    phase: str
    name: str
    a_calls: float
    b_calls: float
    a_self_us: float
    b_self_us: float
    difference_us: float
    a_device_us: float
    b_device_us: float
    a_allocated_bytes: float
    b_allocated_bytes: float


class Replacement(Struct, frozen=True):
    """Operators that only A (`removed`) or only B (`added`) has, below the ancestor or phase `under` that both have."""

    phase: str
    under: str
    removed: list[str]
    added: list[str]
    a_self_us: float
    b_self_us: float
    difference_us: float


class ModuleDifference(Struct, frozen=True):
    """One module, without its child modules; `difference_us` covers its forward and backward time."""

    path: str
    a_self_us: float
    b_self_us: float
    a_backward_us: float
    b_backward_us: float
    difference_us: float


class MemoryDifference(Struct, frozen=True):
    """One device; peaks are with what was there before the windows, own peaks without; allocated bytes are per unit."""

    device: str
    a_peak_bytes: int
    b_peak_bytes: int
    a_allocated_bytes: float
    b_allocated_bytes: float
    a_own_peak_bytes: int
    b_own_peak_bytes: int


class KernelDifference(Struct, frozen=True):
    """One kernel that one operator launched: its runs, its time on the device, and how long the host waited for it.

    `change` is `added` or `removed` where only one side has it, else `slower`, `faster` or `same`, by `difference_us`
    of device time.
    """

    name: str
    operator: str
    change: str
    a_calls: float
    b_calls: float
    a_device_us: float
    b_device_us: float
    difference_us: float
    a_wait_us: float
    b_wait_us: float


class Cause(Struct, frozen=True):
    """One reason for the difference: `kind` is `operator`, `python` or `waiting`; the other words are in `name`."""

    phase: str
    kind: str
    name: str
    difference_us: float

    @property
    def text(self) -> str:
        """The cause in words, without its phase."""
        return self.name if self.kind == "operator" else f"{self.kind} {self.name}"


class Diff(Struct, frozen=True):
    """The output of `diff --json`: B minus A, per `unit` (`sample`, `step` or `trace`), the largest changes first.

    `unattributed_us` sums the absolute unattributed times of the phases; `attributed_share` is 1 minus its ratio to the
    sum of the absolute differences. `a_us`, `b_us` and `difference_us` add up all `stages`. `tree` has the time of each
    call chain, see `profiling.diff.call_tree`.
    """

    schema_version: int
    a: list[str]
    b: list[str]
    unit: str
    a_units: int
    b_units: int
    notes: list[str]
    a_us: float
    b_us: float
    difference_us: float
    stages: list[StageDifference]
    attributed_share: float
    unattributed_us: float
    causes: list[Cause]
    phases: list[PhaseDifference]
    added: list[OperatorDifference]
    removed: list[OperatorDifference]
    changed: list[OperatorDifference]
    replaced: list[Replacement]
    kernels: list[KernelDifference]
    modules: list[ModuleDifference]
    memory: list[MemoryDifference]
    tree: list[CallNode]
