"""Check that each node of a cluster has the starting weights, before the first trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import OrchError
from orchestrator.spec.load import sizes_of
from orchestrator.spec.sweep import SweepSpec
from orchestrator.spec.weight_places import PAGE, listed


def check_nodes(spec: SweepSpec) -> None:
    """Check that every node has the weights of ``spec``, or can download them. Ray must be up.

    Raises OrchError that names each node that lacks some.
    """
    from orchestrator.cluster.jobs import ask_nodes  # Ray: seconds to import

    wanted = [(name, spec.weights_for(name), list(sizes)) for name, sizes in sizes_of(spec.search).items()]
    problem = refusal(ask_nodes("trainers.networks.weight_sources:lacking_here", {"wanted": wanted}))
    if problem:
        raise OrchError(problem)


def refusal(answers: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a sentence that names what each node lacks; "" if none lacks anything. Pure."""
    poor = {name: answer for name, answer in answers.items() if answer["lacking"]}
    if not poor:
        return ""
    first = [
        f"the node {name} has no weights of {listed(each['lacking'])}: {each['reason']}" for name, each in poor.items()
    ]
    return (
        f"{' '.join(first)} Weight files must be under the same path on every node, or each node must be able to "
        f"download them (docs/cluster.md; {PAGE} says where to get files)."
    )
