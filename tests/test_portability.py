"""The package can be imported on macOS and Windows: without what only Linux or POSIX systems have."""

from __future__ import annotations

import json

import pytest
from conftest import in_another_process

# modules that Windows does not have, and attributes of modules that Windows (or macOS) does not have
CODE = """
import importlib, json, os, pkgutil, signal, sys

# of others, which have their own rules
import captum.attr, ipywidgets, nilearn.plotting, pytorch_lightning, torch, torchmetrics

for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"):
    sys.modules[name] = None
for name in ("fork", "getuid", "geteuid", "getpgid", "killpg", "setsid", "sysconf", "statvfs", "mkfifo",
             "sched_getaffinity", "posix_fallocate", "getloadavg", "wait3", "wait4"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGALRM", "SIGCHLD", "alarm", "pthread_sigmask"):
    if hasattr(signal, name):
        delattr(signal, name)
sys.platform = "win32"

import xai_brain

failed, names = {}, []
for module in pkgutil.walk_packages(xai_brain.__path__, "xai_brain."):
    if module.name == "xai_brain.__main__":
        continue
    names.append(module.name)
    try:
        importlib.import_module(module.name)
    except Exception as error:
        failed[module.name] = repr(error)
print(json.dumps([len(names), failed]))
"""


@pytest.mark.slow
def test_all_modules_are_imported_without_what_only_posix_has():
    done = in_another_process(CODE)
    assert done.returncode == 0, done.stderr[-2000:]
    n, failed = json.loads(done.stdout.splitlines()[-1])
    assert failed == {}
    assert n > 400
