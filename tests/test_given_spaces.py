"""The space of images given to `xai_brain.explain`: of their names, of a cohort, or stated."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from conftest import COARSE, COARSE_SHAPE, ToyNet, fake_brain

import xai_brain as xb
from xai_brain.config.setting import ConfigError

TEMPLATE = "MNI152NLin2009cAsym"


@pytest.fixture
def images(tmp_path):
    def named(*spaces):
        paths = []
        for number, space in enumerate(spaces, 1):
            entity = f"_space-{space}" if space else ""
            paths.append(tmp_path / f"sub-{number:02d}{entity}_T1w.nii.gz")
            fake_brain(COARSE_SHAPE, COARSE, seed=number).to_filename(paths[-1])
        return paths

    return named


def explained(images, **settings):
    return xb.explain(ToyNet(), images, ["Saliency"], target=1, **settings)


@pytest.mark.parametrize(("name", "space"), [(TEMPLATE, TEMPLATE), ("MNI152", "MNI152"), (None, "T1w")])
def test_the_space_is_that_of_the_file_names(images, name, space, tmp_path):
    maps = explained(images(name, name), folder=tmp_path / "maps")
    paths = sorted((tmp_path / "maps").rglob("*_attribution.nii.gz"))
    assert [f"_space-{space}_" in path.name for path in paths] == [True, True]
    mni_codes = {int(nib.load(path).header["sform_code"]) == 4 for path in paths}
    assert mni_codes == {space != "T1w"}  # NIFTI_XFORM_MNI_152
    if space != "T1w":
        mean = np.mean([maps.img(each, "Saliency").get_fdata() for each in maps.participants], axis=0)
        np.testing.assert_allclose(maps.mean_img("Saliency").get_fdata(), mean, atol=1e-6)


def test_a_name_without_a_space_may_be_stated(images, tmp_path):
    explained(images(None), space="MNI152", folder=tmp_path / "maps")
    assert "_space-MNI152_" in next((tmp_path / "maps").rglob("*_attribution.nii.gz")).name


@pytest.mark.parametrize(
    ("names", "stated", "reason"),
    [
        ((TEMPLATE, None), None, f"several spaces .{TEMPLATE}, T1w."),
        ((TEMPLATE, "MNI152NLin6Asym"), None, "several spaces"),
        ((TEMPLATE, TEMPLATE), "T1w", f"space=T1w: .* is in {TEMPLATE} by its name"),
        ((None,), "my space", "space=my space: letters and digits only"),
        (("orig",), "MNI152", "space=MNI152: .* is in orig by its name"),
        (("MNI152NLin6Asym",), TEMPLATE, "is in MNI152NLin6Asym by its name"),
    ],
)
def test_spaces_that_contradict_each_other_are_refused(images, names, stated, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        explained(images(*names), space=stated)
    assert len(str(error.value).splitlines()) == 1
