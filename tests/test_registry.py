"""Plugins are found without being imported, and a broken one is only its user's matter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medtool import registry
from medtool.errors import ExitCode, PluginError, UnknownNameError

GOOD_SEGMENTER = """
class Good:
    version = "1"
    licence = "MIT"
    citation = "nobody"
    weights = None
    needs_torch = False

    def __init__(self, *, weights, device, precision): ...
    def embed(self, image): ...
    def segment(self, embedding, prompt): ...
"""
GOOD_DATASET = """
class Good:
    classes = ("a",)
    licence = "CC0-1.0"
    citation = "nobody"
    options = {}

    def manifest(self, root): ...

instance = Good()
"""

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that lays a distribution on ``sys.path``, as an installer would."""
    modules: list[str] = []

    def lay(
        name: str,
        entry_points: str,
        *,
        version: str = "1.0",
        module: str = "",
        site: str = "site",
        metadata: str | None = None,
    ) -> Path:
        folder = tmp_path / site
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" if metadata is None else metadata
        (info / "METADATA").write_text(text, encoding="utf-8")
        (info / "entry_points.txt").write_bytes(entry_points.encode("latin-1"))
        if module:
            (folder / f"{name.replace('-', '_')}.py").write_text(module, encoding="utf-8")
            modules.append(name.replace("-", "_"))
        if str(folder) not in sys.path:
            monkeypatch.syspath_prepend(folder)
        registry.forget()
        return folder

    yield lay
    for module in modules:
        sys.modules.pop(module, None)
    registry.forget()


def segmenters(*lines: str) -> str:
    return "\n".join(("[medtool.segmenters]", *lines)) + "\n"


def test_listing_names_a_plugin_without_importing_it(install: Install) -> None:
    install("acme-seg", segmenters("acme = acme_seg:Good"), version="2.5", module="raise SystemExit('imported')")

    (info,) = [info for info in registry.infos("segmenter") if info.name == "acme"]

    assert (info.kind, info.target, info.distribution, info.version) == (
        "segmenter",
        "acme_seg:Good",
        "acme-seg",
        "2.5",
    )
    assert "acme" in registry.names("segmenter")
    assert "acme_seg" not in sys.modules


def test_a_plugin_is_loaded_by_its_name_and_only_once(install: Install) -> None:
    install("acme-seg", segmenters("acme = acme_seg:Good"), module=GOOD_SEGMENTER)

    assert registry.load("segmenter", "acme").__name__ == "Good"
    assert registry.load("segmenters", "acme") is registry.load("segmenter", "acme")


@pytest.mark.parametrize("target", ["Good", "instance"])
def test_a_data_set_given_as_a_class_or_as_an_instance_comes_as_an_instance(install: Install, target: str) -> None:
    install("acme-data", f"[medtool.datasets]\nacme = acme_data:{target}\n", module=GOOD_DATASET)

    assert type(registry.load("dataset", "acme")).__name__ == "Good"


@pytest.mark.parametrize(
    ("module", "target", "reason"),
    [
        ("import a_module_that_is_not_there", "Good", "No module named 'a_module_that_is_not_there'"),
        ("x = 1", "Good", "has no attribute 'Good'"),
        ("raise SystemExit(3)", "Good", "SystemExit: 3"),
        ("1 +", "Good", "SyntaxError"),
        (
            GOOD_SEGMENTER.replace("citation", "_citation").replace("def embed", "def _embed"),
            "Good",
            "no citation, embed",
        ),
        (GOOD_SEGMENTER.replace("def embed(self, image): ...", "embed = 3"), "Good", "not a method: embed"),
        (GOOD_SEGMENTER, "Good.version", "must name a class, not 'str'"),
    ],
)
def test_a_broken_plugin_is_an_error_of_its_own_that_names_origin_and_reason(
    install: Install, module: str, target: str, reason: str
) -> None:
    install("acme-seg", segmenters(f"broken = acme_seg:{target}"), module=module)
    install("fine-seg", segmenters("fine = fine_seg:Good"), module=GOOD_SEGMENTER)

    assert registry.load("segmenter", "fine").version == "1"
    with pytest.raises(PluginError) as caught:
        registry.load("segmenter", "broken")
    assert reason in caught.value.message
    assert f"acme-seg 1.0 (acme_seg:{target})" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_plugins_own_next_step_is_kept(install: Install) -> None:
    module = "from medtool.errors import MissingExtraError\nraise MissingExtraError('nifti', needed_for='acme')"
    install("acme-seg", segmenters("acme = acme_seg:Good"), module=module)

    with pytest.raises(PluginError) as caught:
        registry.load("segmenter", "acme")
    assert caught.value.hint == "pip install 'medtool[nifti]'"


def test_a_name_claimed_by_two_distributions_is_refused_on_use_and_names_both(install: Install) -> None:
    install("acme-a", segmenters("same = acme_a:Good", "other = acme_a:Good"), module=GOOD_SEGMENTER)
    install("acme-b", segmenters("same = acme_b:Good"), module=GOOD_SEGMENTER)

    assert registry.load("segmenter", "other")
    with pytest.raises(PluginError, match=r"acme-a 1\.0 .*acme-b 1\.0"):
        registry.load("segmenter", "same")
    shown = [info for info in registry.infos() if info.name == "same"]
    assert [info.distribution for info in shown] == ["acme-a", "acme-b"]
    assert all("acme-a" in info.details["conflict"] and "acme-b" in info.details["conflict"] for info in shown)
    assert registry.names("segmenter").count("same") == 1


def test_who_takes_a_built_in_name_is_told_to_uninstall_the_other_not_medtool(install: Install) -> None:
    install("acme-a", segmenters("heatmap = acme_a:Good"), module=GOOD_SEGMENTER)
    with pytest.raises(PluginError, match="claimed 2 times") as caught:
        registry.load("segmenter", "heatmap")
    assert caught.value.hint == "pip uninstall acme-a"


def test_one_name_in_two_kinds_is_no_conflict(install: Install) -> None:
    points = segmenters("same = acme_x:Good") + "[medtool.datasets]\nsame = acme_x:Good\n"
    install("acme-x", points, module=GOOD_SEGMENTER)

    assert registry.load("segmenter", "same")


def test_one_distribution_twice_on_the_path_counts_once_and_the_first_wins(install: Install) -> None:
    install("acme-seg", segmenters("acme = acme_seg:Missing"), version="1.0", site="wheel")
    install("Acme.Seg", segmenters("acme = acme_seg:Good"), version="1.1", site="editable")

    (info,) = [info for info in registry.infos("segmenter") if info.name == "acme"]

    assert (info.version, info.target) == ("1.1", "acme_seg:Good")
    assert "conflict" not in info.details


@pytest.mark.parametrize("text", [segmenters("a line without its equals sign"), segmenters("caf\xe9 = x:y")])
def test_a_distribution_with_an_unreadable_list_hurts_nobody_and_is_named(install: Install, text: str) -> None:
    install("broken-list", text)
    install("fine-seg", segmenters("fine = fine_seg:Good"), module=GOOD_SEGMENTER)

    assert "fine" in registry.names("segmenter")
    assert any("cannot be read" in line for line in registry.problems())


def test_a_distribution_without_a_name_hurts_nobody_and_is_named(install: Install) -> None:
    install("nameless", segmenters("lost = nameless:Good"), metadata="Metadata-Version: 2.1\n")

    assert "lost" not in registry.names("segmenter")
    (line,) = registry.problems()
    assert line.startswith("a distribution without a name")


def test_an_unknown_name_gets_the_nearest_one_and_is_a_usage_error(install: Install) -> None:
    install("acme-seg", segmenters("watershed = acme_seg:Good"), module=GOOD_SEGMENTER)

    with pytest.raises(UnknownNameError, match="Did you mean 'watershed'") as caught:
        registry.load("segmenter", "watershd")
    assert caught.value.exit_code == ExitCode.USAGE


def test_kinds_are_known_in_both_numbers() -> None:
    assert [registry.kind_of(text) for text in ("dataset", "Datasets", "architectures", "segmenter")] == [
        "dataset",
        "dataset",
        "architecture",
        "segmenter",
    ]
    with pytest.raises(UnknownNameError, match="Did you mean 'segmenter'"):
        registry.kind_of("segmentor")


def test_looking_at_what_there_is_imports_nothing_heavy() -> None:
    code = (
        "import sys; from medtool import registry; registry.infos(); "
        "print([m for m in ('numpy', 'torch', 'polars', 'h5py', 'typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
