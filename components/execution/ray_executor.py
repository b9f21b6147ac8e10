"""Work on Ray: actor pools of Ray Data for many items, Ray Train for gangs; also a shared head for one machine.

What belongs here: everything that imports ray, always inside a function, so that importing this module is free. What
does not: what the work is, and Dagster. Two facts shape the file: Ray Data and Ray Train do not work over ``ray://``,
and Ray waits for ever for workers that fit on no node, so capacity is checked first.
"""

from __future__ import annotations

import atexit
import io
import json
import logging
import os
import pickle
import secrets
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from components.contracts import RIGID, Elasticity, Gang, InsufficientResources, Resources
from components.execution.local_executor import require_here, torch_threads

logger = logging.getLogger(__name__)

# A laptop's training of seconds must not wait seconds for Ray Train's controller; nothing of ours reads its metrics or
# asks it about nodes that are taken away; workers keep the caller's working folder. What the user has set stays.
_TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
_LOCAL = "local"
_MAX_LOST_WORKERS = 2  # of one place in a map's pool, and on one item


class LostWorker(RuntimeError):
    """A training worker ended without an error of its own: killed, out of memory, or its node is gone."""


class RayExecutor:
    """Implements ``contracts.Executor`` on Ray; connects at the first use.

    ``address``: ``host:port`` of a cluster, or ``"local"`` for a private one that lives as long as this executor; None
    reads ``RAY_ADDRESS`` and falls back to ``"local"``. ``num_cpus`` and ``object_store_mb`` size a private cluster
    only. A connection that this process already has is used and left alone.
    """

    def __init__(self, address: str | None = None, num_cpus: int | None = None, object_store_mb: int = 256) -> None:
        self.address = address or os.environ.get("RAY_ADDRESS") or _LOCAL
        if self.address.startswith("ray://"):
            raise ValueError(
                f"{self.address}: Ray Data and Ray Train do not work over the Ray client. Give host:6379 of a cluster "
                "whose network this process is in, or run the step as a Ray job"
            )
        self.num_cpus = num_cpus
        self.object_store_mb = object_store_mb
        self._connected = False
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def shutdown(self) -> None:
        """Leave the cluster, and end it where this executor started it; nothing happens the second time."""
        if not self._connected:
            return
        import ray

        atexit.unregister(self.shutdown)
        ray.shutdown()
        self._connected = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def map(
        self,
        factory: Callable[[], Callable[[Any], Any]],
        items: Sequence[Any],
        *,
        resources: Resources,
        max_workers: int | None = None,
    ) -> Iterator[Any]:
        """Results of ``factory()(item)`` in the order of ``items``, streamed: they are never all in memory.

        Items, results and ``factory`` are pickled. Each worker calls ``factory`` once, with OpenMP held to
        ``max(1, int(num_cpus))`` threads. What ``factory`` or the work raises is raised here, with the worker's
        traceback as a note. A lost worker (killed, out of memory, its node gone) is replaced and its items are done
        again; an item that takes its worker with it time after time ends the map.

        Raises ``InsufficientResources`` at the call where no node holds even one worker.
        """
        if not items:
            return iter(())
        self._connect()
        nodes = _nodes()
        capacity = sum(_fitting(node, resources) for node in nodes)
        if capacity < 1:
            raise InsufficientResources(_shortage(1, capacity, resources, nodes))
        pool = max(1, min(capacity, len(items), max_workers or capacity))
        return self._stream(factory, items, resources, pool)

    def fit(
        self,
        function: Callable[[Gang, Mapping[str, Any]], Mapping[str, Any]],
        config: Mapping[str, Any],
        *,
        num_workers: int,
        resources: Resources,
        elasticity: Elasticity = RIGID,
    ) -> Mapping[str, Any]:
        """Run ``function(gang, config)`` in ``num_workers`` processes; the mapping that rank 0 returned.

        Two workers and more are joined by a torch process group (NCCL with GPUs, else gloo). One worker runs in this
        process (Ray Train's local mode: no cluster, no process group), except that a worker with GPUs goes to the
        cluster where one is named. What the function raises is raised here and not tried again. A lost worker (killed,
        out of memory, its node gone) ends the gang, and a new one starts, of the largest allowed size that the cluster
        then holds: ``elasticity``. A gang that fits but finds the cluster busy waits half an hour
        (``RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S``).

        Raises ``InsufficientResources`` where no allowed gang fits, or waited in vain, and ``LostWorker`` after more
        losses than are allowed.
        """
        if num_workers == 1 and not (resources.num_gpus and self.address != _LOCAL):
            require_here(resources)
            with _environment(_TRAIN_ENVIRONMENT), torch_threads(resources):
                return _train(function, config, num_workers=0, resources=resources)
        self._connect()
        sizes = sorted({num_workers, *elasticity.sizes}, reverse=True)
        num_lost = 0
        with _environment(_TRAIN_ENVIRONMENT):
            while True:
                size = _largest_gang(sizes, resources)
                if size < num_workers:
                    logger.warning("the cluster holds no %d workers: training with %d", num_workers, size)
                try:
                    return _train(function, config, num_workers=size, resources=resources)
                except LostWorker as error:
                    num_lost += 1
                    if num_lost > elasticity.max_lost_workers:
                        raise
                    left = elasticity.max_lost_workers - num_lost
                    logger.warning("%s; going on from the last checkpoint (%d more such losses allowed)", error, left)

    def _connect(self) -> None:
        """Attach to the cluster or start a private one; never ``ray.init()`` without an address."""
        import ray

        if ray.is_initialized():
            return
        if self.address == _LOCAL:
            _prepare_cluster()
            self._folder = _session_folder()
            ray.init(
                address=_LOCAL,
                num_cpus=self.num_cpus,
                object_store_memory=self.object_store_mb * 2**20,
                include_dashboard=False,
                logging_level=logging.ERROR,
                _temp_dir=str(self._folder),
            )
        else:
            ray.init(address=self.address, logging_level=logging.ERROR)
        self._connected = True
        atexit.register(self.shutdown)

    def _stream(
        self,
        factory: Callable[[], Callable[[Any], Any]],
        items: Sequence[Any],
        resources: Resources,
        pool: int,
    ) -> Iterator[Any]:
        import ray.data
        from ray.util.annotations import RayDeprecationWarning

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        cells = [{_CELL: _dump(item)} for item in items]
        source = ray.data.from_items(cells, override_num_blocks=len(cells))
        source.context.enable_progress_bars = False
        source.context.print_on_execution_start = False
        source.context.execution_options.preserve_order = True
        with warnings.catch_warnings():
            # The default is to restart for ever, and there is no other way to say otherwise before Ray 2.64.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            results = source.map_batches(
                _Worker,
                fn_constructor_args=(_dump(factory),),
                batch_size=1,
                batch_format="pyarrow",
                # Not a fixed size: a pool that waits for all of its actors hangs where another run holds the CPUs.
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pool, initial_size=pool),
                num_cpus=resources.num_cpus,
                num_gpus=resources.num_gpus,
                max_restarts=_MAX_LOST_WORKERS,
                max_task_retries=_MAX_LOST_WORKERS,
                runtime_env={"env_vars": _thread_environment(resources)},
            )
        batches = iter(results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1))
        with closing(batches):  # pyright: ignore[reportArgumentType]  (a generator, declared as an iterator)
            for batch in batches:
                for cell in batch[_CELL]:
                    outcome = pickle.loads(cell.as_buffer())  # from a worker of this run: no file is unpickled
                    if isinstance(outcome, _Failure):
                        outcome.error.add_note(f"In a worker:\n{outcome.traceback}")
                        raise outcome.error
                    yield outcome


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a worker caught: the exception, and its traceback as text."""

    error: Exception
    traceback: str


class _Worker:
    """One actor of a pool: builds the work at its first item, then answers one cell for each cell."""

    def __init__(self, factory: bytes) -> None:
        self._factory = factory
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.table({_CELL: pa.array([self._answer(cell) for cell in batch[_CELL]], pa.large_binary())})

    def _answer(self, cell: pa.Scalar) -> bytes:
        try:
            work = self._work = self._work or pickle.loads(self._factory)()
            return _dump(work(pickle.loads(cell.as_buffer())))  # pyright: ignore[reportAttributeAccessIssue]
        except Exception as error:
            return _dump_failure(error)


_CELL = "cell"


@cache
def _pickler() -> type[pickle.Pickler]:
    """Ray's pickler, by which tables go as Arrow IPC: pickling a slice would take the whole table along."""
    from ray import cloudpickle

    class Pickler(cloudpickle.Pickler):
        dispatch_table = cloudpickle.Pickler.dispatch_table.new_child({pa.Table: _reduce_table})

    return Pickler


def _dump(value: Any) -> bytes:
    """Pickle a value of our own, on its way to or from a worker of our own."""
    buffer = io.BytesIO()
    _pickler()(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def _reduce_table(table: pa.Table) -> tuple[Callable[[bytes], pa.Table], tuple[bytes]]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return _read_table, (sink.getvalue().to_pybytes(),)


def _read_table(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()


def _dump_failure(error: Exception) -> bytes:
    """The failure as a cell; an exception that does not survive pickling becomes a RuntimeError with its message."""
    import traceback

    text = "".join(traceback.format_exception(error))
    try:
        data = _dump(_Failure(error, text))
        pickle.loads(data)
    except Exception:
        logger.debug("%s cannot be pickled", type(error).__name__, exc_info=True)
        data = _dump(_Failure(RuntimeError(f"{type(error).__name__}: {error}"), text))
    return data


def _train(
    function: Callable[[Gang, Mapping[str, Any]], Mapping[str, Any]],
    config: Mapping[str, Any],
    *,
    num_workers: int,
    resources: Resources,
) -> Mapping[str, Any]:
    """One run of Ray Train; ``num_workers`` 0 is its local mode, in this process."""
    from ray.train import (
        ControllerError,
        FailureConfig,
        LoggingConfig,
        RunConfig,
        ScalingConfig,
        WorkerGroupError,
        get_context,
    )
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    class Trainer(TorchTrainer):
        """Leaves SIGINT to the caller, as Ray's own handler ends the process with status 0.

        And does without the watcher of placement groups: it asks a dashboard each second, of which our heads have
        none, and outlives the run. Ray frees the group with the controller that made it.
        """

        controller: Any = None

        def _register_sigint_handler(self, controller: Any) -> None:
            self.controller = controller

        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [one for one in callbacks if type(one).__name__ != "PlacementGroupCleanerCallback"]

    def loop(settings: Mapping[str, Any]) -> dict[str, Any]:
        context = get_context()
        return dict(function(Gang(context.get_world_rank(), context.get_world_size()), settings["config"]))

    with tempfile.TemporaryDirectory(prefix="atelier-") as folder:
        trainer = Trainer(
            loop,
            train_loop_config={"config": config},
            scaling_config=ScalingConfig(
                num_workers=num_workers,
                use_gpu=bool(num_workers and resources.num_gpus),
                resources_per_worker={"CPU": resources.num_cpus, "GPU": resources.num_gpus},
            ),
            run_config=RunConfig(
                storage_path=folder,  # Ray keeps nothing of ours there: trainings write to the lake
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
                logging_config=LoggingConfig(log_level="ERROR"),
                worker_runtime_env={"env_vars": _thread_environment(resources)},
            ),
        )
        held_before = _held_groups()
        try:
            result = trainer.fit()
        except WorkerGroupError as error:
            for rank, failure in sorted(error.worker_failures.items()):
                if _is_loss(failure):
                    raise LostWorker(f"training worker {rank} or its peer was lost: {failure}") from error
            rank, failure = min(error.worker_failures.items())
            failure.add_note(f"In training worker {rank}:\n{error}")
            raise failure from None
        except ControllerError as error:
            _end(trainer.controller, held_before)
            if isinstance(error.controller_failure, WorkerGroupStartupTimeoutError):
                raise InsufficientResources(
                    f"{num_workers} workers of {resources.num_cpus:g} CPUs and {resources.num_gpus:g} GPUs fit the "
                    "cluster, but it stayed busy with other work: wait for it, or run fewer things at once"
                ) from error
            if _is_loss(error.controller_failure):  # before the worker had begun
                raise LostWorker(f"a training worker was lost: {error.controller_failure}") from error
            raise
        except BaseException:
            _end(trainer.controller, held_before)
            raise
    if result.return_value is None:
        raise RuntimeError("the training ended without an error and without a result from rank 0")
    return result.return_value


def _end(controller: Any, held_before: Set[str]) -> None:
    """End a controller of Ray Train, and free what it held (a killed controller's workers keep their CPUs)."""
    import ray
    from ray._raylet import PlacementGroupID
    from ray.exceptions import GetTimeoutError, RayActorError
    from ray.util import remove_placement_group
    from ray.util.placement_group import PlacementGroup

    if controller is not None:
        with suppress(RayActorError, GetTimeoutError):  # it has ended, or ends by this
            ray.get(controller.abort.remote(), timeout=20)
        ray.kill(controller)
    for group in _held_groups() - held_before:
        remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(group)))


def _held_groups() -> set[str]:
    """Placement groups that this process's job holds; a group's id ends with that of its job."""
    import ray
    from ray.util import placement_group_table

    if not ray.is_initialized():
        return set()
    job = ray.get_runtime_context().get_job_id()
    table: Mapping[str, Mapping[str, Any]] = placement_group_table()
    return {group for group, facts in table.items() if group.endswith(job) and facts["state"] != "REMOVED"}


def _is_loss(failure: Exception) -> bool:
    """Whether a worker failed because a process is gone: its own, or that of a peer it was talking to."""
    from ray.exceptions import RayActorError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
    from torch.distributed import DistError

    gone = (RayActorError, WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError, DistError)
    return isinstance(failure, gone) or ("gloo" in str(failure) and "by peer" in str(failure))


def _largest_gang(sizes: Sequence[int], resources: Resources) -> int:
    """The first of ``sizes`` (descending) that the cluster holds when idle; ``InsufficientResources`` where none is."""
    nodes = _nodes()
    capacity = sum(_fitting(node, resources) for node in nodes)
    for size in sizes:
        if size <= capacity:
            return size
    raise InsufficientResources(_shortage(sizes[-1], capacity, resources, nodes))


def _nodes() -> list[Mapping[str, float]]:
    """The resources of every living node."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fitting(node: Mapping[str, float], resources: Resources) -> int:
    """How many such workers an idle node holds."""
    bounds = [
        int(node.get(name, 0.0) / wanted + 1e-9)
        for name, wanted in (("CPU", resources.num_cpus), ("GPU", resources.num_gpus))
        if wanted
    ]
    return min(bounds) if bounds else sys.maxsize


def _shortage(wanted: int, capacity: int, resources: Resources, nodes: Sequence[Mapping[str, float]]) -> str:
    sizes = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
    return (
        f"{wanted} worker(s) of {resources.num_cpus:g} CPUs and {resources.num_gpus:g} GPUs are asked for, and the Ray "
        f"cluster holds {capacity}: its nodes have {sizes or 'nothing'}. Lower the recipe's num_workers, num_cpus or "
        "num_gpus, or add nodes to the cluster"
    )


def _thread_environment(resources: Resources) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(max(1, int(resources.num_cpus))), "OMP_WAIT_POLICY": "passive"}


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Within the block the environment has these variables, except where it had them already."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


# ---------------------------------------------------------------------------------------------------- clusters of ours
def _prepare_cluster() -> None:
    """Settings of clusters that this process starts; what the user has set stays.

    A secret, because Ray listens on every interface, whatever address it is told (without one Ray would write its own
    to ``~/.ray``). Workers of the same priority as the jobs beside them, which do the same kind of work: at Ray's 15
    they get a hundredth of a busy core.
    """
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's spelling
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else `uv run` uploads the working folder


def _session_folder() -> Path:
    """A new temporary folder whose name is short enough for Ray's sockets (107 bytes in all)."""
    parent = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="ray-", dir=parent if len(parent) <= 24 else "/tmp"))


@dataclass(frozen=True, slots=True)
class Head:
    """A Ray cluster of one node on this machine that several processes attach to.

    ``environment`` is what a process that attaches must be started with: the address and the secret. The cluster also
    ends when the process that started it ends, however it ends.
    """

    address: str
    environment: dict[str, str]
    _process: subprocess.Popen[str]
    _folder: Path

    def stop(self, timeout_s: float = 30.0) -> None:
        """End the cluster's processes and remove its folder; nothing happens the second time."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("the Ray head at %s did not end in %g s and is killed", self.address, timeout_s)
            self._process.kill()  # its daemons share its fate
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def start_head(num_cpus: int, object_store_mb: int = 256) -> Head:
    """Start a cluster of one node in processes of their own session, and wait until it answers.

    Raises RuntimeError, with what the process said, where Ray does not start.
    """
    folder = _session_folder()
    _prepare_cluster()
    log = folder / "head.log"
    command = [sys.executable, "-c", _HEAD, str(num_cpus), str(object_store_mb), str(folder)]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait()
        said = log.read_text(errors="replace")[-2000:]
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError(f"the Ray head ended with status {process.returncode} before it was ready:\n{said}")
    address = json.loads(line)["address"]
    variables = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    secret = {"RAY_AUTH_MODE": "token"} | {name: os.environ[name] for name in variables if name in os.environ}
    return Head(address, {"RAY_ADDRESS": address} | secret, process, folder)


_HEAD = "from components.execution.ray_executor import serve_head; serve_head()"


def serve_head() -> None:
    """The head's own process: start Ray, tell the address on stdout, and live until stdin is closed."""
    import ray

    num_cpus, object_store_mb, folder = sys.argv[1:]
    ray.init(
        address=_LOCAL,
        num_cpus=int(num_cpus),
        object_store_memory=int(object_store_mb) * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
    )
    sys.stdout.write(json.dumps({"address": ray.get_runtime_context().gcs_address}) + "\n")
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads the pipe from here on
    sys.stdin.read()
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)  # the parent does it too, unless it was killed
