"""Reference of the commands, from the help of the command line."""

from __future__ import annotations

from xai_brain.config.command_help import COMMANDS, STAGES, TOOLS, command_help, general_help

GROUPS = {
    "Training and prediction": ("run", "train", "predict"),
    "Stages of an existing run": STAGES,
    "Tools": TOOLS,
}


def commands() -> str:
    """Markdown: the general help, then one heading per command with its help."""
    parts = ["## Overview", _block(general_help())]
    for title, names in GROUPS.items():
        parts += [f"## {title}", *(_entry(name) for name in names)]
    return "\n\n".join(parts)


def _entry(name: str) -> str:
    return f"### xai-brain {name}\n\n{COMMANDS[name]}\n\n{_block(command_help(name))}"


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```"
