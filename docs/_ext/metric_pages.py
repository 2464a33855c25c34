"""Reference of the metrics of the report card, from the table METRICS."""

from __future__ import annotations

from xai_brain.metrics.table import METRICS, REQUIREMENTS, Metric

BETTER = {"higher": "higher values", "lower": "lower values", None: "none; it is a null level"}
NEEDS = {
    "truth": "a known true location",
    "atlas": "`evaluation.atlas`",
    "seeds": "at least two seeds",
    "network": "maps of single networks",
}


def metrics() -> str:
    """Markdown: one heading per metric, with a table of its properties."""
    assert set(NEEDS) == set(REQUIREMENTS)
    overview = ["| name | title | better |", "|---|---|---|"]
    overview += [f"| [`{m.name}`](#{m.name}) | {m.title} | {BETTER[m.direction]} |" for m in METRICS.values()]
    return "\n\n".join(["\n".join(overview), *map(_entry, METRICS.values())])


def _entry(metric: Metric) -> str:
    rows = {
        "title in reports": metric.title,
        "better": BETTER[metric.direction],
        "value of a perfect map": "" if metric.direction is None else f"{metric.best:g}",
        "chance level": metric.chance or "none",
        "requires": ", ".join(NEEDS[need] for need in metric.requirements),
        "participants": f"`evaluation.card.{metric.participants}`" if metric.participants else "all",
        "value of": f"each {metric.unit}",
        "part of `evaluation.card.metrics=[all]`": "no" if metric.optional else "yes",
    }
    table = ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items() if text)]
    sentence = metric.description[0].upper() + metric.description[1:] + "."
    return f"## {metric.name}\n\n{sentence}\n\n" + "\n".join(table)
