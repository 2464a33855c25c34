"""References of the report. References of methods come from the sidecars of their maps."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

REFERENCES = {
    "Adebayo 2018": (
        "Adebayo J, Gilmer J, Muelly M, Goodfellow I, Hardt M, Kim B. Sanity checks for saliency "
        "maps. NeurIPS 2018. arXiv:1810.03292."
    ),
    "Arras 2022": (
        "Arras L, Osman A, Samek W. CLEVR-XAI: a benchmark dataset for the ground truth evaluation of "
        "neural network explanations. Information Fusion 2022;81:14–40."
    ),
    "Benjamini & Hochberg 1995": (
        "Benjamini Y, Hochberg Y. Controlling the false discovery rate: a practical and powerful approach to "
        "multiple testing. J R Stat Soc B 1995;57:289–300."
    ),
    "DeLong 1988": (
        "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated receiver "
        "operating characteristic curves: a nonparametric approach. Biometrics 1988;44:837–845."
    ),
    "Freedman & Lane 1983": (
        "Freedman D, Lane D. A nonstochastic interpretation of reported significance levels. "
        "J Bus Econ Stat 1983;1:292–298."
    ),
    "Guo 2017": (
        "Guo C, Pleiss G, Sun Y, Weinberger KQ. On calibration of modern neural networks. ICML 2017. "
        "arXiv:1706.04599."
    ),
    "He 2016": (
        "He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR 2016. "
        "arXiv:1512.03385."
    ),
    "Hooker 2019": (
        "Hooker S, Erhan D, Kindermans PJ, Kim B. A benchmark for interpretability methods in deep neural "
        "networks. NeurIPS 2019. arXiv:1806.10758."
    ),
    "Huang 2017": (
        "Huang G, Liu Z, van der Maaten L, Weinberger KQ. Densely connected convolutional networks. CVPR "
        "2017. arXiv:1608.06993."
    ),
    "Kan 2020": (
        "Kan M, Aliev R, Rudenko A, et al. Interpretation of 3D CNNs for brain MRI data "
        "classification. AIST 2020. arXiv:2006.15969."
    ),
    "Kokhlikyan 2020": (
        "Kokhlikyan N, Miglani V, Martin M, et al. Captum: a unified and generic model "
        "interpretability library for PyTorch. 2020. arXiv:2009.07896."
    ),
    "Loshchilov & Hutter 2019": (
        "Loshchilov I, Hutter F. Decoupled weight decay regularization. ICLR 2019. arXiv:1711.05101."
    ),
    "Nadeau & Bengio 2003": (
        "Nadeau C, Bengio Y. Inference for the generalization error. Machine Learning 2003;52:239–281."
    ),
    "Peng 2021": (
        "Peng H, Gong W, Beckmann CF, Vedaldi A, Smith SM. Accurate brain age prediction with lightweight "
        "deep neural networks. Med Image Anal 2021;68:101871."
    ),
    "Siegel 2025": (
        "Siegel NT, Cole JH, Habes M, Haufe S, Ritter K, Schulz MA. Explainable AI methods for "
        "neuroimaging: systematic failures of common tools, the need for domain-specific validation, "
        "and a proposal for safe application. 2025. arXiv:2508.02560."
    ),
    "Smith & Nichols 2009": (
        "Smith SM, Nichols TE. Threshold-free cluster enhancement: addressing problems of smoothing, "
        "threshold dependence and localisation in cluster inference. NeuroImage 2009;44:83–98."
    ),
    "Wang 2023": (
        "Wang D, Honnorat N, Fox PT, et al. Deep neural network heatmaps capture Alzheimer’s disease "
        "patterns reported in a large meta-analysis of neuroimaging studies. NeuroImage 2023;269:119929."
    ),
    "Winkler 2014": (
        "Winkler AM, Ridgway GR, Webster MA, Smith SM, Nichols TE. Permutation inference for the general "
        "linear model. NeuroImage 2014;92:381–397."
    ),
    "Zhang 2018": (
        "Zhang J, Bargal SA, Lin Z, Brandt J, Shen X, Sclaroff S. Top-down neural attention by "
        "excitation backprop. Int J Comput Vis 2018;126:1084–1102. arXiv:1608.00507."
    ),
}

# mean relevance mass accuracy on 12 localised tasks in about 45,000 brain MRIs (Siegel 2025)
PUBLISHED_RMA = {
    "GradCAM": 0.051,
    "GuidedBackprop": 0.164,
    "GuidedGradCAM": 0.143,
    "DeepLift": 0.271,
    "InputXGradient": 0.271,
    "SmoothGrad": 0.303,
}


def cited_keys(page: str) -> list[str]:
    """Keys of `REFERENCES` that the text of a page cites.

    Parameters
    ----------
    page : str
        HTML; embedded pictures are not searched.
    """
    text = html.unescape(re.sub(r'"data:image/[^"]*"', "", page))
    return [key for key in REFERENCES if re.search(rf"\b{re.escape(key)}\b", text)]


def reference_list(keys: Iterable[str], of_methods: Iterable[str] = ()) -> list[str]:
    """Full references, each once, in alphabetical order.

    Parameters
    ----------
    keys : iterable of str
        Keys of `REFERENCES`.
    of_methods : iterable of str
        Full references; empty ones are omitted.
    """
    return sorted({*(REFERENCES[key] for key in keys), *filter(None, of_methods)})


def short_citation(reference: str) -> str:
    """First author and year of a full reference.

    Examples
    --------
    >>> short_citation("Kan M, Aliev R, et al. Interpretation of 3D CNNs. AIST 2020. arXiv:2006.15969.")
    'Kan 2020'
    """
    year = re.search(r"\b(19|20)\d\d\b", reference)
    return f"{reference.split()[0]} {year[0]}" if year else ""
