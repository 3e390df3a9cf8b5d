"""`orch compare`: the final models of a sweep against one of them, from its stored probabilities.

The test split is not read again. The statistics are in ``evaluation.comparison``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.errors import OrchError
from orchestrator.evaluation.comparison import ScoredModel, compare_models
from orchestrator.evaluation.intervals import MIN_GROUPS
from orchestrator.evaluation.leaderboard import ensemble, signed
from orchestrator.evaluation.selection import WHOLE
from orchestrator.evaluation.variance import groups_of_hashes, photos_in_words
from orchestrator.ledger.folder import Sweep, read_leaderboard, read_sweep
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import TrialState
from orchestrator.paths import command_line
from orchestrator.plain_json import json_ready
from orchestrator.sweep.probabilities import read_probabilities
from orchestrator.terminal_table import Column, FittedTable

ENSEMBLE = "ensemble"
HOW_TO_READ = (
    "Differences in points on the same test images. One network (or ensemble) a side: Agresti-Min interval. Several: "
    "the mean of their accuracies; the interval allows for other images and other training runs, and is left out for "
    "the mean of 2 networks. All over objects where several photos show the same one; for "
    f"fewer than {MIN_GROUPS} objects most are left out."
)
HOW_TO_READ_P = (
    "p: exact McNemar for one network a side; for several it allows for what the interval does, and goes with it."
)


@dataclass(frozen=True)
class Comparison:
    """``frame``: of ``compare_models``. ``images``, ``groups``: number of test images, and of the objects that they
    show. ``policy``: the crop policy, or "" if rows are policies. ``against``: the baseline, in words."""

    frame: pd.DataFrame
    policy: str
    images: int
    groups: int
    against: str


@dataclass(frozen=True)
class _Network:
    """One retrained network: its group (``winner``, ``runner-up-1``), name on the leaderboard, fit, given name."""

    group: str
    model: str
    fit: str
    configuration: str

    @property
    def is_form(self) -> bool:
        """Whether it is another form of a group's networks, and so none of them."""
        return self.group == self.model


def compare_configurations(folder: Path, against: str = "winner", policy: str = WHOLE) -> Comparison:
    """Every final model of the sweep in ``folder`` against the one called ``against``, under one crop policy.

    ``against`` decides what is compared: the name of a configuration, or ``winner``, ``runner-up-1`` and so on:
    configurations, each the mean over its seeds; a name of the leaderboard as ``winner/ensemble``, ``winner/soup`` or
    ``winner/seed-0``: the ensembles and other forms, or the networks one by one. Raises OrchError for an unknown name
    or policy, and if the sweep has no leaderboard.
    """
    sweep, networks = _open_under(folder, policy)
    group, kind = _find(networks, against)
    stored = {n.fit: read_probabilities(sweep.kept, n.fit, "test", policy) for n in networks}
    judged = _judged(networks, stored, kind)
    baseline = against if kind == "network" else _shown_as(group, kind, networks)
    groups = _test_groups(sweep, networks[0].fit, policy)
    frame = compare_models(judged, baseline, groups)
    return _comparison(frame, policy, groups, _who(frame[frame["baseline"]].iloc[0]))


def compare_steps(folder: Path, policy: str = WHOLE) -> Comparison:
    """Every configuration of a list of named ones against the one before it, in the file's order; the first is bare.

    Each is the mean over its seeds. Raises OrchError as ``compare_configurations`` does, and if no configuration has a
    name.
    """
    sweep, networks = _open_under(folder, policy)
    stored = {n.fit: read_probabilities(sweep.kept, n.fit, "test", policy) for n in networks}
    by_name = {j.configuration: j for j in _judged(networks, stored, "configuration") if j.configuration}
    order = sorted((r for r in sweep.trials if r.name in by_name), key=lambda record: record.number)
    steps = [by_name[record.name] for record in order]
    if not steps:
        raise OrchError(f"{folder} has no named configurations (search.configurations), so no steps to compare.")
    groups = _test_groups(sweep, networks[0].fit, policy)
    frames = [compare_models([steps[0]], steps[0].model, groups)]
    for before, after in itertools.pairwise(steps):
        frame = compare_models([before, after], before.model, groups)
        frames.append(frame[~frame["baseline"]])
    return _comparison(pd.concat(frames, ignore_index=True), policy, groups, "the configuration before")


def compare_policies(folder: Path, configuration: str = "") -> Comparison:
    """Every crop policy of the sweep in ``folder`` against ``whole``, as the mean over its retrained networks.

    ``configuration``: over the networks of one alone, named as in ``compare_configurations``, which raises the same
    errors; "" for all.
    """
    sweep, networks, policies = _open(folder)
    if configuration:
        group, _ = _find(networks, configuration)
        networks = [n for n in networks if n.group == group]
    networks, judged = [n for n in networks if not n.is_form], []
    for name in policies:
        correct = _correct([read_probabilities(sweep.kept, n.fit, "test", name) for n in networks])
        judged.append(ScoredModel(name, "", correct))
    groups = _test_groups(sweep, networks[0].fit, WHOLE)
    return _comparison(compare_models(judged, WHOLE, groups, same_networks=True), "", groups, WHOLE)


def _comparison(frame: pd.DataFrame, policy: str, groups: Sequence[str], against: str) -> Comparison:
    return Comparison(frame, policy, len(groups), len(set(groups)), against)


def _test_groups(sweep: Sweep, fit: str, policy: str) -> list[str]:
    """Return the group of each test image, in the order of the probabilities; its own if the manifest is gone."""
    stored = read_probabilities(sweep.kept, fit, "test", policy)
    hashes = [str(sha) for sha in stored.get("sha256", range(len(stored["labels"])))]
    if not sweep.paths.manifest.is_file():
        return hashes
    table = pd.read_parquet(sweep.paths.manifest, columns=["sha256", "group"])
    return groups_of_hashes(hashes, table["sha256"], table["group"])


def _open(folder: Path) -> tuple[Sweep, list[_Network], list[str]]:
    sweep = read_sweep(folder)
    networks = _networks(sweep)
    if not networks:
        resume = command_line("sweep", "--resume", "--out", folder)
        raise OrchError(f"{folder} has no finished leaderboard, so nothing to compare; resume it: `{resume}`")
    return sweep, networks, sorted({str(row["policy"]) for row in read_leaderboard(sweep.kept)})


def _open_under(folder: Path, policy: str) -> tuple[Sweep, list[_Network]]:
    sweep, networks, policies = _open(folder)
    if policy not in policies:
        raise OrchError(
            f"the sweep was not judged under the crop policy {policy!r}; it was under {', '.join(policies)}."
        )
    return sweep, networks


def _networks(sweep: Sweep) -> list[_Network]:
    """List the networks on the leaderboard; sweeps that did not record them have them in the refit's trials.

    Another form of the winner, such as ``winner/soup``, is a group of its own.
    """
    listed = sweep.fact("models")
    if listed is None:
        names = {row["model"] for row in read_leaderboard(sweep.kept)}
        done = [r for r in sweep.state.trials.values() if r.stage == Stage.REFIT and r.state == TrialState.COMPLETED]
        latest = {r.name: r.id for r in done if r.name in names}
        listed = [{"model": name, "fit": fit, "configuration": ""} for name, fit in latest.items()]
    return [_Network(_group_of(m["model"]), m["model"], m["fit"], m["configuration"]) for m in listed]


def _group_of(model: str) -> str:
    """Return whose networks a name on the leaderboard is among: its own for another form of them."""
    group, _, member = model.partition("/")
    return group if member.startswith("seed-") else model


def _find(networks: Sequence[_Network], name: str) -> tuple[str, str]:
    """Return the group that ``name`` means, and what to compare: "configuration", "ensemble" or "network".

    Raises OrchError that lists the known names.
    """
    for network in networks:
        if name and name == network.configuration:
            return network.group, "configuration"
    for network in networks:
        if name == f"{network.group}/{ENSEMBLE}" or (name == network.group and network.is_form):
            return network.group, ENSEMBLE
        if name == network.group:
            return network.group, "configuration"
        if name == network.model:
            return network.group, "network"
    known = dict.fromkeys([*(n.configuration for n in networks if n.configuration), *(n.group for n in networks)])
    raise OrchError(f"no final model is called {name!r}; there are {', '.join(known)}.")


def _judged(
    networks: Sequence[_Network], stored: Mapping[str, Mapping[str, np.ndarray]], kind: str
) -> list[ScoredModel]:
    """Return the test images that each model got right; ``kind`` decides what a model is."""
    if kind == "network":
        return [ScoredModel(n.model, n.configuration, _correct([stored[n.fit]])) for n in networks]
    groups: dict[str, list[_Network]] = {}
    for network in networks:
        if kind == ENSEMBLE or not network.is_form:  # a form is one network, and has no mean over seeds
            groups.setdefault(network.group, []).append(network)
    found = []
    for group, members in groups.items():
        parts = [stored[n.fit] for n in members]
        if kind == ENSEMBLE and len(parts) > 1:
            mean = ensemble([part["probabilities"] for part in parts])
            parts = [{"probabilities": mean, "labels": parts[0]["labels"]}]
        found.append(ScoredModel(_shown_as(group, kind, members), members[0].configuration, _correct(parts)))
    return found


def _shown_as(group: str, kind: str, networks: Sequence[_Network]) -> str:
    """Return the name of a group's row: its own, or that of its ensemble on the leaderboard."""
    members = [network.model for network in networks if network.group == group]
    if kind != ENSEMBLE:
        return group
    return f"{group}/{ENSEMBLE}" if len(members) > 1 else members[0]


def _correct(parts: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    return np.stack([part["probabilities"].argmax(1) == part["labels"] for part in parts])


def records(found: Comparison) -> list[dict[str, Any]]:
    """Return the rows for JSON, each with its crop policy."""
    rows = [{**row, "policy": found.policy or row["model"]} for row in found.frame.to_dict("records")]
    return list(json_ready(rows))


def to_rich(found: Comparison) -> FittedTable:
    """Return the rows as a table for a terminal, the baseline in bold."""
    how = f"crop policy {found.policy}" if found.policy else "the mean over the networks"
    columns = (
        Column("configuration" if found.policy else "crop policy", "left"),
        Column("networks", leaves=1),
        Column("acc %"),
        Column("(95 %)", "left", leaves=2),
        Column("diff"),
        Column("(95 %)", "left"),
        Column("p", leaves=3, note=HOW_TO_READ_P),
    )
    title = f"Against {found.against} on {photos_in_words(found.images, found.groups)} of the test split, {how}"
    table = FittedTable(title, columns, notes=[HOW_TO_READ])
    for row in found.frame.to_dict("records"):
        table.add_row(*_cells(row), style="bold" if row["baseline"] else "")
    return table


def to_markdown(found: Comparison) -> str:
    """Return the rows as a Markdown table and a line on how to read it."""
    head = [
        "configuration" if found.policy else "crop policy",
        "networks",
        "accuracy, %",
        "(95 %)",
        "difference, points",
        "(95 %)",
        "p",
    ]
    lines = [f"| {' | '.join(head)} |", "|---|--:|--:|---|--:|---|--:|"]
    for row in found.frame.to_dict("records"):
        cells = [cell.replace("|", "\\|") for cell in _cells(row)]
        lines.append(f"| {' | '.join(f'**{c}**' if c and row['baseline'] else c for c in cells)} |")
    return "\n".join(lines) + f"\n\n{HOW_TO_READ} {HOW_TO_READ_P}\n"


def _who(row: Mapping[str, Any]) -> str:
    return f"{row['configuration']} ({row['model']})" if row["configuration"] else str(row["model"])


def _cells(row: Mapping[str, Any]) -> list[str]:
    low, high = row["accuracy_low"], row["accuracy_high"]
    interval = f"{100 * low:.1f}\N{EN DASH}{100 * high:.1f}" if math.isfinite(low) else ""
    cells = [_who(row), str(row["networks"]), f"{100 * row['accuracy']:.1f}", interval]
    if row["baseline"]:
        return [*cells, "", "", ""]
    if not math.isfinite(row["difference_low"]):
        return [*cells, signed(row["difference"]), "", ""]
    p = row["p_value"]
    shown = "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 1 and math.isfinite(p) else "1"
    between = f"{signed(row['difference_low'])} to {signed(row['difference_high'])}"
    return [*cells, signed(row["difference"]), between, shown]
