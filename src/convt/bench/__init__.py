"""Measuring convt against other libraries, and against this machine's own limits.

`measure.run` is the whole of it: every library works in a process of its own, turns alternate between
convt and one other library, results are checked before they are timed, and only ratios of neighbouring
turns are compared, since a machine's speed drifts. `convt bench` and ``python -m benchmarks`` print,
draw and write down what it finds.
"""

from __future__ import annotations
