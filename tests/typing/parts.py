"""Never run, only checked: our base classes and the application are what the parts below them take."""

from conventions import BatchTask, ImmediateTask, LongRunningTask, ScheduledTask, create_app
from conventions.batches.application import BatchApplication
from conventions.batches.run_chunk_and_finish import ChunkOrFinishTask
from conventions.batches.splittable_task import SplittableTask
from conventions.execution.runnable_task import RunnableTask
from conventions.fast_lane.traced_task import TracedTask
from conventions.sending.application import SendingApplication
from conventions.sending.sendable_task import SendableTask
from conventions.worker.application import WorkerApplication

sent: list[type[SendableTask]] = [ImmediateTask, ScheduledTask, LongRunningTask, BatchTask]
run: list[type[RunnableTask]] = [ImmediateTask, ScheduledTask, LongRunningTask, BatchTask]
traced: list[type[TracedTask]] = [ImmediateTask, ScheduledTask, LongRunningTask, BatchTask]
split: type[SplittableTask] = BatchTask
part: type[ChunkOrFinishTask] = BatchTask

sender: SendingApplication = create_app("typed")
worker: WorkerApplication = create_app("typed")
batches: BatchApplication = create_app("typed")
