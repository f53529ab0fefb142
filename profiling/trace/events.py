"""The events of a trace file as typed objects: of each category, only the fields that an analysis uses.

A category that is not known here, or an event without one, is an `Event`, which has all fields. The others have few,
which takes less time to decode.
"""

import math
from functools import reduce
from operator import or_
from typing import Any, ClassVar

from msgspec import Raw, Struct, defstruct, field


class FrameArgs(Struct, gc=False):
    """The fields of a Python function's `args`; -1 where it has none."""

    caller: int | None = field(name="Python parent id", default=-1)
    frame: int = field(name="Python id", default=-1)


class MemoryArgs(Struct, gc=False):
    """The fields of a memory event's `args`; 0 or -1 where it has none."""

    reserved: int = field(name="Total Reserved", default=-1)
    allocated: int = field(name="Total Allocated", default=-1)
    moved: int = field(name="Bytes", default=0)
    device_id: int = field(name="Device Id", default=-1)
    device_type: int = field(name="Device Type", default=0)
    address: int = field(name="Addr", default=0)


class OperatorArgs(Struct, gc=False):
    """The fields of an operator's `args`; 0, -1 or empty where it has none."""

    external: int = field(name="External id", default=0)
    sequence: int = field(name="Sequence number", default=-1)
    shapes: Raw = field(name="Input Dims", default=Raw(b""))
    flops: int = 0
    collective: str = field(name="Collective name", default="")
    group: Raw = field(name="Process Group Name", default=Raw(b""))
    group_size: int = field(name="Group size", default=0)
    group_ranks: Raw = field(name="Process Group Ranks", default=Raw(b""))
    call: Raw = field(name="Seq", default=Raw(b""))
    elements: int = field(name="In msg nelems", default=-1)
    dtype: Raw = Raw(b"")


class Args(OperatorArgs, gc=False):
    """All fields of `args`; 0, -1 or empty where an event has none. A struct cannot have several bases."""

    correlation: int = 0
    copied: int = field(name="bytes", default=0)
    grid: Raw = Raw(b"")
    block: Raw = Raw(b"")
    registers: float = field(name="registers per thread", default=-1.0)
    blocks_per_sm: float = field(name="blocks per SM", default=-1.0)
    occupancy: float = field(name="est. achieved occupancy %", default=-1.0)
    wait_on_stream: int = -1
    caller: int | None = field(name="Python parent id", default=-1)
    frame: int = field(name="Python id", default=-1)
    reserved: int = field(name="Total Reserved", default=-1)
    allocated: int = field(name="Total Allocated", default=-1)
    moved: int = field(name="Bytes", default=0)
    device_id: int = field(name="Device Id", default=-1)
    device_type: int = field(name="Device Type", default=0)
    address: int = field(name="Addr", default=0)
    label: Raw = field(name="name", default=Raw(b""))
    labels: Raw = Raw(b"")


class Common(Struct, gc=False):
    """What events of all categories have; `ts` and `dur` in microseconds, NaN and 0 where the event has none."""

    ph: str = ""
    name: str = ""
    pid: int | str = 0
    tid: int | str = 0
    ts: float = math.nan
    dur: float = 0.0


class Event(Common, gc=False):
    """An event of any category; None where it has no category, no `args` or no `id`."""

    cat: str | None = None
    args: Args | None = None
    id: int | str | None = None


class FrameEvent(Common, tag_field="cat", tag="python_function", gc=False):
    """A call of a Python function."""

    cat: ClassVar[str] = "python_function"
    args: FrameArgs | None = None


class MemoryEvent(Common, tag_field="cat", tag="cpu_instant_event", gc=False):
    """An allocation, or that memory was freed."""

    cat: ClassVar[str] = "cpu_instant_event"
    args: MemoryArgs | None = None


class OperatorEvent(Common, tag_field="cat", tag="cpu_op", gc=False):
    """An operator."""

    cat: ClassVar[str] = "cpu_op"
    args: OperatorArgs | None = None


class FlowEvent(Common, tag_field="cat", tag="fwdbwd", gc=False):
    """One end of a link from a forward to a backward operator."""

    cat: ClassVar[str] = "fwdbwd"
    id: int | str | None = None


_DEVICE_CATEGORIES = (
    "user_annotation",
    "kernel",
    "gpu_memcpy",
    "gpu_memset",
    "gpu_user_annotation",
    "cuda_runtime",
    "cuda_driver",
    "cuda_sync",
    "ac2g",
    "overhead",
)


def _of_category(category: str) -> Any:
    """The type of the events of one further category."""
    fields = [("args", Args | None, None)]
    namespace = {"cat": category}
    return defstruct(
        f"{category}_event", fields, bases=(Common,), namespace=namespace, tag_field="cat", tag=category, gc=False
    )


KNOWN_CATEGORIES: Any = reduce(
    or_, map(_of_category, _DEVICE_CATEGORIES), FrameEvent | MemoryEvent | OperatorEvent | FlowEvent
)
"""Union of the types of the events whose category is known."""
