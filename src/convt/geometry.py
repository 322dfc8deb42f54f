"""One axis at a time: which taps reach which outputs.

Plain integers only; no array is touched here. On one axis the transposed convolution is
``out = stride * in + dilation * tap - pad_before``. Outputs whose ``out + pad_before`` leaves the same
residue modulo the stride form a *phase*. With ``out + pad_before = stride * m + residue``, a tap of the
phase reads the input at ``m - shift``, so a phase is a dense correlation of its few taps. Where the input
ends, fewer taps hit: a *segment* is a run of outputs of one phase that the same taps reach, and a kernel
that walks segments multiplies by no padding at all.

The convolution, its adjoint, is ``in = stride * out + dilation * tap - pad_before``. It has one phase, in
which ``m`` is the output and a tap reads the input at ``stride * m - shift``. Both are covered by two
numbers: from one output of a phase to the next are `pitch` outputs and `step` inputs.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from convt.spec import Spec

__all__ = ["Axis", "Phase", "Segment", "Tap", "axes"]


@dataclass(frozen=True, slots=True, order=True)
class Tap:
    """One kernel position, as a phase sees it."""

    index: int  # position in the kernel
    shift: int  # the tap reads the input at step * m - shift


@dataclass(frozen=True, slots=True, order=True)
class Phase:
    """The outputs ``pitch * m + residue - lead``, and the taps that reach them."""

    residue: int
    taps: tuple[Tap, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """Outputs ``out_first + pitch * j`` for j in range(count), all reached by the same taps."""

    out_first: int
    count: int
    in_first: int  # a tap reads the input at in_first + step * j - shift
    phase: Phase
    tap_first: int  # the taps that reach it are the phase's from this one
    tap_end: int  # to one before this

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The taps that reach the segment."""
        return self.phase.taps[self.tap_first : self.tap_end]


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of a problem, in elements."""

    input: int
    output: int
    kernel: int
    stride: int
    dilation: int
    pad_before: int
    forward: bool = False  # the convolution instead of the transposed one

    @property
    def reach(self) -> int:
        """From the first tap to the last."""
        return (self.kernel - 1) * self.dilation

    @property
    def pitch(self) -> int:
        """Outputs from one of a phase to the next."""
        return 1 if self.forward else self.stride

    @property
    def step(self) -> int:
        """Inputs from those of one output of a phase to those of the next."""
        return self.stride if self.forward else 1

    @property
    def lead(self) -> int:
        """Outputs that the padding takes away before the first."""
        return 0 if self.forward else self.pad_before

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One phase for every residue, in order of the residue; a phase may have no tap."""
        return _phases(self)

    @property
    def correlations(self) -> tuple[Phase, ...]:
        """What the axis is made of, each in steps of 1: a tap reads number ``m - shift`` of its inputs.

        Of a transposed convolution they are the phases, of a convolution the parts of the input: a
        part's inputs are ``stride * q + residue``, and the output sums over the parts.
        """
        if not self.forward:
            return self.phases
        parts: dict[int, list[Tap]] = {}
        for tap in (tap for phase in self.phases for tap in phase.taps):
            part = -tap.shift % self.stride
            parts.setdefault(part, []).append(Tap(tap.index, (tap.shift + part) // self.stride))
        return tuple(Phase(part, tuple(parts[part])) for part in sorted(parts))

    def outputs(self, phase: Phase) -> int:
        """Outputs of one phase."""
        low, high = self._positions(phase, 0, self.output)
        return high - low

    def segments(self, start: int, stop: int) -> tuple[Segment, ...]:
        """Cut the outputs from `start` to `stop` into segments, phase by phase."""
        return tuple(
            segment
            for phase in self.phases
            for segment in self._cut(phase, *self._positions(phase, start, stop))
        )

    def groups(self, start: int, stop: int) -> tuple[Segment, ...]:
        """Segments of groups of one output of every phase, which read the same inputs, as phase 0 has them.

        Where the kernel is as long as whole strides: a tap of phase p is the one of phase 0 plus p. The
        first group may begin before `start`, and the last one end beyond `stop`.
        """
        low, high = (start + self.lead) // self.pitch, -(-(stop + self.lead) // self.pitch)
        return tuple(self._cut(self.phases[0], low, high))

    def reaches(self, start: int, stop: int) -> tuple[Segment, ...]:
        """For each tap that reaches any, the outputs from `start` to `stop` that it reaches."""
        found = []
        for phase in self.phases:
            low, high = self._positions(phase, start, stop)
            for number, tap in enumerate(phase.taps):
                first = max(-(-tap.shift // self.step), low)
                end = min(-((-tap.shift - self.input) // self.step), high)
                if first < end:
                    out_first = self.pitch * first + phase.residue - self.lead
                    reach = Segment(
                        out_first, end - first, self.step * first, phase, number, number + 1
                    )
                    found.append(reach)
        return tuple(found)

    def _cut(self, phase: Phase, low: int, high: int) -> list[Segment]:
        """The segments of a phase for m from `low` to `high`."""
        edges, step = {low, high}, self.step
        for tap in phase.taps:
            ends = (-(-tap.shift // step), -((-tap.shift - self.input) // step))
            edges.update(m for m in ends if low < m < high)
        marks = sorted(edges) if low < high else []
        shifts = [tap.shift for tap in phase.taps]  # ascending, as the taps are
        return [
            Segment(
                out_first=self.pitch * m + phase.residue - self.lead,
                count=end - m,
                in_first=step * m,
                phase=phase,
                tap_first=bisect_right(shifts, step * m - self.input),
                tap_end=bisect_right(shifts, step * m),
            )
            for m, end in pairwise(marks)
        ]

    def _positions(self, phase: Phase, start: int, stop: int) -> tuple[int, int]:
        """The range of m whose outputs lie from `start` to `stop`."""
        first = phase.residue - self.lead
        return -((first - start) // self.pitch), -((first - stop) // self.pitch)

    def input_range(self, start: int, stop: int) -> tuple[int, int]:
        """The inputs, from first to one past the last, that outputs `start` to `stop` read."""
        first, end = self.input, 0
        for phase in self.phases:
            low, high = self._positions(phase, start, stop)
            for tap in phase.taps:
                m = max(low, -(-tap.shift // self.step))
                last = min(high - 1, (self.input - 1 + tap.shift) // self.step)
                if m <= last:
                    first = min(first, self.step * m - tap.shift)
                    end = max(end, self.step * last - tap.shift + 1)
        return min(first, end), end

    @property
    def hits(self) -> int:
        """Pairs of output and tap that meet an input: the products of this axis."""
        return sum(s.count * (s.tap_end - s.tap_first) for s in self.segments(0, self.output))


@lru_cache(maxsize=256)
def _phases(axis: Axis) -> tuple[Phase, ...]:
    if axis.forward:
        reached = (Tap(i, axis.pad_before - axis.dilation * i) for i in range(axis.kernel))
        return (Phase(0, tuple(sorted(reached, key=lambda tap: tap.shift))),) * bool(axis.output)
    # Residues count from that of output 0, so that a stride beyond the output costs nothing.
    first = axis.pad_before % axis.stride
    taps: list[list[Tap]] = [[] for _ in range(min(axis.stride, axis.output))]
    for index in range(axis.kernel):
        shift, residue = divmod(axis.dilation * index, axis.stride)
        position = (residue - first) % axis.stride
        if position < len(taps):
            taps[position].append(Tap(index, shift))
    found = (
        Phase((first + position) % axis.stride, tuple(phase)) for position, phase in enumerate(taps)
    )
    return tuple(sorted(found))


def axes(spec: Spec) -> tuple[Axis, Axis, Axis]:
    """The depth, height and width axes of `spec`."""
    depth, height, width = (
        Axis(*sizes)
        for sizes in zip(
            spec.input_size,
            spec.output_size,
            spec.kernel,
            spec.strides,
            spec.dilations,
            spec.pad_before,
            (spec.forward,) * 3,
            strict=True,
        )
    )
    return depth, height, width
