"""Section of the report: atlas regions."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xai_brain.io.nifti import is_mni152, load_img
from xai_brain.reporting.brain_size import confounds_in_words
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import regions as region_figures
from xai_brain.reporting.figures.style import class_colours, for_screens
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.wording import fixed, listed
from xai_brain.runs.directory import read_json, sidecar
from xai_brain.statistics.group_design import confound_names

POSITION, TITLE, REPORTED_AS = 140, "Regions", "classes"
Q = 0.05  # false discovery rate
ROWS = 10  # of the table of differences and its figure, per method
NAMED = 10  # significant regions of a method that are named in the text
MEASURES = {"mean": "In the mean value", "mass_share": "In the share of the whole map"}


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """Top regions of each class, and differences between classes for comparable maps."""
    top = contents.evaluation("region_top")
    if top is None:
        return None
    methods = [method for method in contents.methods if (top["method"] == method).any()]
    top["class"] = top["class"].astype(str)
    names = [name for name in contents.class_names if (top["class"] == name).any()]
    if not methods or not names:
        return None
    colours = {name: class_colours(contents.class_names)[name] for name in names}
    return {
        "k": int(top["rank"].max()),
        "n": top.groupby("class")["n"].max().to_dict(),
        "names": names,
        "figure": gallery.add(
            "regions_top", **for_screens(region_figures.top_regions_figure, top, methods, colours)
        ),
        "repeated": _repeated(top, methods, names),
        "comparisons": _comparisons(contents, gallery, methods),
    }


def _repeated(top: pd.DataFrame, methods: list[str], names: list[str]) -> dict[str, int]:
    """Number of regions of each method that are top regions of all classes."""
    return {
        method: len(
            set.intersection(
                *(set(top[(top["method"] == method) & (top["class"] == name)]["index"]) for name in names)
            )
        )
        for method in methods
    }


def _comparisons(contents: ReportContents, gallery: Gallery, methods: list[str]) -> list[dict[str, Any]]:
    """One entry for each pair of classes (b minus a): figures and rows of the comparable methods."""
    groups = contents.evaluation("region_groups")
    if groups is None:
        return []
    groups = groups[groups["method"].isin(methods)].astype({"class_a": str, "class_b": str})
    every = contents.evaluation("regions")
    result = []
    for (a, b), pair in groups.groupby(["class_a", "class_b"], sort=False):
        density = pair[pair["measure"] == "mean"]
        comparable = [
            m for m in methods if density.loc[density["method"] == m, "common_output"].eq(True).any()
        ]
        rows = {m: in_order(density[density["method"] == m]).head(ROWS) for m in comparable}
        figure, atlas = glass_brains(contents, gallery, f"{b}-minus-{a}", rows)
        result.append(
            {
                "a": a,
                "b": b,
                "confounds": confounds_of(contents, density[density["method"].isin(comparable)]),
                "atlas": atlas,
                "n_regions": density["index"].nunique(),
                "n_empty": 0 if every is None else every["index"].nunique() - density["index"].nunique(),
                "figure": figure,
                "rows": {method: shown.to_dict("records") for method, shown in rows.items()},
                "found": {m: significant_regions(pair[pair["method"] == m], str(b)) for m in comparable},
                "any_found": bool((density.loc[density["method"].isin(comparable), "q"] <= Q).any()),
                "left_out": {
                    method: rows["explained"].iloc[0]
                    for method, rows in density.groupby("method", sort=False)
                    if method not in comparable
                },
            }
        )
    return result


def glass_brains(
    contents: ReportContents,
    gallery: Gallery,
    comparison: str,
    rows: dict[str, pd.DataFrame],
    effect: str = "difference",
) -> tuple[dict[str, Any] | None, str | None]:
    """Figure of the regions of the table, and the name of the atlas; `effect` is a column of the table."""
    paths = {method: contents.run.group_map(method, comparison, "regionmean") for method in rows}
    paths = {method: path for method, path in paths.items() if path.exists()}
    if not paths:
        return None, None
    atlas = read_json(sidecar(next(iter(paths.values())))).get("Atlas")
    if not is_mni152(contents.run.space):
        return None, atlas
    loaded = {method: load_img(path) for method, path in paths.items()}
    found = {m: shown.loc[shown["q"] <= Q, effect].tolist() for m, shown in rows.items()}
    shown = {m: table[effect].tolist() for m, table in rows.items()}
    what = f"{effect} of the mean values of a region (raw)"
    figures = for_screens(region_figures.glass_brain_figure, loaded, shown, found, what=what)
    return gallery.add(f"regions_{comparison}", raster=True, **figures), atlas


def confounds_of(contents: ReportContents, rows: pd.DataFrame) -> list[str]:
    """Confounds of a comparison, each once."""
    columns = rows["confounds"].dropna() if "confounds" in rows else []
    names = confound_names(column for text in columns for column in str(text).split(", ") if column)
    return confounds_in_words(contents, names)


def in_order(rows: pd.DataFrame, effect: str = "difference") -> pd.DataFrame:
    """Regions by p, then by the size of the effect: the order of table, figure and text."""
    size = -rows[effect].abs()
    return rows.assign(size=size).sort_values(["p", "size", "index"]).drop(columns="size")


def significant_regions(rows: pd.DataFrame, b: str) -> str:
    """Sentences that name the regions in which two classes differ significantly.

    Parameters
    ----------
    rows : DataFrame with measure, index, region, difference, p, q
        Rows of one method and one pair of classes.
    b : str
        The second class; differences are b minus the first.
    """
    return region_sentences(rows, "difference", f"in {b}", ("differs", "differ"))


def region_sentences(rows: pd.DataFrame, column: str, where: str, verbs: tuple[str, str]) -> str:
    """For both measures the number of regions with q up to 0.05, and their names, directions and q.

    Parameters
    ----------
    rows : DataFrame with measure, index, region, p, q and `column`
        Rows of one method and one test.
    column : str
        The tested value.
    where : str
        Where it is higher if it is positive, as ``in male``.
    verbs : tuple of str
        Of one region, and of several.
    """
    sentences = []
    for measure, title in MEASURES.items():
        own = in_order(rows[rows["measure"] == measure], column)
        found = own[own["q"] <= Q]
        named = zip(found["region"].head(NAMED), found[column], found["q"], strict=False)
        names = [
            f"{region} ({'higher' if value > 0 else 'lower'} {where}, q = {fixed(q)})"
            for region, value, q in named
        ]
        names += [f"{len(found) - NAMED} more in region_groups.tsv"] if len(found) > NAMED else []
        count = f"{len(found) or 'none'} of {len(own)} regions {verbs[len(found) != 1]}"
        sentences.append(f"{title}, {count}{f': {listed(names)}' if names else ''}.")
    return " ".join(sentences)
