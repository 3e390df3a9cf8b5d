"""PyTorch's files without PyTorch: both formats, damaged files, and pickles that would run code."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.support.places import FIXTURES
from trainers.networks.conversion.torch_file import (
    LEGACY_MAGIC,
    LEGACY_PROTOCOL,
    UNREADABLE,
    Contents,
    Refused,
    Storage,
    TensorView,
    read_torch_file,
)

ZIP, LEGACY = FIXTURES / "torch_zip.pth", FIXTURES / "torch_legacy.pth"
EXPECTED = FIXTURES / "torch_expected.npz"


class Runs:
    """Unpickles by calling ``os.mkdir``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def legacy(path: Path, root: object) -> Path:
    system = {"protocol_version": LEGACY_PROTOCOL, "little_endian": True, "type_sizes": {}}
    path.write_bytes(b"".join(pickle.dumps(each, 2) for each in (LEGACY_MAGIC, LEGACY_PROTOCOL, system, root, [])))
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("file", [ZIP, LEGACY])
def test_what_torch_wrote_is_read(file):
    contents, expected = read_torch_file(file), dict(np.load(EXPECTED))
    assert list(contents.root) == ["epoch", "best", "state_dict"]
    assert (contents.root["epoch"], contents.root["best"]) == (3, [0.5, None])
    tensors = contents.root["state_dict"]
    assert len(tensors) == len(expected) == 10
    for name, values in expected.items():
        found = contents.array(tensors[f"module.{name}"])
        assert found.shape == values.shape
        np.testing.assert_array_equal(found.astype(np.float32), values)


def test_views_share_a_storage_and_keep_their_strides():
    tensors = read_torch_file(ZIP).root["state_dict"]
    whole, part, turned = (tensors[f"module.{name}"] for name in ("whole", "part", "turned"))
    assert whole.storage == part.storage == turned.storage
    assert (part.offset, part.shape, turned.shape, turned.strides) == (5, (4,), (6, 4), (1, 6))


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, kind):
    made = tmp_path / "made"
    evil = {"state_dict": {"a": Runs(made)}}
    file = tmp_path / "x.pth"
    if kind == "zip":
        zipped(file, {"x/data.pkl": pickle.dumps(evil, 2), "x/version": b"3"})
    else:
        legacy(file, evil)
    with pytest.raises(Refused, match=r"its pickle names (posix|nt)\.mkdir, which is no part of a state dict"):
        read_torch_file(file)
    assert not made.exists()
    pickle.loads(pickle.dumps(evil))
    assert made.exists()  # as it would have been


@pytest.mark.parametrize(
    "named", [b"cbuiltins\neval\n.", b"ctorch\nload\n.", b"ccollections\nOrderedDict.fromkeys\n.", b"cnumpy\nload\n."]
)
def test_only_parts_of_a_state_dict_may_be_named(tmp_path, named):
    with pytest.raises(Refused, match="which is no part of a state dict"):
        read_torch_file(zipped(tmp_path / "x.pth", {"x/data.pkl": b"\x80\x02" + named}))


def test_a_pickle_sets_no_attribute_of_what_rebuilds_tensors(tmp_path):
    """Of a function it could: its defaults, for all files read later by the process."""
    state = pickle.dumps({"__defaults__": (1,)}, 2)[2:-1]
    setting = b"\x80\x02ctorch._utils\n_rebuild_parameter\n" + state + b"b."
    with pytest.raises(AttributeError):
        read_torch_file(zipped(tmp_path / "x.pth", {"x/data.pkl": setting}))


def test_a_member_that_unpacks_to_many_times_its_size_is_refused(tmp_path):
    file = tmp_path / "x.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10**7))
    with pytest.raises(Refused, match=r"its x/data.pkl would unpack to 10,000,000 bytes from "):
        read_torch_file(file)


def test_a_program_is_refused(tmp_path):
    members = {"x/data.pkl": pickle.dumps({}, 2), "x/constants.pkl": pickle.dumps((), 2)}
    with pytest.raises(Refused, match="it is a TorchScript archive, a program, and no state dict"):
        read_torch_file(zipped(tmp_path / "x.pt", members))


@pytest.mark.parametrize("file", [ZIP, LEGACY])
def test_a_file_that_is_cut_short_is_unreadable_at_every_length(tmp_path, file):
    whole = file.read_bytes()
    cuts = range(1, len(whole), 37)
    for length in cuts:
        (tmp_path / "x.pth").write_bytes(whole[:length])
        with pytest.raises(UNREADABLE):
            read_torch_file(tmp_path / "x.pth")
    assert len(cuts) > 40


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04", pickle.dumps({"a": 1}, 2), b"\x89HDF\r\n\x1a\n"])
def test_other_files_are_unreadable(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UNREADABLE):
        read_torch_file(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (2, (3,), (1,)),
        (-1, (2,), (1,)),
        (0, (2, 3), (0, 1)),
        (0, (1 << 40, 1 << 40), (0, 0)),
        (3, (2,), (-1,)),
    ],
)
def test_a_tensor_beyond_its_storage_is_no_memory_of_others(offset, shape, strides):
    contents = Contents(None, lambda storage: np.arange(4.0))
    with pytest.raises(ValueError, match="reaches beyond its storage of 4 values"):
        contents.array(TensorView(Storage("0", "f8", 4), offset, shape, strides))
    np.testing.assert_array_equal(contents.array(TensorView(Storage("0", "f8", 4), 1, (3,), (1,))), [1, 2, 3])
