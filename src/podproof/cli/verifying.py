"""`podproof verify`: one config, some files, a script or a whole folder to a yes or no."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from podproof.cli.remembered import all_surroundings
from podproof.cli.scripts import request_of
from podproof.cli.terminal import err, existing_folder, print_json, progress, show
from podproof.compiler.errors import BadConfig, BadScript
from podproof.compiler.places import shown_path
from podproof.compiler.read import Request
from podproof.compiler.script import write_script
from podproof.harness.batch import cores, judge_all
from podproof.harness.experiments import (
    Experiment,
    Order,
    experiment_of,
    experiments_in,
    file_of_request,
    is_part,
)
from podproof.harness.judgement import Judgement, judgement, verify_request, verify_script
from podproof.harness.report import batch_table, judgement_to_dict, verdict_table, verdicts_to_dicts
from podproof.harness.verdict import Cleared, Level, Refused
from podproof.harness.warm import NotWarm, WarmTrainer
from podproof.runtime.errors import Problem


def verify_any(options: argparse.Namespace) -> int:
    """Ask the gates about what the command names, report, and return the exit code.

    0 when everything was cleared, 1 when anything was refused, 2 when the command is wrong or the
    one config of it never became a script.
    """
    overrides, files = _overrides_and_files(options)
    if options.all is not None or files:
        return _verify_batch(options, overrides, files)
    if options.script is not None:
        return _verify_script(options, overrides)
    return _verify_config(options)


def _overrides_and_files(options: argparse.Namespace) -> tuple[tuple[str, ...], list[Path]]:
    """Part what was typed: a YAML file that stands by itself is an experiment to verify."""
    files = [Path(text) for text in options.overrides if _is_file(text)]
    overrides = tuple(text for text in options.overrides if not _is_file(text))
    ways = [bool(files), options.all is not None, options.script is not None]
    problems = []
    if sum(ways) > 1:
        what = "files, --all and --script are three ways to say what to verify"
        problems.append(Problem("verify", what, "choose one"))
    if options.output and any(ways):
        what = "is for one config; what is verified here is written nowhere"
        problems.append(Problem("--output", what, "leave it out"))
    if options.jobs is not None and options.jobs < 1:
        problems.append(
            Problem("--jobs", f"must be at least 1, got {options.jobs}", "set --jobs 1")
        )
    if problems:
        raise BadConfig(*problems)
    return overrides, files


def _is_file(text: str) -> bool:
    return "=" not in text and text.endswith((".yaml", ".yml"))


def _verify_config(options: argparse.Namespace) -> int:
    typed = request_of(options)
    last = (f"gates.level={options.level}",) if options.level else ()
    request = Request((*typed.overrides, *last), typed.config_dir)
    with progress("asking the gates") as update:
        result = verify_request(
            request, all_surroundings(update), on_gate=lambda gate: update(f"gate {gate}")
        )
    if options.output and result.script is not None:
        write_script(result.script, Path(options.output), verdicts_to_dicts(result.verdicts))
    subject = " ".join(typed.overrides) or "the default config"
    return _reported(options, subject, shown_path(file_of_request(typed)), result)


def _verify_script(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    if overrides or options.config_dir:
        what = "is whole as it is: overrides and --config-dir change nothing in it"
        raise BadConfig(Problem("--script", what, "leave them out"))
    path = Path(options.script)
    if not path.is_file():
        raise BadScript(Problem(str(path), "is not a file", "give the path of a pod_script.py"))
    level = Level(options.level or Level.FAST)
    with progress("asking the gates") as update:
        result = verify_script(
            path, level, all_surroundings(update), on_gate=lambda gate: update(f"gate {gate}")
        )
    return _reported(options, str(path), shown_path(path), result)


def _reported(
    options: argparse.Namespace, subject: str, file: str, result: Cleared | Refused
) -> int:
    item = judgement(subject, file, result)
    if options.json:
        print_json(judgement_to_dict(item))
    else:
        show(verdict_table(result))
    _write_reports(options, [item])
    return item.exit_code


def _verify_batch(
    options: argparse.Namespace, overrides: tuple[str, ...], files: Sequence[Path]
) -> int:
    experiments = _experiments(options.all, files)
    config_dir = existing_folder(options.config_dir, "--config-dir")
    level = Level(options.level) if options.level else None
    with _shared_warm(level) as warm, _bar(len(experiments)) as on_done:
        order = Order(replace(all_surroundings(), warm=warm), overrides, config_dir, level)
        judgements = judge_all(experiments, order, jobs=options.jobs or cores(), on_done=on_done)
    cleared = all(item.is_cleared for item in judgements)
    if options.json:
        print_json({"cleared": cleared, "results": [*map(judgement_to_dict, judgements)]})
    else:
        show(batch_table(judgements))
    _write_reports(options, judgements)
    return 0 if cleared else 1


@contextmanager
def _shared_warm(level: Level | None) -> Iterator[WarmTrainer | None]:
    """Yield one process for all that train; none where nothing does, or nothing can."""
    if level is not Level.FULL:
        yield None
        return
    with WarmTrainer() as warm:
        is_warm = True
        try:
            with progress("loading the training libraries"):
                warm.start()
        except NotWarm:
            # Each gate that needs one will say what is missing.
            is_warm = False
        yield warm if is_warm else None


def _experiments(folder: str | None, files: Sequence[Path]) -> tuple[Experiment, ...]:
    if folder is not None:
        return experiments_in(Path(folder))
    return tuple(experiment_of(file) for file in files if not is_part(file))


@contextmanager
def _bar(total: int) -> Iterator[Callable[[Judgement], None]]:
    """Show how many are judged, on a terminal; yields what is to be told each judgement.

    It starts with the first one: by then the workers are forked, and a thread does no harm.
    """
    console = err()
    columns = (
        TextColumn("verifying"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[refused]} refused"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("verifying", total=total, refused=0)
    refused = 0

    def on_done(item: Judgement) -> None:
        nonlocal refused
        bar.start()
        refused += not item.is_cleared
        bar.update(task, advance=1, refused=refused)

    try:
        yield on_done
    finally:
        bar.stop()


def _write_reports(options: argparse.Namespace, judgements: Sequence[Judgement]) -> None:
    """Write every report that was asked for; raise BadConfig for a path that cannot be written."""
    from podproof.harness.html_report import html_report
    from podproof.harness.junit import junit_xml
    from podproof.harness.sarif import sarif

    texts = (
        ("--junit", options.junit, junit_xml),
        ("--sarif", options.sarif, lambda items: json.dumps(sarif(items), indent=2) + "\n"),
        ("--html", options.html, html_report),
    )
    for option, path, text_of in texts:
        if path is not None:
            _write(option, Path(path), text_of(judgements))


def _write(option: str, path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of a file may hold bytes that are no text.
        path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror}"
        raise BadConfig(Problem(option, what, "free some space or give another path")) from error
