"""Which segmenter is taken, by what is on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtool import weights
from medtool.errors import UsageError
from medtool.segment.choose import choose_segmenter


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDTOOL_WEIGHTS", str(tmp_path))
    return tmp_path


def put(shelf: Path, name: str) -> None:
    """Lay a file of the published size there, without its content: that is what the search goes by."""
    published = weights.info(name)
    with (shelf / published.file_name).open("wb") as file:
        file.truncate(published.size_bytes)


def test_auto_takes_the_best_one_whose_weights_are_there(shelf: Path) -> None:
    assert choose_segmenter("auto").name == "random-walker"
    put(shelf, "medsam-vit-b")
    assert choose_segmenter("auto").name == "random-walker"  # its weights know boxes, not points
    put(shelf, "mobile-sam")
    assert choose_segmenter("auto").name == "mobile-sam"
    put(shelf, "sam-vit-b")
    choice = choose_segmenter("auto", device="cpu", precision="fp32")
    assert (choice.name, choice.weights) == ("sam-vit-b", shelf / weights.info("sam-vit-b").file_name)
    assert (choice.device, choice.precision) == ("cpu", "fp32")


def test_a_file_of_another_size_is_not_taken_and_named(shelf: Path) -> None:
    path = shelf / weights.info("sam-vit-b").file_name
    path.write_bytes(b"an error page of a proxy")
    choice = choose_segmenter("auto")
    assert choice.name == "random-walker"
    assert f"{path} is not the published sam-vit-b" in choice.note


def test_device_and_precision_that_the_embedded_one_does_not_use_are_said_but_must_exist(shelf: Path) -> None:
    choice = choose_segmenter("auto", precision="bf16")
    assert choice.note.endswith("--precision would be for a network, and this is none")
    assert (choice.device, choice.precision) == ("cpu", "fp32")
    with pytest.raises(UsageError, match="'gpu' is no device"):
        choose_segmenter("auto", device="gpu")
    with pytest.raises(UsageError, match="precision 'fp8'"):
        choose_segmenter("auto", precision="fp8")


def test_a_device_for_the_networks_that_make_the_heatmaps_is_no_slip(shelf: Path) -> None:
    with pytest.raises(UsageError, match="--device would mean nothing"):
        choose_segmenter("heatmap", device="cuda")
    choice = choose_segmenter("heatmap", device="cuda", has_runs=True)
    assert (choice.device, choice.note) == ("cpu", "")
    with pytest.raises(UsageError, match="--precision would mean nothing"):
        choose_segmenter("heatmap", device="cuda", precision="bf16", has_runs=True)
