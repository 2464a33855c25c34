"""Text for the methods section of a paper: what was done in a run, from its settings and results."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.method_descriptions import describe_methods
from xai_brain.reporting.sections.baseline import BASELINE_WORDS
from xai_brain.reporting.texts import number_text
from xai_brain.reporting.texts.architecture import architecture
from xai_brain.reporting.texts.evaluation_text import (
    agreement,
    group_test,
    localisation,
    other_analyses,
    region_test,
)
from xai_brain.reporting.texts.study_design import (
    class_balance,
    earlier_preparation,
    fold_design,
    image_preparation,
    origin,
    standardisation,
)
from xai_brain.reporting.verdict import verdict_of
from xai_brain.reporting.wording import fixed, interval, listed, with_interval

SCHEDULES = {
    "one_cycle": "a one-cycle schedule of the learning rate",
    "multistep": "a learning rate that decreased in steps",
    "constant": "a constant learning rate",
}
AUGMENTATIONS = {
    "max_shift_mm": "shifts of up to {:g} mm along each axis",
    "max_rotation_degrees": "rotations of up to {:g}° about each axis",
    "max_scaling": "changes of size of up to {:.0%}",
    "elastic_sd_mm": "elastic displacements (SD {:g} mm)",
    "flip_probability": "mirroring left and right (probability {:g})",
    "intensity_sd": "changes of all intensities (SD {:.0%})",
    "gamma_sd": "gamma correction (SD of the logarithm {:g})",
    "bias_field_sd": "smooth bias fields (SD {:g})",
    "noise_sd": "noise ({:g} SD of the brain)",
}
EXPLAINED = {"predicted": "the predicted class", "true": "the true class"}


def methods_text(contents: ReportContents) -> list[tuple[str, str]]:
    """Paragraphs, each with its topic; topics that a run does not have are omitted.

    Returns
    -------
    list of (str, str)
        Topic and sentences.
    """
    topics: dict[str, Callable[[ReportContents], str]] = {
        "Participants and images": participants,
        "Network and training": network,
        "Cross-validation": cross_validation,
        "Calibration and performance": performance,
        "Baselines": baselines,
        "Attribution": attribution,
        "Localisation": localisation,
        "Agreement of methods": agreement,
        "Group comparison": group_test,
        "Regions": region_test,
        "Further analyses": other_analyses,
        "Software": software,
    }
    if number_text.is_number(contents):
        topics |= {
            "Calibration and performance": number_text.performance,
            "Baselines": number_text.baselines,
        }
    found = [(topic, text(contents)) for topic, text in topics.items()]
    return [(topic, text) for topic, text in found if text]


def participants(contents: ReportContents) -> str:
    """Origin of the effect, participants by class, preparation and check of the images."""
    if contents.has_given_images:
        n = len(contents.explained["participant_id"].unique())
        return f"Images of {n} participants were prepared elsewhere [to be added]."
    simulated = contents.setting("data.layout") == "synthetic"
    images = f"{'Simulated T1' if simulated else 'T1'}-weighted images"
    table, age = contents.participants, ""
    if table is not None and "label" in table:
        table = table.drop_duplicates("participant_id")
        counts = table["label"].value_counts()
        shown = [name for name in contents.class_names if name in counts] or sorted(counts.index)
        kind = f"{'new ' if contents.n_networks else ''}{'synthetic ' if simulated else ''}participants"
        classes = ", ".join(f"{counts[name]} {name}" for name in shown if not number_text.is_number(contents))
        images += f" of {len(table)} {kind}{f' ({classes})' if classes else ''}"
        age = _age(table)
    brain = {
        "image": "each image's own brain mask or non-zero voxels",
        "template": "the brain of the MNI152 template",
    }.get(contents.setting("preprocessing.brain", ""))
    sentences = [origin(contents) or "", f"{images} were {image_preparation(contents)}."]
    if brain:
        sentences.append(f"Values outside the brain ({brain}) were set to 0.")
    if contents.run.space.startswith("MNI"):
        sentences.append(
            "Each image was compared with the MNI152 template and with displaced and reoriented copies of it."
        )
    sentences += [earlier_preparation(contents), age]
    if excluded := len(contents.quarantine):
        sentences.append(f"{excluded} input{' was' if excluded == 1 else 's were'} excluded.")
    return " ".join(filter(None, sentences))


def _age(table: pd.DataFrame) -> str:
    """Mean, standard deviation and range of age; empty if it is not known."""
    if "age" not in table:
        return ""
    ages = pd.to_numeric(table["age"], errors="coerce").dropna()
    if len(ages) < 2:
        return ""
    known = f" (known for {len(ages)})" if len(ages) < len(table) else ""
    spread = f"{fixed(ages.mean(), 1)} ± {fixed(ages.std(), 1)} years"
    return f"Their age was {spread} (mean ± SD, range {interval(ages.min(), ages.max(), 1)}){known}."


def network(contents: ReportContents) -> str:
    """Architecture and training."""
    if contents.is_given_network:
        target = contents.setting("model._target_")
        name = f" ({target})" if target else ""
        outputs = f" has the outputs {listed(contents.class_names)}" if contents.class_names else " was used"
        return f"A network{name} that was trained elsewhere [to be added]{outputs}."
    label, planted = contents.setting("data.label", "the label"), contents.setting("planted.kind")
    what = f"planted {planted}" if planted else label
    classes = f" ({listed(contents.class_names)})" if contents.class_names else ""
    aim = "predict" if number_text.is_number(contents) else "classify"
    text = [f"{architecture(contents)} was trained to {aim} {what}{classes}."]
    trainer = contents.setting("trainer")
    if trainer:
        schedule = SCHEDULES.get(trainer.get("scheduler", ""), "")
        decay = f" and a weight decay of {trainer['weight_decay']:g}" if trainer.get("weight_decay") else ""
        text.append(
            f"Training minimised {number_text.loss_in_words(contents)} with AdamW (Loshchilov & Hutter "
            "2019), a learning rate of "
            f"{trainer.get('lr')}{decay}, {f'{schedule}, ' if schedule else ''}batches of "
            f"{trainer.get('batch_size')} images and up to {trainer.get('max_epochs')} epochs."
        )
        if patience := trainer.get("patience"):
            text.append(f"Training stopped after {patience} epochs without improvement.")
    if balanced := class_balance(contents):
        text.append(balanced)
    if standardised := standardisation(contents):
        text.append(f"Inputs were standardised by {standardised}.")
    if (changes := contents.setting("augmentation")) is not None:
        used = [words.format(changes[name]) for name, words in AUGMENTATIONS.items() if changes.get(name)]
        text.append(
            f"Training images were augmented by {listed(used)}." if used else "No augmentation was used."
        )
    seeds = contents.setting("seeds") or []
    if len(seeds) > 1:
        text.append(f"Training was repeated with {len(seeds)} seeds ({', '.join(map(str, seeds))}).")
    elif seeds:
        text.append(f"The random seed of training was {seeds[0]}.")
    return " ".join(text)


def cross_validation(contents: ReportContents) -> str:
    """Folds, validation parts and selection of the epoch."""
    if contents.setting("folds") is None:
        return ""
    share = 100 * contents.setting("folds.validation_fraction", 0.15)
    balanced = contents.setting("folds.balance_on") or []
    criterion = contents.setting("trainer.monitor", "val/loss").removeprefix("val/").replace("_", " ")
    by_seed = ", another one for each seed" if contents.setting("folds.validation_by_seed") else ""
    text = [f"The network was trained {fold_design(contents)}."]
    if balanced:
        text.append(f"Folds were balanced for {listed(balanced)}.")
    text.append(
        f"In each fold, {share:g} % of the training participants were a validation part{by_seed}, on which "
        f"the epoch was selected (criterion: {criterion}); test participants were not used. Before training "
        "it was checked that no participant, image or known family is in the training part and in the test "
        "part of a fold. The random state of the division was "
        f"{contents.setting('folds.random_state', 0)}."
    )
    return " ".join(text)


def performance(contents: ReportContents) -> str:
    """Calibration, scores with their definitions, and values."""
    text = []
    if contents.setting("trainer.calibrate"):
        text.append(
            "Probabilities were calibrated in each fold by a temperature fitted on the validation part "
            "(Guo 2017)."
        )
    if contents.is_given_network:
        text.append("It is not known whether these participants were used for training.")
    elif contents.n_networks:
        text.append(
            "The participants were not used for training; the predictions of all "
            f"{contents.n_networks} networks were averaged."
        )
    verdict = verdict_of(contents)
    if verdict.auroc is None:
        return " ".join(text)
    titles = contents.task.score_titles
    areas = (
        [titles["auroc"], titles["auroc_pooled"]] if contents.auroc == "auroc" else [titles["auroc_pooled"]]
    )
    text.append(
        f"Performance was measured by {listed(f'“{title}”' for title in areas)}, by balanced accuracy (mean "
        "of the accuracies of the classes) and by accuracy."
    )
    where = "For these participants" if contents.n_networks or contents.is_given_network else "Out of fold"
    balanced = (
        f" and the balanced accuracy {with_interval(verdict.balanced)}"
        if verdict.balanced is not None
        else ""
    )
    text.append(f"{where}, the {verdict.auroc_title}, was {with_interval(verdict.auroc)}{balanced}.")
    if draws := contents.setting("evaluation.n_bootstrap"):
        text.append(f"Confidence intervals (95 %) are bootstrap intervals over participants ({draws} draws).")
    return " ".join(text)


def baselines(contents: ReportContents) -> str:
    """Classifiers on the same folds."""
    table = contents.evaluation("baselines")
    if table is None:
        return ""
    own = ("network", "network_ensemble", "chosen_network")
    names = [
        BASELINE_WORDS.get(name, name.replace("_", " ")) for name in table["name"].unique() if name not in own
    ]
    if not names:
        return ""
    text = [f"Baselines were fitted on the same folds: {listed(names)}."]
    if (size := verdict_of(contents).brain_size) is not None:
        kind = verdict_of(contents).auroc_title
        text.append(f"Brain size only reached {with_interval(size)} ({kind}).")
    if table["difference"].notna().any():
        text.append(
            "Differences from the network were tested for the AUROC by the test of DeLong 1988 within "
            "folds and for the accuracy over folds by the corrected resampled t-test (Nadeau & Bengio "
            "2003), without correction for the number of baselines."
        )
    if (table["metric"] == "auroc_size_matched").any():
        text.append(
            "The network was also evaluated in pairs of test participants, one of each class, that differ "
            "by at most 2 % in brain size."
        )
    return " ".join(text)


def attribution(contents: ReportContents) -> str:
    """Methods, their parameters and the explained output."""
    described = describe_methods(contents)
    if not described:
        return ""
    cited = [
        f"{each['name']} ({each['citation']})" if each["citation"] else each["name"] for each in described
    ]
    target = str(contents.setting("explain.target", "predicted"))
    explained = EXPLAINED.get(target, f"class {target}")
    if number_text.is_number(contents):
        explained = f"the predicted {contents.setting('data.label', 'number')} in its unit"
    outputs = {each["output"] for each in described} - {"–"}
    output = f" (output: {listed(sorted(outputs))})" if outputs else ""
    by = " with all networks" if contents.n_networks else " with the network that was not trained on it"
    by = "" if contents.is_given_network else by
    text = [f"Each participant was explained{by}, for {explained}{output}, by {listed(cited)}."]
    values = {
        each["name"]: ", ".join(
            f"{key} = {value}" for key, value in each["parameters"].items() if value is not None
        )
        for each in described
    }
    if any(values.values()):
        text.append(
            f"Parameters: {'; '.join(f'{name}: {value}' for name, value in values.items() if value)}."
        )
    text.append(
        "Maps have the grid of the images; their values are raw and signed. Maps explain the network and "
        "not the biology; in particular, guided backpropagation and Grad-CAM have known failures (Adebayo "
        "2018; Siegel 2025)."
    )
    return " ".join(text)


def software(contents: ReportContents) -> str:
    """Versions and commit."""
    versions = contents.provenance.get("versions", {})
    titles = {"torch": "PyTorch", "captum": "Captum", "nilearn": "nilearn", "scikit-learn": "scikit-learn"}
    used = [f"{title} {versions[name]}" for name, title in titles.items() if name in versions]
    text = f"Analyses were made with xai_brain {versions.get('xai-brain', '')}".rstrip()
    if commit := contents.provenance.get("git_commit"):
        text += f" (commit {commit[:10]})"
    return f"{text}, {listed(used)} (Captum: Kokhlikyan 2020)." if used else f"{text}."
