"""Any header of an image is read or refused in one line."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import COARSE
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from xai_brain.config.data import PreprocessingConfig
from xai_brain.data.preprocessing import preprocess_t1w
from xai_brain.io.nifti import ImageError, load_img


@pytest.fixture(scope="session")
def plain_file(tmp_path_factory) -> Path:
    data = np.zeros((18, 19, 20), np.float32)
    data[4:14, 4:15, 4:16] = np.random.default_rng(0).random((10, 11, 12))
    img = nib.Nifti1Image(data, COARSE)
    img.header.set_slope_inter(2, 1)
    path = tmp_path_factory.mktemp("fuzz") / "x.nii"
    nib.save(img, path)
    return path


CHANGES = st.lists(st.tuples(st.integers(0, 347), st.binary(min_size=1, max_size=8)), min_size=1, max_size=5)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, compressed=st.booleans())
@example(changes=[(40, struct.pack("<8h", 7, *[32767] * 7))], compressed=True)
@example(changes=[(40, struct.pack("<4h", 3, 700, 700, 700))], compressed=True)
@example(changes=[(108, struct.pack("<f", 1e38))], compressed=True)
@example(changes=[(114, b"\x00a")], compressed=False)
@example(changes=[(114, b"\x00_")], compressed=False)
@example(changes=[(108, struct.pack("<f", np.nan))], compressed=False)
@example(changes=[(112, struct.pack("<2f", np.inf, np.nan))], compressed=False)
@example(changes=[(70, struct.pack("<2h", 1536, 128))], compressed=False)
@example(changes=[(0, struct.pack("<i", 540))], compressed=False)
def test_any_header_is_read_or_refused_in_one_line_within_memory(tmp_path, plain_file, changes, compressed):
    content = bytearray(plain_file.read_bytes())
    for position, values in changes:
        content[position : min(position + len(values), 348)] = values[: 348 - position]
    path = tmp_path / ("y.nii.gz" if compressed else "y.nii")
    path.write_bytes(gzip.compress(bytes(content), 1) if compressed else bytes(content))
    refused = None
    tracemalloc.start()
    try:
        img = load_img(path)
        preprocess_t1w(img, PreprocessingConfig("t1w_4mm"), space="MNI152", path=path)
    except ImageError as error:
        refused = error
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2**28  # bytes that were asked for, also if they were never touched
    if refused:
        assert str(refused).startswith(f"{path}: ")
        assert "\n" not in str(refused)
        assert len(refused.reason) > 10
    else:
        assert img.ndim == 3
        assert np.isfinite(img.affine).all()
        assert abs(np.linalg.det(img.affine[:3, :3])) > 0
