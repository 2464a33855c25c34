"""Installation commands of the optional packages of this project."""

from __future__ import annotations

import re
from importlib import metadata


def install_command(extra: str) -> str:
    """Command that installs the packages of an extra, in any folder.

    The packages are listed individually, because xai-brain itself is not on a package index.

    Examples
    --------
    >>> install_command("models")  # doctest: +SKIP
    "pip install 'monai>=1.4'"
    """
    marker = re.compile(rf"""extra == ['"]{extra}['"]""")
    requirements = [text.partition(";") for text in metadata.requires("xai-brain") or []]
    packages = sorted(name.strip() for name, _, condition in requirements if marker.search(condition))
    return " ".join(["pip install", *(f"'{package}'" for package in packages)])
