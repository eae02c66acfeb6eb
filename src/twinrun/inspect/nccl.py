"""What decides the order in which NCCL adds the numbers of several GPUs, pinned."""

from __future__ import annotations

# Left free, NCCL chooses all three by message size, topology and measured speed, and with them the order of the sums.
# Source: NVIDIA, NCCL user guide, environment variables.
NCCL = {
    "NCCL_ALGO": "Ring",
    "NCCL_PROTO": "Simple",
    "NCCL_MIN_NCHANNELS": "4",
    "NCCL_MAX_NCHANNELS": "4",
}
