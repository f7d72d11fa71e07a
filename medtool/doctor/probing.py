"""Checks of what has to be loaded to be judged: torch, torchvision, devices and plugins."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections import Counter
from collections.abc import Iterator

from packaging.requirements import Requirement

from medtool import registry
from medtool.doctor.check import Check, Status
from medtool.doctor.probe import Answer, ask

LINE_LENGTH = 300
"""Error messages of compiled code can go over pages."""


def look_at_torch_and_plugins() -> Iterator[Check]:
    """Load torch, torchvision and every plugin in another process, all in one, as importing torch takes seconds."""
    plugins = {f"plugin:{info.kind}/{info.name}": info for info in registry.infos()}
    answers = ask(["torch", "torchvision", "devices", *plugins])
    yield _torch(answers["torch"])
    yield _torchvision(answers["torchvision"])
    yield from _devices(answers["devices"], answers["torch"])
    broken = {step: answers[step] for step in plugins if answers[step].problem is not None}
    for step, answer in broken.items():
        yield Check(step, Status.FAILED, _short(answer.problem), answer.hint or _uninstall(plugins[step].distribution))
    for problem in registry.problems():
        yield Check("plugins", Status.FAILED, problem, "install that distribution anew, or uninstall it")
    counts = Counter(info.kind for step, info in plugins.items() if step not in broken)
    seen = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(counts.items()))
    if seen:
        yield Check("plugins", Status.OK, f"loaded: {seen}")
    else:
        yield Check("plugins", Status.FAILED, "none loads, not even medtool's own", "pip install medtool anew")


def _torch(answer: Answer) -> Check:
    if answer.problem is not None:
        fix = "pip install --force-reinstall torch torchvision"
        return Check("torch", Status.FAILED, f"cannot be imported: {_short(answer.problem)}", fix)
    found = answer.value
    build = f"CUDA {found['cuda']}" if found["cuda"] else "no CUDA"
    seen = f"{found['version']} ({build}), {found['threads']} threads, imported in {found['seconds']:.1f} s"
    return Check("torch", Status.OK, seen)


def _torchvision(answer: Answer) -> Check:
    """Judge the pair by torchvision's own requirement, which names one version of torch, and by its operators."""
    fix = "pip install --force-reinstall torch torchvision"
    try:
        wanted = [Requirement(text) for text in importlib.metadata.requires("torchvision") or []]
        torch = importlib.metadata.version("torch")
        version = importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError as error:
        return Check("torchvision", Status.FAILED, f"{error.name} is not installed", "pip install torch torchvision")
    unmet = [each for each in wanted if each.name == "torch" and not each.specifier.contains(torch, prereleases=True)]
    if unmet:
        return Check("torchvision", Status.FAILED, f"{version} wants {unmet[0]}; torch is {torch}", fix)
    if answer.problem is not None:
        return Check("torchvision", Status.FAILED, f"{version} does not work: {_short(answer.problem)}", fix)
    return Check("torchvision", Status.OK, f"{version} matches torch {torch}, and its operators run")


def _devices(answer: Answer, torch: Answer) -> Iterator[Check]:
    if answer.problem is not None:
        yield Check("devices", Status.FAILED, f"cannot be listed: {_short(answer.problem)}", answer.hint)
        return
    for each in answer.value:
        memory = f", {each['memory_bytes'] / (1 << 30):,.1f} GiB" if each["memory_bytes"] else ""
        speed = "fast" if each["bf16"] else "not fast"
        seen = f"{each['name']}{memory}; bf16 is {speed} here, --precision auto takes {each['precision']}"
        name = f"device:{each['device']}"
        if each["problem"] is None:
            yield Check(name, Status.OK, seen)
        else:
            fix = "--device cpu works around it; else look at the driver"
            yield Check(name, Status.FAILED, f"{seen}; does not compute: {_short(each['problem'])}", fix)
    has_gpu = any(each["device"] != "cpu" for each in answer.value)
    if not has_gpu and shutil.which("nvidia-smi"):
        cause = "is built for another driver" if torch.value and torch.value["cuda"] else "is built without CUDA"
        seen = f"there is an NVIDIA driver, but torch sees no GPU: there is none, it is hidden, or torch {cause}"
        yield Check("gpu", Status.WARNING, seen, "nvidia-smi")


def _short(text: str | None) -> str:
    text = text or ""
    return text if len(text) <= LINE_LENGTH else f"{text[:LINE_LENGTH]}…"


def _uninstall(distribution: str) -> str:
    if distribution == "medtool":
        return "pip install --force-reinstall medtool"
    return f"pip install --upgrade {distribution}, or pip uninstall {distribution}"
