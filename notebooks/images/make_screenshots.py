"""Make the pictures of the notebooks and the README: a subject of the report, the viewer in JupyterLab.

Run it from the root of the repository: ``python notebooks/images/make_screenshots.py outputs/demo``
"""

from __future__ import annotations

import shutil
import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

IMAGES = Path(__file__).parent
ROOT = IMAGES.parents[1]
MAX_BYTES = 200_000
sys.path.insert(0, str(ROOT / "tests" / "browser"))

import lab


def main(run_dir: str) -> None:
    subject = max(Path(run_dir, "figures").glob("subject_*.png"))  # in the demo: of the class with the effect
    write_small(Image.open(subject), IMAGES / "demo_maps.png", 1200)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ignore = shutil.ignore_patterns("checkpoints", "logs")
        shutil.copytree(run_dir, folder / "work" / "run", ignore=ignore)
        cell = "from xai_brain import SliceViewer\n\nSliceViewer('run')"
        lab.write_notebook(folder / "work" / "maps.ipynb", cell)
        with lab.jupyterlab(folder / "work", folder) as address, lab.chromium(1240, 1900) as watched:
            page = watched.page
            lab.open_notebook(watched, address, "maps.ipynb")
            if errors := lab.run_all(watched):
                raise RuntimeError(errors)
            page.wait_for_selector(".xai-readout.exact")
            page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
            page.evaluate(lab.CHOOSE, ["Show", "planes and 3-D"])
            page.wait_for_function("() => document.querySelectorAll('.xai-clusters td').length > 0")
            page.wait_for_timeout(1500)
            output = page.locator(".jp-OutputArea-output:has(.xai-slices)")
            picture = BytesIO(output.screenshot())
            write_small(Image.open(picture), IMAGES / "viewer.png", 1240)


def write_small(picture: Image.Image, path: Path, width: int) -> None:
    """Write a picture of at most some width with 128 colours, at most MAX_BYTES."""
    picture = picture.convert("RGB")
    if picture.width > width:
        picture = picture.resize(
            (width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS
        )
    picture.quantize(128, Image.Quantize.MEDIANCUT).save(path, optimize=True)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise RuntimeError(f"{path}: {size} bytes, at most {MAX_BYTES}")


if __name__ == "__main__":
    main(sys.argv[1])
