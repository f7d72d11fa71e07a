"""The same map over this process, local processes, or a Dask cluster.

Work is given out one item at a time and at most two items a worker are on their way, so memory does not grow with the
number of items. Results come back as they are ready, with the index of their item. A worker process that dies takes
one item with it: that item's outcome is an error, and a new worker goes on with the rest.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from medtool.errors import InputError, MissingExtraError, UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")
Context = TypeVar("Context")

MAX_AUTOMATIC_WORKERS = 16


class WorkerDiedError(InputError):
    """A worker process ended without an answer: killed, out of memory, or crashed in a decoder."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """What became of one item: a value, or the error that its worker raised."""

    index: int
    value: Result | None = None
    error: BaseException | None = None

    def get(self) -> Result:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


def cpu_count() -> int:
    """Return how many processors this process may use, by affinity and container limits."""
    import joblib

    return int(joblib.cpu_count())


def choose_workers(wanted: int, *, items: int, least_items: int = 8) -> int:
    """Return how many processes to use; ``wanted`` 0 means automatic.

    Automatic is one for each usable processor, at most 16, and one for fewer than ``least_items`` items: starting a
    process costs more than it gains there.
    """
    if wanted < 0:
        raise UsageError(f"workers is {wanted}; it must be 0 (automatic) or more")
    if wanted:
        return wanted
    if items < least_items:
        return 1
    return max(1, min(cpu_count(), MAX_AUTOMATIC_WORKERS, items))


def map_unordered(
    function: Callable[[Context, Item], Result],
    items: Sequence[Item],
    *,
    setup: Callable[[], Context],
    workers: int = 1,
    cluster: str | None = None,
) -> Generator[Outcome[Result]]:
    """Yield the outcome of ``function(context, item)`` for every item, in the order in which they end.

    Parameters
    ----------
    function
        Importable by name, with picklable arguments and results, as it may run in another process.
    setup
        Called once in each worker; what it returns is handed to every call there. Picklable.
    workers
        1 works in this process; more starts that many processes (by spawning, on every system).
    cluster
        Address of a Dask scheduler; the work then runs there instead. The files must be at the same paths there.
    """
    if cluster is not None:
        yield from _on_cluster(function, items, setup, cluster)
    elif workers <= 1:
        yield from _in_process(function, items, setup)
    else:
        yield from _in_processes(function, items, setup, min(workers, max(1, len(items))))


def _attempt(function: Callable[[Context, Item], Result], context: Context, index: int, item: Item) -> Outcome[Result]:
    try:
        return Outcome(index, value=function(context, item))
    except Exception as error:
        return Outcome(index, error=error)


def _in_process(
    function: Callable[[Context, Item], Result], items: Sequence[Item], setup: Callable[[], Context]
) -> Iterator[Outcome[Result]]:
    if not items:
        return
    context = setup()
    for index, item in enumerate(items):
        yield _attempt(function, context, index, item)


class _Worker:
    """One spawned process and the pipe to it; ``pending`` holds the indices it has been given and not answered."""

    def __init__(self, payload: bytes) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe(duplex=True)
        self.pending: list[int] = []
        self.process = spawn.Process(target=_work, args=(theirs, payload), daemon=True)
        with _one_thread_each():
            self.process.start()
        theirs.close()  # so that the process's death is an end of file here

    def give(self, index: int, item: Any) -> None:
        self.pending.append(index)
        # A pipe that broke just now is seen as an end of file at the next wait.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send((index, item))

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep numerical libraries of the children from starting a thread a processor in every one of them."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _work(pipe: Connection, payload: bytes) -> None:
    """Body of a worker process: it ends with its parent, and leaves interrupts to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout = sys.stderr  # stdout is the parent's, for its data
    threading.Thread(target=_end_with_parent, daemon=True).start()
    function, setup = pickle.loads(payload)
    context = None
    failure: Exception | None = None
    try:
        context = setup()
    except Exception as error:
        failure = error
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            index, item = pipe.recv()
            outcome = Outcome(index, error=failure) if failure else _attempt(function, context, index, item)
            pipe.send_bytes(_packed(outcome))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _packed(outcome: Outcome[Any]) -> bytes:
    try:
        return pickle.dumps(outcome)
    except Exception as error:
        lost = outcome.error or error
        return pickle.dumps(Outcome(outcome.index, error=InputError(f"{type(lost).__name__}: {lost}")))


def _in_processes(
    function: Callable[[Context, Item], Result], items: Sequence[Item], setup: Callable[[], Context], workers: int
) -> Iterator[Outcome[Result]]:
    payload = pickle.dumps((function, setup))
    waiting = iter(range(len(items)))
    crew: list[_Worker] = []

    def feed(worker: _Worker) -> None:
        while len(worker.pending) < 2 and (index := next(waiting, None)) is not None:
            worker.give(index, items[index])

    try:
        for _ in range(workers):
            crew.append(_Worker(payload))
            feed(crew[-1])
        while any(worker.pending for worker in crew):
            ready = wait([worker.pipe for worker in crew if worker.pending])
            for worker in [worker for worker in crew if worker.pipe in ready]:
                try:
                    outcome: Outcome[Result] = pickle.loads(worker.pipe.recv_bytes())
                except (EOFError, ConnectionResetError):
                    lost, *untouched = worker.pending
                    worker.process.join()
                    yield Outcome(lost, error=_death(worker.process.exitcode))
                    worker.stop()
                    fresh = _Worker(payload)
                    crew[crew.index(worker)] = fresh
                    for index in untouched:
                        fresh.give(index, items[index])
                    feed(fresh)
                    continue
                worker.pending.remove(outcome.index)
                feed(worker)
                yield outcome
    finally:
        for worker in crew:
            worker.stop()


def _death(exitcode: int | None) -> WorkerDiedError:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name if -exitcode in signal.valid_signals() else f"signal {-exitcode}"
        advice = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return WorkerDiedError(f"the worker process was ended by {name}{advice}")
    return WorkerDiedError(f"the worker process ended with code {exitcode} and no answer")


# By the call and the thread: what a context holds, an open file or a network, is not made for several at once. A new
# call forgets the contexts of earlier ones, whose files may have changed since.
_CLUSTER_CONTEXTS: dict[tuple[str, int], Any] = {}


def _attempt_on_cluster(payload: bytes, key: str, index: int, item: Any) -> Outcome[Any]:
    function, setup = pickle.loads(payload)
    place = (key, threading.get_ident())
    if place not in _CLUSTER_CONTEXTS:
        for earlier in [place for place in _CLUSTER_CONTEXTS if place[0] != key]:
            _CLUSTER_CONTEXTS.pop(earlier, None)
        _CLUSTER_CONTEXTS[place] = setup()
    return _attempt(function, _CLUSTER_CONTEXTS[place], index, item)


def connect(address: str) -> Any:
    """Return a client of a Dask scheduler that has workers.

    Raises
    ------
    MissingExtraError
        If Dask is not installed.
    UsageError
        If no scheduler answers there, or it has no worker within 10 seconds.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingExtraError("cluster", needed_for="working on a Dask cluster") from error
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {address!r}", hint="dask scheduler; then --cluster tcp://HOST:8786"
        ) from error
    try:
        client.wait_for_workers(1, timeout=10)
    except TimeoutError as error:
        client.close()
        raise UsageError(f"the Dask scheduler at {address!r} has no workers", hint=f"dask worker {address}") from error
    return client


def _on_cluster(
    function: Callable[[Context, Item], Result], items: Sequence[Item], setup: Callable[[], Context], address: str
) -> Iterator[Outcome[Result]]:
    client = connect(address)
    from distributed import KilledWorker, as_completed

    payload = pickle.dumps((function, setup))
    key = secrets.token_hex(16)
    with client:
        waiting = iter(range(len(items)))
        threads = max(1, sum(client.nthreads().values()))

        def submit(index: int) -> Any:
            future = client.submit(_attempt_on_cluster, payload, key, index, items[index], pure=False)
            future.medtool_index = index
            return future

        first = [submit(index) for index in (next(waiting, None) for _ in range(2 * threads)) if index is not None]
        done = as_completed(first, loop=client.loop)
        for future in done:
            index = future.medtool_index
            failure = future.exception()
            if isinstance(failure, KilledWorker):
                yield Outcome(index, error=WorkerDiedError("the cluster's workers died on it several times"))
            elif failure is not None:
                yield Outcome(index, error=failure)
            else:
                yield future.result()
            if (following := next(waiting, None)) is not None:
                done.add(submit(following))


if sys.platform == "win32":  # a Windows wait takes at most 63 handles
    MAX_AUTOMATIC_WORKERS = min(MAX_AUTOMATIC_WORKERS, 60)
