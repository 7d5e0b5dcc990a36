"""The threads that compute, so that the event loop does not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """A fixed number of threads. numpy, hashlib and the codecs let go of the interpreter while they work."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor

    async def run(
        self,
        function: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a function in a thread.

        When the caller is cancelled the thread works on to its end, as threads do; what it made is closed then, if it
        can be.
        """
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_close_unwanted)
            raise


def _close_unwanted(future: "asyncio.Future[T]") -> None:
    if not future.cancelled() and future.exception() is None:
        file = getattr(future.result(), "file", None)
        if file is not None:
            file.close()


@asynccontextmanager
async def pool(threads: int) -> AsyncIterator[Pool]:
    """Threads while the block runs; leaving it waits for none of them."""
    executor = ThreadPoolExecutor(threads, thread_name_prefix="encoder")
    try:
        yield Pool(executor)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
