"""`orch sync`: the store and experiment of the sweep's file get what they lack."""

from __future__ import annotations

from pathlib import Path

from orchestrator.commands.sync import sync_folder
from tests.support.fake_store import new_store
from tests.support.tracked_sweep import assert_mirrors, write_sweep

SPEC = """\
name: tiny
data: {{source: "builtin:digits"}}
search: {{dropout: [0.0, 0.2]}}
budget: {{trials: 4, epochs: 4}}
tracking: {{uri: "{uri}", experiment: ours}}
weights: none
"""


def test_a_sweep_is_sent_once(tmp_path: Path) -> None:
    paths = write_sweep(tmp_path / "tiny", (("aa", 1, "COMPLETED"),))
    uri = new_store(tmp_path / "store")
    paths.spec.write_text(SPEC.format(uri=uri))
    first = sync_folder(paths.root)
    assert (first.uri, first.refused) == (uri, ())
    assert first.events > 0
    assert sync_folder(paths.root).events == 0
    assert_mirrors(paths, uri, "ours")
