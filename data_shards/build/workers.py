"""Worker processes for shards: they get one shard at a time, and end with their parent."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from data_shards.io.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
_TASKS_AHEAD = 2  # for each process, so that none waits for its next task


def for_each(
    work: Callable[[Task], Result], tasks: Iterator[Task], count: int, processes: int
) -> Generator[tuple[Task, Result], None, None]:
    """Each of `count` tasks with its result, in the order in which they are finished.

    Tasks are made as they are needed. When the iterator is closed early, or this process is interrupted, the workers
    end at once. Raises InputError where a worker was killed.
    """
    if processes == 1 or count < 2:
        for task in tasks:
            yield task, work(task)
        return
    processes = min(processes, count)
    ended, end = multiprocessing.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, (work, ended))
    running: dict[Future[Any], Task] = {}
    try:
        for task in tasks:
            running[_submit(pool, task)] = task
            if len(running) >= processes * _TASKS_AHEAD:
                yield from _finished(running)
        while running:
            yield from _finished(running)
    except BrokenProcessPool as error:
        raise InputError("a worker process was killed, perhaps for memory; use fewer", parameter="processes") from error
    except BaseException:
        end.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        end.close()
        ended.close()


def _finished(running: dict[Future[Any], Task]) -> Iterator[tuple[Task, Any]]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield running.pop(future), future.result()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Processes that start in this block do not import the script that calls, as Python has it.

    A script that builds shards at its top level, not below `if __name__ == "__main__"`, would build them in each.
    """
    former = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = former


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the end of this block, in which a process starts and is told what it needs.

    The process inherits that Ctrl-C is blocked: a terminal sends it to all, and the parent ends the others. That it is
    blocked here is not enough for this one: another thread, such as NumPy's, may get the signal, and Python then
    interrupts this one.
    """
    held: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for number, handler in handlers.items():
            if handler is not None:  # not Python's
                signal.signal(number, lambda number, frame: held.append(number))
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


def _submit(pool: ProcessPoolExecutor, task: Any) -> Future[Any]:
    with _uninterrupted(), _without_main():
        return pool.submit(_work, task)


_kept_open: list[Connection] = []
_work_in_this_process: Callable[[Any], Any]  # set once a worker


def _work(task: Any) -> Any:
    return _work_in_this_process(task)


def _begin(work: Callable[[Any], Any], ended: Connection) -> None:
    global _work_in_this_process
    _work_in_this_process = work
    _kept_open.append(ended)
    # A worker waits on a pipe that it holds open itself, so it would not end by itself when its parent is killed.
    parent = multiprocessing.parent_process()
    assert parent is not None
    watched = [parent.sentinel, ended.fileno()]

    def watch() -> None:
        multiprocessing.connection.wait(watched)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
