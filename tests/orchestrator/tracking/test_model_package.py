"""What is packed with a registered model: code to copy, distributions to require."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import TrackingError
from orchestrator.tracking import model_package
from orchestrator.tracking.model_package import ModelDetails
from trainers.calibration import PRECISION, Calibration, Level


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


def test_the_parameter_is_called_as_the_served_model_reads_it() -> None:
    assert model_package.PRECISION == PRECISION


LEVELS = (Level(0.0, 1.0, 0.9, 0.82),)


@pytest.mark.parametrize(
    ("calibration", "said", "offered"),
    [
        (None, "not calibrated.", False),
        (Calibration(), "not calibrated.", False),
        (Calibration(0.7), "calibrated on validation.", False),
        (Calibration(1.0, LEVELS, 200), "calibrated on validation. With the parameter `precision`", True),
        (Calibration(0.7, LEVELS, 200), "calibrated on validation. With the parameter `precision`", True),
    ],
)
def test_a_version_claims_no_more_than_its_calibration_gives(
    calibration: Calibration | None, said: str, offered: bool
) -> None:
    details = ModelDetails("r", "s", "t", "flip", "one", 0.9, 0.8, 1, "d", ("a",), b"", calibration=calibration)
    described = details.description()
    assert f"(JSON: class -> probability), {said}" in described
    assert ("`precision`" in described) is offered
    found = model_package.signature(calibration)
    assert ([column.name for column in found.outputs.inputs][3:] == ["reason"]) is offered
    assert [param.name for param in found.params or ()] == (["precision"] if offered else [])
