"""Interactive viewer of maps in JupyterLab, independent of torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xai_brain.viewer.slice_viewer import SliceViewer as SliceViewer

_HOMES = {"SliceViewer": "slice_viewer"}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
