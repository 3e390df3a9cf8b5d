"""Why a path cannot be looked up: real folders, real modes."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.powerless import needs_modes, powerless
from trainers.files.lookup import obstacle

ASKED = """
import sys
from trainers.files.lookup import obstacle
for path in sys.argv[1:]:
    print(obstacle(path))
"""


def test_what_exists_or_is_missing_has_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to("missing")
    for name in ("", "file", "missing", "missing/deep", "file/below", "nowhere"):
        assert obstacle(tmp_path / name) == ""
    assert obstacle("a\0b") == ""


def test_other_names_have_a_reason(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert obstacle(tmp_path / ("x" * 300)) == "its name is too long"
    assert obstacle(tmp_path / "loop" / "x") == "it is a link that leads to itself"


@needs_modes
def test_the_folder_that_may_not_be_entered_is_named(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    (secret / "x").mkdir(parents=True)
    (tmp_path / "link").symlink_to(secret / "x")
    secret.chmod(0)
    done = powerless(tmp_path, [sys.executable, "-c", ASKED, "secret", "secret/x", "secret/y/z", "link", "link/deep"])
    secret.chmod(0o755)
    assert done.stdout.splitlines() == ["", *[f"{secret} may not be entered"] * 4], done.stderr
