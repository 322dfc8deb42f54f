"""From a source to a sink, block by block, within a bound of memory.

Blocks are planned from the bound, then every worker takes one block after another: reads what it needs,
computes, writes, and records it. Workers are threads of this process or of a Dask cluster's; which block is
computed where and when changes nothing in the result. Whatever ends a run, what is recorded stays and can
be gone on with; a run that recorded nothing leaves nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any, Protocol

from numpy.typing import NDArray

from convt.threads import get_num_threads, parse_threads
from convt.volumes.files import StreamError, VolumeError
from convt.volumes.journal import Journal
from convt.volumes.regions import AXES, Five, Region, count, grid, sizes_of
from convt.volumes.stores import Sink, Source

__all__ = ["Compute", "Progress", "block_sizes", "parse_memory", "stream"]

Progress = Callable[[int, int], None]  # bytes of the result that are done, and of all of it
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SPARE = 64 << 20  # bytes of the bound that are left to libraries and to the interpreter
_LARGEST = 256 << 20  # bytes of a block, at most: larger ones gain nothing
_KEPT = 512 << 20  # bytes of the source that are kept for blocks to come, at most
_SMALLEST = (
    2 << 20
)  # bytes of a block, where the memory has room: smaller ones cost more than they bring
_BLOCKS = 8  # for each worker, where there is work for them: the last ones even out


class Compute(Protocol):
    """What turns a block of a source into a block of a result; it can be pickled."""

    @property
    def signature(self) -> str:
        """What the result depends on beside the source."""

    @property
    def resident(self) -> int:
        """Bytes that all blocks share."""

    def input_region(self, region: Region) -> Region:
        """What a block of the result needs of the source."""

    def bytes(self, region: Region) -> int:
        """Bytes that a block of the result takes at its peak."""

    def __call__(self, block: NDArray[Any], region: Region) -> NDArray[Any]:
        """The block of the result, with five axes."""


def stream(
    source: Source,
    sink: Sink,
    compute: Compute,
    *,
    memory: int | str | None = None,
    threads: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> None:
    """Compute a volume from another, piece by piece.

    Parameters
    ----------
    source, sink, compute
        From where, to where, and what.
    memory : int or str, optional
        A bound for this process in bytes, or as ``"1GiB"``; default: a quarter of the machine's memory.
        On a cluster, a bound for the blocks of one worker.
    threads : int, optional
        Blocks that are computed at a time, each by one thread; default `convt.get_num_threads`.
    scheduler : str, optional
        The address of a Dask scheduler whose workers compute; they see the files under the same names.
    resume : bool
        Go on with an unfinished sink, if there is one.
    progress : callable, optional
        Told the bytes that are done and those of all, after every block.

    Raises
    ------
    StreamError
        If the source can't be read, or the sink written: the message is one line, and starts with the path.
    ValueError
        If `memory` does not hold a single block.
    """
    workers = get_num_threads() if threads is None else parse_threads(threads)
    going_on = resume and os.path.exists(sink.part) and os.path.exists(sink.journal)  # noqa: PTH110
    room = parse_memory(memory)
    if going_on:  # with the same blocks, of which fewer may be computed at a time
        block, workers = recorded_blocks(sink, compute, room, workers)
    else:
        block = block_sizes(sink, compute, room, workers)
    source.keep(_left(compute, block, room, workers))
    job = {
        "source": os.path.abspath(source.path),  # noqa: PTH100
        "shape": list(sink.shape),
        "dtype": sink.dtype.name,
        "operation": compute.signature,
        "blocks": list(block),
    }
    if going_on:
        journal = Journal(sink.journal, job, resume=True)
    else:
        with _reporting(sink.path, "can't be written"):
            journal = _begun(sink, job)
    try:
        _run(source, sink, compute, block, journal, workers, scheduler, progress)
    except BaseException:
        if not journal.done:
            sink.discard()
        raise
    with _reporting(sink.path, "can't be written"):
        sink.finish()


def _begun(sink: Sink, job: dict[str, Any]) -> Journal:
    """An empty part and its journal, or nothing."""
    sink.discard()
    try:
        sink.create()
        return Journal(sink.journal, job, resume=False)
    except BaseException:
        sink.discard()
        raise


@dataclass(frozen=True, eq=False)
class _Piece:
    """One block's way from the source to the sink."""

    source: Source
    sink: Sink
    compute: Compute

    def __call__(self, region: Region) -> int:
        with _reporting(self.source.path, "can't be read"):
            block = self.source.read(self.compute.input_region(region))
        found = self.compute(block, region)
        with _reporting(self.sink.path, "can't be written"):
            self.sink.write(region, found)
        return prod(sizes_of(region)) * self.sink.dtype.itemsize


def _run(
    source: Source,
    sink: Sink,
    compute: Compute,
    block: Five,
    journal: Journal,
    workers: int,
    scheduler: str | None,
    progress: Progress | None,
) -> None:
    """All blocks that are not finished."""
    regions = list(enumerate(grid(sink.shape, block)))
    size, item = prod(sink.shape) * sink.dtype.itemsize, sink.dtype.itemsize
    done = sum(prod(sizes_of(region)) * item for n, region in regions if n in journal.done)
    left = [(n, region) for n, region in regions if n not in journal.done]
    if progress is not None:
        progress(done, size)
    piece = _Piece(source, sink, compute)
    run = (
        _by_threads(piece, left, workers)
        if scheduler is None
        else _by_cluster(piece, left, scheduler)
    )
    with closing(run):  # no block is on its way when what is written is removed
        for number, finished in run:
            with _reporting(sink.path, "can't be written"):
                journal.add(number)
            done += finished
            if progress is not None:
                progress(done, size)


def _by_threads(
    piece: _Piece, regions: list[tuple[int, Region]], workers: int
) -> Generator[tuple[int, int], None, None]:
    """Compute blocks by threads of this process; gives what is finished, as it is."""
    todo, crew = iter(regions), ThreadPoolExecutor(workers, "convt-stream")
    # One more than there are workers waits, so that none has to.
    running = {crew.submit(piece, region): n for n, region in islice(todo, workers + 1)}
    try:
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                running.update({crew.submit(piece, region): n for n, region in islice(todo, 1)})
                yield running.pop(future), future.result()
    finally:
        crew.shutdown(cancel_futures=True)


def _by_cluster(
    piece: _Piece, regions: list[tuple[int, Region]], scheduler: str
) -> Generator[tuple[int, int], None, None]:
    """Compute blocks on the workers of a Dask cluster; gives what is finished, as it is."""
    try:
        import distributed as untyped
    except ModuleNotFoundError as error:
        raise ImportError(f'a cluster needs {error.name}: pip install "convt[dask]"') from error
    distributed: Any = untyped
    try:
        client = distributed.Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise StreamError(
            f"{scheduler}: no Dask scheduler answers there: {_line(error)}"
        ) from error
    with client:
        sent, todo = client.scatter(piece, broadcast=True, hash=False), iter(regions)
        done = distributed.as_completed(loop=client.loop)
        running: dict[Any, int] = {}

        def send(blocks: int) -> None:
            for number, region in islice(todo, blocks):
                future = client.submit(_remote, sent, region, pure=False)
                running[future] = number
                done.add(future)

        try:
            send(2 * sum(client.nthreads().values()))  # none of them waits for the next block
            for future in done:
                send(1)
                yield running.pop(future), future.result()
        finally:
            for future in running:  # what a worker has begun it ends
                future.exception()


def _remote(piece: _Piece, region: Region) -> int:
    return piece(region)


# --- memory ---------------------------------------------------------------------------------------
def parse_memory(memory: int | str | None) -> int:
    """A bound of memory in bytes; None is a quarter of the machine's.

    Examples
    --------
    >>> parse_memory("1.5GiB"), parse_memory("200MB"), parse_memory(1 << 20)
    (1610612736, 209715200, 1048576)
    """
    if memory is None:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    if isinstance(memory, int) and not isinstance(memory, bool):
        found = memory
    else:
        match = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?)(i?b)?\s*", str(memory).lower())
        try:
            found = int(float(match[1]) * _UNITS[match[2]]) if match else 0
        except ValueError:
            found = 0
    if found < 1:
        raise ValueError(f"memory must be bytes or a size such as 1GiB, got {memory!r}")
    return found


def block_sizes(sink: Sink, compute: Compute, memory: int, workers: int) -> Five:
    """The blocks that a volume is computed in: multiples of the sink's grain that fit the memory."""
    room = memory - _resident() - _SPARE - compute.resident
    each = min(room // workers, _LARGEST)
    block = list(sink.shape)

    def taken() -> int:
        return compute.bytes(_first(block))

    while taken() > each or count(sink.shape, block) < workers * _BLOCKS:
        steps = [-(-size // grain) for size, grain in zip(block, sink.grain, strict=True)]
        if max(steps) <= 1:
            break
        axis = _cut(steps, block, sink.order)
        block[axis] = -(-steps[axis] // 2) * sink.grain[axis]
        if taken() <= each and taken() < 2 * _SMALLEST:
            break
    if taken() > each:
        least = taken() * workers + memory - room
        raise ValueError(
            f"memory of {memory} bytes is too little for {workers} blocks at a time: "
            f"at least {least} are needed, or fewer threads"
        )
    n, d, h, w, c = block
    return n, d, h, w, c


def recorded_blocks(sink: Sink, compute: Compute, memory: int, workers: int) -> tuple[Five, int]:
    """The blocks that an unfinished volume is made of, and how many fit the memory at a time."""
    found = Journal.read_job(sink.journal).get("blocks", ())
    if len(found) != 5 or not all(isinstance(size, int) and size > 0 for size in found):
        raise VolumeError(f"{sink.journal}: is no journal of an unfinished volume; start anew")
    n, d, h, w, c = found
    taken = max(compute.bytes(_first(found)), 1)
    room = memory - _resident() - _SPARE - compute.resident
    if room < taken:
        raise ValueError(
            f"memory of {memory} bytes is too little for the blocks of the unfinished volume: "
            f"at least {taken + memory - room} are needed"
        )
    return (n, d, h, w, c), min(workers, room // taken)


def _left(compute: Compute, block: Five, memory: int, workers: int) -> int:
    """Bytes that blocks leave of the memory for chunks of the source."""
    room = memory - _resident() - _SPARE - compute.resident
    return max(min(room - workers * compute.bytes(_first(block)), _KEPT), 0)


def _first(block: Sequence[int]) -> Region:
    n, d, h, w, c = ((0, size) for size in block)
    return n, d, h, w, c


def _cut(steps: list[int], block: list[int], order: str) -> int:
    """The axis to halve: the slowest of the file, or the longest where the file has chunks."""
    for axis in order:
        if steps[AXES.index(axis)] > 1:
            return AXES.index(axis)
    return max(range(5), key=lambda axis: (steps[axis] > 1) * block[axis])


def _resident() -> int:
    """Bytes of memory that the process has by now."""
    try:
        with open("/proc/self/statm") as stream:  # noqa: PTH123
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


# --- errors ---------------------------------------------------------------------------------------
@contextmanager
def _reporting(path: str, failure: str) -> Iterator[None]:
    """Turn what a format's library raises into one line that names the file."""
    try:
        yield
    except (StreamError, MemoryError, ImportError, AssertionError):
        raise
    except Exception as error:
        text = getattr(error, "strerror", None) or _line(error)
        text = text.removeprefix(f"{path}: ")
        text = text if text.startswith(failure) else f"{failure}: {text}"
        raise StreamError(f"{path}: {text}") from error


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
