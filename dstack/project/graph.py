"""The DAG of workflows: order, cycles by their members, dependencies on unknown names.

The order comes from the standard library. networkx only names the members of a circle, and is imported only for a
project with a circle: the import takes longer than all else of a plan (ADR 5).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from dstack.model import Dependency, Position, WorkflowName
from dstack.project.yaml.report import Report, quote, suggest

if TYPE_CHECKING:
    import networkx as nx

WorkflowEdges = Mapping[WorkflowName, Iterable[tuple[Dependency, Position]]]
"""For each workflow, in the order of the files, every dependency with its position."""


def is_in_run(dependency: Dependency) -> bool:
    """True when the input is another workflow of the run, not results of a tagged or named run."""
    return dependency.tag is None and dependency.run is None


def check_graph(report: Report, edges: WorkflowEdges) -> None:
    """Report every dependency on an unknown workflow, and every circle of dependencies."""
    for name, dependencies in edges.items():
        for dependency, place in dependencies:
            wanted = dependency.workflow
            if is_in_run(dependency) and wanted not in edges:
                # Never the workflow itself: the advice would lead into a circle.
                others = [other for other in edges if other != name]
                advice = suggest(wanted, others)
                report.problem(place, f"{name} depends on {quote(wanted)}, which no workflow is called{advice}")
    for cycle in _cycles(edges):
        # The modulus is for a circle of one: a workflow that depends on itself has no second member.
        place = _place(edges, cycle[0], cycle[1 % len(cycle)])
        if len(cycle) == 1:
            report.problem(place, f"{cycle[0]} depends on itself")
        else:
            members = " → ".join((*cycle, cycle[0]))
            report.problem(place, f"workflows depend on one another in a circle: {members}")


def run_order(edges: WorkflowEdges, target: WorkflowName) -> tuple[WorkflowName, ...]:
    """The workflows of a run of `target`: each after all its dependencies, `target` last, else in the order of the
    files.

    `edges` has passed `check_graph`.
    """
    needed = _dependencies(edges)
    members, unseen = {target}, [target]
    while unseen:
        found = needed[unseen.pop()] - members
        members |= found
        unseen += found
    positions = {name: index for index, name in enumerate(edges)}
    sorter = TopologicalSorter({name: needed[name] for name in members})
    sorter.prepare()
    order: list[WorkflowName] = []
    ready: list[tuple[int, WorkflowName]] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready, (positions[name], name))
        # Of all ready workflows the first in the files: one project always gives one order.
        order.append(heapq.heappop(ready)[1])
        sorter.done(order[-1])
    return tuple(order)


def _dependencies(edges: WorkflowEdges) -> dict[WorkflowName, set[WorkflowName]]:
    """The known dependencies of each workflow within a run."""
    return {
        name: {other.workflow for other, _ in dependencies if is_in_run(other) and other.workflow in edges}
        for name, dependencies in edges.items()
    }


def _is_circular(edges: WorkflowEdges) -> bool:
    try:
        TopologicalSorter(_dependencies(edges)).prepare()
    except CycleError:
        return True
    return False


def _graph(edges: WorkflowEdges) -> nx.DiGraph[WorkflowName]:
    import networkx as nx

    graph: nx.DiGraph[WorkflowName] = nx.DiGraph()
    graph.add_nodes_from(edges)
    for name, needed in _dependencies(edges).items():
        graph.add_edges_from((name, other) for other in needed)
    return graph


def _cycles(edges: WorkflowEdges) -> list[list[WorkflowName]]:
    """One cycle of each knot, beginning with the member that comes first in the files."""
    if not _is_circular(edges):
        return []
    import networkx as nx

    graph = _graph(edges)
    positions = {name: index for index, name in enumerate(edges)}
    found: list[list[WorkflowName]] = []
    # A circle of each knot is enough: the number of circles can grow exponentially with the workflows.
    for knot in nx.strongly_connected_components(graph):
        first = min(knot, key=lambda name: positions[name])
        if len(knot) > 1:
            part = graph.subgraph(knot)
            second = min(part.successors(first), key=lambda name: positions[name])
            # A member that also depends on itself: the circle through the others tells more.
            if second == first:
                second = min(set(part.successors(first)) - {first}, key=lambda name: positions[name])
            found.append([first, *nx.shortest_path(part, second, first)[:-1]])
        elif graph.has_edge(first, first):
            found.append([first])
    return sorted(found, key=lambda cycle: positions[cycle[0]])


def _place(edges: WorkflowEdges, name: WorkflowName, wanted: WorkflowName) -> Position:
    return next(place for dependency, place in edges[name] if is_in_run(dependency) and dependency.workflow == wanted)
