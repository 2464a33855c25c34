"""Section of the report: references."""

from __future__ import annotations

import pandas as pd

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.method_descriptions import describe_methods
from xai_brain.reporting.references import reference_list

POSITION, TITLE = 190, "References"


def section(contents: ReportContents, gallery: Gallery) -> list[str]:
    of_methods = [described["reference"] for described in describe_methods(contents)]
    return reference_list(_cited(contents), of_methods)


def _cited(contents: ReportContents) -> list[str]:
    always = (
        "Adebayo 2018",
        "Arras 2022",
        "Guo 2017",
        "Kan 2020",
        "Kokhlikyan 2020",
        "Siegel 2025",
        "Zhang 2018",
    )
    tests = contents.evaluation("group_tests")
    regions = contents.evaluation("region_groups")
    is_tested = tests is not None and tests["reason"].isna().any()
    is_tested |= regions is not None and bool(regions.get("common_output", pd.Series(dtype=bool)).any())
    tested = ("Freedman & Lane 1983", "Winkler 2014") if is_tested else ()
    overlap = ("Wang 2023",) if contents.evaluation("group_overlap") is not None else ()
    masked = ("Hooker 2019",) if contents.evaluation("mask_validation") is not None else ()
    return [*always, *tested, *overlap, *masked]
