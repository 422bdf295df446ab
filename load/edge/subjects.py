"""The subjects of the benchmark, in the order in which they are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from load.edge import death, hop, overhead, start, throughput
from load.edge.marks import Verdict
from load.edge.stage import Stage


@dataclass(frozen=True, slots=True)
class Subject:
    """measure returns a JSON value; judged and page read such a value again; how: in prose."""

    name: str
    title: str
    how: str
    measure: Callable[[Stage], dict[str, Any]]
    judged: Callable[[Mapping[str, Any]], Sequence[Verdict]]
    page: Callable[[Mapping[str, Any]], Iterator[str]]


SUBJECTS: Final[Mapping[str, Subject]] = {
    module.NAME: Subject(
        module.NAME, module.TITLE, module.__doc__ or "", module.measure, module.judged, module.page
    )
    for module in (start, overhead, hop, death, throughput)
}
