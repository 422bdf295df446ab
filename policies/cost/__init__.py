"""What serving costs: prices of a place and of a request (`rates`)."""

from policies.cost.rates import FREE, PARTS, Cost, Rates, cost_of, standing

# Where an operator has set no price. It only has to be right among others: that moving data off a
# site costs something makes a request stay where it is while nothing speaks for another place.
EGRESS_USD_PER_BYTE = 9e-11  # 0.09 dollars a gigabyte, what large clouds list in 2026

__all__ = ["EGRESS_USD_PER_BYTE", "FREE", "PARTS", "Cost", "Rates", "cost_of", "standing"]
