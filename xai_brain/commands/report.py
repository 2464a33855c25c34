"""Write report.html of a run."""

from __future__ import annotations

import time

from omegaconf import DictConfig

from xai_brain.commands.progress import say
from xai_brain.commands.setup import open_run
from xai_brain.runs import RunDirectory, add_seconds


def report(cfg: DictConfig) -> RunDirectory:
    """Write the report, unless it is newer than all that it shows."""
    from xai_brain.plotting.html_report import write_report

    run = open_run(cfg)
    shown = [run.config, run.predictions, run.quarantine, *(run.path / "evaluation").glob("*.tsv")]
    newest = max((path.stat().st_mtime for path in shown if path.exists()), default=0)
    if run.report.exists() and run.report.stat().st_mtime >= newest:
        say(f"report: nothing to do, {run.report} is up to date")
        return run
    start = time.monotonic()
    write_report(run)
    add_seconds(run, "report", time.monotonic() - start)
    return run
