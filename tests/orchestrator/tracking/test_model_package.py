"""What is packed with a registered model: code to copy, distributions to require."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import TrackingError
from orchestrator.tracking import model_package


def test_a_backbone_of_ones_own_travels_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own code is copied; an installed distribution is required, by its own name."""
    (tmp_path / "my_nets").mkdir()
    (tmp_path / "my_nets" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    code, required = model_package._dependencies(["trainers.serving", "my_nets.small", "PIL.Image", "my_nets.large"])
    assert [Path(c).name for c in code] == ["trainers", "my_nets"]
    assert [name.lower() for name in required] == ["pillow"]
    assert model_package._dependencies(["trainers.serving"])[1] == ()


def test_the_trainers_package_is_what_the_real_loader_packs() -> None:
    import trainers

    assert model_package._package_of("trainers.serving") == Path(str(trainers.__file__)).parent
    with pytest.raises(TrackingError, match=r"'nowhere\.serving'"):
        model_package._package_of("nowhere.serving")
