"""Group commit: writes that come together share a transaction, and so one wait for the disk.

While one batch is committed, the next collects. Each caller gets its results after the commit is
durable. A batch is tried as one; when a write in it is refused by the database, everything is undone and
each write is tried in a transaction of its own, so that only the wrong one fails.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from lwm2m_server.errors import Lwm2mError
from lwm2m_server.store.errors import StoreError
from lwm2m_server.store.prepared import driver_errors, driver_of

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

Work = Callable[[Connection], T]
Lane = Callable[[Connection, Sequence[Item]], Sequence[Result | Exception]]
"""Writes items and answers position by position. It may run again after a rollback, with other neighbours."""

MAX_ITEMS = 1000  # in one transaction: bounds how long the first of them waits
MAX_PENDING = 100_000
NEWEST = "newest_event"


@dataclass(slots=True)
class _Job:
    lane: Lane[Any, Any]
    items: Sequence[Any]
    done: asyncio.Future[list[Any]]


class GroupCommit:
    """The only writer of a database.

    `newest` is the number of the newest event that is committed: lanes note it in `connection.info`.
    It works in the one thread of `executor`, on `connection`, which is its own. `on_commit` is called after
    each commit, in the event loop.
    """

    def __init__(
        self,
        connection: Connection,
        executor: Executor,
        *,
        explain: Callable[[Exception], StoreError],
        on_commit: Callable[[], None],
        newest: int = 0,
    ) -> None:
        self.newest = newest
        self._connection = connection
        self._executor = executor
        self._explain = explain
        self._on_commit = on_commit
        self._queue: deque[_Job] = deque()
        self._pending = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._loop(), name="store-writer")

    async def submit(self, lane: Lane[Item, Result], items: Sequence[Item]) -> list[Result | Exception]:
        """Write `items` by `lane` and return what it answers once that is durable.

        Neighbouring submissions of one lane are written together. A result that is an exception stands
        for an item that failed alone. Raises `StoreError` when the database as a whole failed or can't
        keep up.
        """
        if not items:
            return []
        if self._closing:
            raise StoreError("the database is closing", hint="try again after the restart")
        if self._pending + len(items) > MAX_PENDING:
            raise StoreError("the database can't keep up with the writes", hint="try again later")
        job = _Job(lane, items, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        self._pending += len(items)
        self._wake.set()
        return await job.done

    async def run(self, work: Work[T]) -> T:
        """Do `work` in a transaction and return its result once that is durable.

        `work` may run twice (see above). The errors of this project that it raises must come before its first
        write: they go to the caller, and the batch goes on.
        """

        def lane(connection: Connection, _: Sequence[None]) -> Sequence[T | Exception]:
            try:
                return [work(connection)]
            except Lwm2mError as error:
                return [error]

        result = (await self.submit(lane, [None]))[0]
        if isinstance(result, Exception):
            raise result
        return result

    async def close(self) -> None:
        """Write what is waiting, then stop."""
        self._closing = True
        self._wake.set()
        await self._task

    async def _loop(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            jobs = self._take()
            answers = await self._answer(jobs)
            for job, answer in zip(jobs, answers, strict=True):
                self._pending -= len(job.items)
                if job.done.done():  # the caller has gone; what was written stays written
                    continue
                if isinstance(answer, Exception):
                    job.done.set_exception(answer)
                else:
                    job.done.set_result(answer)

    def _take(self) -> list[_Job]:
        jobs = [self._queue.popleft()]
        count = len(jobs[0].items)
        while self._queue and count + len(self._queue[0].items) <= MAX_ITEMS:
            jobs.append(self._queue.popleft())
            count += len(jobs[-1].items)
        return jobs

    async def _answer(self, jobs: list[_Job]) -> list[list[Any] | Exception]:
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._executor, self._write, jobs)
        self._on_commit()
        return answers

    def _write(self, jobs: list[_Job]) -> list[list[Any] | Exception]:
        """Write the batch and return an answer a job; in the writer's thread."""
        try:
            return list(self._commit(jobs))
        except OperationalError as error:  # the database as a whole: trying one by one would not help
            return [self._explain(error)] * len(jobs)
        except Exception as error:  # noqa: BLE001  one caller's mistake must not stop the others
            if len(jobs) == 1 and len(jobs[0].items) == 1:
                return [[self._translate(error)]]
        return [self._one_by_one(job) for job in jobs]

    def _one_by_one(self, job: _Job) -> list[Any] | Exception:
        results: list[Any] = []
        for item in job.items:
            try:
                results += self._commit([_Job(job.lane, [item], job.done)])[0]
            except OperationalError as error:
                return self._explain(error)
            except Exception as error:  # noqa: BLE001
                results.append(self._translate(error))
        return results

    def _commit(self, jobs: Sequence[_Job]) -> list[list[Any]]:
        """Write all jobs in one transaction, neighbours of one lane in one call; answers a job."""
        answers: list[list[Any]] = []
        info = self._connection.info
        info.pop(NEWEST, None)
        with self._transaction():
            for lane, group in groupby(jobs, key=lambda job: job.lane):
                members = list(group)
                items = members[0].items if len(members) == 1 else [i for job in members for i in job.items]
                results = iter(lane(self._connection, items))
                answers += [list(islice(results, len(job.items))) for job in members]
        self.newest = info.get(NEWEST, self.newest)
        return answers

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Neither the driver nor SQLAlchemy begins or ends anything by itself on this connection."""
        driver = driver_of(self._connection)
        with driver_errors:
            # The write lock is taken at once: a later upgrade may fail.
            driver.execute("BEGIN IMMEDIATE")
            try:
                yield
                driver.execute("COMMIT")
            except BaseException:
                if (
                    driver.in_transaction
                ):  # SQLite has not undone it already, as it does when the disk is full
                    driver.execute("ROLLBACK")
                raise

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError):
            return self._explain(error)
        return error
