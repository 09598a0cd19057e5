"""The DAG of workflows: order, cycles by their members, names that do not exist.

Alone imports networkx, and only where a workflow depends on another: the import takes as long as all else of a plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from dstack.model import Dependency, Position, WorkflowName
from dstack.project.checking import Report, nearest, quoted

if TYPE_CHECKING:
    import networkx as nx

Edges = Mapping[WorkflowName, Iterable[tuple[Dependency, Position]]]
"""For each workflow, in the order of the files, what it depends on and where that stands."""


def in_run(dependency: Dependency) -> bool:
    """True when the input is another workflow of the run, not results of a tagged or named run."""
    return dependency.tag is None and dependency.run is None


def check_graph(report: Report, edges: Edges) -> None:
    """Every dependency exists and none leads back to where it came from."""
    for name, dependencies in edges.items():
        for dependency, place in dependencies:
            wanted = dependency.workflow
            if in_run(dependency) and wanted not in edges:
                others = [other for other in edges if other != name]
                advice = nearest(wanted, others)
                report.problem(place, f"{name} depends on {quoted(wanted)}, which no workflow is called{advice}")
    for cycle in _cycles(edges):
        place = _place(edges, cycle[0], cycle[1 % len(cycle)])
        if len(cycle) == 1:
            report.problem(place, f"{cycle[0]} depends on itself")
        else:
            members = " → ".join((*cycle, cycle[0]))
            report.problem(place, f"workflows depend on one another in a circle: {members}")


def run_order(edges: Edges, target: WorkflowName) -> tuple[WorkflowName, ...]:
    """The workflows of a run of `target`: each after all it depends on, `target` last, else in the order of the files.

    `edges` has passed `check_graph`.
    """
    if not _connected(edges):
        return (target,)
    import networkx as nx

    graph = _graph(edges)
    members = {target, *nx.descendants(graph, target)}
    positions = {name: index for index, name in enumerate(edges)}
    part = graph.subgraph(members).reverse(copy=True)
    return tuple(nx.lexicographical_topological_sort(part, key=lambda name: positions[name]))


def _connected(edges: Edges) -> bool:
    """Whether any workflow depends on another."""
    return any(in_run(dependency) for dependencies in edges.values() for dependency, _ in dependencies)


def _graph(edges: Edges) -> nx.DiGraph[WorkflowName]:
    import networkx as nx

    graph: nx.DiGraph[WorkflowName] = nx.DiGraph()
    graph.add_nodes_from(edges)
    for name, dependencies in edges.items():
        graph.add_edges_from(
            (name, dependency.workflow)
            for dependency, _ in dependencies
            if in_run(dependency) and dependency.workflow in edges
        )
    return graph


def _cycles(edges: Edges) -> list[list[WorkflowName]]:
    """One cycle of each knot, beginning with the member that comes first in the files."""
    if not _connected(edges):
        return []
    import networkx as nx

    graph = _graph(edges)
    positions = {name: index for index, name in enumerate(edges)}
    found: list[list[WorkflowName]] = []
    for knot in nx.strongly_connected_components(graph):
        first = min(knot, key=lambda name: positions[name])
        if len(knot) > 1:
            part = graph.subgraph(knot)
            second = min(part.successors(first), key=lambda name: positions[name])
            if second == first:
                second = min(set(part.successors(first)) - {first}, key=lambda name: positions[name])
            found.append([first, *nx.shortest_path(part, second, first)[:-1]])
        elif graph.has_edge(first, first):
            found.append([first])
    return sorted(found, key=lambda cycle: positions[cycle[0]])


def _place(edges: Edges, name: WorkflowName, wanted: WorkflowName) -> Position:
    return next(place for dependency, place in edges[name] if in_run(dependency) and dependency.workflow == wanted)
