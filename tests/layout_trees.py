"""A small tree of images for each layout, and the settings that read it."""

from __future__ import annotations

from conftest import COARSE, COARSE_SHAPE, fake_brain

COLUMNS = ["participant_id", "session_id", "label", "target", "age", "sex"]


def brain(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    fake_brain(COARSE_SHAPE, COARSE, seed=seed).to_filename(path)
    return path


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def rows(table, *more):
    """What is asked of a table, as plain tuples; NaN as None."""
    chosen = table[[*COLUMNS, *more]].astype(object)
    return [tuple(row) for row in chosen.where(chosen.notna(), None).itertuples(index=False)]


def names(table, root, column="t1w_path"):
    return [path if path is None else path.relative_to(root).as_posix() for path in table[column]]


# one maker per layout: eight people, four of each sex; returns the settings of data


def make_bids(root, image=brain):
    for i in range(8):
        image(root / f"sub-{i:02d}" / "anat" / f"sub-{i:02d}_space-MNI152_T1w.nii.gz", seed=i)
    lines = [f"sub-{i:02d}\t{'MF'[i % 2]}\t{30 + i}" for i in range(8)]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tsex\tage", *lines]) + "\n")
    return {}


def make_bids_sessions(root, image=brain):
    """A derivative: two sessions each, several images in a folder, the table elsewhere."""
    for i in range(8):
        for ses in ("ses-1", "ses-2"):
            stem = root / f"sub-{i:02d}" / ses / "anat" / f"sub-{i:02d}_{ses}_run-1"
            image(stem.with_name(f"{stem.name}_space-MNI152_res-2_desc-brain_T1w.nii.gz"), seed=i)
            touch(stem.with_name(f"{stem.name}_desc-brain_T1w.nii.gz"))
    (root / "code").mkdir()
    lines = [f"{i:02d}\t{('female', 'male')[i % 2]}\t{30 + i}" for i in range(8)]
    (root / "code" / "people.tsv").write_text("\n".join(["participant_id\tgender\tage", *lines]) + "\n")
    return {"tables": ["code/people.tsv"], "entities": {"space": "MNI152"}}


def make_hcp(root, image=brain, form="MNINonLinear/T1w_restore_brain.nii.gz"):
    lines = []
    for i in range(8):
        number = 100307 + i
        image(root / (form.format(number) if "{}" in form else f"{number}/{form}"), seed=i)
        lines.append(f"{number},{'FM'[i % 2]},{('22-25', '26-30', '31-35', '36+')[i % 4]}")
    lines.append("999999,F,26-30")  # the tables list the whole study
    (root / "unrestricted_me.csv").write_text("\n".join(["Subject,Gender,Age", *lines]) + "\n")
    return {}


def make_ixi(root, image=brain):
    lines = []
    for i in range(8):
        site = ("Guys", "HH", "IOP")[i % 3]
        image(root / "T1" / f"IXI{i + 2:03d}-{site}-0{800 + i}-T1.nii.gz", seed=i)
        lines.append(f"{i + 2},{1 + i % 2},{170 + i},{35.5 + i}")
    header = 'IXI_ID,"SEX_ID (1=m, 2=f)",HEIGHT,AGE'
    (root / "IXI.csv").write_text("\n".join([header, *lines]) + "\n")
    return {}


def make_oasis(root, image=brain):
    ids = [f"OAS1_{i:04d}_MR1" for i in (1, 2, 3, 4, 5, 6, 7, 9)]  # nilearn leaves 8 out
    for i, name in enumerate(ids):
        for tissue in ("mwrc1", "mwrc2"):
            path = root / "oasis1" / name / f"{tissue}{name}_mpr_anon_fslswapdim_bet.nii.gz"
            (image if tissue == "mwrc1" else touch)(path, **({"seed": i} if tissue == "mwrc1" else {}))
    header = "ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"
    cdr = ("", "0", "0.5", "1")
    lines = [
        f"{name},{'FM'[i % 2]},R,{60 + i},2,3,29,{cdr[i % 4]},1344,0.743,1.3,N/A"
        for i, name in enumerate(ids)
    ]
    (root / "oasis1" / "oasis_cross-sectional.csv").write_text("\n".join([header, *lines]) + "\n")
    touch(root / "oasis1" / "data_usage_agreement.txt")
    return {"n_subjects": 8}


def make_caps(root, image=brain):
    lines = []
    for i in range(8):
        for ses in ("ses-M000", "ses-M012"):
            stem = f"sub-ADNI{i}_{ses}_T1w_space-MNI152NLin2009cSym"
            folder = root / "subjects" / f"sub-ADNI{i}" / ses / "t1_linear"
            image(folder / f"{stem}_desc-Crop_res-1x1x1_T1w.nii.gz", seed=i)
            touch(folder / f"{stem}_res-1x1x1_T1w.nii.gz")
        lines.append(f"sub-ADNI{i}\tses-M000\t{('AD', 'CN')[i % 2]}\t{'FM'[i // 2 % 2]}\t{70 + i}")
    (root / "labels.tsv").write_text("\n".join(["participant_id\tsession_id\tdiagnosis\tsex\tage", *lines]))
    return {"tables": ["labels.tsv"], "entities": {"desc": "Crop"}, "label": "diagnosis"}


def make_table(root, image=brain):
    lines = []
    for i in range(8):
        image(root / f"scan {i}" / "Käse.nii.gz", seed=i)
        lines.append(f"P{i},scan {i}/Käse.nii.gz,{' M' if i % 2 else 'f '},{20 + i},MNI152")
    (root / "cohort.csv").write_text("\n".join(["participant_id,t1w_path,Sex,Age,space", *lines]))
    return {"tables": ["cohort.csv"]}


LAYOUTS = {
    "bids": ("bids", make_bids),
    "derivative": ("bids", make_bids_sessions),
    "hcp": ("hcp", make_hcp),
    "ixi": ("ixi", make_ixi),
    "oasis": ("oasis", make_oasis),
    "caps": ("caps", make_caps),
    "table": ("table", make_table),
}


def fake(path, seed=0):
    return touch(path)
