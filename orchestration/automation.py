"""What happens without a person asking: sensors, a schedule, and the conditions of assets that follow their parents.

What belongs here: when something is asked for, and the words for it in the UI. What does not: what is due
(``components.pipeline.due``) and making it (jobs do that). A tick runs in the code server: it reads records and the
states of sources, and imports no library that trains.

All but the registering of shards and the finding of dead runs is off until a person switches it on, one by one in the
UI or all at once with ``atelier dev --automation`` (``ATELIER_AUTOMATION``); what was switched in the UI stays so.
"""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from components.data.lake import digest_of
from components.pipeline.due import Due, due_captions, due_pairs
from components.pipeline.ingest import Intake, names_of, shard_names
from components.pipeline.workspace import UnfitParent

from .jobs import BY_NAME
from .liveness import dead_runs
from .partitions import SHARDS, range_tags, ranges_of, register_shards
from .resources import WorkspaceResource

NIGHTLY = "0 2 * * *"  # UTC
RUN_KEY = "dagster/run_key"
AT_WORK = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

# Captions may be older than their rows: then the manifest of captions waits until they are written again.
_OUTDATED = dg.AutomationCondition.any_deps_updated().since(dg.AutomationCondition.newly_updated())
AS_PARENTS_CHANGE = (
    dg.AutomationCondition.eager()
    & dg.AutomationCondition.all_deps_blocking_checks_passed()
    & ~dg.AutomationCondition.any_deps_match(_OUTDATED.with_label("outdated")).allow(
        dg.AssetSelection.assets("recaptioned")
    )
).with_label("parents changed, are whole and passed their checks")


# -------------------------------------------------------------------------------------------------------------- ticks
def source_shards(context: dg.SensorEvaluationContext, workspace: WorkspaceResource) -> dg.SkipReason:
    """Registers the shards of the deployment's data set as partitions, in order; it starts no run."""
    new = register_shards(context.instance, shard_names(workspace.open()))
    return dg.SkipReason(f"registered {len(new)} new shards" if new else "no new shards")


def changed_shards(context: dg.SensorEvaluationContext, workspace: WorkspaceResource) -> dg.SensorResult:
    """Reads and checks shards that were never made, and those whose source has changed since.

    A shard that failed is asked for again when its source changes, or by hand.
    """
    ws = workspace.open()
    intake = Intake.of(ws)
    register_shards(context.instance, names_of(intake.reader))
    due, unanswered = due_pairs(ws, intake)
    if_none = "every shard is as its source is"
    if unanswered:
        context.log.warning("the source does not answer for %s", unanswered)
        if_none = f"the source does not answer for {len(unanswered)} shards: {next(iter(unanswered.values()))}"
    return _asked(context, "ingest", due, if_none).as_sensor_result()


def new_champions(context: dg.SensorEvaluationContext, workspace: WorkspaceResource) -> dg.SensorResult:
    """Writes the captions of all shards again when other captioners become champions, by promotion or rollback.

    Only what these captioners never wrote is written; captions of a champion that returns are found again.
    """
    ws = workspace.open()
    try:
        champions = ws.parent("champion_captioners").data_version
        if champions == context.cursor:
            return dg.SensorResult(skip_reason=f"the champions are still {champions}")
        asked = _asked(context, "recaption", due_captions(ws), f"every shard has captions by {champions}")
    except UnfitParent as error:
        return dg.SensorResult(skip_reason=str(error))
    return asked.as_sensor_result(cursor=None if asked.must_wait else champions)


def nightly_captions(context: dg.ScheduleEvaluationContext, workspace: WorkspaceResource) -> Any:
    """Writes captions at night for shards that have none, or were written for other rows or by former champions.

    What failed in one night is asked for again in the next. ``ATELIER_RECAPTION_CRON`` says when (UTC).
    """
    ws = workspace.open()
    try:
        asked = _asked(
            context,
            "recaption",
            due_captions(ws),
            "every shard has captions by the champions, of the rows as they are",
            night=f"{context.scheduled_execution_time:%Y-%m-%dT%H:%M}",
        )
    except UnfitParent as error:
        return dg.SkipReason(str(error))
    return list(asked.requests) or dg.SkipReason(asked.said)


# ----------------------------------------------------------------------------------------------------------- requests
@dataclass(frozen=True, slots=True)
class _Asked:
    """Runs to start, or why there are none; ``must_wait`` where the same must be asked again later."""

    requests: Sequence[dg.RunRequest]
    said: str
    must_wait: bool = False

    def as_sensor_result(self, cursor: str | None = None) -> dg.SensorResult:
        return dg.SensorResult(
            run_requests=list(self.requests), skip_reason=None if self.requests else self.said, cursor=cursor
        )


def _asked(
    context: dg.SensorEvaluationContext | dg.ScheduleEvaluationContext,
    job: str,
    due: Sequence[Due],
    if_none: str,
    night: str = "",
) -> _Asked:
    """One run for each range of due shards that was not asked for before (on the same ``night``)."""
    instance, (asset,) = context.instance, BY_NAME[job].assets
    if not due:
        return _Asked([], if_none)
    if run := _run_at_work(instance, job, asset):
        return _Asked(
            [],
            f"{len(due)} shards are due, but run {run.run_id[:8]} is making {asset} since before: asked again at the "
            "next tick (if nothing is at work there any more, terminate that run)",
            must_wait=True,
        )
    by_shard = {one.shard: one for one in due}
    registered = instance.get_dynamic_partitions(str(SHARDS.name))
    requests, refused = [], []
    for shards in ranges_of(registered, by_shard):
        request = _request(job, [by_shard[shard] for shard in shards], night)
        earlier = instance.get_runs(dg.RunsFilter(tags={RUN_KEY: str(request.run_key)}), limit=1)
        if earlier:
            refused.append(f"{_span(shards)} in run {earlier[0].run_id[:8]}, which ended as {earlier[0].status.value}")
        else:
            requests.append(request)
    said = f"asked for before: {'; '.join(refused)}. Mend the cause it names, then materialize these shards by hand"
    return _Asked(requests, said if refused else f"{len(due)} due shards are not registered yet")


def _request(job: str, due: Sequence[Due], night: str) -> dg.RunRequest:
    shards = [one.shard for one in due]
    decided = digest_of([[one.shard, one.fingerprint, one.replaces] for one in due])
    key = "-".join([job, *([night] if night else []), decided])
    reasons: dict[str, int] = {}
    for one in due:
        reasons[one.reason] = reasons.get(one.reason, 0) + 1
    told = "; ".join(f"{reason} ({count})" if len(due) > 1 else reason for reason, count in reasons.items())
    return dg.RunRequest(
        run_key=key, job_name=job, tags={**range_tags(shards), "atelier/shards": _span(shards), "atelier/why": told}
    )


def _span(shards: Sequence[str]) -> str:
    return shards[0] if len(shards) == 1 else f"{shards[0]} to {shards[-1]}"


def _run_at_work(instance: dg.DagsterInstance, job: str, asset: str) -> dg.DagsterRun | None:
    """An unfinished run that makes the asset, by its job or picked in the UI."""
    key = dg.AssetKey(asset)
    for run in instance.get_runs(dg.RunsFilter(statuses=AT_WORK)):
        if run.job_name == job or key in (run.asset_selection or ()):
            return run
    return None


# --------------------------------------------------------------------------------------------------------- the table
def is_switched_on(environment: Mapping[str, str]) -> bool:
    """Whether everything starts switched on: ``ATELIER_AUTOMATION`` is 1, true, yes or on."""
    return environment.get("ATELIER_AUTOMATION", "").lower() in ("1", "true", "yes", "on")


def build_sensors(*, is_on: bool) -> list[dg.SensorDefinition]:
    """Every sensor; those that register shards and find dead runs, and start none, are always switched on at first."""
    status = dg.DefaultSensorStatus.RUNNING if is_on else dg.DefaultSensorStatus.STOPPED

    def sensor(tick: Callable, job: str, seconds: int, default_status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
        return dg.sensor(
            job_name=job,
            minimum_interval_seconds=seconds,
            default_status=default_status,
            description=inspect.getdoc(tick),
        )(tick)

    return [
        sensor(source_shards, "ingest", 60, dg.DefaultSensorStatus.RUNNING),
        dead_runs,
        sensor(changed_shards, "ingest", 300, status),
        sensor(new_champions, "recaption", 60, status),
        dg.AutomationConditionSensorDefinition(
            "manifests",
            target=dg.AssetSelection.assets("image_set", "training_set"),
            default_status=status,
            minimum_interval_seconds=30,
            description="Writes the manifests of pictures and of captions again when their shards have changed.",
        ),
    ]


def build_schedules(*, is_on: bool, cron: str) -> list[dg.ScheduleDefinition]:
    """Every schedule; ``cron`` is when captions are written at night, in UTC."""
    status = dg.DefaultScheduleStatus.RUNNING if is_on else dg.DefaultScheduleStatus.STOPPED
    schedule = dg.schedule(
        cron_schedule=cron,
        job_name="recaption",
        execution_timezone="UTC",
        default_status=status,
        description=inspect.getdoc(nightly_captions),
    )
    return [schedule(nightly_captions)]


def automation_of(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Sensors and schedules as an environment asks for them."""
    is_on = is_switched_on(environment)
    return {
        "sensors": build_sensors(is_on=is_on),
        "schedules": build_schedules(is_on=is_on, cron=environment.get("ATELIER_RECAPTION_CRON") or NIGHTLY),
    }
