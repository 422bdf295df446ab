from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.leaving import LeavingRules, may_leave

NAMES = st.text("abc-", min_size=1, max_size=5)
PATTERNS = st.lists(st.text("abc-*?", min_size=1, max_size=5), max_size=3).map(tuple)
RULES = st.builds(LeavingRules, PATTERNS, PATTERNS, PATTERNS, PATTERNS)


def test_without_rules_everything_may_leave() -> None:
    assert may_leave(LeavingRules(), "digits", "clinic-1") is None


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (LeavingRules(keep_models=("digi*",)), "model_kept"),
        (LeavingRules(keep_tenants=("clinic-*",)), "tenant_kept"),
        (LeavingRules(models=("faces",)), "model_not_let_out"),
        (LeavingRules(tenants=()), "tenant_not_let_out"),
    ],
)
def test_each_rule_keeps_a_request_and_says_which_it_was(rules: LeavingRules, why: str) -> None:
    assert may_leave(rules, "digits", "clinic-1") == why


@given(RULES, NAMES, NAMES)
def test_what_is_kept_stays_whatever_lets_it_out(
    rules: LeavingRules, model: str, tenant: str
) -> None:
    assert may_leave(replace(rules, keep_models=(model,)), model, tenant) == "model_kept"
    assert may_leave(replace(rules, keep_tenants=(tenant,)), model, tenant) is not None


@given(RULES, NAMES, NAMES, PATTERNS)
def test_one_more_rule_that_keeps_never_lets_anything_out(
    rules: LeavingRules, model: str, tenant: str, more: tuple[str, ...]
) -> None:
    if may_leave(rules, model, tenant) is not None:
        stricter = replace(rules, keep_models=(*rules.keep_models, *more))
        assert may_leave(stricter, model, tenant) is not None
