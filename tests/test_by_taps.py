"""Deep layers, a few voxels and many filters: sums tap by tap, added to the output."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import convt
from convt import reference, target
from convt.family import Access
from convt.plan import Plan, make_plan
from convt.spec import make_spec

PROBLEMS = [  # size, channels in and out, kernel, strides, dilations, batch
    ((4, 3, 4), 130, 100, 4, 2, 1, 2),
    ((3, 3, 5), 200, 70, 3, 1, 1, 1),
    ((2, 2, 2), 150, 150, 3, 2, 2, 1),
    ((5, 1, 4), 97, 203, 3, (1, 2, 3), 1, 3),
]
TOLERANCE = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 1e-6, "float64": 2e-15}


def plan_of(x: Any, w: Any, strides: Any, dilations: Any, data_format: str) -> Plan:
    spec = make_spec(
        input_shape=x.shape,
        input_dtype=x.dtype,
        filters_shape=w.shape,
        filters_dtype=w.dtype,
        output_shape=None,
        strides=strides,
        padding="SAME",
        data_format=data_format,
        dilations=dilations,
    )
    return make_plan(spec, target.host(), Access.of(spec, x, w), 2)


@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: f"{p[1]}to{p[2]}k{p[3]}")
def test_both_directions_are_the_definitions(problem: Any, dtype: Any, data_format: str) -> None:
    size, inputs, outputs, kernel, strides, dilations, batch = problem
    rng = np.random.default_rng(0)
    shape = (batch, *size, inputs) if data_format == "NDHWC" else (batch, inputs, *size)
    x = rng.standard_normal(shape).astype(dtype)
    w = rng.standard_normal((*(kernel,) * 3, outputs, inputs)).astype(dtype)
    bias = rng.standard_normal(outputs).astype(dtype)
    assert "by_taps" in plan_of(x, w, strides, dilations, data_format).kernel.name
    geometry = (strides, "SAME", data_format, dilations)
    found = [
        convt.conv3d_transpose(
            x, w, None, *geometry, bias=bias, threads=threads, algorithm="direct"
        ).astype(np.float64)
        for threads in (1, 2)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    expected = reference.conv3d_transpose(x, w, None, *geometry, bias=bias, dtype=np.float64)
    limit = TOLERANCE[np.dtype(dtype).name]
    assert np.abs(found[0] - expected).max() < limit * np.abs(expected).max()
    y = expected.astype(dtype)
    back = convt.conv3d(y, w, *geometry, algorithm="direct").astype(np.float64)
    expected = reference.input_gradient(y, w, size, *geometry, dtype=np.float64)
    assert np.abs(back - expected).max() < limit * np.abs(expected).max()


def test_it_writes_into_an_array_of_any_strides() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 3, 3, 3, 130), np.float32)
    w = rng.standard_normal((3, 3, 3, 101, 130), np.float32)
    expected = convt.conv3d_transpose(x, w, None, 2, algorithm="direct")
    room = np.full((1, 6, 12, 6, 104), np.nan, np.float32)
    convt.conv3d_transpose(x, w, None, 2, out=room[:, :, ::2, :, 1:102], algorithm="direct")
    np.testing.assert_array_equal(room[:, :, ::2, :, 1:102], expected)
    assert np.isnan(room[:, :, 1::2]).all()
    assert np.isnan(room[..., [0, 102, 103]]).all()


def test_small_filters_go_box_by_box() -> None:
    x = np.ones((1, 8, 8, 8, 16), np.float32)
    w = np.ones((3, 3, 3, 16, 16), np.float32)
    assert "by_taps" not in plan_of(x, w, 2, 1, "NDHWC").kernel.name
