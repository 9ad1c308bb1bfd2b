"""What trains the models of a configuration elsewhere: processes of this machine, or a Ray cluster.

A task is a group of models, and doing it twice gives the same chunks, so that a task whose worker
died is given to another one.  Workers read the configuration and the data themselves and write what
the models say into the folder; this process keeps the manifest and holds no records.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from confide.audits.result import AuditResult
from confide.config import Config
from confide.errors import ConfideError, FolderError, MissingExtraError, TrainingError
from confide.runs.analysis import analyse
from confide.runs.canaries import canary_records
from confide.runs.launch import study_of
from confide.runs.looks import Until, train_until
from confide.runs.models import Progress, cohort_from_table, groups_of, mark_done, silent
from confide.runs.study import Study
from confide.stores import AuditFolder, owners_alone, read_table

_TRIES = 3
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What every worker is told.

    Parameters
    ----------
    config, folder : from :func:`confide.config.load`
    out : the audit folder
    signals : where its arrays are kept, if it is to begin and not there
    """

    config: Config
    folder: Path
    out: Path
    signals: str | None = None

    def study(self) -> Study:
        """The models; a process that trains several groups reads the data once."""
        key = f"{self.config.model_dump_json()}\x1f{self.folder}\x1f{self.signals}"
        if key not in _STUDIES:
            _STUDIES.clear()
            _STUDIES[key] = study_of(self.config, self.folder, self.signals)
        return _STUDIES[key]


_STUDIES: dict[str, Study] = {}


class Engine(Protocol):
    """Calls a function with each of some groups of models, elsewhere and side by side."""

    def each(
        self, function: Callable[[Job, slice], _Result], job: Job, groups: Sequence[slice]
    ) -> Iterator[tuple[slice, _Result]]:
        """What it returned for each group, as they are finished.

        Raises
        ------
        TrainingError : workers died again and again
        Also what the function raises, of this package
        """


def run_by(
    engine: Engine,
    config: Config,
    folder: Path,
    out: Path,
    *,
    signals: str | None = None,
    progress: Progress = silent,
) -> AuditResult:
    """Audit what a configuration describes, its models trained by `engine`.

    Parameters
    ----------
    config, folder : from :func:`confide.config.load`
    out : the audit folder; with a cluster, on a disk that all of it shares
    signals : see :func:`confide.runs.run`; with a cluster, workers write straight to it
    progress : called with (models finished, models in all)

    Raises
    ------
    As :func:`confide.runs.run_config`, and TrainingError where workers die again and again
    """
    job = Job(config=config, folder=folder.resolve(), out=out.resolve(), signals=signals)
    for _ in engine.each(_begun, job, [slice(0, 0)]):
        pass
    with AuditFolder.open(out, _never) as audit:
        n_models = len(audit.manifest["models"])

        def train(first: int, last: int) -> None:
            todo = list(groups_of(audit, first, last))
            for group, epochs in engine.each(_trained, job, todo):
                mark_done(audit, group, epochs)
                progress(int(audit.done.sum()), n_models)

        progress(int(audit.done.sum()), n_models)
        if Until.of(audit.manifest) is None:
            train(0, n_models)
        else:
            table = read_table(out / "cohort.parquet")
            stored = audit.manifest
            cohort, _ = cohort_from_table(table, stored["task"], stored["classes"])
            train_until(audit, cohort, canary_records(table), train)
    return analyse(out)


def _begun(job: Job, _: slice) -> None:
    with owners_alone(), job.study().opened(job.out):
        pass


def _trained(job: Job, group: slice) -> list[int] | None:
    with owners_alone():
        return job.study().fit(AuditFolder.read(job.out), group)


def _never() -> dict[str, Any]:
    raise FolderError("The audit folder went away while it was begun; run the same command again.")


class Processes:
    """Processes of this machine, a GPU each where there are some; use it as a context.

    A worker that is ended from outside is replaced, and so are the others, whose groups begin
    anew.  When this process ends, however it does, the workers end.

    Parameters
    ----------
    n : how many
    """

    def __init__(self, n: int) -> None:
        self._n = n

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        # Nothing is ever written: it is closed when this process ends, and then the workers do.
        reader, self._writer = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(
            self._n,
            mp_context=context,
            initializer=_enter,
            initargs=(reader, context.Value("i", 0), self._n, _devices()),
        )

    def _end(self) -> None:
        self._writer.close()
        self._pool.shutdown(cancel_futures=True)

    def each(
        self, function: Callable[[Job, slice], _Result], job: Job, groups: Sequence[slice]
    ) -> Iterator[tuple[slice, _Result]]:
        """See :meth:`Engine.each`."""
        left = list(groups)
        tries = 0
        while left:
            try:
                with _no_interrupt():  # which workers that begin inherit
                    futures: dict[Future[_Result], slice] = {
                        self._pool.submit(_told, function, job, group): group for group in left
                    }
                for future in as_completed(futures):
                    found = future.result()
                    left.remove(futures[future])
                    tries = 0
                    yield futures[future], found
            except BrokenProcessPool as error:
                tries += 1
                if tries == _TRIES:
                    raise TrainingError(
                        f"Workers were ended from outside {_TRIES} times, and no model was "
                        "finished meanwhile. Is the memory too small for "
                        f"{self._n} at once? Use fewer --workers. Finished models are safe in "
                        f"{job.out}; run the same command again to resume."
                    ) from error
                self._end()
                self._begin()


def _knock(address: str) -> None:
    """Fail at once where nobody listens; Ray would try for minutes."""
    host, found, port = address.rpartition(":")
    if found and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _told(function: Callable[[Job, slice], _Result], job: Job, group: slice) -> _Result:
    """Call it; what goes wrong becomes an error that can be sent from one process to another."""
    try:
        return function(job, group)
    except (ConfideError, MemoryError, OSError):
        raise
    except BaseException as error:
        said = "".join(traceback.format_exception(error))
        raise RuntimeError(f"A worker failed.\n{said}") from None


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C waits, and processes that are begun meanwhile never hear of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _devices() -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    n = torch.cuda.device_count()
    return [name.strip() for name in named.split(",")][:n] if named else list(map(str, range(n)))


def _enter(reader: Connection, counter: Any, n: int, devices: list[str]) -> None:
    """Begin a worker: its share of the machine, and its end."""
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // n))

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            reader.recv_bytes()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Ray:
    """A Ray cluster; use it as a context.  A task whose worker or node dies is begun again.

    Parameters
    ----------
    address : of a cluster that runs, as ``ray.init`` takes it; "local" starts one here

    Raises
    ------
    MissingExtraError : Ray is not installed
    TrainingError : no cluster answers there
    """

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError(
                "Training on a Ray cluster needs Ray; install confide[ray] here and on its nodes."
            ) from error
        self._ray = ray
        try:
            _knock(address)
            ray.init(address=address, log_to_driver=False)
        except (OSError, OverflowError, RuntimeError, ValueError) as error:
            raise TrainingError(
                f"No Ray cluster answers at {address!r:.200} ({str(error).rstrip('.')}); give the "
                "address that `ray start --head` printed, such as 10.0.0.5:6379."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def each(
        self, function: Callable[[Job, slice], _Result], job: Job, groups: Sequence[slice]
    ) -> Iterator[tuple[slice, _Result]]:
        """See :meth:`Engine.each`."""
        gpu = 1 if self._ray.cluster_resources().get("GPU") else 0
        remote = self._ray.remote(function).options(num_cpus=1, num_gpus=gpu, max_retries=_TRIES)
        waiting = {remote.remote(job, group): group for group in groups}
        while waiting:
            (ready,), _ = self._ray.wait(list(waiting))
            yield waiting.pop(ready), self._fetched(ready, job)

    def _fetched(self, reference: Any, job: Job) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ConfideError):
                raise error.cause from error
            raise
        except self._ray.exceptions.RayError as error:
            raise TrainingError(
                f"Workers of the cluster died {_TRIES + 1} times ({str(error).splitlines()[0]}). "
                f"Finished models are safe in {job.out}; run the same command again to resume."
            ) from error
