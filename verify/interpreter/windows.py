"""Convolution: one product of matrices for each element of the kernel."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from verify.interpreter.arithmetic import Rule, pad


def _conv(params: dict[str, Any], x: np.ndarray, w: np.ndarray) -> np.ndarray:
    numbers, strides, steps = params["dimension_numbers"], params["window_strides"], params["rhs_dilation"]
    groups, batches = params["feature_group_count"], params["batch_group_count"]
    around = [(low, high, hole - 1) for (low, high), hole in zip(params["padding"], params["lhs_dilation"], strict=True)]
    x = pad({"padding_config": [(0, 0, 0), (0, 0, 0), *around]}, x.transpose(numbers.lhs_spec), np.zeros((), x.dtype))
    w = w.transpose(numbers.rhs_spec)
    kernel = w.shape[2:]
    reach = [(k - 1) * step + 1 for k, step in zip(kernel, steps, strict=True)]
    size = [max((n - r) // s + 1, 0) if r > 0 else n // s for n, r, s in zip(x.shape[2:], reach, strides, strict=True)]
    # (batch group, image, feature group, channel, *size) and (batch group, feature group, output, channel, *kernel): one kind of group is 1
    x = x.reshape(batches, x.shape[0] // batches, groups, x.shape[1] // groups, *x.shape[2:])
    w = w.reshape(batches, groups, w.shape[0] // (groups * batches), *w.shape[1:])
    out = np.zeros((x.shape[1], batches, groups, w.shape[2], *size), np.result_type(x, w))
    for at in itertools.product(*map(range, kernel)) if out.size else ():
        first = [k * step for k, step in zip(at, steps, strict=True)]
        window = tuple(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(first, size, strides, strict=True))
        out += np.einsum("bngc...,bgoc->nbgo...", x[(slice(None),) * 4 + window], w[(slice(None),) * 4 + at], optimize=True)
    back = np.argsort(numbers.out_spec)
    return out.reshape(out.shape[0], batches * groups * out.shape[3], *size).transpose(back)


RULES: dict[str, Rule] = {"conv_general_dilated": _conv}
