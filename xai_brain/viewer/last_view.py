"""Picture of the last view in the notebook, which is shown when the kernel has stopped."""

from __future__ import annotations

from base64 import b64encode
from uuid import uuid4

SENTENCE = "Static picture of the last view; run this cell again to restore the interactive viewer."
# JupyterLab shows "model not found" instead of a widget whose kernel has stopped
NO_ERROR = """<style>.jp-OutputArea-child:has(+ * .xai-view-{view_id}) > .jupyter-widgets:not(:has(> *))
{{ display: none; }}</style>"""
MAX_BYTES = 2**20


class LastView:
    """An output below the viewer, which the browser hides while the viewer is active.

    A notebook stores outputs, but not the volumes of the viewer. The browser sends a picture when the view
    has not changed for a moment; it replaces the output.
    """

    def __init__(self) -> None:
        self.view_id = uuid4().hex
        self.picture = b""
        self._displayed = False

    def display(self) -> None:
        """Add the output to the current cell."""
        from IPython.display import display

        display(self._content(), raw=True, display_id=self.view_id)
        self._displayed = True

    def update(self, picture: bytes) -> None:
        """Replace the picture.

        Parameters
        ----------
        picture : bytes
            JPEG; anything else and very large pictures are ignored.
        """
        if not picture.startswith(b"\xff\xd8\xff") or len(picture) > MAX_BYTES:
            return
        self.picture = picture
        if self._displayed:
            from IPython.display import update_display

            update_display(self._content(), raw=True, display_id=self.view_id)

    def _content(self) -> dict[str, str]:
        encoded = b64encode(self.picture).decode()
        image = f'<img alt="last view" src="data:image/jpeg;base64,{encoded}">' if encoded else ""
        html = f'<div class="xai-last-view xai-view-{self.view_id}"><p>{SENTENCE}</p>{image}</div>'
        return {"text/plain": SENTENCE, "text/html": html + NO_ERROR.format(view_id=self.view_id)}
