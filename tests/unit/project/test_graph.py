"""The order of a run, held against networkx's own sort."""

from __future__ import annotations

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from dstack.model import Dependency, Position, WorkflowName
from dstack.project.graph import check_graph, run_order
from dstack.project.yaml.report import Report

PLACE = Position(file="workflows.yaml", line=1, column=1)
Drawn = dict[str, set[str]]


@st.composite
def graphs(draw: st.DrawFn, *, circles: bool) -> Drawn:
    """Workflows in the order of a file, which is not the order of the DAG, and what each depends on."""
    names = [f"w{number}" for number in range(draw(st.integers(1, 8)))]
    listed = draw(st.permutations(names))
    earlier = {name: names if circles else names[:index] for index, name in enumerate(names)}
    return {name: draw(st.sets(st.sampled_from(earlier[name]))) if earlier[name] else set() for name in listed}


def edges(drawn: Drawn) -> dict[WorkflowName, list[tuple[Dependency, Position]]]:
    return {
        WorkflowName(name): [(Dependency(workflow=WorkflowName(other)), PLACE) for other in sorted(needed)]
        for name, needed in drawn.items()
    }


def graph(drawn: Drawn) -> nx.DiGraph[str]:
    made: nx.DiGraph[str] = nx.DiGraph()
    made.add_nodes_from(drawn)
    made.add_edges_from((other, name) for name, needed in drawn.items() for other in needed)
    return made


@given(graphs(circles=False), st.data())
def test_order_is_that_of_networkx(drawn: Drawn, data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(sorted(drawn)))
    whole, positions = graph(drawn), {name: index for index, name in enumerate(drawn)}
    part = whole.subgraph({target, *nx.ancestors(whole, target)})
    wanted = tuple(nx.lexicographical_topological_sort(part, key=lambda name: positions[name]))
    assert run_order(edges(drawn), WorkflowName(target)) == wanted


@given(graphs(circles=True))
def test_a_circle_is_reported_exactly_where_there_is_one(drawn: Drawn) -> None:
    report = Report()
    check_graph(report, edges(drawn))
    knots = [knot for knot in nx.strongly_connected_components(graph(drawn)) if len(knot) > 1]
    alone = [name for name, needed in drawn.items() if name in needed]
    within = [name for name in alone if not any(name in knot for knot in knots)]
    assert len(report.problems) == len(knots) + len(within)
