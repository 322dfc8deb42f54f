"""Where the planner chose a kernel that is not the fastest: every family that could serve, measured.

One thread, by its own processor time, families in alternating turns: other programs on the machine hardly
change a ratio. Shapes are cut down to a few milliseconds of work. Minimal filtering contends where "auto"
may use it: for large enough problems whose transformed filters are not too large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from statistics import median
from time import thread_time

from convt import run, target
from convt.bench.peers import BOUND, GIVEN
from convt.bench.problems import PROBLEMS, Problem, make_data
from convt.bench.tables import Table, milliseconds
from convt.family import POINT_BYTES, WORTH
from convt.plan import Access, Plan, make_plan

__all__ = ["ALLOWED", "Found", "compare", "problems", "report", "table"]

ALLOWED = 1.1  # times as long as the fastest family that the chosen one may take
FAMILIES = ("channels", "rows", "dots", "filtering")
_ROUNDS = 7
_TURN = 2e-3  # seconds, at least
_MOST = 3 * WORTH  # products of a shape that is cut down
_CHANNELS = (
    *((1, 1), (1, 3), (2, 2), (4, 1), (4, 4), (8, 1), (8, 2), (8, 8), (16, 1), (16, 4), (16, 16)),
    *((32, 2), (32, 8), (32, 32), (64, 1), (64, 4), (64, 24), (128, 64)),
)
_KERNELS = ((2, 2), (3, 1), (3, 2), (4, 2), (5, 3))  # taps and stride of each axis


@dataclass(frozen=True, slots=True)
class Found:
    """How long each family took for one problem."""

    problem: Problem
    setting: str  # of filters: "given" or "bound"
    chosen: str  # the planner's family
    seconds: dict[str, float]  # of each family that could serve: the median
    loss: float  # times as long as the fastest other family that the chosen one took; 0: no other

    @property
    def good(self) -> bool:
        """Whether the choice is about as fast as any."""
        return self.loss <= ALLOWED


def problems() -> list[Problem]:
    """The benchmark's shapes, and a grid of channels and kernels between them, cut down."""
    grid = [
        Problem(f"k{k}s{s}_{i}_{o}", i, o, (96,) * 3, (k,) * 3, (s,) * 3)
        for k, s in _KERNELS
        for i, o in _CHANNELS
    ]
    return [cut_down(problem) for problem in (*PROBLEMS.values(), *grid)]


def cut_down(problem: Problem) -> Problem:
    """`problem` with fewer voxels, where it would take more than a few milliseconds."""
    size, batch = list(problem.size), problem.batch
    each = prod(problem.kernel) * problem.in_channels * problem.out_channels
    while batch > 1 and batch * prod(size) * each > _MOST:
        batch //= 2
    while max(size) > 4 and batch * prod(size) * each > _MOST:
        longest = size.index(max(size))
        size[longest] -= max(size[longest] // 4, 1)
    d, h, w = size
    output = None
    if problem.output is not None:  # as many voxels beyond whole strides as before
        axes = zip(problem.output, problem.size, size, problem.strides, strict=True)
        od, oh, ow = (out + (new - old) * stride for out, old, new, stride in axes)
        output = (od, oh, ow)
    return replace(problem, size=(d, h, w), batch=batch, output=output)


def compare(problem: Problem, setting: str) -> Found:
    """Measure every family that could serve `problem`."""
    spec, bound = problem.spec, setting == BOUND
    x, w = make_data(problem)
    y = run.empty_output(spec.output_shape, spec.dtype)
    access = Access.of(spec, x, w)

    def plan(family: str | None) -> Plan:
        return make_plan(
            spec, target.host(), access, 1, family=family, algorithm="auto", bound=bound
        )

    def call(plan: Plan) -> Callable[[], None]:
        packed = run.pack_filters(plan, w, 1)
        if bound:
            return lambda: run.execute(plan, x, packed, None, y)
        return lambda: run.execute(plan, x, run.pack_filters(plan, w, 1, once=True), None, y)

    chosen = plan(None)
    calls = {chosen.kernel.family: call(chosen)}
    for family in FAMILIES:
        if family not in calls and (served := _served(plan, family, bound)):
            calls[family] = call(served)
    turns = _take_turns(calls)
    mine = turns[chosen.kernel.family]
    losses = [_loss(mine, other) for other in turns.values() if other is not mine]
    seconds = {family: median(times) for family, times in turns.items()}
    return Found(problem, setting, chosen.kernel.family, seconds, max(losses, default=0.0))


def _served(plan: Callable[[str], Plan], family: str, bound: bool) -> Plan | None:
    """The plan for `family` if it can serve, and "auto" may use it."""
    try:
        found = plan(family)
    except ValueError:
        return None
    if found.filtered is None:
        return found
    large = found.filtered.elements * found.kernel.wide.bytes > POINT_BYTES[bound]
    return None if large or found.products < WORTH else found


def _take_turns(calls: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Seconds of a call, of each family in each round."""
    repeats = {}
    for family, call in calls.items():
        _seconds(call, 1)  # the first one brings memory and code near
        repeats[family] = int(_TURN / max(_seconds(call, 1), 1e-6)) + 1
    turns: dict[str, list[float]] = {family: [] for family in calls}
    for _ in range(_ROUNDS):
        for family, call in calls.items():
            turns[family].append(_seconds(call, repeats[family]))
    return turns


def _seconds(call: Callable[[], None], repeats: int) -> float:
    start = thread_time()
    for _ in range(repeats):
        call()
    return (thread_time() - start) / repeats


def _loss(mine: Sequence[float], other: Sequence[float]) -> float:
    """How many times as long `mine` takes, by neighbouring turns and by the fastest: the lesser."""
    return min(median(a / b for a, b in zip(mine, other, strict=True)), min(mine) / min(other))


def table(found: Sequence[Found]) -> Table:
    """All families' times, those that lose most first."""
    rows = [
        [
            f.problem.name,
            f.problem.title,
            f.setting,
            f.chosen,
            *(milliseconds(f.seconds[name]) if name in f.seconds else "-" for name in FAMILIES),
            f"{f.loss:.2f}" if f.loss else "",
        ]
        for f in sorted(found, key=lambda f: -f.loss)
    ]
    headings = ["shape", "kernel, stride, input, channels", "filters", "chosen"]
    return Table("Choices", [*headings, *(f"{name} ms" for name in FAMILIES), "loss"], rows, left=4)


def report(chosen: Sequence[Problem], say: Callable[[str], None]) -> Iterator[Found]:
    """Measure `chosen` one by one, telling of those that lose; a loss counts if it shows twice."""
    for problem in chosen:
        for setting in (GIVEN, BOUND):
            found = compare(problem, setting)
            if not found.good:
                again = compare(problem, setting)
                found = min(found, again, key=lambda f: f.loss)
            if not found.good:
                times = ", ".join(f"{n} {milliseconds(s)} ms" for n, s in found.seconds.items())
                say(f"{problem.name} ({problem.title}), {setting}: chose {found.chosen}; {times}")
            yield found
