"""Conversion of methods that are given in Python to settings."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import get_class

from xai_brain.config.build import method_files, read_method
from xai_brain.config.setting import ConfigError
from xai_brain.config.trust import KNOWN_PACKAGES
from xai_brain.io.nifti import bids_label

Method = str | type | functools.partial[Any]


def method_settings(
    methods: Sequence[Method] | Mapping[str, Mapping[str, Any]],
    present: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Settings of methods that are given by name, class or `functools.partial` of a class.

    Parameters
    ----------
    methods : sequence of str, type or functools.partial[Any]
        ``"GradCAM"``, ``xai_brain.GradCAM`` or ``partial(xai_brain.MeaningfulPerturbation, n_iter=20)``.
        Classes of other packages, such as ``captum.attr.Saliency``, are allowed. A mapping of label to
        settings is used as it is.
    present : mapping of label to settings, optional
        Settings of the methods that a study already has; a method given by name only keeps them.

    Returns
    -------
    dict of label to settings
        The label is the name of the class without underscores; it is part of file names.

    Raises
    ------
    ConfigError
        There is no such method; the valid names are listed.
    """
    if isinstance(methods, str):
        raise ConfigError(f"methods={methods!r}: a list is needed, methods=[{methods!r}]")
    if isinstance(methods, Mapping):
        return {label: dict(settings) for label, settings in methods.items()}
    found: dict[str, dict[str, Any]] = {}
    for method in methods:
        for label, settings in _settings_of(method, present or {}).items():
            if label in found:
                raise ConfigError(f"methods: {label} is given twice")
            found[label] = settings
    return found


def _settings_of(method: Method, present: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    if isinstance(method, str):
        if method in present:
            return {method: dict(present[method])}
        return {label: dict(present.get(label, settings)) for label, settings in read_method(method).items()}
    made: Any = method
    arguments: dict[str, Any] = {}
    if isinstance(method, functools.partial):
        made, arguments = method.func, dict(method.keywords)
        if method.args:
            raise ConfigError(f"methods: {method!r}: arguments are needed by name")
    if not isinstance(made, type):
        raise ConfigError(f"methods: {method!r}: a name, a class or a functools.partial of a class is needed")
    label = bids_label(made.__name__)
    usual: Mapping[str, Any] = {"_target_": f"{made.__module__}.{made.__qualname__}", "_partial_": True}
    for known in (present.get(label), read_method(label)[label] if label in method_files() else None):
        if known is not None and get_class(str(known["_target_"])) is made:
            usual = known
            break
    return {label: {**usual, **arguments}}


def foreign_packages(settings: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Packages of the classes of methods that are given by the user and have to be trusted."""
    packages = {str(each["_target_"]).split(".")[0] for each in settings.values()}
    return packages - {*KNOWN_PACKAGES}
