"""What the values of the shown maps mean, from their sidecars: the explained class and the sign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xai_brain.io.problems import named

WHY = {"predicted": ", which the network predicts", "true": ", the true class of the participant"}
OF_EACH = {"predicted": "the network predicts for it", "true": "it belongs to"}
SIGNED = "raw and signed"  # beginning of the meaning of values that can be negative
CONTRAST = " minus "  # in names of group maps


def explained_text(sidecars: Mapping[str, Mapping[str, Any]]) -> str:
    """The class that the maps of a participant explain, in one sentence; empty if it is not known.

    Parameters
    ----------
    sidecars : mapping of method to the content of its sidecar
        Baseline maps, which explain no network, are not considered.

    Examples
    --------
    >>> explained_text({"GradCAM": {"TargetName": "male", "TargetRule": "predicted"}})
    'The maps explain the class male, which the network predicts.'
    """
    of_networks = {name: each for name, each in sidecars.items() if _explains_network(each)}
    targets: dict[str, list[str]] = {}
    for name, each in of_networks.items():
        targets.setdefault(str(each["TargetName"]), []).append(name)
    if not targets:
        return ""
    first = next(iter(of_networks.values()))
    what = "class" if "TargetProbability" in first or first.get("TargetRule") in WHY else "output"
    if len(targets) > 1:
        listed = "; ".join(f"{target} ({named(names)})" for target, names in targets.items())
        return f"The maps explain different outputs: {listed}."
    rules = {str(each.get("TargetRule")) for each in of_networks.values()}
    why = WHY.get(rules.pop(), "") if len(rules) == 1 else ""
    return f"The maps explain the {what} {next(iter(targets))}{why}."


def channel_text(sidecars: Mapping[str, Mapping[str, Any]], channel: str) -> str:
    """Which channels of the inputs the shown maps belong to; empty for inputs with one channel.

    Parameters
    ----------
    sidecars : mapping of method to the content of the sidecar of the shown map
    channel : str
        The selected channel; empty for the sums.

    Examples
    --------
    >>> channel_text({"Saliency": {"Channels": ["FLAIR"]}, "GradCAM": {"Channels": ["T1", "FLAIR"]}}, "FLAIR")
    'Channel FLAIR; one map for all channels: GradCAM.'
    >>> channel_text({"Saliency": {"Channels": ["T1", "FLAIR"]}}, "")
    'Maps of all channels (T1, FLAIR), on the image of T1.'
    """
    names = {name: list(each.get("Channels") or []) for name, each in sidecars.items()}
    if not channel:
        several = next((every for every in names.values() if len(every) > 1), [])
        return (
            f"Maps of all channels ({', '.join(several)}), on the image of {several[0]}." if several else ""
        )
    common = [name for name, every in names.items() if len(every) > 1]
    return f"Channel {channel}{f'; one map for all channels: {named(common)}' if common else ''}."


def explained_text_of_group(name: str, target: str, number: str = "") -> str:
    """The output that the maps behind a group map explain, and the sign of a group test.

    Parameters
    ----------
    name : str
        Statistic and classes, such as ``"mean class male"`` or ``"t male minus female"``.
    target : str
        ``explain.target`` of the run.
    number : str, optional
        Name of the number that the networks predict; default: they predict classes.

    Examples
    --------
    >>> explained_text_of_group("t male minus female", "male")
    'The maps explain male. Positive values: higher in male than in female.'
    >>> explained_text_of_group("slope contrast age", "predicted", "age")
    'The maps explain the predicted age. Positive values: higher with higher age.'
    """
    statistic, _, classes = name.partition(" ")
    if number:
        sign = f" Positive values: higher with higher {number}." if statistic in ("t", "slope") else ""
        return f"The maps explain the predicted {number}.{sign}"
    text = (
        f"The map of each participant explains the class that {OF_EACH[target]}." if target in OF_EACH else ""
    )
    text = text or f"The maps explain {target}."
    if statistic in ("t", "difference") and classes.count(CONTRAST) == 1:
        text += " Positive values: higher in {} than in {}.".format(*classes.split(CONTRAST))
    return text


def value_text(sidecar: Mapping[str, Any], signed: bool) -> str:
    """The meaning of positive and negative values of one map; empty if it is not known.

    Parameters
    ----------
    sidecar : mapping
    signed : bool
        Whether the map has negative values.

    Examples
    --------
    >>> value_text({"TargetName": "male", "MultipliesByInputs": True}, signed=True)
    'positive: raises the score of male; negative: lowers it'
    >>> value_text({"TargetName": "male", "MultipliesByInputs": False}, signed=True)
    'positive: higher intensity raises the score of male; negative: lowers it'
    """
    meaning = str(sidecar.get("ValueMeaning", ""))
    has_sign = signed or meaning.startswith(SIGNED)  # such maps of some participants are positive everywhere
    if not _explains_network(sidecar) or not has_sign or sidecar.get("Adopted"):
        return meaning
    cause = "higher intensity raises" if sidecar.get("MultipliesByInputs") is False else "raises"
    return f"positive: {cause} the score of {sidecar['TargetName']}; negative: lowers it"


def _explains_network(sidecar: Mapping[str, Any]) -> bool:
    return "TargetName" in sidecar and sidecar.get("Kind") != "baseline"
