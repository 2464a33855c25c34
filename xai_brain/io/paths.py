"""Messages about paths that are no files."""

from __future__ import annotations

from pathlib import Path

IMAGES = (".nii", ".nii.gz")
TABLES = (".tsv", ".csv", ".txt", ".xml", ".parquet", ".xls", ".xlsx")
WEIGHTS = (".ckpt", ".pt", ".pth", ".safetensors")
MAX_LISTED = 5


def why_no_file(path: Path, endings: tuple[str, ...] = ()) -> str:
    """Why a path cannot be read as a file: nothing is there, or a folder, whose suitable files are named.

    Parameters
    ----------
    path : Path
    endings : tuple of str, default ()
        Endings of suitable files; default: all files.

    Examples
    --------
    >>> why_no_file(Path("nowhere"))
    'there is no such file'
    """
    if not path.is_dir():
        return "there is no such file"
    try:
        here = (each.name for each in path.iterdir() if each.is_file())
        names = sorted(name for name in here if not name.startswith(".") and name.endswith(endings or ""))
    except OSError:
        names = []
    if not names:
        kind = f" {', '.join(endings)}" if endings else ""
        return f"is a folder, and a file is needed; it contains no file{kind}"
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"is a folder, and a file is needed; it contains {', '.join(names[:MAX_LISTED])}{more}"
