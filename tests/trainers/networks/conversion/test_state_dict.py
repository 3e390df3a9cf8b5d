"""State dicts from each format of file, and from files that are none."""

from __future__ import annotations

import pytest
from safetensors.numpy import load_file, save_file

from tests.support.places import FIXTURES
from trainers.errors import TrainerError
from trainers.networks.conversion.state_dict import read_state_dict

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
