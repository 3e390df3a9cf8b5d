"""Which kernels TensorFlow uses on a CPU is decided before it is imported."""

import os
import subprocess
import sys

import pytest

ASK = "import os, trainers.networks.network; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"


@pytest.mark.parametrize(("given", "found"), [(None, "1"), ("0", "0")])
def test_onednn_is_used_unless_the_environment_says_otherwise(given, found):
    environ = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    environ |= {} if given is None else {"TF_ENABLE_ONEDNN_OPTS": given}
    done = subprocess.run([sys.executable, "-c", ASK], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == found
