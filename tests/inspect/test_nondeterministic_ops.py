"""The table of nondeterministic operations holds what the installed torch says: its documentation and its library."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
import torch
import torchvision

from twinrun.inspect.nondeterministic_ops import ATTENTION_NOTES, DOCUMENTED, HAZARDS, TORCHVISION, documented

# What the documentation of torch.use_deterministic_algorithms names, and the operations that it comes down to; a
# sentence instead where the table has none, and why.
NAMED: dict[str, tuple[str, ...] | str] = {
    "torch.nn.Conv1d": "convolutions are cuDNN's: twinrun forecast", "torch.nn.Conv2d": "as Conv1d",
    "torch.nn.Conv3d": "as Conv1d", "torch.nn.ConvTranspose1d": "as Conv1d", "torch.nn.ConvTranspose2d": "as Conv1d",
    "torch.nn.ConvTranspose3d": "as Conv1d",
    "torch.nn.ReplicationPad1d": ("replication_pad1d_backward",),
    "torch.nn.ReplicationPad2d": ("replication_pad2d_backward",),
    "torch.nn.ReplicationPad3d": ("replication_pad3d_backward",),
    "torch.bmm": "for sparse tensors alone", "torch.Tensor.__getitem__": ("index_put", "_index_put_impl_"),
    "torch.Tensor.index_put": ("index_put_", "_unsafe_index_put"), "torch.Tensor.put_": ("put", "put_"),
    "torch.Tensor.scatter_add_": ("scatter_add", "scatter_add_"), "torch.gather": ("scatter_add",),
    "torch.index_add": ("index_add", "index_add_"), "torch.index_select": ("index_add",),
    "torch.repeat_interleave": ("index_add",), "torch.Tensor.index_copy": ("index_copy", "index_copy_"),
    "torch.Tensor.scatter": ("scatter", "scatter_"), "torch.Tensor.scatter_reduce": ("scatter_reduce",),
    "torch.nn.AvgPool3d": ("avg_pool3d_backward",),
    "torch.nn.AdaptiveAvgPool2d": ("_adaptive_avg_pool2d_backward",),
    "torch.nn.AdaptiveAvgPool3d": ("_adaptive_avg_pool3d_backward",),
    "torch.nn.MaxPool3d": ("max_pool3d_with_indices_backward",),
    "torch.nn.AdaptiveMaxPool2d": ("adaptive_max_pool2d_backward",),
    "torch.nn.FractionalMaxPool2d": ("fractional_max_pool2d_backward",),
    "torch.nn.FractionalMaxPool3d": ("fractional_max_pool3d_backward",),
    "torch.nn.MaxUnpool1d": ("max_unpool2d",), "torch.nn.MaxUnpool2d": ("max_unpool2d",),
    "torch.nn.MaxUnpool3d": ("max_unpool3d",),
    "torch.nn.functional.interpolate": (
        "upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward",
        "upsample_trilinear3d_backward", "_upsample_bilinear2d_aa_backward", "_upsample_bicubic2d_aa_backward",
    ),
    "torch.nn.ReflectionPad1d": ("reflection_pad1d_backward",),
    "torch.nn.ReflectionPad2d": ("reflection_pad2d_backward",),
    "torch.nn.ReflectionPad3d": ("reflection_pad3d_backward",), "torch.nn.NLLLoss": ("nll_loss2d_forward",),
    "torch.nn.CTCLoss": ("_ctc_loss_backward",),
    "torch.nn.EmbeddingBag": ("_embedding_bag_backward", "_embedding_bag_dense_backward"),
    "torch.histc": ("histc",), "torch.bincount": ("bincount",), "torch.median": ("median",),
    "torch.nn.functional.grid_sample": ("grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    "torch.cumsum": ("cumsum", "cumsum_"), "torch.Tensor.resize_": "for quantized tensors alone",
}  # fmt: skip
BEYOND = {f"_{prefix}{kernel}_attention_backward" for prefix in ("", "scaled_dot_product_")
          for kernel in ("flash", "efficient", "cudnn")} | {"adaptive_max_pool3d_backward"}  # fmt: skip

# What stands in torch's CUDA library for each operation without a deterministic form: the name in its alert, or its
# atomic kernel. reflection_pad2d has no alert there, although the documentation says that it raises.
ALERTS = {
    "avg_pool3d_backward": "avg_pool3d_backward_cuda",
    "_adaptive_avg_pool2d_backward": "adaptive_avg_pool2d_backward_cuda",
    "_adaptive_avg_pool3d_backward": "adaptive_avg_pool3d_backward_cuda",
    "max_pool3d_with_indices_backward": "max_pool3d_with_indices_backward_cuda",
    "adaptive_max_pool2d_backward": "adaptive_max_pool2d_backward_cuda",
    "fractional_max_pool2d_backward": "fractional_max_pool2d_backward_cuda",
    "fractional_max_pool3d_backward": "fractional_max_pool3d_backward_cuda",
    "max_unpool2d": "max_unpooling2d_forward_out",
    "max_unpool3d": "max_unpooling3d_forward_out_cuda",
    "upsample_linear1d_backward": "upsample_linear1d_backward_out_cuda",
    "upsample_bilinear2d_backward": "upsample_bilinear2d_backward_out_cuda",
    "upsample_bicubic2d_backward": "upsample_bicubic2d_backward_out_cuda",
    "upsample_trilinear3d_backward": "upsample_trilinear3d_backward_out_cuda",
    "_upsample_bilinear2d_aa_backward": "upsample_bilinear2d_aa_backward_out_cuda",
    "_upsample_bicubic2d_aa_backward": "upsample_bicubic2d_aa_backward_out_cuda",
    "reflection_pad1d_backward": "reflection_pad1d_backward_out_cuda",
    "reflection_pad3d_backward": "reflection_pad3d_backward_out_cuda",
    "nll_loss2d_forward": "nll_loss2d_forward_out_cuda_template",
    "_ctc_loss_backward": "ctc_loss_backward_gpu",
    "_embedding_bag_backward": "embedding_bag_backward_cuda_max",
    "histc": "_histc_cuda",
    "bincount": "_bincount_cuda",
    "median": "median CUDA with indices output",
    "grid_sampler_2d_backward": "grid_sampler_2d_backward_cuda",
    "grid_sampler_3d_backward": "grid_sampler_3d_backward_cuda",
    "scatter_reduce": "scatter_reduce_cuda_prod_",
    "_flash_attention_backward": "Flash Attention defaults to a non-deterministic algorithm. ",
    "_efficient_attention_backward": "Memory Efficient attention defaults to a non-deterministic algorithm. ",
    "_cudnn_attention_backward": "cuDNN Attention defaults to a non-deterministic algorithm. ",
    "adaptive_max_pool3d_backward": "adaptive_max_pool3d_backward_cuda",
}


def test_the_table_is_of_the_installed_torch() -> None:
    assert f"PyTorch {torch.__version__.partition('+')[0]}" == DOCUMENTED


def test_every_operation_of_the_documentation_is_in_the_table_and_no_other() -> None:
    text = torch.use_deterministic_algorithms.__doc__ or ""
    assert set(re.findall(r"\* :(?:class|func):`([\w.]+)`", text)) == set(NAMED)
    assert set(re.findall(r"- ``(\w+)``", text)) == {"linear", "bilinear", "bicubic", "trilinear"}
    named = {operation for operations in NAMED.values() if isinstance(operations, tuple) for operation in operations}
    assert named | BEYOND == set(HAZARDS)


@pytest.fixture(scope="module")
def strings() -> set[bytes]:
    """The constant strings of torch's CUDA library: its section .rodata (ELF, 64 bits)."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cuda.so"
    with library.open("rb") as file:
        header = file.read(64)
        (table,), (size, count, of_names) = struct.unpack_from("<Q", header, 40), struct.unpack_from("<3H", header, 58)
        file.seek(table)
        sections = [struct.unpack_from("<II4Q", file.read(size)) for _ in range(count)]  # name, .., offset, size
        file.seek(sections[of_names][4])
        names = file.read(sections[of_names][5])
        (where,) = [s for s in sections if names[s[0] :].startswith(b".rodata\0")]
        file.seek(where[4])
        return set(file.read(where[5]).split(b"\0"))


@pytest.mark.parametrize("operation", ALERTS)
def test_the_library_has_the_alert(operation: str, strings: set[bytes]) -> None:
    assert operation in HAZARDS
    assert ALERTS[operation].encode() in strings


@pytest.mark.parametrize("operation", TORCHVISION)
def test_torchvisions_kernels_have_an_alert(operation: str) -> None:
    library = Path(torchvision.__file__).with_name("_C.so").read_bytes().split(b"\0")
    alert = "compute_grad_input" if operation == "_deform_conv2d_backward" else f"{operation.lstrip('_')}_kernel"
    assert alert.encode() in library
    assert documented(f"torchvision::{operation}", {}) is TORCHVISION[operation]
    assert torchvision.__version__.startswith("0.26.0")


def test_attention_has_a_row_for_each_backend_and_pass() -> None:
    there = {name for name in dir(torch.ops.aten) if re.fullmatch(r"_.*(flash|efficient|cudnn).*_attention.*", name)}
    for name in there:
        judged = documented(f"aten::{name}", {}) is not None
        assert judged == (name.endswith("_backward") and "for_cpu" not in name), name
        assert judged != (name in ATTENTION_NOTES), name
    assert len(there) >= 11
