"""The networks with a name of their own keep the contract, and say of themselves what timm says."""

from __future__ import annotations

import pytest

from medtool import registry
from medtool.architectures import builtin
from medtool.architectures.naming import architecture
from medtool.testing.contracts import ArchitectureContract

NAMES = ("convnext-tiny", "densenet121", "efficientnet-b0", "mobilenetv2", "resnet50", "swin-t", "vit-b16")


class TestMobileNetV2(ArchitectureContract):
    plugin = builtin.MOBILENETV2.at_size((64, 64))


@pytest.mark.slow
class TestConvNextTiny(ArchitectureContract):
    plugin = builtin.CONVNEXT_TINY.at_size((64, 64))


@pytest.mark.slow
class TestDenseNet121(ArchitectureContract):
    plugin = builtin.DENSENET121.at_size((64, 64))


@pytest.mark.slow
class TestEfficientNetB0(ArchitectureContract):
    plugin = builtin.EFFICIENTNET_B0.at_size((64, 64))


@pytest.mark.slow
class TestResNet50(ArchitectureContract):
    plugin = builtin.RESNET50.at_size((64, 64))


@pytest.mark.slow
class TestSwinT(ArchitectureContract):
    plugin = builtin.SWIN_T.at_size((64, 64))


@pytest.mark.slow
class TestVitB16(ArchitectureContract):
    plugin = builtin.VIT_B16.at_size((64, 64))


def test_every_name_is_registered_and_is_the_networks_own() -> None:
    ours = [info.name for info in registry.infos("architecture") if info.distribution == "medtool"]

    assert ours == list(NAMES)
    assert [architecture(name).name for name in ours] == ours


@pytest.mark.parametrize("name", NAMES)
def test_input_and_cam_layer_are_what_timm_and_the_rule_say(name: str) -> None:
    ours = architecture(name)
    theirs = architecture(f"timm/{ours.timm_name}")

    assert (ours.input, ours.cam_layer) == (theirs.input, theirs.cam_layer)
    assert ours.licence.split()[0].lower() == theirs.licence.split()[0].lower()
