"""The BIDS App: ``xai-brain-bids <bids_dir> <output_dir> participant|group`` as commands of xai-brain.

The package is not imported further, so that ``--help`` and wrong arguments are answered at once.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

from xai_brain.config.setting import ConfigError

DESCRIPTION = """\
Explain 3-D networks on the T1w images of a BIDS dataset, raw or derivative, with participants.tsv.

participant  predicts and explains each participant with given networks (--networks): a run of xai-brain, a
             file of its weights, or a network that was trained elsewhere (--settings network.weights=...).
             Results: <output_dir>/sub-<label>, a run directory for each participant, so that participants
             can be processed by several jobs at the same time.
group        trains networks on all participants (or those of --participant-label), explains each
             participant with the network that was not trained on it, and writes the report of the cohort.
             Results: <output_dir>/group.

The dataset is only read. A second call computes what is missing.
"""
EPILOG = """\
examples:
  xai-brain-bids /data/bids /data/out group --label sex
  xai-brain-bids /data/new /data/out participant --networks /data/out/group --participant-label 01 02
  xai-brain-bids /data/bids /data/out group --label sex --settings preprocessing.raw=true seeds=[0,1]
"""


def parser() -> argparse.ArgumentParser:
    """Arguments of ``xai-brain-bids``, in the order and with the names of the BIDS Apps."""
    made = argparse.ArgumentParser(
        "xai-brain-bids",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("bids_dir", type=Path, help="folder of the dataset, with participants.tsv")
    made.add_argument("output_dir", type=Path, help="folder of the results; created if it does not exist")
    made.add_argument("analysis_level", choices=("participant", "group"), help="what is computed, see above")
    made.add_argument(
        "--participant-label", "--participant_label", nargs="+", default=[], metavar="LABEL",
        help="participants that are used, with or without sub-; default: all",
    )  # fmt: skip
    made.add_argument("--networks", type=Path, help="participant: run directory or file of weights")
    made.add_argument("--label", default="sex", help="group: column of participants.tsv; default: sex")
    made.add_argument(
        "--settings", nargs="+", default=[], metavar="KEY=VALUE", help="further settings of xai-brain"
    )
    made.add_argument("-q", "--quiet", action="store_true", help="warnings and errors only")
    made.add_argument("-v", "--verbose", action="store_true", help="also the duration of each step")
    made.add_argument("--version", action="version", version=version("xai-brain"))
    return made


def commands_of(arguments: list[str] | None = None) -> list[list[list[str]]]:
    """Commands of ``xai-brain``: groups, which do not depend on each other, of commands in their order.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the process.

    Raises
    ------
    ConfigError
        A folder does not exist, the results would be written into the dataset, or networks are missing.
    """
    given = parser().parse_args(arguments)
    bids, output = given.bids_dir.expanduser(), given.output_dir.expanduser()
    if not bids.is_dir():
        raise ConfigError(f"{bids}: there is no such folder; bids_dir is the folder of participants.tsv")
    inside = output.resolve().relative_to(bids.resolve()).parts if _is_below(output, bids) else ()
    if output.resolve() == bids.resolve() or (inside and inside[0] != "derivatives"):
        raise ConfigError(f"{output}: lies in the dataset, which is only read; use another folder")
    if wrong := [text for text in given.settings if "=" not in text]:
        raise ConfigError(f"--settings {wrong[0]}: settings are written key=value")
    chosen = [f"sub-{text.removeprefix('sub-')}" for text in given.participant_label]
    if absent := [name for name in chosen if not (bids / name).is_dir()]:
        raise ConfigError(f"--participant-label {absent[0].removeprefix('sub-')}: {bids} has no {absent[0]}")
    data = ["data=bids", f"data.root={bids}", *given.settings]
    flags = ["--quiet"] * given.quiet + ["--verbose"] * given.verbose
    if given.analysis_level == "group":
        if given.networks:
            raise ConfigError("--networks: is for the analysis level participant; group trains networks")
        some = [f"data.participants=[{','.join(chosen)}]"] if chosen else []
        label = [f"data.label={given.label}"]
        return [[["run", *data, *label, *some, f"run_dir={output / 'group'}", *flags]]]
    elsewhere = any(text.startswith("network.") for text in given.settings)
    if bool(given.networks) == elsewhere:
        raise ConfigError(
            "participant: give --networks <run directory or file of weights> or --settings network.weights="
            "<file>; the analysis level group trains networks"
        )
    if not any(text.startswith("data.label=") for text in given.settings):
        data.append("data.label=null")
    names = chosen or sorted(path.name for path in bids.glob("sub-*") if path.is_dir())
    if not names:
        raise ConfigError(f"{bids}: has no folder sub-<label>")
    groups = []
    for name in names:
        run_dir = f"run_dir={output / name}"
        one = [*data, f"data.participants=[{name}]", run_dir, *flags]
        if elsewhere:
            groups.append([["explain-network", *one]])
        else:
            source = "networks" if given.networks.expanduser().is_dir() else "model.weights"
            groups.append([["predict", f"{source}={given.networks}", *one], ["explain", run_dir, *flags]])
    return groups


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
