"""A map over threads: they start at once and hand nothing over, where processes load their libraries first.

Decoders and image filters let other threads run meanwhile, so that a few threads do not wait for one another much. What
they do not give is protection: a decoder that crashes takes everything with it. That is why many items, where the start
does not count, go to processes (:func:`medtool.parallel.map_unordered`). Where there are few processors, to start
processes and to hand pictures over costs a third of the time, however many items there are: there JPEG files, whose one
decoder is the most tried of all, stay with the threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from typing import Final, TypeVar

from threadpoolctl import threadpool_limits

from medtool.parallel import Outcome, cpu_count

Item = TypeVar("Item")
Result = TypeVar("Result")
Context = TypeVar("Context")

#: More threads than this would wait for one another.
MOST_THREADS: Final = 4

_FEW_PROCESSORS: Final = 2  # threads keep so many busy; of four, a third would wait


def have_few_processors() -> bool:
    """Tell whether threads do as much as processes here."""
    return cpu_count() <= _FEW_PROCESSORS


def map_in_threads(
    function: Callable[[Context, Item], Result],
    items: Sequence[Item],
    *,
    setup: Callable[[], Context],
    threads: int,
) -> Iterator[Outcome[Result]]:
    """Yield the outcome of ``function(context, item)`` for every item, in the order in which they end.

    Parameters
    ----------
    setup
        Called once in each thread; what it returns is handed to every call there.
    threads
        1 works in this thread; more than :data:`MOST_THREADS` is as many as that.
    """
    own = threading.local()

    def outcome(index: int) -> Outcome[Result]:
        try:
            if not hasattr(own, "context"):
                own.context = setup()
            return Outcome(index, value=function(own.context, items[index]))
        except Exception as error:
            return Outcome(index, error=error)

    if threads <= 1:
        yield from map(outcome, range(len(items)))
        return
    count = min(threads, MOST_THREADS, max(1, len(items)))
    waiting = iter(range(len(items)))
    # A product of small matrices that is shared out among threads takes longer than one that is not.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(count) as pool:
        # Few at a time, as each keeps what it returns.
        pending = {pool.submit(outcome, index) for index in islice(waiting, 2 * count)}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                pending |= {pool.submit(outcome, index) for index in islice(waiting, len(done))}
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
