"""A name on the command line is an architecture, or the error names the nearest that is one."""

from __future__ import annotations

import pytest

from medtool.architectures.fusion import FusionArchitecture
from medtool.architectures.naming import architecture
from medtool.architectures.timm_backbone import TimmArchitecture
from medtool.errors import UnknownNameError, UsageError
from medtool.protocols import Architecture


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnet50", TimmArchitecture),
        ("timm/resnet18", TimmArchitecture),
        ("timm/resnet18.a1_in1k", TimmArchitecture),
        ("fusion/mobilenetv2", FusionArchitecture),
        ("fusion/timm/resnet18", FusionArchitecture),
    ],
)
def test_a_name_gives_an_architecture_with_all_its_parts(name: str, kind: type) -> None:
    found = architecture(name)

    assert isinstance(found, kind)
    assert isinstance(found, Architecture)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet5O", "'resnet50'"),
        ("timm/resnet5O", "'timm/resnet50'"),
        ("timm/resnet18.a1_in1", "'timm/resnet18.a1_in1k'"),
        ("fusion/mobilenet", "'mobilenetv2'"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean {near}"):
        architecture(name)


@pytest.mark.parametrize("name", ["", "timm/", "fusion/", "nets/resnet50"])
def test_half_a_name_is_unknown(name: str) -> None:
    with pytest.raises(UnknownNameError):
        architecture(name)


def test_fusing_twice_is_refused_with_the_name_that_was_meant() -> None:
    with pytest.raises(UsageError) as caught:
        architecture("fusion/fusion/resnet50")

    assert caught.value.hint == "fusion/resnet50"
