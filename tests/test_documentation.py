"""The README and the pages of docs/: their commands, settings, links and words are those of the project."""

from __future__ import annotations

import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from xai_brain import MeaningfulPerturbation, SegmentationTarget, explain, network_card
from xai_brain.config.compose import compose

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", DOCS / "index.md", *sorted(DOCS.glob("[a-z]*/*.md"))]
ALL = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "notebooks" / "README.md"]
each_page = pytest.mark.parametrize("page", ALL, ids=lambda page: page.relative_to(ROOT).as_posix())


# arguments of import-maps and collect, of Lightning, and key=value
NO_SETTINGS = ("maps", "method", "metric", "key", "sync_batchnorm")


def known_keys_of(cohort: str) -> list[str]:
    """Dotted names of all settings, with those of one kind of cohort."""
    cfg = OmegaConf.to_container(compose("run", [f"data={cohort}"], checked=False))

    def walk(node: dict, prefix: str = "") -> list[str]:
        below = [
            name
            for key, child in node.items()
            if isinstance(child, dict)
            for name in walk(child, f"{prefix}{key}.")
        ]
        return [*(f"{prefix}{key}" for key in node), *below]

    return [*walk(cfg), *(folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir())]


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def inline_code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S))


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 170
    assert len(text.encode()) <= 9000


def test_the_readme_and_the_index_link_every_section():
    sections = {f"{path.parent.name}/index.md" for path in PAGES[1:] if path.parent != DOCS}
    assert set(re.findall(r"\]\(docs/(\w+/index\.md)\)", (ROOT / "README.md").read_text())) == sections
    assert set(re.findall(r"\]\((\w+/index\.md)\)", (DOCS / "index.md").read_text())) == sections


@pytest.mark.parametrize("index", sorted(DOCS.glob("*/index.md")), ids=lambda path: path.parent.name)
def test_the_index_of_a_section_links_and_orders_every_page(index):
    pages = {path.stem for path in index.parent.glob("*.md")} - {"index"}
    contents = re.findall(r"^```\{toctree\}$(.*?)^```$", index.read_text(), re.MULTILINE | re.DOTALL)
    assert {*" ".join(contents).split()} >= pages
    assert {*re.findall(r"\]\((\w+)\.md\)", index.read_text())} >= pages


def test_settings_exist():
    known = {key for name in ("synthetic", "bids", "hcp", "oasis") for key in known_keys_of(name)}
    untyped = ("attribution.", "model.", "baselines.", "task.", "hydra.", "trainer.extra.", "network.")
    for function in (
        explain,
        network_card,
        MeaningfulPerturbation,
        SegmentationTarget,
    ):  # arguments in Python
        known |= {*inspect.signature(function).parameters}
    for page in ALL:
        for text in inline_code(page):
            for key in re.findall(r"(?:^|(?<= )'?)([a-z_]+(?:\.[A-Za-z_]+)*)=", text):
                if not text.startswith(("sbatch", "srun", "in a job")):
                    assert key in known or key.startswith(untyped) or key in NO_SETTINGS, (page.name, text)


@each_page
def test_files_and_extras_that_are_named_exist(page):
    named = [
        text
        for text in inline_code(page)
        if re.match(r"(benchmarks|notebooks|conf|tests)/[\w/]*(\.\w+)?$", text)
    ]
    generated = ("notebooks/exercises/",)
    assert [text for text in named if text not in generated and not (ROOT / text).exists()] == []
    extras = re.findall(r"pip install -e '\.\[(\w+)\]'", page.read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)


@each_page
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]
            assert anchor in slugs, target


PRIVATE = re.compile(
    r"\b(people|everybody|nobody|anyone|whoever|judges?|judged|mprt|rra_permuted|adopt(?:ed)?|the truth"
    r"|claims?|told|tells?|speaks?|strangers?)\b",
    re.IGNORECASE,
)


@each_page
def test_words_are_those_of_the_glossary(page):
    assert PRIVATE.findall(re.sub(r"`[^`]*`", "", page.read_text())) == []


TEXTS = [
    *(ROOT / "xai_brain" / "reporting").rglob("*.j2"),
    ROOT / "xai_brain" / "config" / "command_help.py",
    *(ROOT / "conf").rglob("*.yaml"),
]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_report_help_and_settings_use_the_words_of_the_glossary(path):
    text = path.read_text()
    if path.suffix == ".yaml":
        text = "\n".join(line.partition("#")[2] for line in text.splitlines())
    if path.suffix == ".j2":
        text = re.sub(r"\{[%#{].*?[%#}]\}|<[^>]+>", " ", text, flags=re.DOTALL)
        assert re.findall(r"\b(subjects?|alone)\b", text) == []
    assert PRIVATE.findall(text) == []


@pytest.mark.slow
def test_a_network_is_explained_on_images_as_documented():
    (code,) = [block for block in code_blocks(ROOT / "README.md", "python") if "xb.explain(" in block]
    names: dict = {}
    exec(code, names)
    assert names["maps"].methods == ["GradCAM", "Saliency"]
    assert names["maps"].img("sub-0002", "Saliency").shape == (46, 55, 46)


@pytest.mark.slow
def test_a_network_is_explained_on_tensors_as_documented():
    (code,) = [
        block for block in code_blocks(DOCS / "how_to" / "python.md", "python") if "volumes =" in block
    ]
    names: dict = {}
    exec(code, names)
    assert names["maps"].shape == names["masks"].shape == names["volumes"].shape
    assert names["masks"].isfinite().all()


@pytest.mark.parametrize("page", ["README.md", "docs/how_to/python.md"])
def test_a_run_is_opened_in_python_as_documented(page, small_run):
    (code,) = [block for block in code_blocks(ROOT / page, "python") if "study.scores" in block]
    names: dict = {}
    exec(code.replace("outputs/demo", str(small_run.path)), names)
    assert {"auroc", "balanced_accuracy"} <= set(names["scores"]["metric"])
    assert names["scores"]["chance"].notna().all()
    assert len(names["predictions"]) == 24
    assert names["predictions"]["predicted"].isin(["female", "male"]).all()
    assert names["mean_img"].shape == (46, 55, 46)
    assert type(names["viewer"]).__name__ == "SliceViewer"


def test_a_mean_map_is_drawn_as_documented(small_run, tmp_path, monkeypatch):
    first, _ = code_blocks(DOCS / "how_to" / "figures.md", "python")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(first.replace("outputs/demo", str(small_run.path)).replace("dpi=300", "dpi=50"), names)
    assert (tmp_path / "grad_cam.png").stat().st_size > 1000
    names["display"].close()


def test_python_examples_import_what_exists():
    for page in PAGES:
        for block in code_blocks(page, "python"):
            imports = [line for line in block.splitlines() if line.startswith(("from ", "import "))]
            imports = [line for line in imports if "nnunetv2" not in line]  # not installed; see test_recipes
            exec("\n".join(imports), {})


def test_the_readme_activates_the_environment_before_it_uses_the_command():
    lines = [line for block in code_blocks(ROOT / "README.md", "") for line in block.splitlines()]
    first = next(i for i, line in enumerate(lines) if line.startswith("xai-brain "))
    before = [line.partition("#")[0].strip() for line in lines[:first]]
    assert before == ["make install", "make demo", "source .venv/bin/activate"]


def test_the_numbers_of_methods_are_those_of_the_package():
    from xai_brain.attribution import methods
    from xai_brain.attribution.protocol import MethodInfo

    infos = {}
    for module in pkgutil.iter_modules(methods.__path__):
        home = import_module(f"{methods.__name__}.{module.name}")
        kinds = [kind for kind in vars(home).values() if inspect.isclass(kind)]
        infos |= {
            kind.__name__: kind.info
            for kind in kinds
            if kind.__module__ == home.__name__ and isinstance(getattr(kind, "info", None), MethodInfo)
        }
    n_baselines = sum(info.is_baseline for info in infos.values())
    stated = f"{len(infos) - n_baselines} attribution methods, {n_baselines} baseline maps"
    assert stated in (ROOT / "README.md").read_text()
