"""Write report.html of a run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from xai_brain.config.schema import Config
from xai_brain.io.atomic import file_hash
from xai_brain.parallel.locks import run_exclusive
from xai_brain.parallel.progress import log
from xai_brain.runs.directory import RunDirectory, add_seconds, read_json
from xai_brain.runs.group_maps import GROUP_MAPS
from xai_brain.runs.manifest import is_up_to_date, manifest_files, write_manifest
from xai_brain.runs.provenance import versions
from xai_brain.study.participants import require_classes
from xai_brain.study.settings import open_run


def report_run(config: Config) -> RunDirectory:
    """Write the report, unless it is up to date."""
    require_classes(config, "report", or_number=True)
    run = open_run(config)
    if is_current(run):
        log(f"report: nothing to do, {run.report} is up to date")
        return run
    start = time.monotonic()
    run_exclusive(run.locks, "report", lambda: _write(run), lambda: is_current(run))
    add_seconds(run, "report", time.monotonic() - start)
    log(f"report: {run.report}")
    return run


def _write(run: RunDirectory) -> None:
    from xai_brain.reporting.html_report import write_report

    shown = report_inputs_hash(run)
    _manifest(run).unlink(missing_ok=True)
    write_report(run)
    write_manifest(_manifest(run), shown, [run.report, *(run.path / "figures").glob("[!.]*.png")])


def is_current(run: RunDirectory) -> bool:
    """Whether the report was written from these results by this version."""
    manifest = _manifest(run)
    there = run.report.exists() and is_up_to_date(manifest, report_inputs_hash(run))
    return there and manifest_files(manifest).get(Path(os.path.normpath(run.report))) == file_hash(run.report)


def report_inputs_hash(run: RunDirectory) -> str:
    """Hash of the inputs of the report: results (without durations), version and template."""
    parts = [str(versions()["xai-brain"])]
    parts += [file_hash(path) for path in sorted(_sources())]
    parts += [f"{path.relative_to(run.path)} {file_hash(path)}" for path in sorted(_shown(run))]
    if run.metrics.exists():
        parts += [f"{k} {v}" for k, v in read_json(run.metrics).items() if not k.startswith("seconds/")]
    return sha256("\n".join(parts).encode()).hexdigest()


def _sources() -> Iterator[Path]:
    folder = Path(__file__).parents[1] / "reporting"
    for pattern in ("*.py", "*.j2", "*.css", "*.js"):
        yield from folder.rglob(pattern)


def _shown(run: RunDirectory) -> Iterator[Path]:
    single = (run.config, run.provenance, run.participants, run.folds, run.quarantine, run.predictions)
    yield from (path for path in single if path.exists())
    for pattern in ("checkpoints/*.tsv", "evaluation/*.tsv", "evaluation/inputs.json", GROUP_MAPS):
        yield from run.path.glob(pattern)


def _manifest(run: RunDirectory) -> Path:
    return run.path / "figures" / "inputs.json"
