"""The learned rule: a model chooses among what the safe rule would nearly have chosen.

The safe rule is `utility`. What is nearly as good by its own estimates is open to the model: no
target that a filter forbids, none that is likelier to be late than the safe choice by more than
`RISK`, none whose score is worse by more than `MARGIN` of the price difference (`latency`: whose
expected delay is longer by more than `SLOWER`). So whatever the model says, one request loses no
more than that by those estimates. Among these, the score is computed again with the delays and the
P(late) that the model foresees (`learner`), and the least is chosen.

For a share `EXPLORED` of requests, drawn from the request, the model's hopeful guess counts
instead, so that what it knows little of is tried (LinUCB; Li et al., "A Contextual-Bandit Approach
to Personalized News Article Recommendation", 2010).

While the model is not better than the estimates that the safe rule rests on, this rule returns
exactly what `utility.choose` returns.

Who calls what: `choose(request, table, now)`, as any rule, then the table is told what happens
(`decided`, `sent`, and `answered`, `late` or `ended`), as with any rule. The first call makes the
table keep a model, and all that it learns comes through the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from policies.routing import utility
from policies.routing.context import context
from policies.routing.draws import uniform
from policies.routing.learner import Foreseen, Learner
from policies.routing.table import RoutingTable
from policies.routing.types import Decision, Outcome, Request, Target, Verdict
from policies.routing.utility import WEIGHTS

LEARNED: Final = "learned"
RISK: Final = 0.03  # by how much likelier than the safe choice a request may be late
MARGIN: Final = 0.25  # of the price difference, by which the score may be worse
SLOWER: Final = 0.1  # of the expected delay, and
SLOWER_S: Final = 0.002
EXPLORED: Final = 0.02
_SALT: Final = 77  # of the draw


def choose(request: Request, table: RoutingTable, now: float) -> Outcome:
    """Choose by the model where it is believed, else exactly as `utility.choose` does.

    A choice that the model changed has the reason `learned`; what it foresaw of each target that
    was open to it is in the verdicts.
    """
    learner = table.learning()
    safe = utility.choose(request, table, now)
    if not learner.is_believed(request.objective) or not isinstance(safe, Decision):
        return safe
    usable = [i for i, verdict in enumerate(safe.verdicts) if verdict.ruled_out is None]
    if len(usable) < 2:
        return safe
    targets: Sequence[Target] = table.targets
    if table.columns is not None:  # then only the best are in the verdicts
        targets = [table[verdict.target] for verdict in safe.verdicts]
    risk_price = table.risk_price(request.objective)
    allowed = _nearly_as_good(request, safe, targets, usable, risk_price)
    if len(allowed) < 2:
        return safe
    foreseen = _foresee(request, table, [targets[i] for i in allowed], learner, now)
    verdicts, hypothetical = list(safe.verdicts), list(safe.verdicts)
    for index, (expected_s, late) in zip(allowed, foreseen, strict=True):
        found = verdicts[index]
        verdicts[index] = found._replace(model_s=expected_s, model_late=late)
        hypothetical[index] = found._replace(expected_s=expected_s, late=late)
    score = _scores(request, targets, hypothetical, usable, risk_price)
    _, name, best = min((score[i], verdicts[i].target, i) for i in allowed)
    if name == safe.target:
        return safe._replace(verdicts=tuple(verdicts))
    return _changed(request, safe, tuple(verdicts), best)


def _nearly_as_good(
    request: Request,
    safe: Decision,
    targets: Sequence[Target],
    usable: Sequence[int],
    risk_price: float,
) -> list[int]:
    """Return the indexes of the targets that are open to the model; the safe choice is one."""
    verdicts = safe.verdicts
    score = _scores(request, targets, verdicts, usable, risk_price)
    chosen = next(i for i in usable if verdicts[i].target == safe.target)
    if WEIGHTS[request.objective].budget:
        prices = [verdicts[i].usd for i in usable]
        most = score[chosen] + MARGIN * (max(prices) - min(prices))
    else:
        most = score[chosen] * (1.0 + SLOWER) + SLOWER_S
    riskiest = safe.late + RISK
    return [i for i in usable if i == chosen or (score[i] <= most and verdicts[i].late <= riskiest)]


def _scores(
    request: Request,
    targets: Sequence[Target],
    verdicts: Sequence[Verdict],
    usable: Sequence[int],
    risk_price: float,
) -> dict[int, float]:
    """Return what counts for the objective, by index."""
    weight = WEIGHTS[request.objective]
    if not weight.budget:
        return {i: verdicts[i].expected_s for i in usable}
    cost = utility.scores(request, targets, verdicts, usable, weight, risk_price)
    return dict(zip(usable, cost, strict=True))


def _foresee(
    request: Request, table: RoutingTable, targets: Sequence[Target], learner: Learner, now: float
) -> list[Foreseen]:
    line = table.reliability(request.slack_s)
    contexts = [context(request, target, line, now) for target in targets]
    is_hopeful = uniform(request.draw, _SALT) < EXPLORED
    return learner.foresee(contexts, is_hopeful=is_hopeful)


def _changed(
    request: Request, safe: Decision, verdicts: tuple[Verdict, ...], best: int
) -> Decision:
    """Return the model's choice; what it spends of the budget is counted by the safe estimates."""
    chosen = verdicts[best]
    spent = safe.spent
    if spent is not None:
        spent += (chosen.late - safe.late) / WEIGHTS[request.objective].budget
    return Decision(
        chosen.target, LEARNED, chosen.expected_s, verdicts, chosen.late, chosen.usd, spent
    )
