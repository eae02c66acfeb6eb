"""The switches of torch and its libraries that make a run deterministic or free; training/numerics.py sets them."""

from __future__ import annotations

from dataclasses import dataclass

from twinrun.study.pins import CpuBits

INSTRUCTION_SET = "instruction_set"  # the flag of a run with `cpu_bits: this_cpu` that names what it was computed with


@dataclass(frozen=True)
class NumericFlags:
    """The switches of torch and its libraries that decide whether and how a run is deterministic."""

    cudnn_benchmark: bool = True  # pick convolution algorithms by measured speed: ordinary training has it on
    cudnn_deterministic: bool = False  # only convolution algorithms that give the same bits each time
    cublas_workspace: bool = False  # a fixed workspace, so that cuBLAS picks the same algorithm each time
    deterministic_algorithms: bool = False  # operations without a deterministic implementation raise
    fill_uninitialized_memory: bool = False  # NaN into fresh memory, to expose reads of it
    tf32: bool = False  # 10 bits of the mantissa in matrix products: precision, not determinism
    cpu_bits: CpuBits = "anywhere"  # the instructions of every x86-64 with AVX2, or the best that this processor has


def flags_for(
    *, deterministic: bool, tf32: bool, fill_uninitialized_memory: bool, cpu_bits: CpuBits = "anywhere"
) -> NumericFlags:
    """The flags of a run: all of the deterministic ones, or what ordinary training has."""
    return NumericFlags(
        cudnn_benchmark=not deterministic,
        cudnn_deterministic=deterministic,
        cublas_workspace=deterministic,
        deterministic_algorithms=deterministic,
        fill_uninitialized_memory=fill_uninitialized_memory,
        tf32=tf32,
        cpu_bits=cpu_bits,
    )
