"""Numbers as people read them."""

import pytest

from profiling.format import duration, duration_change, size


@pytest.mark.parametrize(
    ("time_us", "text"),
    [
        (0, "0 µs"),
        (3e-15, "0 µs"),
        (0.25, "250 ns"),
        (14.44, "14.4 µs"),
        (999.6, "1,000 µs"),
        (2000, "2 ms"),
        (1.2e9, "1,200 s"),
    ],
)
def test_a_time_has_three_digits_and_a_unit(time_us: float, text: str) -> None:
    assert duration(time_us) == text


@pytest.mark.parametrize(("time_us", "text"), [(-7e-15, "+0 µs"), (0, "+0 µs"), (-2.5, "-2.5 µs"), (2000, "+2 ms")])
def test_a_difference_has_a_sign_and_what_rounding_leaves_has_none(time_us: float, text: str) -> None:
    assert duration_change(time_us) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (1 << 50, "1,024 TiB")])
def test_a_number_of_bytes_has_three_digits_and_a_unit(count: int, text: str) -> None:
    assert size(count) == text
