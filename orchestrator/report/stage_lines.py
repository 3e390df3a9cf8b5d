"""The lines that a person reads of a sweep's stages, from the events that they record. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.plan.plan import Plan
from orchestrator.plan.stage_times import StageComparison
from orchestrator.report.plan import comparison_lines, summary
from orchestrator.report.status import front_lines
from trainers.wording import count


def line(word: str, text: str) -> str:
    """Format a line: a word in a column of its own, then the text."""
    return f"{word:8s} {text}"


def stage_lines(event: Event) -> list[str]:
    """Return the lines of a STAGE or NOTE event; [] if it has none."""
    if event.kind == EventKind.NOTE:
        return _note(event)
    format_payload = _STAGES.get((event.stage, event.state))
    return format_payload(event.data) if format_payload else []


def _note(event: Event) -> list[str]:
    data = event.data
    if event.reason:
        return [line("warning", event.reason)]
    if "text" in data:
        return [line(event.stage, data["text"])]
    if "machine" in data:
        return _machine(data["machine"])
    if "plan" in data:
        return summary(Plan.from_dict(data["plan"]), data["share"]) + _warnings(data)
    if "compared" in data:
        rows = [StageComparison(**row) for row in data["compared"]]
        return comparison_lines(rows, data["processes"], data["unplanned"])
    return []


def _machine(has: Mapping[str, float]) -> list[str]:
    share = has["gpus_per_trial"]
    where = f"{share:g} GPU a trial" if share else "no GPU, on CPUs"
    return [line("machine", f"Ray has {has['cpus']:g} CPUs and {has['gpus']:g} GPUs; {where}")]


def _data_begun(data: Mapping[str, Any]) -> list[str]:
    return [line("data", f"reading {', '.join(data['sources'])}")]


def _data_ended(data: Mapping[str, Any]) -> list[str]:
    sizes = data["images"]
    if data["folds"]:
        use = f"{data['to_choose_on']} in {data['folds']} folds to train and choose on"
    else:
        use = f"{sizes.get('train', 0)} to train on, {data['to_choose_on']} to choose on"
    images, classes, test = sum(sizes.values()), len(data["classes"]), sizes.get("test", 0)
    first = line("data", f"{images} images of {classes} classes: {use}, {test} to judge on at the end")
    kept = _block("splits", data.get("splits", []))
    return [first, *kept, *_block("classes", data["class_counts"]), *_warnings(data)]


def _search_begun(data: Mapping[str, Any]) -> list[str]:
    frozen = "run each frozen part once" if data["share"] else "run the frozen part in every epoch, as --no-share asks"
    lines = [line("search", f"starting workers; they decode each photo once and {frozen}")]
    if data["folds"]:
        lines.append(line("search", f"each trial is {data['folds']} fits, one a fold; its figures are their means"))
    return lines


def _search_ended(data: Mapping[str, Any]) -> list[str]:
    states = ", ".join(f"{number} {state}" for state, number in data["states"].items())
    return [line("search", f"{states}. {data['reason']}".rstrip())]


def _select_ended(data: Mapping[str, Any]) -> list[str]:
    winner = data["winner"]
    return [*_block("front", front_lines(winner)), line("winner", winner["reason"])]


def _refit_begun(data: Mapping[str, Any]) -> list[str]:
    remaining = data["fits"] - data["done"]
    networks, epochs = count(remaining, "network"), count(data["epochs"], "epoch")
    own = f", {data['held_out']} of them on train alone" if data.get("held_out") else ""
    return [line("refit", f"{networks} on {' + '.join(data['splits'])}{own}, {epochs} each")]


def _forms_ended(data: Mapping[str, Any]) -> list[str]:
    texts = [facts["text"] for facts in data.get("made_of", {}).values() if "text" in facts]
    return _block("forms", [*texts, data["why"]]) if "why" in data else []


def _leaderboard_begun(data: Mapping[str, Any]) -> list[str]:
    policies = "1 crop policy" if data["policies"] == 1 else f"{data['policies']} crop policies"
    return [line("judge", f"{count(data['networks'], 'network')} under {policies} on the test split")]


def _block(word: str, texts: list[str]) -> list[str]:
    """Format lines of which the first alone begins with the word."""
    return [line("" if number else word, text) for number, text in enumerate(texts)]


def _warnings(data: Mapping[str, Any]) -> list[str]:
    return [line("warning", sentence) for sentence in data["warnings"]]


_STAGES: dict[tuple[str, str], Callable[[Mapping[str, Any]], list[str]]] = {
    (Stage.DATA, "BEGUN"): _data_begun,
    (Stage.DATA, "ENDED"): _data_ended,
    (Stage.SEARCH, "BEGUN"): _search_begun,
    (Stage.SEARCH, "ENDED"): _search_ended,
    (Stage.SELECT, "ENDED"): _select_ended,
    (Stage.REFIT, "BEGUN"): _refit_begun,
    (Stage.FORMS, "ENDED"): _forms_ended,
    (Stage.LEADERBOARD, "BEGUN"): _leaderboard_begun,
}
