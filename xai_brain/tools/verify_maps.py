"""Check the maps of a run by their sidecars."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xai_brain.config.schema import Config
from xai_brain.parallel.progress import track
from xai_brain.runs.directory import RunDirectory, first_repeat, of_channel, read_tsv, sidecar
from xai_brain.study.training.native import NATIVE
from xai_brain.tools.findings import Findings


def check_maps(
    config: Config, run: RunDirectory, findings: Findings, checkpoints: dict[tuple[int, int], str]
) -> None:
    """Check every map by its sidecar."""
    if run.predictions.exists():
        rows = first_repeat(read_tsv(run.predictions))
        rows = rows if "fold" in rows else rows.assign(fold=0)  # maps of `xai_brain.explain`
    elif config.imported_methods and run.participants.exists():
        rows = read_tsv(run.participants).assign(seed=config.seeds[0], fold=0)
    else:
        return
    if config.attribution and not (run.path / "attributions").exists():
        findings.problems.append(f"{run.path / 'attributions'}: is missing; run `xai-brain explain`")
        return
    seeds = config.seeds if config.explain.seeds is None else config.explain.seeds
    rows = rows[rows["seed"].isin(list(seeds))]
    images = {
        (row.participant_id, row.session_id): str(row.sha256)
        for row in read_tsv(run.participants).itertuples()
    }
    for row in track(list(rows.itertuples()), "check maps", "maps"):
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
            for channel in about.get("ChannelMaps", []):
                own = run.attribution(
                    row.participant_id, row.session_id, of_channel(label, channel), row.seed
                )
                expected = findings.read(sidecar(own), again).get("MapSHA256")
                findings.compare("maps of channels", own, expected, again)
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
    """Entries of a sidecar that contradict the run."""
    if about.get("ParticipantId") != row.participant_id:
        yield f"belongs to {about.get('ParticipantId')}"
    if imported:
        return
    network = checkpoints.get((row.seed, row.fold))
    if network is not None and about.get("CheckpointSHA256") != network:
        yield "the map was made by another network"
    if about.get("InputSHA256") and about["InputSHA256"] != images.get((row.participant_id, row.session_id)):
        yield "the map was made from another image than that in participants.tsv"
