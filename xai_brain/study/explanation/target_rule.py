"""Which class is explained: what `explain.target` means, given the labels of a run."""

from __future__ import annotations

from collections.abc import Sequence

from xai_brain.config.setting import ConfigError

RESERVED = ("predicted", "true")  # the class that the network predicts, the participant's own class
LABEL, RULE = "label:", "rule:"


def read_target(target: str, class_names: Sequence[str]) -> str | int:
    """A reserved word, or the index of the class that is explained for all participants.

    Parameters
    ----------
    target : str
        ``predicted``, ``true`` or a label. Where a label equals one of these words, ``label:true`` is the
        label and ``rule:true`` the reserved word.
    class_names : sequence of str

    Raises
    ------
    ConfigError
        There is no such label, or it equals a reserved word.
    """
    names = list(class_names)
    if target in RESERVED and target in names:
        raise ConfigError(
            f"explain.target={target}: is a label of this run and also a reserved word; explain.target="
            f"{LABEL}{target} explains the class, explain.target={RULE}{target} is the reserved word"
        )
    if target in names:
        return names.index(target)
    if target.removeprefix(RULE) in RESERVED:
        return target.removeprefix(RULE)
    if target.startswith(LABEL) and target.removeprefix(LABEL) in names:
        return names.index(target.removeprefix(LABEL))
    raise ConfigError(f"explain.target={target}: one of {', '.join((*RESERVED, *names))} is needed")


def target_rule(target: str, class_names: Sequence[str]) -> str:
    """`target` as written in the sidecars of maps: a reserved word or a label (``label:true``)."""
    found = read_target(target, class_names)
    if isinstance(found, str):
        return found
    name = class_names[found]
    return f"{LABEL}{name}" if name in RESERVED else name
