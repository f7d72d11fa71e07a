"""Manifests with every kind of split, for all three formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

from medtool.manifest import Manifest
from medtool.split.exchange.role_table import ROLES, roles_in

Row = dict[str, str]


def manifest_of(rows: Sequence[Row], root: Path = Path("data")) -> Manifest:
    return Manifest.from_rows(
        [
            {"image": f"images/im_{number:03}.png", "image_id": f"im_{number:03}", **row}
            for number, row in enumerate(rows)
        ],
        root,
    )


def roles_by_fold(manifest: Manifest) -> dict[int | None, list[str]]:
    """Return the role of each image in each fold; of a hold-out split under None."""
    table = roles_in(manifest)
    return {
        fold: [ROLES[code] for code in table.codes[:, column]] for column, fold in enumerate(table.folds or (None,))
    }


def parts_json(manifest: Manifest, role: str, fold: int | None = None) -> list[str]:
    ids = manifest.table.get_column("image_id").to_list()
    return [name for name, found in zip(ids, roles_by_fold(manifest)[fold], strict=True) if found == role]


_label = st.sampled_from(["", "benign", "malignant"])


@st.composite
def hold_out_rows(draw: st.DrawFn) -> list[Row]:
    splits = draw(st.lists(st.sampled_from(["", "train", "val", "test"]), max_size=20))
    return [{"split": split, "label": draw(_label)} for split in ["train", "val", *splits]]


@st.composite
def fold_rows(draw: st.DrawFn, *, has_val: bool = False, has_test: bool = False) -> list[Row]:
    """Draw folds that each hold out an image or more, with rows that are always in train or in no part."""
    n_folds = draw(st.integers(min_value=3 if has_val else 2, max_value=6))
    held_out = [*range(n_folds), *draw(st.lists(st.integers(0, n_folds - 1), max_size=15))]
    rows = [{"fold": str(fold), "label": draw(_label)} for fold in held_out]
    if has_val:
        for fold, row in enumerate(rows):
            others = [number for number in range(n_folds) if str(number) != row["fold"]]
            chosen = (fold + 1) % n_folds if fold < n_folds else draw(st.sampled_from([None, *others]))
            row["val_fold"] = "" if chosen is None else str(chosen)
    rows += [{"split": "train"}] * draw(st.integers(0, 2)) + [{}] * draw(st.integers(0, 2))
    rows += [{"split": "test"}] * (draw(st.integers(1, 4)) if has_test else 0)
    return draw(st.permutations(rows))


any_rows = st.lists(
    st.fixed_dictionaries(
        {
            "split": st.sampled_from(["", "", "train", "val", "test"]),
            "fold": st.sampled_from(["", "0", "0", "1", "2", "5"]),
            "val_fold": st.sampled_from(["", "", "0", "1", "2", "7"]),
        }
    ),
    min_size=1,
    max_size=9,
)
