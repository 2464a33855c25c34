"""Whether a run is whole: ``xai-brain verify <run_dir>``. Nothing is changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.overrides import expanded
from xai_brain.config.saved import is_unaltered, saved_settings
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.folds.tables import fold_numbers
from xai_brain.io.atomic import file_hash
from xai_brain.io.text_tables import read_text
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import RunDirectory, first_repeat, read_json, read_tsv, sidecar
from xai_brain.runs.manifest import manifest_files
from xai_brain.study.participants import cohort_root
from xai_brain.study.training.native import NATIVE
from xai_brain.task.build import task_of_table


@dataclass
class Findings:
    """What was looked at, and what is wrong."""

    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)

    def read(self, path: Path, repair: str) -> dict[str, Any]:
        """A JSON file; nothing, and a problem, where it is damaged; nothing where there is none."""
        try:
            found = read_json(path) if path.exists() else {}
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        self.problems.append(f"{path}: is damaged; {repair}")
        return {}

    def compare(self, kind: str, path: Path, expected: str | None, repair: str) -> None:
        """Count one file; `expected` is its hash, None where an older version wrote none."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if not path.is_file():
            self.problems.append(f"{path}: is missing; {repair}")
        elif expected is None:
            self.unknown[kind] = self.unknown.get(kind, 0) + 1
        elif file_hash(path) != expected:
            self.problems.append(f"{path}: is altered; {repair}")


def verify(arguments: list[str]) -> int:
    """Check the hashes of everything that a run was made of and that it made; print what does not hold.

    Parameters
    ----------
    arguments : list of str
        The run directory; ``data.root=<folder>`` where the images are elsewhere now.

    Returns
    -------
    int
        1 when something is missing or altered, else 0.

    Raises
    ------
    ConfigError
        No run is named, or the folder holds none.
    """
    roots = [text.removeprefix("data.root=") for text in arguments if text.startswith("data.root=")]
    folders = [text.removeprefix("run_dir=") for text in arguments if not text.startswith("data.root=")]
    if len(folders) != 1 or len(roots) > 1:
        raise ConfigError("what? xai-brain verify <run_dir> [data.root=<folder>]")
    run = RunDirectory(Path(folders[0]).expanduser())
    if not run.config.exists():
        raise ConfigError(f"{run.config}: there is no run; name the folder of one")
    config = saved_settings(run.config)
    if roots:
        config.data.root = expanded(roots[0])
    findings = check_run(config, run)
    for problem in findings.problems:
        log(problem, logging.WARNING)  # shown with every verbosity
    listed = ", ".join(f"{count} {kind}" for kind, count in findings.counts.items())
    log(f"{run.path}: looked at {listed or 'nothing'}; {len(findings.problems)} missing or altered")
    if findings.unknown:
        few = ", ".join(f"{count} {kind}" for kind, count in findings.unknown.items())
        log(f"{run.path}: of {few} no hash is known: they are there, and were written by an older version")
    return 1 if findings.problems else 0


def check_run(config: Config, run: RunDirectory) -> Findings:
    """Compare every file of a run with the hash that was written beside it."""
    findings = Findings()
    _settings(run, findings)
    _inputs(config, run, findings)
    _tables(run, findings)
    checkpoints = _checkpoints(config, run, findings)
    _maps(config, run, findings, checkpoints)
    _results(run, findings)
    _figures(run, findings)
    return findings


def _settings(run: RunDirectory, findings: Findings) -> None:
    """config.yaml, by its first line."""
    findings.counts["settings"] = 1
    unaltered = is_unaltered(read_text(run.config))
    if unaltered is None:
        findings.unknown["settings"] = 1
    elif not unaltered:
        findings.problems.append(f"{run.config}: is altered; what the run was made with is not known")


def _inputs(config: Config, run: RunDirectory, findings: Findings) -> None:
    """Images of the cohort, by participants.tsv."""
    if not run.participants.exists():
        findings.problems.append(f"{run.participants}: is missing; the participants are not known")
        return
    root = cohort_root(config)
    if not root.is_dir():
        findings.problems.append(f"{root}: is missing; give the folder of the images as data.root=<folder>")
        return
    for row in track(list(read_tsv(run.participants).itertuples()), "check images"):
        content = str(row.sha256).split("+")[0]  # what was planted is known by the settings
        findings.compare(
            "images", root / str(row.t1w_path), content, f"the run knows another {row.participant_id}"
        )


def _tables(run: RunDirectory, findings: Findings) -> None:
    """Who takes part and who is in which fold, by provenance.json."""
    if not run.provenance.exists():
        findings.problems.append(f"{run.provenance}: is missing; what the run was made of is not known")
        return
    listed = findings.read(run.provenance, "the hashes of its inputs are lost").get("tables_sha256", {})
    for path in (run.participants, run.folds):
        if path.exists() or path.name in listed:
            findings.compare(
                "tables", path, listed.get(path.name), "its networks were trained with another one"
            )


def _checkpoints(config: Config, run: RunDirectory, findings: Findings) -> dict[tuple[int, int], str]:
    """Hash of every network of the run by seed and fold; the predictions of each are looked at too."""
    again = "remove it and run `xai-brain train` again"
    if config.networks:
        about = findings.read(run.provenance, "the hashes of its networks are lost")
        listed = about.get("networks_sha256", {})
        for name, expected in listed.items():
            path = Path(config.networks).expanduser()
            path = path if path.name == name and not path.is_dir() else path / "checkpoints" / name
            findings.compare("networks", path, expected, "it made these predictions and maps")
        return {}
    if not run.folds.exists():
        return {}
    found, seeds = {}, list(config.seeds)
    for seed in seeds:
        for fold in fold_numbers(read_tsv(run.folds)):
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
        findings.counts["predictions"] = findings.counts.get("predictions", 0) + len(rows)
        if not beside.exists():
            findings.problems.append(f"{beside}: is missing; run `xai-brain train` again")
        elif not _same_rows(rows.drop(columns="repeat", errors="ignore"), read_tsv(beside)):
            findings.problems.append(f"{run.predictions}: differs from {beside.name} in fold {fold}; {again}")
    return found


def _same_rows(rows: pd.DataFrame, others: pd.DataFrame) -> bool:
    return bool(rows.reset_index(drop=True).equals(others))


def _maps(
    config: Config, run: RunDirectory, findings: Findings, checkpoints: dict[tuple[int, int], str]
) -> None:
    """Every map that a finished run has, by its sidecar."""
    if run.predictions.exists():
        rows = first_repeat(read_tsv(run.predictions))
    elif config.imported_methods and run.participants.exists():
        rows = read_tsv(run.participants).assign(seed=config.seeds[0], fold=0)
    else:
        return
    seeds = config.seeds if config.explain.seeds is None else config.explain.seeds
    rows = rows[rows["seed"].isin(list(seeds))]
    images = {
        (row.participant_id, row.session_id): str(row.sha256)
        for row in read_tsv(run.participants).itertuples()
    }
    for row in track(list(rows.itertuples()), "check maps"):
        for label in [*config.attribution, *config.imported_methods]:
            path = run.attribution(row.participant_id, row.session_id, label, row.seed)
            imported = label in config.imported_methods
            if not sidecar(path).exists():
                if not imported:  # imported maps may cover some participants only
                    findings.compare("maps", sidecar(path), None, "run `xai-brain explain` again")
                continue
            again = "import it again" if imported else "remove it and run `xai-brain explain` again"
            about = findings.read(sidecar(path), again)
            if not about:
                continue
            findings.compare("maps", path, about.get("MapSHA256"), again)
            if (native := run.native(path, NATIVE)).exists():
                expected = findings.read(sidecar(native), again).get("MapSHA256")
                findings.compare("native maps", native, expected, again)
            findings.problems += [
                f"{sidecar(path)}: {what}; {again}"
                for what in _contradictions(about, row, checkpoints, images, imported)
            ]


def _contradictions(
    about: dict[str, Any],
    row: Any,
    checkpoints: dict[tuple[int, int], str],
    images: dict[tuple[str, str], str],
    imported: bool,
) -> Iterator[str]:
    """What a sidecar says of itself that the run does not."""
    if about.get("ParticipantId") != row.participant_id:
        yield f"belongs to {about.get('ParticipantId')}"
    if imported:
        return
    network = checkpoints.get((row.seed, row.fold))
    if network is not None and about.get("CheckpointSHA256") != network:
        yield "is of another network than the one that is there"
    if "InputSHA256" in about and about["InputSHA256"] != images.get((row.participant_id, row.session_id)):
        yield "is of another image than that in participants.tsv"


# A stage that is done leaves a manifest: the inputs that its results follow from, and the hash of each file.
MANIFESTS = {
    "evaluation/baselines.json": "baselines",
    "evaluation/metrics/*.json": "evaluate",
    "evaluation/inputs.json": "evaluate",
    "group/inputs.json": "evaluate",
    "evaluation/masks/*.json": "validate",
    "figures/inputs.json": "report",
}


def _results(run: RunDirectory, findings: Findings) -> None:
    """Tables, maps of groups, figures and the report, by the manifests of their stages."""
    for pattern, command in MANIFESTS.items():
        for manifest in sorted(run.path.glob(pattern)):
            content = findings.read(manifest, f"remove it and run `xai-brain {command}` again")
            if content and "Files" not in content:  # of an older version
                findings.unknown["results"] = findings.unknown.get("results", 0) + 1
                continue
            for path, expected in manifest_files(manifest).items() if content else ():
                findings.compare("results", path, expected, _remade(run, path, manifest, command))


def _remade(run: RunDirectory, path: Path, manifest: Path, command: str) -> str:
    """What makes a result again; a stage that has its manifest does nothing."""
    if path.parent.name == "images":
        return "remove it and run `xai-brain explain` again"
    if path.parent.parent.name == "baselines":
        return f"remove {path.parent} and run `xai-brain baselines` again"
    manifests = [manifest]
    if manifest.parent.name == "metrics":
        manifests.append(run.path / "evaluation" / "inputs.json")
    return f"remove {' and '.join(map(str, manifests))} and run `xai-brain {command}` again"


def _figures(run: RunDirectory, findings: Findings) -> None:
    """metrics.json: what it says of the test subjects is counted again from predictions.tsv."""
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
                findings.problems.append(f"{run.metrics}: {name} is not that of predictions.tsv; {repair}")
