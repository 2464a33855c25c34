"""JupyterLab on loopback and headless Chromium, driven by Playwright."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHROMIUM = os.environ.get("XAI_BRAIN_CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]
TOKEN = "loopback"
# an option of the list whose label contains a text
CHOOSE = """([text, option]) => {
  const select = [...document.querySelectorAll("select")].find((each) =>
    each.parentElement.textContent.includes(text));
  select.selectedIndex = [...select.options].findIndex((each) => each.value === option);
  select.dispatchEvent(new Event("change", { bubbles: true }));
}"""


def missing() -> str:
    """Why nothing can be tested here; empty when it can."""
    if find_spec("playwright") is None:
        return "playwright is not installed (make install)"
    if find_spec("jupyterlab") is None:
        return "JupyterLab is not installed (make install)"
    if not Path(CHROMIUM).exists():
        return f"{CHROMIUM} is not there (apt-get install chromium, or set XAI_BRAIN_CHROMIUM)"
    return ""


def write_notebook(path: Path, *cells: str) -> Path:
    code = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook: dict[str, Any] = {"metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    notebook["cells"] = [{**code, "id": f"cell-{i}", "source": text} for i, text in enumerate(cells)]
    path.write_text(json.dumps(notebook))
    return path


@contextmanager
def jupyterlab(
    folder: Path, home: Path, start: Sequence[str] = ("-m", "jupyterlab"), *, save_state: bool = True
) -> Iterator[str]:
    """JupyterLab that serves a folder, with settings of its own; yields its address.

    `start` is what Python runs: JupyterLab itself, or what is to start it. With `save_state` notebooks keep
    the state of widgets, the worst case for their size; by default JupyterLab does not keep it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    # no news, no look-up of extensions, and the kernel is the Python that runs this
    settings = home / "CONFIG" / "lab" / "user-settings" / "@jupyterlab"
    (settings / "apputils-extension").mkdir(parents=True)
    widgets = settings.parent / "@jupyter-widgets" / "jupyterlab-manager"
    widgets.mkdir(parents=True)
    (widgets / "plugin.jupyterlab-settings").write_text(json.dumps({"saveState": save_state}))
    news = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "apputils-extension" / "notification.jupyterlab-settings").write_text(json.dumps(news))
    environment = {**os.environ, **places, "XAI_BRAIN_CACHE": str(home / "cache")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    arguments = ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", f"--ServerApp.root_dir={folder}"]
    arguments += [f"--IdentityProvider.token={TOKEN}", "--no-browser", "--expose-app-in-browser"]
    arguments += ["--allow-root", "--LabApp.news_url=", "--LabApp.extension_manager=readonly"]
    with open(home / "lab.log", "w") as log:
        command = [sys.executable, *start, *arguments]
        lab = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/api?token={TOKEN}", lab, home / "lab.log")
            yield address
        finally:
            lab.terminate()
            try:
                lab.wait(20)
            except subprocess.TimeoutExpired:
                lab.kill()


def _wait_for(url: str, lab: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        if lab.poll() is not None:
            raise RuntimeError(f"JupyterLab stopped:\n{log.read_text()}")
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.25)
    raise RuntimeError(f"JupyterLab did not answer:\n{log.read_text()}")


def stop_kernels(address: str) -> None:
    """End all sessions of the server, as when a notebook is opened another day."""
    with urllib.request.urlopen(f"{address}/api/sessions?token={TOKEN}", timeout=10) as answer:
        sessions = json.load(answer)
    for session in sessions:
        url = f"{address}/api/sessions/{session['id']}?token={TOKEN}"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=10).close()


class Watched:
    """A page, and what must not happen in it.

    `external` holds requests to anything but loopback or the file itself, `errors` console errors.
    """

    def __init__(self, page: Any):
        self.page, self.external, self.errors = page, [], []
        page.on("request", self._request)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _request(self, request: Any) -> None:
        if not re.match(r"(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|(data|blob|file):", request.url):
            self.external.append(request.url)

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)


@contextmanager
def chromium(width: int = 1400, height: int = 1300) -> Iterator[Watched]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height}, accept_downloads=True)
        page.set_default_timeout(60_000)
        yield Watched(page)
        browser.close()


def open_notebook(watched: Watched, address: str, name: str) -> None:
    """Open a notebook alone in the window, and wait for its kernel."""
    page = watched.page
    page.goto(f"{address}/lab/tree/{name}?token={TOKEN}&reset", wait_until="domcontentloaded")
    page.wait_for_function("window.jupyterapp && document.querySelector('.jp-Notebook')")
    page.wait_for_function(
        """() => { const panel = window.jupyterapp.shell.currentWidget;
        return panel?.sessionContext?.session?.kernel?.status === 'idle'; }"""
    )
    page.evaluate(
        "() => window.jupyterapp.commands.execute('application:set-mode', {mode: 'single-document'})"
    )


def run_all(watched: Watched, seconds: float = 60) -> list[str]:
    """Run all cells; returns the errors that cells ended with."""
    page = watched.page
    page.set_default_timeout(seconds * 1000)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')", None)
    page.set_default_timeout(60_000)
    return page.evaluate(
        """() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells
        .flatMap((cell) => cell.cell_type === 'code' ? cell.outputs : [])
        .filter((output) => output.output_type === 'error').map((output) => output.evalue)"""
    )
