"""What a user reads when memory is short."""

from profiling.out_of_memory import explain_out_of_memory

OF_CUDA = (  # c10/cuda/CUDACachingAllocator.cpp
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which 3.25 MiB is "
    "free. Process 7 has 79.10 GiB memory in use."
)


def test_a_full_device_tells_its_own_memory_not_that_of_the_host():
    line = explain_out_of_memory(RuntimeError(OF_CUDA))
    assert line is not None
    assert line.startswith("out of memory: 20.00 MiB asked for, 3.25 MiB available; ")
