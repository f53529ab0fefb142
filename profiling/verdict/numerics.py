"""Whether both arms computed the same results."""

import sys

from msgspec import Struct

from profiling.vocabulary import Agreement


class NumericsCheck(Struct, frozen=True):
    """How far the results of both arms agree; `mismatch` when they agree less than was declared.

    `max_abs_difference` is of any number, `max_rel_difference` the largest over tensors of the norm of the difference
    divided by the norm. Of tensors of two shapes, and with NaN, both are the largest float.
    """

    declared: Agreement
    measured: Agreement
    max_abs_difference: float
    max_rel_difference: float
    mismatch: bool

    @property
    def largest(self) -> str:
        """The largest difference in words: `largest difference 0.012; of a tensor's norm at most 0.0031`."""
        if self.max_abs_difference == sys.float_info.max:
            return "tensors of other shapes, or a number that is not finite"
        words = f"largest difference {self.max_abs_difference:.2g}"
        return (
            words
            if not self.max_abs_difference
            else f"{words}; of a tensor's norm at most {self.max_rel_difference:.2g}"
        )


def check_numerics(
    declared: Agreement, max_abs_difference: float, max_rel_difference: float, rtol: float, atol: float
) -> NumericsCheck:
    """Compare measured differences with the declared agreement; within either tolerance is close, NaN is different."""
    if max_abs_difference == 0:
        measured = Agreement.identical
    elif max_abs_difference <= atol or max_rel_difference <= rtol:
        measured = Agreement.close
    else:
        measured = Agreement.different
    order = list(Agreement)
    return NumericsCheck(
        declared=declared,
        measured=measured,
        max_abs_difference=max_abs_difference,
        max_rel_difference=max_rel_difference,
        mismatch=order.index(measured) > order.index(declared),
    )
