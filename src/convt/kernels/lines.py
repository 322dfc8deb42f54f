"""Output rows one after the other, for the families whose tiles are stretches of a row.

The rows that the same taps reach on depth and height share one list of runs.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

from convt.kernels.driver import Share, segment, segments, tap
from convt.kernels.ir import Value
from convt.kernels.keys import Dots, Rows
from convt.kernels.sums import RunList, Runs

__all__ = ["Lines"]


Kernel = TypeVar("Kernel", Dots, Rows)


class Lines(Share[Kernel]):
    """The rows of one task."""

    @abstractmethod
    def first_column(self) -> Value:
        """The first column that the row's tiles read."""

    @abstractmethod
    def tap_rows(self, index: Value) -> Value:
        """Where a pair of depth and height taps lies in the filters, in rows of all input channels."""

    @abstractmethod
    def row(self, runs: Runs, x: Value, y: Value, height: Value) -> None:
        """Emit one row of every output channel: `x` is its first column, `y` its first output.

        `height` is its number among the output's rows.
        """

    def compute(self) -> None:
        """Emit the loops over rows."""
        b, task = self.b, self.task
        with segments(b, task, "d") as d, segments(b, task, "h") as h:
            index = zip("dh", (d, h), strict=True)
            box = {axis: segment(b, self.fields, axis, i) for axis, i in index}
            runs = self._runs(box)
            counts = [(b.i64(0), box[axis]["count"]) for axis in "dh"]
            with b.loop(*task.batch) as n, b.loop(*counts[0]) as i, b.loop(*counts[1]) as j:
                x = {"n": n, "w": self.first_column()}
                y = {"n": n, "w": task.chunks["w"]["out_first"]}
                for axis, place in zip("dh", (i, j), strict=True):
                    step, pitch = self.fields[f"step_{axis}"], self.fields[f"pitch_{axis}"]
                    x[axis] = b.add(box[axis]["in_first"], b.mul(place, step))
                    y[axis] = b.add(box[axis]["out_first"], b.mul(place, pitch))
                self.row(runs, self.x.at(b, **x), self.y.at(b, **y), y["h"])

    def _runs(self, box: dict[str, dict[str, Value]]) -> Runs:
        """List the pairs of depth and height taps that reach the box, in order."""
        b, fields, x = self.b, self.fields, self.x
        listed = RunList(b, fields, self.scratch, x.c)
        taps = {a: b.loop(box[a]["tap_first"], box[a]["tap_end"]) for a in "dh"}
        with taps["d"] as d, taps["h"] as h:
            deep, high = tap(b, fields, "d", d), tap(b, fields, "h", h)
            index = b.add(b.mul(deep["index"], fields["kernel_h"]), high["index"])
            offset = b.neg(b.dot((deep["shift"], x.d), (high["shift"], x.h)))
            listed.add(offset, self.tap_rows(index))
        return listed.runs()
