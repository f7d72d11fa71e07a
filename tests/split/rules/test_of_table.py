"""All rules that need the table alone."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from medtool.split.catalogue import RULES
from medtool.split.options import AuditOptions
from medtool.split.rules.of_table import against_findings, cheap_findings, table_findings
from tests.split.rules.tables import reordered, seen, table_of

LEAKY = [
    {"patient": "a", "split": "train", "label": "m", "site": "x"},
    {"patient": "a", "split": "test", "label": "n", "site": "y"},
    {"patient": "A", "split": "train", "label": "m", "site": "x"},
    {"patient": "", "split": "train", "label": "", "site": "x"},
    {"patient": "b", "split": "", "label": "m", "site": "x"},
    {"patient": "b", "split": "train", "label": "m", "site": "x", "image": "0.png"},
]


def test_all_findings_come_in_the_order_of_their_codes():
    found = table_findings(table_of(LEAKY), AuditOptions())
    assert [one.rule.code for one in found] == [
        *("B802", "B803", "B804", "D201", "F302", "F303", "G101", "G103", "G104", "G105", "G106")
    ]


def test_the_cheap_findings_are_the_leaks():
    leaks = cheap_findings(table_of(LEAKY), AuditOptions())
    assert seen(leaks) == {("G101", "high"): {"patient a"}, ("D201", "low"): {"0.png"}}
    folds = [{"patient": "a", "fold": "0"}, {"patient": "a", "fold": "1"}]
    assert seen(cheap_findings(table_of(folds), AuditOptions(are_folds_ensembled=True))) == {
        ("G102", "high"): {"patient a"},
        ("F301", "high"): {"folds 0 and 1"},
    }


def test_cells_that_steer_terminals_or_spreadsheets_stay_text_and_numbers_stay_exact():
    nasty = ["=cmd()", "\x1b[31mred", "9007199254740993", "<b>", '"', "\n"]
    rows = [{"patient": who, "split": part, "label": who} for who in nasty for part in ("train", "test")]
    found = table_findings(table_of(rows), AuditOptions())
    assert seen(found)["G101", "high"] == {f"patient {who}" for who in nasty if who.strip()}
    json.dumps([[case.subject, case.rows, case.detail, dict(case.values)] for one in found for case in one.cases])


def test_every_code_is_in_the_catalogue_and_the_order_of_rows_changes_nothing():
    rng = np.random.default_rng(3)
    rows = [
        {
            "patient": str(rng.choice(["", "p1", "P1", "p2", "p3", "nan"])),
            "lesion": str(rng.integers(4)),
            "split": str(rng.choice(["train", "val", "test", ""])),
            "label": str(rng.choice(["", "m", "n"])),
            "site": str(rng.choice(["x", "y"])),
            "extra": str(rng.integers(3)),
        }
        for _ in range(60)
    ]
    table = table_of(rows)
    other = reordered(table, rng.permutation(60).tolist())
    found = table_findings(table, AuditOptions())
    assert {one.rule for one in found} <= set(RULES)
    assert found == table_findings(other, AuditOptions())
    assert against_findings(table, other) == against_findings(other, table) != []


def test_the_rules_import_neither_torch_nor_the_statistics_before_they_need_them():
    code = (
        "import sys; import medtool.split.rules.of_table; print({'torch', 'scipy.stats', 'sklearn'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
