"""The literature that a report cites, and what is known of each method."""

from __future__ import annotations

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
    "Fong & Vedaldi 2017": (
        "Fong RC, Vedaldi A. Interpretable explanations of black boxes by meaningful perturbation. "
        "ICCV 2017:3429–3437. arXiv:1704.03296."
    ),
    "Freedman & Lane 1983": (
        "Freedman D, Lane D. A nonstochastic interpretation of reported significance levels. "
        "J Bus Econ Stat 1983;1:292–298."
    ),
    "Guo 2017": (
        "Guo C, Pleiss G, Sun Y, Weinberger KQ. On calibration of modern neural networks. ICML 2017. "
        "arXiv:1706.04599."
    ),
    "Hooker 2019": (
        "Hooker S, Erhan D, Kindermans PJ, Kim B. A benchmark for interpretability methods in deep neural "
        "networks. NeurIPS 2019. arXiv:1806.10758."
    ),
    "Kan 2020": (
        "Kan M, Aliev R, Rudenko A, et al. Interpretation of 3D CNNs for brain MRI data "
        "classification. AIST 2020. arXiv:2006.15969."
    ),
    "Kokhlikyan 2020": (
        "Kokhlikyan N, Miglani V, Martin M, et al. Captum: a unified and generic model "
        "interpretability library for PyTorch. 2020. arXiv:2009.07896."
    ),
    "Selvaraju 2017": (
        "Selvaraju RR, Cogswell M, Das A, Vedantam R, Parikh D, Batra D. Grad-CAM: visual "
        "explanations from deep networks via gradient-based localization. ICCV 2017:618–626. "
        "arXiv:1610.02391."
    ),
    "Shrikumar 2017": (
        "Shrikumar A, Greenside P, Kundaje A. Learning important features through propagating "
        "activation differences. ICML 2017. arXiv:1704.02685."
    ),
    "Siegel 2025": (
        "Siegel NT, Cole JH, Habes M, Haufe S, Ritter K, Schulz MA. Explainable AI methods for "
        "neuroimaging: systematic failures of common tools, the need for domain-specific validation, "
        "and a proposal for safe application. 2025. arXiv:2508.02560."
    ),
    "Simonyan 2014": (
        "Simonyan K, Vedaldi A, Zisserman A. Deep inside convolutional networks: visualising image "
        "classification models and saliency maps. ICLR workshop 2014. arXiv:1312.6034."
    ),
    "Smilkov 2017": (
        "Smilkov D, Thorat N, Kim B, Viégas F, Wattenberg M. SmoothGrad: removing noise by adding "
        "noise. 2017. arXiv:1706.03825."
    ),
    "Springenberg 2015": (
        "Springenberg JT, Dosovitskiy A, Brox T, Riedmiller M. Striving for simplicity: the all "
        "convolutional net. ICLR workshop 2015. arXiv:1412.6806."
    ),
    "Sundararajan 2017": (
        "Sundararajan M, Taly A, Yan Q. Axiomatic attribution for deep networks. ICML 2017. arXiv:1703.01365."
    ),
    "Wang 2023": (
        "Wang D, Honnorat N, Fox PT, et al. Deep neural network heatmaps capture Alzheimer’s disease "
        "patterns reported in a large meta-analysis of neuroimaging studies. NeuroImage 2023;269:119929."
    ),
    "Winkler 2014": (
        "Winkler AM, Ridgway GR, Webster MA, Smith SM, Nichols TE. Permutation inference for the general "
        "linear model. NeuroImage 2014;92:381–397."
    ),
    "Zeiler & Fergus 2014": (
        "Zeiler MD, Fergus R. Visualizing and understanding convolutional networks. ECCV 2014. "
        "arXiv:1311.2901."
    ),
    "Zhang 2018": (
        "Zhang J, Bargal SA, Lin Z, Brandt J, Shen X, Sclaroff S. Top-down neural attention by "
        "excitation backprop. Int J Comput Vis 2018;126:1084–1102. arXiv:1608.00507."
    ),
}

# by the class that `_target_` names
CITATIONS = {
    "DeepLift": "Shrikumar 2017",
    "GradCAM": "Selvaraju 2017",
    "GuidedBackprop": "Springenberg 2015",
    "GuidedGradCam": "Selvaraju 2017",
    "IntegratedGradients": "Sundararajan 2017",
    "MeaningfulPerturbation": "Fong & Vedaldi 2017",
    "Occlusion": "Zeiler & Fergus 2014",
    "Saliency": "Simonyan 2014",
    "SmoothGrad": "Smilkov 2017",
}

# mean relevance mass accuracy on 12 localised tasks in about 45,000 brain MRIs (Siegel 2025)
PUBLISHED_RMA = {
    "GradCAM": 0.051,
    "GuidedBackprop": 0.164,
    "GuidedGradCam": 0.143,
    "DeepLift": 0.271,
    "InputXGradient": 0.271,
    "SmoothGrad": 0.303,
}


def reference_list(keys: Iterable[str]) -> list[str]:
    """Full references of citation keys, each once, in alphabetical order."""
    return [REFERENCES[key] for key in sorted(set(keys)) if key in REFERENCES]
