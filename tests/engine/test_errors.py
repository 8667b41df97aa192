"""What an exception of a device means: too little memory, a device that is lost, or neither."""

from __future__ import annotations

import pytest
import torch

from heatserve.engine import OutOfMemory, is_device_lost, is_out_of_memory

#: The texts as torch 2.4 to 2.14 and its libraries write them.
NO_ROOM = [
    "CUDA error: out of memory",
    "CUDA out of memory. Tried to allocate 20.00 MiB",
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "GET was unable to find an engine to execute this computation",
    "FIND was unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm to run convolution",
    "MPS backend out of memory (MPS allocated: 1 GB)",
]
LOST = [
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: device-side assert triggered",
    "CUDA error: unspecified launch failure",
    "CUDA error: misaligned address",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: operation not supported on global/shared address space",
    "CUDA error: unknown error",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m, n, k)`",
    "CUDA driver error: device not ready",
]
NEITHER = [
    "CUDA error: invalid configuration argument",
    "CUDA error: invalid argument",
    "CUDA error: no kernel image is available for execution on the device",
    "CUDA error: too many resources requested for launch",
    "mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)",
    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
]
HINT = "\nCUDA kernel errors might be asynchronously reported at some other API call.\nFor debugging consider passing …"


@pytest.mark.parametrize("text", NO_ROOM)
def test_a_lack_of_memory_is_told_by_its_text_where_it_has_no_type(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text)) and not is_device_lost(RuntimeError(text))


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("x"), MemoryError(), OutOfMemory("CUDA error")])
def test_a_lack_of_memory_is_told_by_its_type(error: Exception) -> None:
    assert is_out_of_memory(error) and not is_device_lost(error)


@pytest.mark.parametrize("text", LOST)
def test_a_device_is_lost_after_an_error_that_cuda_repeats_for_ever(text: str) -> None:
    assert is_device_lost(RuntimeError(text + HINT)) and not is_out_of_memory(RuntimeError(text + HINT))


@pytest.mark.parametrize("text", NEITHER)
def test_a_faulty_call_costs_nobody_his_device(text: str) -> None:
    assert not is_device_lost(RuntimeError(text)) and not is_out_of_memory(RuntimeError(text))


@pytest.mark.parametrize("error", [ValueError(LOST[0]), KeyError(NO_ROOM[0]), RuntimeError()])
def test_other_types_of_exception_say_nothing_of_the_device(error: Exception) -> None:
    assert not is_device_lost(error) and not is_out_of_memory(error)


def test_the_type_of_newer_versions_is_enough() -> None:
    kind = getattr(torch, "AcceleratorError", None)
    if kind is None:
        pytest.skip("this torch has no AcceleratorError")
    assert is_device_lost(kind("the device has gone"))
    assert is_out_of_memory(kind("CUDA error: out of memory")) and not is_device_lost(kind("CUDA error: out of memory"))
