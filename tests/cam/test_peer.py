"""Every method of pytorch-grad-cam runs on a convolutional network and on a transformer, or says why it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from medtool.cam.choices import BY_PEER, OF_WHOLE_IMAGE, Method, Target
from medtool.cam.layer import find_layers
from medtool.cam.maker import HeatmapMaker
from medtool.errors import UsageError
from medtool.heatmaps.format import Flag
from tests.cam.networks import KINDS, images, network

SMALL = images(2)
#: What a method says of a vision transformer that it cannot explain.
REFUSED_BY_VIT = {
    Method.SHAPLEYCAM: "shapleycam fails with this network: ",  # it takes no tokens
    Method.FULLGRAD: r"fullgrad would leave out the bias of .* \(LayerNorm\)",
}


def maker(kind: str, method: Method, *, num_classes: int = 5, precision: str = "fp32") -> HeatmapMaker:
    return HeatmapMaker(network(kind, num_classes), [KINDS[kind].layer], method=method, precision=precision)


@pytest.mark.parametrize("method", sorted(BY_PEER))
def test_each_method_explains_a_convolutional_network(method: Method) -> None:
    make = maker("resnet", method)

    made = make.maps(SMALL, torch.tensor([[1, 2], [0, 3]]))

    assert made.raw.shape == (2, 2, *make.grid_for((96, 96)))
    assert (method in OF_WHOLE_IMAGE) == (made.raw.shape[2:] == (96, 96))
    assert (made.flags == Flag.NONE).any()
    # One that is scaled has no values below 0; nothing is left of a map that has no others.
    assert set(made.flags.ravel().tolist()) <= {Flag.NONE, Flag.ZERO if method in OF_WHOLE_IMAGE else Flag.NEGATIVE}
    assert np.array_equal(make.maps(SMALL, torch.tensor([[1, 2], [0, 3]])).raw, made.raw)


@pytest.mark.parametrize("method", sorted(BY_PEER))
def test_each_method_explains_a_transformer_or_says_why_not(method: Method) -> None:
    make = maker("vit", method)
    if method in REFUSED_BY_VIT:
        with pytest.raises(UsageError, match=REFUSED_BY_VIT[method]) as caught:
            make.maps(images()[:1], torch.tensor([1]))
        assert "--method gradcam" in str(caught.value.hint)
    else:
        made = make.maps(images()[:1], torch.tensor([1]))
        assert made.raw.shape == (1, 1, *make.grid_for((96, 96)))
        assert made.flags[0, 0] in {Flag.NONE, Flag.NEGATIVE}
    assert not [name for name, module in network("vit").named_modules() if module._forward_hooks]


def test_the_maps_are_those_of_its_own_call() -> None:
    """Those at the image's size are its result; the others give it when they are scaled as it does."""
    from pytorch_grad_cam.utils.image import scale_cam_image

    net = network("resnet")
    layers = list(find_layers(net, ["layer4"]).values())
    for method, kind in (
        (Method.EIGENGRADCAM, pytorch_grad_cam.EigenGradCAM),
        (Method.GRADCAM_ELEMENTWISE, pytorch_grad_cam.GradCAMElementWise),
        (Method.FEM, pytorch_grad_cam.FEM),
        (Method.REFINECAM, pytorch_grad_cam.RefineCAM),
        (Method.FULLGRAD, pytorch_grad_cam.FullGrad),
        (Method.SESS, pytorch_grad_cam.SESS),
        (Method.SEGEIGENCAM, pytorch_grad_cam.SegEigenCAM),
    ):
        theirs = kind(net, [] if method is Method.FULLGRAD else layers)(SMALL[:1], [ClassifierOutputTarget(3)])
        ours = maker("resnet", method).maps(SMALL[:1], torch.tensor([3])).raw[:, 0]
        if method not in OF_WHOLE_IMAGE:
            ours = scale_cam_image(scale_cam_image(np.maximum(ours, 0), (96, 96)))
        assert np.allclose(ours, theirs, atol=1e-4), method


def test_finer_maps_set_a_class_against_those_that_are_like_it() -> None:
    net = network("resnet")
    layers = list(find_layers(net, ["layer4"]).values())
    with pytorch_grad_cam.FinerCAM(net, layers) as cam:
        raw: list[np.ndarray] = []
        compute = cam.base_cam.get_cam_image
        cam.base_cam.get_cam_image = lambda *given: raw.append(compute(*given)) or raw[-1]
        cam(SMALL[:1], target_idx=3)

    finer = maker("resnet", Method.FINERCAM).maps(SMALL[:1], torch.tensor([3])).raw
    plain = maker("resnet", Method.GRADCAM).maps(SMALL[:1], torch.tensor([3])).raw

    assert np.allclose(finer[0, 0], raw[0][0], atol=1e-6)
    assert np.abs(finer - plain).max() > 0.01 * np.abs(plain).max()


@pytest.mark.parametrize("method", [Method.FINERCAM, Method.SESS, Method.GRADCAM_ELEMENTWISE, Method.SHAPLEYCAM])
def test_a_single_logit_has_maps_of_both_its_classes(method: Method) -> None:
    made = maker("resnet", method, num_classes=1).maps(SMALL[:1], Target.ALL)

    assert np.isfinite(made.raw).all()
    assert not np.allclose(made.raw[0, 0], made.raw[0, 1])
    if method is Method.FINERCAM:
        plain = maker("resnet", Method.GRADCAM, num_classes=1).maps(SMALL[:1], Target.ALL)
        assert np.allclose(made.raw, plain.raw, rtol=1e-3, atol=1e-6 * np.abs(plain.raw).max())


def test_random_maps_depend_on_the_image_and_the_class_alone() -> None:
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    both = maker("resnet", Method.RANDOMCAM).maps(SMALL, torch.tensor([[1, 2], [1, 2]])).raw
    assert np.random.random() == expected

    second = maker("resnet", Method.RANDOMCAM).maps(SMALL[1:], torch.tensor([[2]])).raw

    assert np.allclose(second[0, 0], both[1, 1], atol=1e-4 * np.abs(both).max())
    assert not np.allclose(both[0, 0], both[0, 1])


def test_methods_of_the_peer_take_networks_in_bfloat16_and_leave_gradients_alone() -> None:
    net = network("resnet")
    net.fc.weight.grad = torch.ones_like(net.fc.weight)

    made = maker("resnet", Method.EIGENGRADCAM, precision="bf16").maps(SMALL, torch.tensor([1, 2]))

    exact = maker("resnet", Method.EIGENGRADCAM).maps(SMALL, torch.tensor([1, 2]))
    assert np.abs(np.corrcoef(made.raw[0].ravel(), exact.raw[0].ravel())[0, 1]) > 0.99
    assert (net.fc.weight.grad == 1).all()
    net.fc.weight.grad = None


def test_layers_of_two_kinds_are_refused() -> None:
    make = HeatmapMaker(network("vit"), ["blocks.5.norm1", "patch_embed.proj"], method=Method.FEM)

    with pytest.raises(UsageError, match="takes layers of one kind"):
        make.maps(images()[:1])


def test_fullgrad_refuses_normalisations_that_it_would_leave_out() -> None:
    assert not isinstance(network("mobilenetv2").bn1, nn.Identity)
    with pytest.raises(UsageError, match=r"would leave out the bias of bn1 \(BatchNormAct2d\)"):
        maker("mobilenetv2", Method.FULLGRAD).maps(SMALL)
