"""Where a request should run: values (`types`) and the decision (`choose`)."""

from policies.routing.choose import choose
from policies.routing.types import Decision, NoTarget, Request, Target, Verdict

__all__ = ["Decision", "NoTarget", "Request", "Target", "Verdict", "choose"]
