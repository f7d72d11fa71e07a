from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from medtool.errors import InputError
from medtool.models import fill, load_state_dict

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.5, -2.0])}


def written(folder: Path, document: object, **options: object) -> Path:
    path = folder / "weights.pth"
    torch.save(document, path, **options)
    return path


def assert_same(state: dict[str, torch.Tensor]) -> None:
    assert list(state) == list(TENSORS)
    assert all(torch.equal(state[name], TENSORS[name]) for name in TENSORS)


def assert_one_line(error: InputError, path: Path) -> None:
    assert "\n" not in error.message
    assert "\x1b" not in error.message
    assert str(path) in error.message


@pytest.mark.parametrize(
    "document",
    [
        TENSORS,
        OrderedDict(TENSORS),
        {"model": TENSORS, "optimizer": {"step": 3}, "epoch": 7},
        {"state_dict": TENSORS, "best": 0.5},
        {"model_state_dict": TENSORS},
        {"state_dict": {"model": TENSORS}},
    ],
)
def test_tensors_are_found_bare_and_under_the_usual_keys(tmp_path, document):
    assert_same(load_state_dict(written(tmp_path, document)))


def test_files_from_before_torch_1_6_are_read(tmp_path):
    assert_same(load_state_dict(written(tmp_path, TENSORS, _use_new_zipfile_serialization=False)))


def test_safetensors_are_read(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(TENSORS, path)
    assert_same(dict(sorted(load_state_dict(path).items(), reverse=True)))


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


class Harmless:
    pass


def pickles_of(value: object) -> dict[str, bytes]:
    new, old = io.BytesIO(), io.BytesIO()
    torch.save(value, new)
    torch.save(value, old, _use_new_zipfile_serialization=False)
    plain = {f"plain {protocol}": pickle.dumps(value, protocol) for protocol in (2, 3, 4, 5)}
    return {"torch": new.getvalue(), "torch, old": old.getvalue(), **plain}


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path):
    touched = tmp_path / "touched"
    for kind, data in pickles_of({**TENSORS, "x": Hostile(touched)}).items():
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        with pytest.raises(InputError, match="is refused: it is a pickle of more than tensors") as caught:
            load_state_dict(path)
        assert_one_line(caught.value, path)
        assert caught.value.hint == "save the tensors alone, best as a safetensors file"
        assert not touched.exists(), kind


def test_a_refused_pickle_names_the_class_it_holds(tmp_path):
    with pytest.raises(InputError, match=r"more than tensors \(.*Harmless\)"):
        load_state_dict(written(tmp_path, {**TENSORS, "options": Harmless()}))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({}, "no named tensors, but an empty dictionary"),
        ([TENSORS["a.bias"]], "no named tensors, but a list"),
        (torch.zeros(3), "no named tensors, but a tensor"),
        ({**TENSORS, "epoch": 3}, "'epoch' is a int"),
        ({**TENSORS, "rest": {"x": 1}}, "'rest' is a dictionary of 1"),
        ({0: torch.zeros(3)}, "0 is not the name of a tensor"),
        ({"a": torch.eye(3).to_sparse()}, "'a' is a tensor of layout torch.sparse_coo"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_with_what_it_holds(tmp_path, document, reason):
    path = written(tmp_path, document)
    with pytest.raises(InputError, match=reason) as caught:
        load_state_dict(path)
    assert_one_line(caught.value, path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match="cannot be read: no such file"):
        load_state_dict(tmp_path / "missing.pth")
    with pytest.raises(InputError, match="cannot be read"):
        load_state_dict(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read|no whole"):
        load_state_dict(tmp_path / "missing.safetensors")


def encodings() -> dict[str, bytes]:
    new, old = io.BytesIO(), io.BytesIO()
    torch.save(TENSORS, new)
    torch.save(TENSORS, old, _use_new_zipfile_serialization=False)
    return {"new.pth": new.getvalue(), "old.pth": old.getvalue()}


ENCODED = encodings()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@given(name=st.sampled_from(sorted(ENCODED)), share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_one_clear_line(folder, name, share):
    path = folder / name
    path.write_bytes(ENCODED[name][: int(len(ENCODED[name]) * share)])
    with pytest.raises(InputError) as caught:
        load_state_dict(path)
    assert_one_line(caught.value, path)


def test_a_truncated_safetensors_file_is_one_clear_line(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(TENSORS, path)
    whole = path.read_bytes()
    for length in (0, 4, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is no whole safetensors file") as caught:
            load_state_dict(path)
        assert_one_line(caught.value, path)


@given(data=st.binary(max_size=200))
def test_any_other_bytes_are_one_clear_line(folder, data):
    path = folder / "any.pth"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        load_state_dict(path)
    assert_one_line(caught.value, path)


@given(
    name=st.sampled_from(sorted(ENCODED)),
    place=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
)
@example(name="new.pth", place=0.98046875, value=1)  # the end of the archive says that it spans several disks
def test_a_changed_byte_gives_tensors_or_one_clear_line(folder, name, place, value):
    data = bytearray(ENCODED[name])
    data[int(len(data) * place)] = value
    path = folder / f"changed-{name}"
    path.write_bytes(data)
    try:
        state = load_state_dict(path)
    except InputError as error:
        assert_one_line(error, path)
    else:
        assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


def network() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def fitting() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict()


def test_a_network_on_the_meta_device_takes_the_tensors_as_float32(tmp_path):
    state = fitting()
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    filled = network()
    fill(filled, half, path=tmp_path / "w.pth", what="net")
    assert filled[0].weight.dtype == torch.float32
    assert torch.allclose(filled[0].weight, state["0.weight"], atol=1e-3)
    assert not filled[0].weight.requires_grad
    assert filled.eval()(torch.zeros(1, 3)).shape == (1, 2)


def with_changes(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state = {**fitting(), **changes}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"0.weight": None}, "missing: 0.weight$"),
        (dict.fromkeys(fitting()), "missing: 0.weight, 0.bias, 1.weight and 4 more$"),
        ({"head.weight": torch.zeros(1)}, "unexpected: head.weight$"),
        ({"0.weight": torch.zeros(3, 2)}, r"of another shape: 0.weight \(3, 2\) instead of \(2, 3\)$"),
        ({"0.bias": torch.tensor([1.0, float("nan")])}, "not finite: 0.bias$"),
        ({"0.bias": torch.tensor([1, 2])}, "of another kind of number: 0.bias$"),
        ({"0.bias": None, "0.b": torch.zeros(2)}, "missing: 0.bias; unexpected: 0.b$"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_the_first_few_named(tmp_path, changes, reason):
    path = tmp_path / "w.pth"
    with pytest.raises(InputError, match=reason) as caught:
        fill(network(), with_changes(**changes), path=path, what="net")
    assert_one_line(caught.value, path)
    assert caught.value.hint == "medtool weights get net"
