"""The ``atelier`` command, thin: every subcommand calls the same code as the Dagster jobs.

What belongs here: arguments, and words for the terminal. What does not: any work.
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from components.execution import lifeline

from .cost_commands import COST_COMMANDS
from .home import Home, dagster_url, mlflow_url
from .jobs import BY_NAME, JOBS, NamedJob
from .lake_commands import LAKE_COMMANDS, LakeCommand
from .launch import Target, log_to_terminal, run_job, run_jobs
from .page import PAGE_COMMANDS
from .resources import overrides_of
from .rollback import ROLLBACK_COMMAND

log = logging.getLogger(__name__)
REPORT = "reports/evaluation_report/latest"
SET_HELP = "dotted field of the recipe; counts before what ATELIER_OVERRIDES says"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status is 0 where everything asked for was done."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended in either case
    try:
        return command(parsed)
    except KeyboardInterrupt:
        print("atelier: interrupted; what is finished is kept, the same command goes on from there", file=sys.stderr)
        return 130
    except (RuntimeError, ValueError, OSError) as error:  # what a user can mend is said without a traceback
        if os.environ.get("ATELIER_TRACEBACK"):
            raise
        print(f"atelier: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="atelier", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True)
    for name, command, words in (
        ("demo", _demo, "materialize the whole graph and print the verdict"),
        ("study", _study, "train every arm of the study of caption blends, then write the report"),
        (
            "study-captioners",
            _study_captioners,
            "captioners from 250 to 2,000 examples: how few hand-written ones suffice",
        ),
        ("study-ablations", _study_ablations, "the text-to-image model with one part changed, for equal minutes each"),
        ("study-decoder", _study_decoder, "train diffusion decoder and student with several seeds; print their table"),
        ("verify", _verify, "make a slice of every asset again and compare digests; nothing is written"),
        ("generate", _generate, "draw prompts with the champion and write the pictures as PNG files"),
        (
            "estimate",
            _estimate,
            "parameters, memory, hours and cost of the text-to-image model, from a dry run; or of a backfill",
        ),
        ("ingest", _ingest, "read and check every shard; print read, kept and rejected by reason"),
        ("check-dataset", _check_dataset, "read a sample: what would be kept, rejected and why; nothing is written"),
        ("run", _run, "run one named job in this process"),
        ("dev", _dev, "serve the Dagster UI with its daemon and the MLflow UI"),
    ):
        sub = commands.add_parser(name, help=words, description=words)
        sub.set_defaults(command=command)
        for flags, settings in _OPTIONS.get(name, ()):
            sub.add_argument(*flags, **settings)
        if name == "check-dataset":
            _add_recipe(sub)
        else:
            _add_target(sub)
    for one in (*LAKE_COMMANDS, *COST_COMMANDS, *PAGE_COMMANDS, ROLLBACK_COMMAND):
        sub = commands.add_parser(one.name, help=one.words, description=one.words)
        sub.set_defaults(command=partial(_on_the_lake, one))
        _add_target(sub)
        one.add_arguments(sub)
    return parser


def _option(*flags: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return flags, settings


_OPTIONS = {
    "check-dataset": (
        _option("dataset", help="name of a folder in datasets/"),
        _option("--rows", type=int, default=200, help="rows to read, spread over the shards"),
    ),
    "run": (
        _option("job", choices=list(BY_NAME)),
        _option("--partition", help="of a job that makes one partition: an arm of the study"),
    ),
    "study": (_option("--arms", nargs="+", metavar="ARM", help="only these, for example raw-seed0 dsc-95-seed0"),),
    "study-ablations": (
        _option("--minutes", type=float, default=4.5, help="of training for each, text encoder included"),
    ),
    "study-decoder": (_option("--choosing", action="store_true", help="measure on held-out rows that no report uses"),),
    "estimate": (
        _option("--tflops", type=float, default=400.0, help="what a device reaches in this training"),
        _option("--price", type=float, help="price of a device hour; ATELIER_GPU_HOUR_PRICE, or 3"),
        _option(
            "--backfill", choices=["raw_pairs", "recaptioned", "latents"], help="what its missing shards will take"
        ),
    ),
    "generate": (
        _option("prompts", nargs="+", metavar="PROMPT"),
        _option("--seed", type=int, default=0, help="of the first picture of each prompt"),
        _option("--num", type=int, default=1, help="pictures of each prompt, with seeds that follow each other"),
        _option("--steps", type=int, help="sampling steps; the recipe's where not given"),
        _option("--guidance", type=float, help="classifier-free guidance, 1 is none; the recipe's where not given"),
        _option("--decoder", choices=["vae", "consistency", "both"], default="vae"),
        _option("--upsample", action="store_true", help="let the prompt upsampler make prompts descriptive first"),
        _option("--alias", default="champion", help="which version draws: champion or candidate"),
        _option("--output", type=Path, default=Path("drawings"), help="folder for the files"),
    ),
    "verify": (_option("assets", nargs="*", help="names of assets; none verifies all"),),
    "dev": (_option("--automation", action="store_true", help="switch every sensor and schedule on"),),
    "demo": (_option("--until", choices=list(BY_NAME), help="stop after this job (and what it needs)"),),
}


def _add_target(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--dataset", default=os.environ.get("ATELIER_DATASET", "scenes"))
    sub.add_argument("--force", action="store_true", help="make assets again even where nothing has changed")
    _add_recipe(sub)


def _add_recipe(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--recipe", default=os.environ.get("ATELIER_RECIPE", "tiny"))
    sub.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=SET_HELP)


def _on_the_lake(command: LakeCommand, parsed: argparse.Namespace) -> int:
    return command.run(_open_workspace(_target(parsed)), parsed)


def _target(parsed: argparse.Namespace) -> Target:
    """The target of a command, checked at once so that a typo costs no time; sets the deployment's environment."""
    from components.data.catalog import load_dataset
    from components.recipes import load_recipe

    target = Target(parsed.dataset, parsed.recipe, _overrides(parsed), parsed.force)
    load_recipe(target.recipe, target.overrides)
    load_dataset(target.dataset)
    home = target.home
    home.prepare()
    os.environ["DAGSTER_HOME"] = str(home.dagster_home)
    os.environ["ATELIER_DATASET"], os.environ["ATELIER_RECIPE"] = target.dataset, target.recipe
    if target.overrides:
        os.environ["ATELIER_OVERRIDES"] = json.dumps(target.overrides)
    return target


def _overrides(parsed: argparse.Namespace) -> dict[str, str]:
    overrides = overrides_of(os.environ)
    for pair in parsed.set:
        field, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--set {pair!r} must have the form field=value")
        overrides[field] = value
    return overrides


def _open_workspace(target: Target) -> Any:
    """The deployment's workspace for work in this process."""
    from components.data.catalog import load_dataset
    from components.data.lake import Lake
    from components.execution.local_executor import LocalExecutor
    from components.pipeline.workspace import Workspace
    from components.recipes import load_recipe
    from components.tracking import open_tracker

    home = target.home
    return Workspace(
        dataset=load_dataset(target.dataset),
        recipe=load_recipe(target.recipe, target.overrides),
        lake=Lake(home.lake),
        executor=LocalExecutor(),
        tracker=open_tracker(home.tracking_uri, home.artifacts),
        scratch=home.scratch,
    )


def _prepare_services(home: Home) -> None:
    """Check the lake and migrate the tracker's database before several processes meet there."""
    from components.data.lake import Lake
    from components.tracking import open_tracker

    Lake(home.lake).check_writable()
    open_tracker(home.tracking_uri, home.artifacts).prepare()


def _run(parsed: argparse.Namespace) -> int:
    log_to_terminal()
    return 0 if run_job(_target(parsed), parsed.job, parsed.partition) else 1


def _ingest(parsed: argparse.Namespace) -> int:
    target = _target(parsed)
    _prepare_services(target.home)
    done = run_jobs(target, [BY_NAME["ingest"]])
    from components.data.lake import Lake

    totals: dict[str, int] = {"read": 0, "kept": 0, "rejected": 0}
    reasons: dict[str, int] = {}
    for record in Lake(target.home.lake).records("raw_pairs").values():
        for name in totals:
            totals[name] += record.metadata[name]
        for reason, count in record.metadata["rejected_by_reason"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    print(", ".join(f"{name} {count}" for name, count in totals.items()))
    for reason, count in sorted(reasons.items()):
        print(f"  rejected as {reason}: {count}")
    return 0 if done.get("ingest") else 1


def _check_dataset(parsed: argparse.Namespace) -> int:
    from components.data.catalog import load_dataset
    from components.pipeline.check_dataset import check_dataset
    from components.recipes import load_recipe

    if parsed.rows < 1:
        raise ValueError(f"--rows {parsed.rows}: at least 1")
    report = check_dataset(load_dataset(parsed.dataset), load_recipe(parsed.recipe, _overrides(parsed)), parsed.rows)
    for line in report.lines():
        print(line)
    return 0 if report.is_good else 1


def _demo(parsed: argparse.Namespace) -> int:
    target = _target(parsed)
    return _make_all(target, _needed_for(parsed.until) if parsed.until else list(JOBS))


def _study(parsed: argparse.Namespace) -> int:
    from components.data.catalog import load_dataset
    from components.data.lake import Lake
    from components.pipeline.study import arms_of, check_long_arms
    from components.recipes import load_recipe

    target = _target(parsed)
    recipe = load_recipe(target.recipe, target.overrides)
    arms = arms_of(recipe, load_dataset(target.dataset))
    if unknown := sorted(set(parsed.arms or ()) - set(arms)):
        raise ValueError(f"there is no arm {', '.join(unknown)}; the recipe asks for {', '.join(arms)}")
    arms = list(dict.fromkeys(parsed.arms or arms))
    check_long_arms(recipe, arms)
    study = [replace(BY_NAME["study"], partition=arm) for arm in arms]
    jobs = [one for job in JOBS for one in (study if job.name == "study" else [job])]
    status = _make_all(target, jobs)
    if status == 0:
        print(Lake(target.home.lake).read_bytes(f"{REPORT}/blend_study.md").decode())
    return status


def _study_captioners(parsed: argparse.Namespace) -> int:
    from components.pipeline.aside import check_truth
    from components.pipeline.captioner_study import study_captioners, table_of
    from components.pipeline.graph import make

    target = _target(parsed)
    ws = _open_workspace(target)
    check_truth(ws)
    _prepare_services(target.home)
    log_to_terminal()
    ws = ws.forced() if target.is_forced else ws
    for asset in ("raw_pairs", "image_set", "clip", "base_captioner"):
        make(ws, asset)
    print(table_of(study_captioners(ws)))
    return 0


def _study_ablations(parsed: argparse.Namespace) -> int:
    from components.pipeline.ablations import study_ablations, table_of
    from components.pipeline.aside import check_truth

    target = _target(parsed)
    ws = _open_workspace(target)
    check_truth(ws)
    _prepare_services(target.home)
    names = {job.name for parent in ("text", "encode", "judges") for job in _needed_for(parent)}
    if not _run_side_by_side(target, [job for job in JOBS if job.name in names]):
        return 1
    log_to_terminal()
    print(table_of(study_ablations(ws.forced() if target.is_forced else ws, parsed.minutes)))
    return 0


def _study_decoder(parsed: argparse.Namespace) -> int:
    from components.pipeline.decoder_study import PLACE, study_decoders

    target = _target(parsed)
    _prepare_services(target.home)
    names = {job.name for parent in ("encode", "judges") for job in _needed_for(parent)}
    if not _run_side_by_side(target, [job for job in JOBS if job.name in names]):
        return 1
    log_to_terminal()
    ws = _open_workspace(target)
    rows_of = "choosing" if parsed.choosing else "reported"
    print(study_decoders(ws.forced() if target.is_forced else ws, rows_of).to_markdown())
    print(f"study: {ws.lake.uri(f'{PLACE}/{rows_of}.json')}")
    return 0


def _make_all(target: Target, jobs: Sequence[NamedJob]) -> int:
    """Run jobs side by side, print the verdict and where to look."""
    home = target.home
    started = time.perf_counter()
    _prepare_services(home)
    print(f"atelier: dataset {target.dataset}, recipe {target.recipe}, home {home.folder}", flush=True)
    if not _run_side_by_side(target, jobs):
        return 1
    seconds = time.perf_counter() - started
    if BY_NAME["report"] in jobs:
        _print_verdict(home)
    print(f"took {seconds / 60:.1f} minutes; `make dev DATASET={target.dataset}` opens the UIs:")
    print(f"  Dagster {dagster_url()}\n  MLflow  {mlflow_url()}")
    return 0


def _run_side_by_side(target: Target, jobs: Sequence[NamedJob]) -> bool:
    """Run jobs on the cluster of ``RAY_ADDRESS`` or on a head of their own; says which were not done."""
    from components.execution.ray_executor import start_head

    if os.environ.get("RAY_ADDRESS"):
        done = run_jobs(target, jobs)
    else:
        head = start_head(num_cpus=max(2, os.cpu_count() or 1), object_store_mb=256)
        try:
            done = run_jobs(target, jobs, environment=head.environment)
        finally:
            head.stop()
    failed = [job.label for job in jobs if not done.get(job.label)]
    if failed:
        print(f"atelier: not done: {', '.join(failed)}; the logs are in {target.home.logs}", file=sys.stderr)
    return not failed


def _verify(parsed: argparse.Namespace) -> int:
    from components.pipeline.graph import ORDER
    from components.pipeline.verify import verify

    target = _target(parsed)
    if unknown := sorted(set(parsed.assets) - set(ORDER)):
        raise ValueError(f"there is no asset {', '.join(unknown)}; there are {', '.join(ORDER)}")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    different = 0
    for one in verify(_open_workspace(target), tuple(parsed.assets) or ORDER):
        different += not one.is_equal
        said = "equal" if one.is_equal else f"DIFFERENT: {one.expected} on record, {one.found} now"
        print(f"{one.asset:32s} {one.slice:16s} {said}", flush=True)
    return 1 if different else 0


def _generate(parsed: argparse.Namespace) -> int:
    from components.pipeline.generate import DECODERS, Artist, write_drawings

    artist = Artist(_open_workspace(_target(parsed)), parsed.alias)
    drawings = artist.draw(
        parsed.prompts,
        range(parsed.seed, parsed.seed + parsed.num),
        decoders=DECODERS if parsed.decoder == "both" else (parsed.decoder,),
        is_upsampled=parsed.upsample,
        num_inference_steps=parsed.steps,
        guidance_scale=parsed.guidance,
    )
    print(f"drawn by {artist.versions['latent_diffusion']}")
    for drawing, path in zip(drawings, write_drawings(drawings, parsed.output), strict=True):
        read = f", read as {drawing.read!r}" if drawing.read != drawing.prompt else ""
        print(f"{path}  {drawing.prompt!r}{read}, seed {drawing.seed}, {drawing.decoder}")
    return 0


def _estimate(parsed: argparse.Namespace) -> int:
    from components.pipeline.estimate import estimate
    from components.pipeline.graph import estimate_range
    from components.pipeline.prices import Prices
    from components.recipes import load_recipe

    if parsed.backfill:
        print(estimate_range(_open_workspace(_target(parsed)), parsed.backfill))
        return 0
    recipe = load_recipe(parsed.recipe, _overrides(parsed))
    price = Prices.here().gpu_hour if parsed.price is None else parsed.price
    for line in estimate(recipe, flops_per_second=parsed.tflops * 1e12, price_per_hour=price).lines():
        print(line)
    return 0


def _print_verdict(home: Home) -> None:
    from components.data.lake import Lake

    lake = Lake(home.lake)
    if not lake.exists(f"{REPORT}/report.json"):
        return
    for sentence in json.loads(lake.read_bytes(f"{REPORT}/report.json"))["verdict"]:
        print(f"  {sentence}")
    print(f"report: {lake.uri(f'{REPORT}/index.html')}")


def _needed_for(name: str) -> list[NamedJob]:
    needed: set[str] = set()
    stack = [name]
    while stack:
        job = BY_NAME[stack.pop()]
        needed.add(job.name)
        stack += job.after
    return [job for job in JOBS if job.name in needed]


def _dev(parsed: argparse.Namespace) -> int:
    target = _target(parsed)
    _prepare_services(target.home)
    home = target.home
    dagster_port = dagster_url().rsplit(":", 1)[1]
    mlflow_port = mlflow_url().rsplit(":", 1)[1]
    commands = [["dagster", "dev", "-m", "orchestration.definitions", "-p", dagster_port]]
    if home.tracking_uri.startswith("sqlite"):
        store = ["--backend-store-uri", home.tracking_uri, "--default-artifact-root", home.artifacts]
        commands.append(["mlflow", "server", *store, "--host", "127.0.0.1", "--port", mlflow_port])
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    if parsed.automation:
        environment["ATELIER_AUTOMATION"] = "1"
    processes = [
        lifeline.start(name, arguments, env=environment, start_new_session=True) for name, *arguments in commands
    ]
    print(f"Dagster {dagster_url()}\nMLflow  {mlflow_url()}\nCtrl-C ends both", flush=True)
    ended: list[str] = []
    try:
        while not ended:
            time.sleep(0.5)
            ended = [name for (name, *_), one in zip(commands, processes, strict=True) if one.poll() is not None]
    except KeyboardInterrupt:
        print("stopping", flush=True)
    finally:
        for means in (signal.SIGINT, signal.SIGTERM):
            signal.signal(means, signal.SIG_IGN)  # impatience must not leave a server behind
        for process in processes:
            _stop(process)
    for name in ended:
        print(f"atelier: {name} ended by itself; its last lines above say why (is its port taken?)", file=sys.stderr)
    return 1 if ended else 0


def _stop(process: subprocess.Popen) -> None:
    """End a server and what it started: as Ctrl-C would, then more firmly, for background processes ignore that."""
    for means in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, means)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)


if __name__ == "__main__":
    sys.exit(main())
