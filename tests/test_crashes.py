"""What crashed other libraries: here each is a typed exception or the right result.

The rows are the advisories and crash reports on this family of operations that are public, carried
over to this one: an argument `input_sizes` of a gradient is `output_shape` here, `out_backprop` is
the input, and a problem in 2-D gets a depth of 1. They run in child processes, so that a crash
fails its own row: the rows behind it run in the next child.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from subprocess import PIPE
from typing import Any

import pytest

CHILD = """
import json, resource, sys
import numpy as np
import convt
from convt import conv3d, conv3d_transpose, conv3d_transpose_filter_gradient, reference

# What asks for more than this gets a MemoryError instead of pressing the whole machine.
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))

def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)

def thin(*shape):
    "An array of any size that takes no memory."
    return np.broadcast_to(np.float32(1), shape)

def checked(x, w, *arguments, **keywords):
    "The call, which must agree with the definition; all sums are exact."
    y = conv3d_transpose(x, w, *arguments, **keywords)
    expected = reference.conv3d_transpose(x, w, *arguments, **keywords)
    assert y.dtype == expected.dtype and np.array_equal(y, expected), "wrong"
    return y

def convolved(x, w, strides, padding="SAME", *arguments, **keywords):
    "The same of the convolution."
    y = conv3d(x, w, strides, padding, *arguments, **keywords)
    size = y.shape[1:4]
    expected = reference.input_gradient(x, w, size, strides, padding, *arguments, **keywords)
    assert y.dtype == expected.dtype and np.array_equal(y, expected), "wrong"
    return y

for number, expression in json.load(sys.stdin):
    print(json.dumps([number, "crash", ""]), flush=True)
    try:
        y = eval(expression)
        kind = "zeros" if y.size and not np.any(y) else "result"
        answer = [number, kind, list(y.shape)]
    except Exception as error:
        answer = [number, type(error).__name__, str(error)]
    print(json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Row:
    source: str
    call: str
    kind: str  # the exception, "zeros", or "result": compared with the definition
    answer: Any  # a pattern for the exception's message, or the result's shape


NO_TAPS = r"filters\.shape\[{}\] = 0 \({}\): a kernel needs at least 1 tap per axis"
ROWS = [
    # --- advisories
    Row(
        "CVE-2021-29517",
        "conv3d_transpose(ones(0,0,0,0,0), ones(0,0,0,0,0), None, [1,56,56,56,1], "
        "'SAME', 'NDHWC', [1,1,1,23,1])",
        "ValueError",
        NO_TAPS.format(0, "depth"),
    ),
    Row(
        "CVE-2021-29517, second",
        "conv3d_transpose(ones(2,2,2,2,2), ones(0,0,2,6,2), None, 1)",
        "ValueError",
        NO_TAPS.format(0, "depth"),
    ),
    Row(
        "CVE-2021-29520",
        "conv3d_transpose(ones(1,1,1,1,1), ones(4,1,6,1,1), [1,1,1,1,2], [1,89,29,89,1], 'SAME')",
        "ValueError",
        r"output_shape\[4\] = 2 \(channels\) must be the filters' out_channels, 1",
    ),
    Row(
        "CVE-2021-29520, second",
        "conv3d_transpose(ones(7,1,1,1,1), ones(7,7,7,1,1), [7,7,7,7,7], [1,37,65,93,1], 'VALID')",
        "ValueError",
        r"output_shape\[4\] = 7 \(channels\) must be the filters' out_channels, 1",
    ),
    Row(
        "CVE-2021-29520, channels mended",
        "checked(ones(7,1,1,1,1), ones(7,7,7,1,1), [7,7,7,7,1], [1,37,65,93,1], 'VALID')",
        "result",
        [7, 7, 7, 7, 1],
    ),
    Row(
        "CVE-2021-29522",
        "conv3d_transpose(ones(0,0,0,0,0), ones(0,0,0,1,0), [0,0,0,0,0], 1, 'SAME')",
        "ValueError",
        NO_TAPS.format(0, "depth"),
    ),
    Row(
        "CVE-2021-29522, second",
        "conv3d_transpose(ones(1,1,1,1,0), ones(0,0,0,1,0), [1,1,1,1,1], 1, 'SAME')",
        "ValueError",
        NO_TAPS.format(0, "depth"),
    ),
    Row(
        "CVE-2021-29525",
        "conv3d_transpose(ones(52,1,1,1,0), ones(1,0,1,5,0), [52,1,1,1,5], 1, 'SAME')",
        "ValueError",
        NO_TAPS.format(1, "height"),
    ),
    Row(
        "CVE-2021-29538",
        "conv3d_transpose(ones(0), ones(0), [], [])",
        "ValueError",
        r"input must have 5 dimensions .* got shape \(0,\)",
    ),
    Row(
        "CVE-2021-41209",
        "conv3d_transpose(ones(1,2,2,2,3), ones(0), None, 1)",
        "ValueError",
        r"filters must have 5 dimensions .* got shape \(0,\)",
    ),
    Row(
        "CVE-2021-41209, no output channels",
        "checked(ones(1,2,2,2,3), ones(3,3,3,0,3), [1,4,4,4,0], 2)",
        "result",
        [1, 4, 4, 4, 0],
    ),
    Row(
        "CVE-2022-29196",
        "conv3d_transpose(ones(2,2,2,2,1,dtype=np.float16), np.float16(1), None, 1)",
        "ValueError",
        r"filters must have 5 dimensions .* got shape \(\)",
    ),
    Row(
        "CVE-2022-35969",
        "conv3d_transpose(ones(1,2,2,2,1), ones(1,1,1,1,1), [1,2,2,1], 1)",
        "ValueError",
        r"output_shape must be None or 5 integers .* got 4: \[1, 2, 2, 1\]",
    ),
    Row(
        "CVE-2022-35996",
        "checked(ones(0,2,2,2,3), ones(2,2,2,4,3), [0,4,4,4,4], 2)",
        "result",
        [0, 4, 4, 4, 4],
    ),
    Row(
        "CVE-2022-35999",
        "conv3d_transpose(ones(3,1,1,0,3), ones(1,1,3,2,3), [3,1,1,1,2], [1,1,1,2,1], 'VALID')",
        "zeros",
        [3, 1, 1, 1, 2],
    ),
    Row(
        "CVE-2023-25661",
        "checked(ones(1,32,32,0,3), ones(3,3,3,2,3), [1,32,32,0,2], 1)",
        "result",
        [1, 32, 32, 0, 2],
    ),
    # --- crashes of the peers without an advisory
    Row(
        "TensorFlow 2.21, no channels",
        "conv3d_transpose(ones(3,2,2,2,0), ones(3,3,3,3,0), [3,4,4,4,3], 1, 'VALID')",
        "zeros",
        [3, 4, 4, 4, 3],
    ),
    Row(
        "TensorFlow 2.21, no channels, batch 1",
        "conv3d_transpose(ones(1,2,2,2,0), ones(3,3,3,3,0), [1,4,4,4,3], 1, 'VALID')",
        "zeros",
        [1, 4, 4, 4, 3],
    ),
    Row(
        "TensorFlow 2.21, no channels, float64, SAME",
        "conv3d_transpose(np.ones((1,2,2,2,0)), np.ones((3,3,3,3,0)), [1,4,4,4,3], 2)",
        "zeros",
        [1, 4, 4, 4, 3],
    ),
    Row(
        "tensorflow#94114",
        "conv3d_transpose(ones(1,3,1,1,1), ones(7,6,9,2,3), [5], 1, 'SAME', 'NCDHW')",
        "ValueError",
        r"output_shape must be None or 5 integers .* got 1: \[5\]",
    ),
    Row(
        "tensorflow#94114, channels as reported",
        "conv3d_transpose(ones(1,1,1,1,1), ones(7,6,9,2,3), None, 1, 'SAME', 'NCDHW')",
        "ValueError",
        r"filters\.shape\[4\] = 3 must be the input's channels, 1",
    ),
    Row(
        "tensorflow#57495",
        "checked(ones(0,4,1,1,3), ones(3,1,1,2,3), [0,6,1,1,2], 1, 'VALID')",
        "result",
        [0, 6, 1, 1, 2],
    ),
    Row(
        "tensorflow#61539",
        "conv3d_transpose(ones(2,4,4,4,3), ones(0,1,2,5,3), [2,8,8,8,5], 2)",
        "ValueError",
        NO_TAPS.format(0, "depth"),
    ),
    Row(
        "tensorflow#61573",
        "conv3d_transpose(ones(2,5,6,4,3), ones(3,3,3,2,3), [2,11,13,9,False], 2, 'VALID')",
        "TypeError",
        r"output_shape\[4\] must be an integer, got False \(bool\)",
    ),
    Row(
        "tensorflow#85246",
        "conv3d_transpose(ones(1,1,1,1), ones(14,1,9,10,0), np.zeros(0, np.complex128), "
        "[5717580618211388939])",
        "ValueError",
        r"input must have 5 dimensions .* got shape \(1, 1, 1, 1\)",
    ),
    Row(
        "tensorflow#85246, output_shape alone",
        "conv3d_transpose(ones(1,1,1,1,1), ones(1,1,1,1,1), np.zeros(5, np.complex128), 1)",
        "TypeError",
        r"output_shape\[0\] must be an integer, got 0j \(complex\)",
    ),
    Row(
        "tensorflow#85246, strides alone",
        "conv3d_transpose(ones(1,1,1,1,1), ones(1,1,1,1,1), None, [5717580618211388939])",
        "ValueError",
        r"output of shape .* takes more bytes than a signed 64-bit integer counts",
    ),
    Row(
        "tensorflow#85246, strides alone, an output that fits",
        "checked(ones(1,1,1,1,1), ones(1,1,1,1,1), [1,1,1,1,1], [5717580618211388939])",
        "result",
        [1, 1, 1, 1, 1],
    ),
    Row(
        "keras#16953",
        "conv3d_transpose(ones(3,2,2,2,0), ones(3,3,3,3,0), None, 1, 'VALID')",
        "zeros",
        [3, 4, 4, 4, 3],
    ),
    Row(
        "tensorflow#60195",
        "conv3d_transpose(ones(3), ones(1,1,1,1,1), None, 1)",
        "ValueError",
        r"input must have 5 dimensions .* got shape \(3,\)",
    ),
    Row(
        "tensorflow#118340",
        "conv3d_transpose(ones(1,2,3,4), ones(1,1,1,1,2), None, 1, 'SAME', 'NCDHW')",
        "ValueError",
        r"input must have 5 dimensions \[batch, channels, depth, height, width\], got shape \(1, 2, 3, 4\)",
    ),
    Row(
        "tensorflow#57715",
        "conv3d_transpose(ones(1,1,1,1,1), ones(1,1,1,1,1), [2,-2], 1)",
        "ValueError",
        r"output_shape\[1\] = -2 must be at least -1",
    ),
    Row(
        "tensorflow#57715, five sizes",
        "conv3d_transpose(ones(1,1,1,1,1), ones(1,1,1,1,1), [1,1,-2,1,1], 1)",
        "ValueError",
        r"output_shape\[2\] = -2 must be at least -1",
    ),
    Row(
        "tensorflow#57958",
        "conv3d_transpose(ones(1,1,1,1,1), ones(1,1,1,1,1), [114078056,179835296], 1)",
        "ValueError",
        r"output_shape must be None or 5 integers .* got 2: \[114078056, 179835296\]",
    ),
    Row(
        "tensorflow#125506",
        "conv3d_transpose(ones(1,2,2,2,1), 8, (2,2), 1)",
        "TypeError",
        r"filters dtype int64 must be the input's, float32",
    ),
    Row(
        "tensorflow#62950",
        "checked(ones(1,2,2,2,1), ones(3,3,3,1,1), [1,2,4,6,1], [1,2,3])",
        "result",
        [1, 2, 4, 6, 1],
    ),
    Row(
        "tensorflow#78428",
        "conv3d_transpose(ones(1,1,1,1,1), ones(1,1,1,1,1), [1,999999999999,1,1,1], 1)",
        "ValueError",
        r"output_shape\[1\] = 999999999999 \(depth\) can't come from input depth 1 .* only 1",
    ),
    Row(
        "tensorflow#78428, rank 1",
        "conv3d_transpose(ones(1,1,1,1,1), ones(1), [1,1], 1)",
        "ValueError",
        r"filters must have 5 dimensions .* got shape \(1,\)",
    ),
    Row(
        "oneDNN in TensorFlow: sizes that are no vector",
        "conv3d_transpose(ones(1,1,1,1,1), ones(1,1,1,1,1), [[1,1,1,1,1]], 1)",
        "TypeError|ValueError",
        r"output_shape",
    ),
    Row(
        "oneDNN in TensorFlow: one size",
        "conv3d_transpose(ones(1,1,1,1,1), ones(1,1,1,1,1), 5, 1)",
        "TypeError",
        r"output_shape must be None or 5 integers, got 5 \(int\)",
    ),
    Row(
        "pytorch#142457",
        "conv3d_transpose(ones(1,2,2,2,1), ones(2,2,2,1,1), None, 1, 'VALID', None, 1879048192)",
        "ValueError",
        r"output of shape .* takes more bytes than a signed 64-bit integer counts",
    ),
    Row(
        "pytorch#142457, one axis",
        "conv3d_transpose(ones(1,2,2,2,1), ones(2,1,1,1,1), None, 1, 'VALID', None, [1879048192*64,1,1])",
        "MemoryError",
        r"Unable to allocate",
    ),
    Row(
        "pytorch#142457, cropped",
        "checked(ones(1,2,2,2,1), ones(2,2,2,1,1), [1,2,2,2,1], 1, 'SAME', None, 1879048192)",
        "zeros",
        [1, 2, 2, 2, 1],
    ),
    Row(
        "pytorch#77901",
        "conv3d_transpose(ones(1,2,2,2,1), ones(2,2,2,1,1), None, 1, "
        "[(-1250999896764,0)]*3, None, 1250999896764)",
        "ValueError",
        r"padding\[0\]\[0\] = -1250999896764 must be at least 0",
    ),
    Row(
        "pytorch#142209",
        "conv3d_transpose(ones(1,1,1,1,1,1,1), ones(1,0,1,1,1,1,1), None, 498444555, "
        "[(1610637938,1610637938)]*3, None, 4, groups=2)",
        "ValueError",
        r"input must have 5 dimensions",
    ),
    Row(
        "pytorch#142209, five dimensions",
        "conv3d_transpose(ones(1,1,1,1,2), ones(1,1,1,2,1), None, 498444555, "
        "[(1610637938,1610637938)]*3, None, 4, groups=2)",
        "ValueError",
        r"output_shape\[1\] = -3221275875 \(depth, inferred\) can't come from input depth 1",
    ),
    Row(
        "pytorch#91550",
        "conv3d_transpose(ones(1,2,2,2,1,dtype=np.complex64), "
        "ones(2,2,2,1,1,dtype=np.complex64), None, 1, groups=0)",
        "TypeError",
        r"input dtype complex64 must be float16, bfloat16, float32 or float64",
    ),
    Row(
        "pytorch#91550, groups alone",
        "conv3d_transpose(ones(1,2,2,2,1), ones(2,2,2,1,1), None, 1, groups=0)",
        "ValueError",
        r"groups = 0 must be at least 1",
    ),
    Row(
        "pytorch#136722",
        "conv3d_transpose(ones(1,2,2,2,1), ones(2,2,2,1,1), None, 0)",
        "ValueError",
        r"strides = 0 must be at least 1",
    ),
    Row(
        "pytorch#121095",
        "conv3d_transpose(ones(1,2,2,2,1), ones(2,2,2,1,1), None, [])",
        "ValueError",
        r"strides must be an integer, or 1, 3 or 5 integers .* got 0: \[\]",
    ),
    Row(
        "pytorch#94125",
        "checked(ones(2,0,3,0,1), ones(2,2,2,1,1), None, 3)",
        "result",
        [2, 0, 9, 0, 1],
    ),
    Row(
        "pytorch#5112",
        "checked(ones(1,3,3,3,2), ones(3,3,3,2,2), [1,10,10,10,2], 2, 'VALID', None, 2)",
        "result",
        [1, 10, 10, 10, 2],
    ),
    Row(
        "pytorch#964",
        "conv3d_transpose(ones(1,3,3,3,2), ones(3,3,3,2,2), [1,8,8,8,2], 2, 'VALID', None, 2)",
        "ValueError",
        r"output_shape\[1\] = 8 \(depth\) can't come from .*: allowed 9 to 10",
    ),
    Row(
        "pytorch#9264",
        "checked(ones(1,111,63,111,1), ones(4,4,4,1,1), None, 1, 'VALID', None, 2)",
        "result",
        [1, 117, 69, 117, 1],
    ),
    Row(
        "pytorch#165654",
        "checked(ones(1,1,1,1000,8), ones(1,1,16,8,8), None, [1,1,8])",
        "result",
        [1, 1, 1, 8000, 8],
    ),
    Row(
        "pytorch#144611",
        "checked(ones(1,1,40000,1,1), ones(1,1,1,1,1), None, [1,200,1])",
        "result",
        [1, 1, 8000000, 1, 1],
    ),
    Row(
        "onnxruntime#29446",
        "conv3d_transpose(ones(1,1,2,2,1,3), ones(1,3,3,1,3), None, [1,2,2])",
        "ValueError",
        r"input must have 5 dimensions .* got shape \(1, 1, 2, 2, 1, 3\)",
    ),
    Row(
        "onnxruntime#29446, larger than natural",
        "conv3d_transpose(ones(1,2,2,2,3), ones(3,3,3,1,3), [1,9,5,5,1], 2, 'VALID')",
        "ValueError",
        r"output_shape\[1\] = 9 \(depth\) can't come from .*: allowed 5 to 6",
    ),
    Row(
        "onnxruntime#29446, dilation above the stride",
        "conv3d_transpose(ones(1,2,2,2,3), ones(3,3,3,1,3), [1,11,9,9,1], 2, 'VALID', None, 3)",
        "ValueError",
        r"output_shape\[1\] = 11 \(depth\) can't come from .*: allowed 9 to 10",
    ),
    Row(
        "onnxruntime#28524",
        "conv3d_transpose(ones(1,2,2,2,1), ones(2,2,2,1,1), None, 1, dilations=[1,-1,1])",
        "ValueError",
        r"dilations\[1\] = -1 must be at least 1",
    ),
    Row(
        "onnxruntime#32679",
        "conv3d_transpose(ones(1,2,2,2,1), ones(2,1,1), None, 1)",
        "ValueError",
        r"filters must have 5 dimensions .* got shape \(2, 1, 1\)",
    ),
    Row(
        "rten#1398",
        "checked(ones(1,2,2,2,1), ones(5,5,5,1,1), [1,2,2,2,1], 1, [(40,40)]*3, None, 20)",
        "result",
        [1, 2, 2, 2, 1],
    ),
    Row(
        "tensorflow#112774",
        "conv3d_transpose(ones(1,1,1,1,1), thin(1300,1300,1300,1,1), [1,1,1,1,1], 1)",
        "MemoryError",
        r"Unable to allocate",
    ),
    Row(
        "jittor#528",
        "conv3d_transpose(ones(1,2,2,2,1), ones(2,2,2,1,1), None, [1,-2,-2,-2,1])",
        "ValueError",
        r"strides\[1\] = -2 must be at least 1",
    ),
    Row(
        "oneflow#10519",
        "conv3d_transpose(ones(1,2,2,2,1), ones(2,2,2,1,1), [1,2,2,2,-3], 1)",
        "ValueError",
        r"output_shape\[4\] = -3 must be at least -1",
    ),
    # --- the same of the convolution and of the gradient in the filters, as they were reported
    Row(
        "CVE-2021-29517, Conv3D",
        "conv3d(ones(0,0,0,0,0), ones(0,0,0,0,0), [1,56,56,56,1], 'VALID', 'NDHWC', [1,1,1,23,1])",
        "ValueError",
        NO_TAPS.format(0, "depth"),
    ),
    Row(
        "CVE-2021-29517, Conv3D, no channels",
        "conv3d(ones(2,2,2,2,0), ones(1,1,2,0,2), [1,56,39,34,1], 'VALID')",
        "zeros",
        [2, 1, 1, 1, 2],
    ),
    Row(
        "CVE-2021-29520, Conv3DBackpropFilter",
        "conv3d_transpose_filter_gradient(ones(1,1,1,1,1), ones(1,1,1,1,2), [4,1,6,1,1], "
        "[1,89,29,89,1], 'SAME')",
        "ValueError",
        r"output_gradient\.shape\[4\] = 2 \(channels\) must be the filters' out_channels, 1",
    ),
    Row(
        "CVE-2021-29522, Conv3DBackpropFilter",
        "conv3d_transpose_filter_gradient(ones(1,1,1,1,0), ones(1,1,1,1,1), [0,0,0,1,0], 1, 'SAME')",
        "ValueError",
        NO_TAPS.format(0, "depth"),
    ),
    Row(
        "CVE-2021-29538, Conv3DBackpropFilter",
        "conv3d_transpose_filter_gradient(ones(0,0,0,0,0), ones(0,0,0,0,0), [1,1,1,0,0], 1)",
        "result",
        [1, 1, 1, 0, 0],
    ),
    Row(
        "CVE-2022-29196, Conv3DBackpropFilter",
        "conv3d_transpose_filter_gradient(ones(2,2,2,2,1,dtype=np.float16), "
        "ones(2,2,2,2,1,dtype=np.float16), 8, 1)",
        "TypeError",
        r"filters\.shape must be 5 integers, got 8 \(int\)",
    ),
    Row(
        "CVE-2021-41209, Conv3D",
        "conv3d(ones(1,2,2,2,3), ones(0), 1, 'SAME')",
        "ValueError",
        r"filters must have 5 dimensions .* got shape \(0,\)",
    ),
    Row(
        "CVE-2022-35996, Conv3D",
        "convolved(ones(0,4,4,4,3), ones(2,2,2,3,4), 2)",
        "result",
        [0, 2, 2, 2, 4],
    ),
    Row(
        "CVE-2023-25661, Conv3D",
        "convolved(ones(1,32,32,0,3), ones(3,3,3,3,2), 1)",
        "result",
        [1, 32, 32, 0, 2],
    ),
    Row(
        "pytorch#142457, Conv3D",
        "conv3d(ones(1,2,2,2,1), ones(2,2,2,1,1), 1, 'VALID', None, 1879048192)",
        "ValueError",
        r"input\.shape\[1\] = 2 \(depth\) is less than the kernel spans: .* at least 1879048193",
    ),
    Row(
        "pytorch#142209, Conv3D",
        "conv3d(ones(1,1,1,1,2), ones(1,1,1,1,2), 498444555, [(1610637938,1610637938)]*3, None, 4, "
        "groups=2)",
        "zeros",  # no window meets the voxel
        [1, 7, 7, 7, 2],
    ),
    Row(
        "padding beyond 64 bits, Conv3D",
        "conv3d(ones(1,1,1,1,1), ones(1,1,1,1,1), [2**63-1,1,1], [(2**63-1,2**63-1),(0,0),(0,0)])",
        "ValueError",
        r"input depth 1 with kernel 1, .* spans more voxels than a signed 64-bit integer counts",
    ),
    Row(
        "padding as far as 64 bits, Conv3D",
        "conv3d(ones(1,1,1,4,17), ones(1,1,3,17,17), [1,1,2**61], [(0,0),(0,0),(2**62,2**61)])",
        "result",
        [1, 1, 1, 4, 17],
    ),
    Row(
        "rten#1398, Conv3D",
        "convolved(ones(1,2,2,2,1), ones(5,5,5,1,1), 1, [(40,40)]*3, None, 20)",
        "result",
        [1, 2, 2, 2, 1],
    ),
    Row(
        "tensorflow#112774, Conv3D",
        "conv3d(ones(1,1,1,1,1), thin(1300,1300,1300,1,1), 1, 'SAME')",
        "MemoryError",
        r"Unable to allocate",
    ),
    Row(
        "an output beyond memory, Conv3D",
        "conv3d(ones(1,1,1,1,1), ones(1,1,1,1,1), 1, [(2**13,2**13)]*3)",
        "MemoryError",
        r"Unable to allocate",
    ),
    # --- what these imply
    Row(
        "strides of the batch",
        "conv3d_transpose(ones(1,2,2,2,1), ones(2,2,2,1,1), None, [2,1,1,1,1])",
        "ValueError",
        r"strides\[0\] = 2 belongs to the batch in NDHWC: it must be 1",
    ),
    Row(
        "dilations of the channels",
        "conv3d_transpose(ones(1,1,2,2,2), ones(2,2,2,1,1), None, 1, 'SAME', 'NCDHW', [1,3,1,1,1])",
        "ValueError",
        r"dilations\[1\] = 3 belongs to the channels in NCDHW: it must be 1",
    ),
    Row(
        "strides beyond 64 bits",
        "conv3d_transpose(ones(1,2,2,2,1), ones(2,2,2,1,1), None, 2**70)",
        "ValueError",
        r"strides = 1180591620717411303424 does not fit a signed 64-bit integer",
    ),
    Row(
        "float sizes",
        "conv3d_transpose(ones(1,2,2,2,1), ones(2,2,2,1,1), np.array([1.,4.,4.,4.,1.]), 2)",
        "TypeError",
        r"output_shape\[0\] must be an integer, got 1.0 \(float\)",
    ),
    Row(
        "no batch, huge output",
        "conv3d_transpose(ones(0,1,1,1,1), ones(1,1,1,1,1), None, [2**20,2**20,2**20])",
        "result",
        [0, 2**20, 2**20, 2**20, 1],
    ),
    Row(
        "no batch, an output beyond 64 bits",
        "conv3d_transpose(ones(0,1,1,1,1), ones(1,1,1,1,1), None, [2**21,2**21,2**21])",
        "ValueError",
        r"output of shape .* takes more bytes than a signed 64-bit integer counts",
    ),
    Row(
        "no channels, an output beyond memory",
        "conv3d_transpose(ones(1,4096,4096,4096,0), ones(1,1,1,1,0), None, 16)",
        "MemoryError",
        r"Unable to allocate",
    ),
]


@pytest.fixture(scope="module")
def answers() -> dict[int, tuple[str, Any]]:
    """Run all rows; after a crash, the rest in another child."""
    found: dict[int, tuple[str, Any]] = {}
    while len(found) < len(ROWS):
        rest = [(i, row.call) for i, row in enumerate(ROWS) if i not in found]
        lines, errors = run_child(json.dumps(rest))
        assert lines, errors
        for line in lines:
            number, kind, answer = json.loads(line)
            found[number] = kind, answer or errors
    return found


def run_child(rows: str) -> tuple[list[str], str]:
    """Return what a child says of `rows` until it is done, dies, or is hung."""
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as child:
        try:
            output, errors = child.communicate(rows, timeout=40)
        except subprocess.TimeoutExpired:
            child.kill()
            output, errors = child.communicate()
    return output.splitlines(), f"ended with {child.returncode}: {errors[-500:]}"


@pytest.mark.slow  # the first asks for all rows, in a process of its own
@pytest.mark.parametrize("number", range(len(ROWS)), ids=[row.source for row in ROWS])
def test_no_crash(number: int, answers: dict[int, tuple[str, Any]]) -> None:
    row, (kind, answer) = ROWS[number], answers[number]
    assert kind in row.kind.split("|"), answer
    if kind in ("result", "zeros"):
        assert answer == row.answer
    else:
        assert re.search(row.answer, answer), answer
