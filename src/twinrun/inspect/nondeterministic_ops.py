"""Operations that are nondeterministic on CUDA, by the names under which PyTorch's dispatcher runs them.

Almost all are from the documentation of `torch.use_deterministic_algorithms` in PyTorch 2.11.0. What the documentation
calls a module (`torch.nn.AdaptiveAvgPool2d`) is here the operation that it comes down to, for the backward pass the
one that differentiates it; `torch.nn.NLLLoss` is nondeterministic for images of labels only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

DOCUMENTED = "PyTorch 2.11.0"
Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Hazard:
    """`what` is wrong with an operation on CUDA, and what to use `instead`; `only` says in which calls.

    `source`: who says so.
    """

    what: str
    instead: str
    only: Callable[[Arguments], bool] = lambda arguments: True
    source: str = f"documented for {DOCUMENTED}"


_NEVER = "has no deterministic implementation on CUDA"
_SWITCH = "adds or writes in any order on CUDA, unless deterministic mode is on"
_MODE = "torch.use_deterministic_algorithms(True), at a cost"


def _accumulates(arguments: Arguments) -> bool:
    return bool(arguments.get("accumulate", False))


def _floating(arguments: Arguments) -> bool:
    tensor = arguments.get("self")
    return isinstance(tensor, torch.Tensor) and (tensor.is_floating_point() or tensor.is_complex())


def _reduces(*kinds: str) -> Callable[[Arguments], bool]:
    return lambda arguments: arguments.get("reduce") in kinds


def _never(instead: str, only: Callable[[Arguments], bool] = lambda arguments: True) -> Hazard:
    return Hazard(_NEVER, instead, only)


def _switch(instead: str = _MODE, only: Callable[[Arguments], bool] = lambda arguments: True) -> Hazard:
    return Hazard(_SWITCH, instead, only)


_MEAN = "average pooling with a fixed kernel, or x.mean((2, 3)) where the output is 1x1"
_RESIZE = "mode='nearest', a transposed convolution, or deterministic mode, where interpolate has a slower way"
_MAX = "max pooling with a fixed kernel that does not overlap, as a view and amax"
_PAD = "zero padding, or padding by indexing in deterministic mode"
_INDEX = "sort the index and use torch.segment_reduce, or a matrix product with one-hot rows; or " + _MODE

HAZARDS: dict[str, Hazard] = {
    "avg_pool3d_backward": _never("a strided convolution with equal weights"),
    "_adaptive_avg_pool2d_backward": _never(_MEAN),
    "_adaptive_avg_pool3d_backward": _never(_MEAN),
    "max_pool3d_with_indices_backward": _never(_MAX),
    "adaptive_max_pool2d_backward": _never(_MAX),
    "fractional_max_pool2d_backward": _never(_MAX),
    "fractional_max_pool3d_backward": _never(_MAX),
    "max_unpool2d": _never("a transposed convolution"),
    "max_unpool3d": _never("a transposed convolution"),
    "upsample_linear1d_backward": _never(_RESIZE),
    "upsample_bilinear2d_backward": _never(_RESIZE),
    "upsample_bicubic2d_backward": _never("mode='nearest' or a transposed convolution"),
    "upsample_trilinear3d_backward": _never(_RESIZE),
    "_upsample_bilinear2d_aa_backward": _never("mode='nearest' or a transposed convolution"),
    "_upsample_bicubic2d_aa_backward": _never("mode='nearest' or a transposed convolution"),
    "reflection_pad1d_backward": _never(_PAD),
    "reflection_pad2d_backward": _never(_PAD),
    "reflection_pad3d_backward": _never(_PAD),
    "nll_loss2d_forward": _never("flatten logits and labels to (n, classes) and (n,)"),
    "_ctc_loss_backward": _never("the loss on the CPU"),
    "_embedding_bag_backward": _never("mode='sum' or 'mean'", lambda a: a.get("mode") == 2),
    "_embedding_bag_dense_backward": _never("mode='sum' or 'mean'", lambda a: a.get("mode") == 2),
    "put": _never("index_put with accumulate=False and no index twice"),
    "put_": _never("index_put with accumulate=False and no index twice"),
    "histc": _never("torch.bucketize and a sorted count, or the CPU"),
    "bincount": _never("a matrix product with one-hot rows", lambda a: a.get("weights") is not None),
    "median": _never("torch.sort, or median without indices", lambda a: "dim" in a),
    "grid_sampler_2d_backward": _never("a resampling by matrix products"),
    "grid_sampler_3d_backward": _never("a resampling by matrix products"),
    "cumsum": _never("a matrix product with a triangle of ones", _floating),
    "cumsum_": _never("a matrix product with a triangle of ones", _floating),
    "scatter_reduce": _never("logarithms and a sum", _reduces("prod")),
    "replication_pad1d_backward": _switch(),
    "replication_pad2d_backward": _switch(),
    "replication_pad3d_backward": _switch(),
    "index_put": _switch(only=_accumulates),
    "index_put_": _switch(only=_accumulates),
    "_index_put_impl_": _switch(only=_accumulates),
    "_unsafe_index_put": _switch(only=_accumulates),
    "scatter_add": _switch(_INDEX),
    "scatter_add_": _switch(_INDEX),
    "index_add": _switch(_INDEX),
    "index_add_": _switch(_INDEX),
    "index_copy": _switch(),
    "index_copy_": _switch(),
    "scatter": _switch(only=lambda a: "src" in a),
    "scatter_": _switch(only=lambda a: "src" in a),
}  # fmt: skip
_SUMS = _switch(only=_reduces("sum", "mean"))
# Backward passes of fused attention, of which PyTorch warns; the plain backend has none of them.
_ATTENTION = Hazard(
    _SWITCH, "torch.nn.attention.sdpa_kernel(SDPBackend.MATH), or " + _MODE, source=f"a warning of {DOCUMENTED}"
)
HAZARDS |= {
    f"_{prefix}{kernel}_attention_backward": _ATTENTION
    for prefix in ("", "scaled_dot_product_")
    for kernel in ("flash", "efficient", "cudnn")
}
HAZARDS["adaptive_max_pool3d_backward"] = Hazard(
    "adds in any order on CUDA, where the output's size does not divide the input's", _MAX,
    source=f"its kernel atomicadaptivemaxgradinput in {DOCUMENTED}; not documented",
)  # fmt: skip
# Their kernels add atomically and alert torch.use_deterministic_algorithms; torchvision's documentation is silent.
_REGIONS = "torch.use_deterministic_algorithms(True) refuses it; on the CPU it is deterministic"
TORCHVISION = {
    f"_{name}_backward": Hazard(_NEVER, _REGIONS, source="an alert in the kernels of torchvision 0.26.0")
    for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
}
_BACKEND = "torch.nn.attention.sdpa_kernel fixes the backend, and with MATH the backward pass"
# Not nondeterministic, but not what another card, type or shape would run.
ATTENTION_NOTES = {
    f"_{prefix}{kernel}_attention{suffix}": (f"scaled-dot-product attention by the {kernel} backend: {words}", _BACKEND)
    for kernel in ("flash", "efficient", "cudnn")
    for prefix, suffix in (("", "_forward"), ("scaled_dot_product_", ""))
    for words in ["no warning for this forward pass; another backend gives other bits, and backward PyTorch warns"]
} | {
    f"_scaled_dot_product_flash_attention_for_cpu{suffix}": (
        "scaled-dot-product attention of the CPU: on CUDA another backend runs, of whose backward pass PyTorch warns",
        _BACKEND,
    )
    for suffix in ("", "_backward")
}


def documented(name: str, arguments: Arguments) -> Hazard | None:
    """The hazard of a call of `aten::name` or `torchvision::name`, if the tables have it."""
    namespace, _, operation = name.partition("::")
    if namespace == "torchvision":
        return TORCHVISION.get(operation)
    if namespace != "aten":
        return None
    operation = "scatter_reduce" if operation == "scatter_reduce_" else operation
    candidates = [HAZARDS.get(operation), _SUMS if operation == "scatter_reduce" else None]
    return next((hazard for hazard in candidates if hazard and hazard.only(arguments)), None)
