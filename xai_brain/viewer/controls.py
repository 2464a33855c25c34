"""Controls of the viewer. Display controls are linked in the browser and do not wait for Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ipywidgets as widgets

from xai_brain.viewer.canvas import COLOURS, KINDS, PLANES, SIGNS, SliceCanvas
from xai_brain.viewer.catalogue import Entry

ANY = "any"
MAX_PANELS = 4
SCALES = ("this subject", "common")
ALL_CHANNELS = "all"
CHECKS = {"truth": "truth", "atlas": "atlas", "inside": "only in the brain", "smooth": "smooth"}
CHOICES = {
    "threshold_kind": (KINDS, "Threshold by"),
    "sign": (SIGNS, "Sign"),
    "colours": (tuple(COLOURS), "Colours"),
    "scale": (SCALES, "Scale"),
    "planes": (PLANES, "Show"),
}


def display_controls(canvas: SliceCanvas) -> tuple[widgets.Box, dict[str, widgets.Widget]]:
    """Controls that are linked to the canvas in the browser, as a widget and by name.

    Opacity and threshold are sliders of the canvas. Only ``scale`` is not linked, because Python computes the
    limits.
    """
    style, auto = {"description_width": "auto"}, partial(widgets.Layout, width="auto")  # some are hidden
    controls: dict[str, widgets.Widget] = {}
    for name, (options, text) in CHOICES.items():
        controls[name] = widgets.Dropdown(options=options, description=text, style=style, layout=auto())
    for name, text in CHECKS.items():
        controls[name] = widgets.Checkbox(
            getattr(canvas, name), description=text, indent=False, layout=auto()
        )
    for name, control in controls.items():
        if name != "scale":
            own = "index" if isinstance(control, widgets.Dropdown) else "value"
            widgets.jslink((control, own), (canvas, name))

    row = widgets.Layout(flex_flow="row wrap", grid_gap="2px 14px", align_items="center")
    return widgets.Box(list(controls.values()), layout=row), controls


class EntryChooser(widgets.Box):
    """The list of participants and group maps, search by id, and filters, in one row.

    Parameters
    ----------
    entries : sequence of Entry
    chosen : function that is called with the selected Entry
    """

    def __init__(self, entries: Sequence[Entry], chosen: Callable[[Entry], None]):
        self._all = list(entries)
        self._chosen = chosen
        style, layout = {"description_width": "auto"}, widgets.Layout(width="auto")

        def choices(values: Sequence[object]) -> list[str]:
            return [ANY, *sorted({str(value) for value in values if value is not None})]

        def filtered(values: Sequence[object], description: str) -> widgets.Dropdown:
            return widgets.Dropdown(
                options=choices(values), description=description, style=style, layout=layout
            )

        self.search = widgets.Text(
            placeholder="search by id", continuous_update=True, layout=widgets.Layout(width="110px")
        )
        self.label = filtered([entry.label for entry in entries], "Label")
        self.explained = filtered([entry.explained for entry in entries], "Explained")
        self.fold = filtered([entry.fold for entry in entries], "Fold")
        judged = [None if e.correct is None else "correct" if e.correct else "wrong" for e in entries]
        self.correct = filtered(judged, "Prediction")
        self.seed = filtered([entry.seed for entry in entries if not entry.group], "Seed")
        filters = [self.label, self.explained, self.fold, self.seed, self.correct]
        self.list = widgets.Dropdown(
            options=[(entry.text, i) for i, entry in enumerate(self._all)],
            layout=widgets.Layout(width="auto", max_width="100%"),  # as wide as the longest text
        )
        self.list.add_class("xai-entries")
        for control in [self.search, *filters]:
            control.observe(self._narrow, "value")
        self.list.observe(self._picked, "value")
        row = widgets.Layout(flex_flow="row wrap", grid_gap="2px 12px", align_items="center")
        useful = [control for control in filters if len(control.options) > 2]
        super().__init__([self.list, self.search, *useful], layout=row)
        self.layout.display = "none" if len(self._all) < 2 else ""

    def pick(self, number: int) -> None:
        """Select an entry by its index; filters that hide it are reset."""
        if number not in [value for _, value in self.list.options]:
            self.search.value = ""
            for control in (self.label, self.explained, self.fold, self.seed, self.correct):
                control.value = ANY
        self.list.value = number

    def _fits(self, entry: Entry) -> bool:
        if self.search.value.strip().lower() not in entry.text.split(" · ")[0].lower():
            return False
        wanted = {"correct": True, "wrong": False}
        return (
            self.label.value in (ANY, entry.label)
            and self.explained.value in (ANY, entry.explained)
            and self.fold.value in (ANY, str(entry.fold))
            and self.seed.value in (ANY, "" if entry.group else str(entry.seed))
            and (self.correct.value == ANY or entry.correct is wanted[self.correct.value])
        )

    def _narrow(self, change: dict[str, Any]) -> None:
        here = self.list.value
        options = [(entry.text, i) for i, entry in enumerate(self._all) if self._fits(entry)]
        with self.list.hold_trait_notifications():
            self.list.options = options
            if here in [value for _, value in options]:
                self.list.value = here

    def _picked(self, change: dict[str, Any]) -> None:
        if change["new"] is not None:
            self._chosen(self._all[change["new"]])


def channel_choice(channels: Sequence[str], changed: Callable[[str], None]) -> widgets.Dropdown:
    """Choice of a channel of the inputs, or of the sums over them (empty); hidden for one channel."""
    control = widgets.Dropdown(
        options=[(ALL_CHANNELS, ""), *((name, name) for name in channels)],
        description="Channel",
        style={"description_width": "auto"},
        layout=widgets.Layout(width="auto", display="" if channels else "none"),
    )
    control.observe(lambda change: changed(change["new"]), "value")
    return control


def method_buttons(methods: Sequence[str], changed: Callable[[list[str]], None]) -> widgets.Box:
    """Buttons of the methods; at most four are on, and a fifth replaces the one that was selected first.

    A text after them says how many maps are shown, if they are not all.
    """
    buttons = [
        widgets.ToggleButton(value=i < MAX_PANELS, description=name, layout=widgets.Layout(width="auto"))
        for i, name in enumerate(methods)
    ]
    on = [button for button in buttons if button.value]
    hint = widgets.Label(layout=widgets.Layout(width="auto"))

    def count() -> None:
        more = len(buttons) > MAX_PANELS
        hint.value = f"{len(on)} of {len(buttons)} maps are shown; at most {MAX_PANELS} fit" if more else ""

    count()

    def press(change: dict[str, Any]) -> None:
        button = change["owner"]
        if button.value and button not in on:
            on.append(button)
            if len(on) > MAX_PANELS:
                on[0].value = False  # calls this function again, which changes the view
                return
        elif not button.value and button in on:
            on.remove(button)
        count()
        changed([name for name, b in zip(methods, buttons, strict=True) if b in on])

    for button in buttons:
        button.observe(press, "value")
    shown = "" if len(buttons) > 1 else "none"  # there is no choice among one
    return widgets.Box(
        [*buttons, hint], layout=widgets.Layout(flex_flow="row wrap", grid_gap="2px 4px", display=shown)
    )
