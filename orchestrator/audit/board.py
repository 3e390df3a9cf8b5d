"""The leaderboard computed again from stored probabilities, and compared with each of its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.audit import figures as formulas
from orchestrator.audit.checks import (
    DIFFERENT,
    EQUAL,
    NOT_CHECKABLE,
    UNREADABLE,
    Check,
    JudgedSweep,
    Unreadable,
    as_text,
    compare,
    groups_of_test,
    hashes_of_test,
    in_words,
    labels_of_test,
    number,
    read_arrays,
    read_manifest,
    read_table,
    unknown_version,
)
from orchestrator.ledger.folder import Sweep

if TYPE_CHECKING:
    import pandas as pd


def compare_leaderboard(judged: JudgedSweep) -> Iterator[Check]:
    """Compute each figure of each row again, and compare the three files and the ledger with it."""
    sweep, part = judged.sweep, "leaderboard"
    board = read_table(sweep, sweep.paths.leaderboard_parquet, part)
    models = _models(judged, board["policy"].unique())
    recorded = {(row["model"], row["policy"]): row for row in board.to_dict("records")}
    yield compare(part, "rows", sorted("/".join(key) for key in recorded), sorted("/".join(key) for key in models))
    _, classes = read_manifest(sweep)
    labels, groups = labels_of_test(sweep, classes), groups_of_test(sweep)
    interval = formulas.STATISTICS.get(judged.version)
    computed = {}
    for (model, policy), (probabilities, seconds) in models.items():
        whole = models[model, "whole"][0] if policy != "whole" else probabilities
        figures = formulas.point_figures(probabilities, whole, labels, seconds)
        figures |= interval(probabilities, whole, labels, groups) if interval else {}
        computed[model, policy] = figures
        row = recorded.get((model, policy), {})
        older = formulas.older_macro_f1(probabilities, labels)
        if "statistics" not in judged.record and formulas.equal(number(row.get("macro_f1")), older):
            figures["macro_f1"] = older
        for name, value in figures.items():
            yield compare(part, f"{model}, {policy}: {name}", number(row.get(name)), value)
        if interval is None:
            yield Check(part, f"{model}, {policy}: intervals and p", NOT_CHECKABLE, reason=unknown_version(judged))
    yield from _order(judged, board, computed)
    yield from _copies(judged, board, computed)


def _models(judged: JudgedSweep, policies: Iterable[str]) -> dict[tuple[str, str], tuple[np.ndarray, float]]:
    """Return (model, policy) -> probabilities and seconds: each network's, and the mean of each group of several."""
    sweep, found = judged.sweep, dict[tuple[str, str], tuple[np.ndarray, float]]()
    test = hashes_of_test(sweep)
    for policy in policies:
        groups: dict[str, list[dict[str, np.ndarray]]] = {}
        for model in judged.record["models"]:
            path = sweep.paths.probabilities(model["fit"], "test", policy)
            stored = read_arrays(sweep, path, "leaderboard")
            if "sha256" in stored and stored["sha256"].tolist() != test:
                raise Unreadable("leaderboard", sweep.paths.name_of(path), "is not of the manifest's test photos")
            found[model["model"], policy] = stored["probabilities"], float(stored["seconds"])
            group, _, member = model["model"].partition("/")
            if member.startswith("seed-"):  # else another form of the group's networks
                groups.setdefault(group, []).append(stored)
        for group, members in groups.items():
            if len(members) > 1:
                mean = np.mean([m["probabilities"].astype(float) for m in members], axis=0)
                own = sum(float(m["seconds"] - m["shared_seconds"]) for m in members)
                found[f"{group}/ensemble", policy] = mean, own + max(float(m["shared_seconds"]) for m in members)
    return found


def _order(
    judged: JudgedSweep, board: pd.DataFrame, computed: Mapping[tuple[str, str], Mapping[str, float]]
) -> Iterator[Check]:
    """The rows are sorted, and the winner's row is that of the choice."""
    rows = [(row["model"], row["policy"]) for row in board.to_dict("records")]
    keys = {key: (-round(f["accuracy"], 12), round(f["log_loss"], 9), *key) for key, f in computed.items()}
    yield compare("leaderboard", "order of the rows", rows, sorted(rows, key=lambda key: keys.get(key, (0, 0, *key))))
    marked = ["/".join(key) for key, row in zip(rows, board.to_dict("records"), strict=True) if row["winner"]]
    winner, fits = judged.record["judged"], judged.record["fits"]
    names = [m["model"] for m in judged.record["models"] if m["fit"] in fits and m["model"].startswith("winner/")]
    expected = "winner/ensemble" if len(names) > 1 else names[0] if names else "none"
    yield compare("leaderboard", "the winner's row", marked, [f"{expected}/{winner['policy']}"])


def _copies(
    judged: JudgedSweep, board: pd.DataFrame, computed: Mapping[tuple[str, str], Mapping[str, float]]
) -> Iterator[Check]:
    """The ledger's row, the CSV and the Markdown file say what the Parquet file says."""
    sweep = judged.sweep
    rows = board.to_dict("records")
    winners = [row for row in rows if row["winner"]]
    for name, value in judged.record["winner_row"].items():
        shown = winners[0].get(name) if winners else None
        if value is None or isinstance(value, float):
            yield compare("ledger", f"the winner's {name}", number(value), number(shown))
        else:
            yield compare("ledger", f"the winner's {name}", str(value), str(shown))
    name = sweep.paths.name_of(sweep.paths.leaderboard_csv)
    lines = read_table(sweep, sweep.paths.leaderboard_csv, name).to_dict("records")
    yield compare(name, "rows", len(rows), len(lines))
    for row, line in zip(rows, lines, strict=False):
        for column, value in row.items():
            both = (line.get(column), value)
            same = isinstance(value, float) and formulas.equal(number(both[0]), value)
            same = same or str(both[0]) == str(value) or (value == "" and isinstance(both[0], float))
            what = f"{row['model']}, {row['policy']}: {column}"
            yield Check(name, what, EQUAL) if same else Check(name, what, DIFFERENT, *map(as_text, both))
    yield from _markdown(sweep, rows, computed)


def _markdown(
    sweep: Sweep, rows: Sequence[Mapping[str, Any]], computed: Mapping[tuple[str, str], Mapping[str, float]]
) -> Iterator[Check]:
    """Each line of the Markdown table shows the computed accuracy, macro F1 and log loss, rounded."""
    path = sweep.paths.leaderboard_md
    name = sweep.paths.name_of(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UNREADABLE as error:
        raise Unreadable(name, name, in_words(error)) from error
    lines = [line.replace("*", "") for line in text.splitlines() if line.startswith("|")][2:]
    yield compare(name, "rows", len(rows), len(lines))
    for row, line in zip(rows, lines, strict=False):
        figures = computed.get((row["model"], row["policy"]))
        if figures is None:
            continue
        for figure, shown in (
            ("accuracy", f" {100 * figures['accuracy']:.1f} ("),
            ("macro_f1", f") | {100 * figures['macro_f1']:.1f} "),  # an interval may follow
            ("log_loss", f"| {figures['log_loss']:.3f} |"),
        ):
            what = f"{row['model']}, {row['policy']}: {figure}"
            is_there = shown in line and row["model"] in line and f"| {row['policy']} |" in line
            yield Check(name, what, EQUAL) if is_there else Check(name, what, DIFFERENT, line, shown.strip(" |()"))
