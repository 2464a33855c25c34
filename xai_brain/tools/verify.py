"""Check that a run is complete and unaltered: ``xai-brain verify <run_dir>``."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np

from xai_brain.config.inputs import require_run
from xai_brain.config.overrides import expanded
from xai_brain.config.saved import is_unaltered, saved_settings
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.folds.tables import fold_numbers
from xai_brain.io.atomic import file_hash
from xai_brain.io.text_tables import read_text
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.runs.manifest import manifest_files
from xai_brain.study.benchmarks.units import RESULTS
from xai_brain.study.participants import cohort_root
from xai_brain.task.build import task_of_table
from xai_brain.tools.findings import Findings
from xai_brain.tools.verify_maps import check_maps


def verify(arguments: list[str]) -> int:
    """Check the hashes of all inputs and results of a run; print missing and altered files.

    Parameters
    ----------
    arguments : list of str
        The run directory; ``data.root=<folder>`` if the images were moved.

    Returns
    -------
    int
        1 if a file is missing or altered, else 0.

    Raises
    ------
    ConfigError
        No run is given, or the folder contains none.
    """
    roots = [text.removeprefix("data.root=") for text in arguments if text.startswith("data.root=")]
    folders = [text.removeprefix("run_dir=") for text in arguments if not text.startswith("data.root=")]
    if len(folders) != 1 or len(roots) > 1:
        raise ConfigError("usage: xai-brain verify <run_dir> [data.root=<folder>]")
    run = RunDirectory(Path(folders[0]).expanduser())
    require_run(run.path)
    config = saved_settings(run.config)
    if roots:
        config.data.root = expanded(roots[0])
    is_benchmark = config.regional.regions or config.detection.cells
    findings = (check_benchmark if is_benchmark else check_run)(config, run)
    for problem in findings.problems:
        log(problem, logging.WARNING)  # shown at every verbosity
    listed = ", ".join(f"{count} {kind}" for kind, count in findings.counts.items())
    log(f"{run.path}: checked {listed or 'nothing'}; {len(findings.problems)} missing or altered")
    if findings.unknown:
        few = ", ".join(f"{count} {kind}" for kind, count in findings.unknown.items())
        log(f"{run.path}: no hash is known of {few}: they exist, but were written by an older version")
    return 1 if findings.problems else 0


def check_run(config: Config, run: RunDirectory, maps: bool = True) -> Findings:
    """Compare every file of a run with its recorded hash.

    Parameters
    ----------
    config : Config
    run : RunDirectory
    maps : bool, default True
        Whether the run should have maps.
    """
    findings = Findings()
    _settings(run, findings)
    _inputs(config, run, findings)
    _tables(run, findings)
    checkpoints = _checkpoints(config, run, findings)
    if maps:
        check_maps(config, run, findings, checkpoints)
    _results(run, findings)
    _test_metrics(run, findings)
    return findings


def check_benchmark(config: Config, run: RunDirectory) -> Findings:
    """Check the run of each cell or region of a benchmark, and the tables and figures of all."""
    findings = Findings()
    _settings(run, findings)
    units = sorted(
        path.parent for name in ("cells", "regions") for path in run.path.glob(f"{name}/*/config.yaml")
    )
    for folder in units:
        own = RunDirectory(folder)
        findings.add(check_run(saved_settings(own.config), own, maps=not config.detection.cells))
    if not (run.path / RESULTS).exists():
        findings.problems.append(
            f"{run.path / RESULTS}: is missing; the benchmark is not finished: start it again"
        )
    _results(run, findings)
    return findings


def _settings(run: RunDirectory, findings: Findings) -> None:
    """Check config.yaml by the hash in its first line."""
    findings.count("settings")
    unaltered = is_unaltered(read_text(run.config))
    if unaltered is None:
        findings.unknown["settings"] = findings.unknown.get("settings", 0) + 1
    elif not unaltered:
        findings.problems.append(f"{run.config}: is altered; the settings of the run are not known")


def _inputs(config: Config, run: RunDirectory, findings: Findings) -> None:
    """Check the images of the cohort by participants.tsv."""
    if not run.participants.exists():
        findings.problems.append(f"{run.participants}: is missing; the participants are not known")
        return
    root = cohort_root(config)
    if not root.is_dir():
        findings.problems.append(f"{root}: is missing; give the folder of the images as data.root=<folder>")
        return
    table = read_tsv(run.participants).dropna(subset="sha256")  # images in memory have none
    for row in track(list(table.itertuples()), "check images", "images"):
        contents = re.split("[+]", str(row.sha256))[
            0
        ].split()  # one for each channel; planted effects are settings
        columns = ["t1w_path", *(f"channel{k}_path" for k in range(2, len(contents) + 1))]
        for column, content in zip(columns, contents, strict=True):
            repair = f"the run used another image of {row.participant_id}"
            findings.compare("images", root / str(getattr(row, column)), content, repair)


def _tables(run: RunDirectory, findings: Findings) -> None:
    """Check participants.tsv and folds.tsv by provenance.json."""
    if not run.provenance.exists():
        findings.problems.append(f"{run.provenance}: is missing; the inputs of the run are not known")
        return
    listed = findings.read(run.provenance, "the hashes of its inputs are lost").get("tables_sha256", {})
    for path in (run.participants, run.folds, run.standardization):
        if path.exists() or path.name in listed:
            findings.compare(
                "tables", path, listed.get(path.name), "the networks were made with another version of it"
            )


def _checkpoints(config: Config, run: RunDirectory, findings: Findings) -> dict[tuple[int, int], str]:
    """Hash of every network of the run by seed and fold; their predictions are checked, too."""
    again = "remove it and run `xai-brain train` again"
    if config.networks:
        about = findings.read(run.provenance, "the hashes of its networks are lost")
        listed = about.get("networks_sha256", {})
        for name, expected in listed.items():
            path = Path(config.networks).expanduser()
            path = path if path.name == name and not path.is_dir() else path / "checkpoints" / name
            findings.compare("networks", path, expected, "restore it; it made the predictions and maps")
        return {}
    if not run.folds.exists():
        return {}
    found, seeds = {}, list(config.seeds)
    networks = [(seed, fold) for seed in seeds for fold in fold_numbers(read_tsv(run.folds))]
    for seed, fold in track(networks, "check networks", "networks", brief=True):
        path, beside = run.checkpoint(fold, seed), run.checkpoint_about(fold, seed)
        about = findings.read(beside, again)
        expected = about.get("CheckpointSHA256")
        findings.compare("networks", path, expected, again)
        for name, content in about.get("TablesSHA256", {}).items():
            findings.compare("tables", path.with_name(name), content, again)
        if expected or path.is_file():
            found[seed, fold] = expected or file_hash(path)
    if not run.predictions.exists():
        findings.problems.append(f"{run.predictions}: is missing; run `xai-brain train` again")
        return found
    together = read_tsv(run.predictions)
    for (seed, fold), rows in together.groupby(["seed", "fold"]):
        beside = run.checkpoint(fold, seed)
        beside = beside.with_name(f"{beside.stem}_predictions.tsv")
        findings.count("predictions", len(rows))
        if not beside.exists():
            findings.problems.append(f"{beside}: is missing; run `xai-brain train` again")
        elif not rows.drop(columns="repeat", errors="ignore").reset_index(drop=True).equals(read_tsv(beside)):
            findings.problems.append(f"{run.predictions}: differs from {beside.name}; {again}")
    return found


# A finished stage writes a manifest with its inputs and the hash of each result file.
MANIFESTS = {
    "evaluation/*.json": "evaluate",
    "evaluation/baselines.json": "baselines",  # in place of the line above, as thresholds.json
    "evaluation/thresholds.json": "threshold",
    "evaluation/metrics/*.json": "evaluate",
    "evaluation/masks/*.json": "validate",
    "figures/inputs.json": "report",
    RESULTS: "run",  # of a benchmark
}


def _results(run: RunDirectory, findings: Findings) -> None:
    """Check tables, group maps, figures and the report by the manifests of their stages."""
    commands = {path: command for name, command in MANIFESTS.items() for path in sorted(run.path.glob(name))}
    for manifest, command in track(list(commands.items()), "check results", "manifests", brief=True):
        content = findings.read(manifest, f"remove it and run `xai-brain {command}` again")
        if content and "Files" not in content:  # written by an older version
            findings.unknown["results"] = findings.unknown.get("results", 0) + 1
            continue
        for path, expected in manifest_files(manifest).items() if content else ():
            findings.compare("results", path, expected, _repair_result(run, path, manifest, command))


def _repair_result(run: RunDirectory, path: Path, manifest: Path, command: str) -> str:
    """How to compute a result again; a stage is skipped as long as its manifest exists."""
    if path.parent.name == "images":
        return "remove it and run `xai-brain explain` again"
    if path.parent.parent.name == "baselines":
        return f"remove {path.parent} and run `xai-brain baselines` again"
    manifests = [manifest]
    if manifest.parent.name == "metrics":
        manifests.append(run.path / "evaluation" / "inputs.json")
    return f"remove {' and '.join(map(str, manifests))} and run `xai-brain {command}` again"


def _test_metrics(run: RunDirectory, findings: Findings) -> None:
    """Check the test metrics in metrics.json: they are computed again from predictions.tsv."""
    if not (run.predictions.exists() and run.folds.exists()):
        return
    repair = f"remove {run.predictions} and run `xai-brain train` again"
    if not run.metrics.exists():
        findings.problems.append(f"{run.metrics}: is missing; {repair}")
    elif listed := findings.read(run.metrics, repair):
        table = read_tsv(run.predictions)
        task = task_of_table(saved_settings(run.config).task, table.columns)
        for name, value in task.scores(table, n_bootstrap=1).items():
            known = "_ci_" not in name and name in listed  # an older version had fewer
            if known and not np.isclose(float(listed[name]), value, equal_nan=True):
                findings.problems.append(
                    f"{run.metrics}: {name} does not agree with predictions.tsv; {repair}"
                )
