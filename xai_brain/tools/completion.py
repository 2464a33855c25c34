"""Completion of commands and settings in bash: ``eval "$(xai-brain completion bash)"``."""

from __future__ import annotations

from xai_brain.config.command_help import COMMANDS, STAGES
from xai_brain.config.setting import ConfigError
from xai_brain.tools.settings import all_settings, choices

SCRIPT = """\
# completion of xai-brain for bash; to keep it, add this line to ~/.bashrc:
#   eval "$(xai-brain completion bash)"
_xai_brain() {{
    local word="${{COMP_LINE:0:COMP_POINT}}"
    word="${{word##* }}"
    local words
    if [ "$COMP_CWORD" -le 1 ]; then
        words="{commands}"
    else
        words="{settings}"
        case "${{COMP_WORDS[1]}}" in {stages}) COMPREPLY=($(compgen -d -- "$word"));; esac
    fi
    COMPREPLY+=($(compgen -W "$words" -- "$word"))
    # bash also splits words at =; the part before it is already typed
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        local i before="${{word%"${{word##*=}}"}}"
        for i in "${{!COMPREPLY[@]}}"; do COMPREPLY[i]="${{COMPREPLY[i]#"$before"}}"; done
    fi
    [[ "${{COMPREPLY[0]}}" == *= ]] && compopt -o nospace
    return 0
}}
complete -F _xai_brain xai-brain
"""


def completion(arguments: list[str]) -> int:
    """Print the script that completes commands, settings and their files.

    Parameters
    ----------
    arguments : list of str
        ``["bash"]``.

    Raises
    ------
    ConfigError
        The shell is not supported.
    """
    if arguments != ["bash"]:
        shell = " ".join(arguments) or "no shell"
        raise ConfigError(f"{shell}: only bash is supported, as in xai-brain completion bash")
    names = [f"{each.name}=" for each in all_settings()]
    files = [text for text, _ in choices("")]
    print(
        SCRIPT.format(
            commands=" ".join(COMMANDS), settings=" ".join([*names, *files]), stages="|".join(STAGES)
        )
    )
    return 0
