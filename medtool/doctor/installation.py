"""What is installed: Python, the packages that medtool needs, its optional parts, weights, and its variables."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import platform
from collections.abc import Collection, Iterator

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from medtool import __version__, weights
from medtool.doctor.check import Check, Status
from medtool.weights import State
from medtool.weights.shelf import FOLDER_VARIABLE

DISTRIBUTION = "medtool"


def look_at_python() -> Iterator[Check]:
    """Compare the running Python with what medtool asks for."""
    seen = platform.python_version()
    try:
        wanted = SpecifierSet(importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"])
    except importlib.metadata.PackageNotFoundError:
        yield Check("python", Status.OK, seen)
        return
    if wanted.contains(seen, prereleases=True):
        yield Check("python", Status.OK, f"{seen} (wanted {wanted})")
    else:
        yield Check("python", Status.FAILED, f"{seen}; medtool wants {wanted}", "install it under such a Python")


def look_at_requirements() -> Iterator[Check]:
    """Compare every package that medtool cannot do without with its floor."""
    try:
        installed = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        yield Check(
            "medtool",
            Status.FAILED,
            f"{__version__} runs from a folder without being installed, so its plugins cannot be found",
            "pip install . in the folder of its pyproject.toml",
        )
        return
    if installed == __version__:
        yield Check("medtool", Status.OK, installed)
    else:
        seen = f"the code is {__version__}, the installed distribution says {installed}"
        yield Check("medtool", Status.WARNING, seen, "pip install . again")
    wanted = [each for each in _requirements_of(DISTRIBUTION) if _is_wanted(each)]
    unmet = 0
    for requirement in wanted:
        if problem := _problem_of(requirement):
            unmet += 1
            fix = f"pip install '{requirement.name}{requirement.specifier}'"
            yield Check(f"requirement:{requirement.name}", Status.FAILED, problem, fix)
    if not unmet:
        yield Check("requirements", Status.OK, f"all {len(wanted)} are installed and new enough")


def look_at_extras() -> Iterator[Check]:
    """Say which optional parts are installed; one that is not is no fault."""
    try:
        extras = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        return  # said by look_at_requirements
    for extra in sorted(extras):
        wanted = [
            each for each in _requirements_of(DISTRIBUTION) if _is_wanted(each, extra=extra) and not _is_wanted(each)
        ]
        wanted += [inner for each in wanted for inner in _inner_requirements(each)]
        absent = [each.name for each in wanted if _version_of(each) is None]
        outdated = [problem for each in wanted if _version_of(each) and (problem := _problem_of(each))]
        fix = f"pip install 'medtool[{extra}]'"
        if absent:
            yield Check(f"extra:{extra}", Status.OK, f"not installed (optional): {', '.join(absent)}", fix)
        elif outdated:
            yield Check(f"extra:{extra}", Status.WARNING, "; ".join(outdated), fix)
        else:
            yield Check(f"extra:{extra}", Status.OK, "installed")


def look_at_weights() -> Iterator[Check]:
    """Say which weights are on this machine, by their sizes."""
    rows = weights.look_at_all()
    usable = [found.name for found in rows if found.is_usable]
    seen = f"{', '.join(usable) or 'none'} in {weights.folder()}"
    fix = None if usable else "medtool weights get mobile-sam"
    yield Check("weights", Status.OK, seen, fix)
    for found in rows:
        if found.state is State.WRONG and found.info:
            sizes = f"{found.size_bytes:,} bytes, not the published {found.info.size_bytes:,}"
            fix = f"medtool weights get {found.name} --overwrite"
            yield Check(f"weights:{found.name}", Status.WARNING, f"{found.path.name} is not used: it has {sizes}", fix)
        if found.state is State.UNFINISHED and found.info:
            share = found.size_bytes / found.info.size_bytes
            seen = f"the download stopped at {share:.0%}"
            yield Check(f"weights:{found.name}", Status.WARNING, seen, f"medtool weights get {found.name}")


def look_at_variables(known: Collection[str]) -> Iterator[Check]:
    """Name the environment variables that medtool reads, and those that it only seems to read; never their values."""
    known = {FOLDER_VARIABLE, *known}
    seen = sorted(name for name in os.environ if name.upper().startswith("MEDTOOL_"))
    used = [name for name in seen if name in known]
    yield Check("variables", Status.OK, f"set: {', '.join(used)}" if used else "no MEDTOOL_* variable is set")
    for name in seen:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
            fix = f"did you mean {near[0]}?" if near else "medtool COMMAND --help shows the variable of each option"
            yield Check(f"variable:{name}", Status.WARNING, "is set, and no option reads it", fix)


def _requirements_of(distribution: str) -> list[Requirement]:
    return [Requirement(text) for text in importlib.metadata.requires(distribution) or []]


def _is_wanted(requirement: Requirement, *, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _inner_requirements(requirement: Requirement) -> list[Requirement]:
    """Return what a requirement's own extras ask for, as ``distributed`` of ``dask[distributed]``."""
    if not requirement.extras or _version_of(requirement) is None:
        return []
    return [
        each
        for each in _requirements_of(requirement.name)
        if not _is_wanted(each) and any(_is_wanted(each, extra=extra) for extra in requirement.extras)
    ]


def _version_of(requirement: Requirement) -> str | None:
    try:
        return importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _problem_of(requirement: Requirement) -> str:
    version = _version_of(requirement)
    if version is None:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} is {version}; wanted {requirement.specifier}"
