"""What serving costs: rates of a place and costs of a request (`rates`), the prices that an
operator states (`book`), and how much may be spent (`budget`).
"""

from typing import Final

from policies.cost.book import Grid, Machine, Price, PriceBook, Setup, SiteSetup
from policies.cost.budget import Action, Budget, Exceeded, Period, Reached, Spending, Spent
from policies.cost.rates import FREE, PARTS, Cost, Rates, cost_of, standing

# Where there is no price book. It only has to be right among others: that moving data off a site
# costs something makes a request stay where it is while nothing speaks for another place.
EGRESS_USD_PER_BYTE: Final = 9e-11  # 0.09 dollars a gigabyte, what large clouds list in 2026
NO_BOOK: Final = Rates(egress_usd_per_byte=EGRESS_USD_PER_BYTE)

__all__ = [
    "EGRESS_USD_PER_BYTE",
    "FREE",
    "NO_BOOK",
    "PARTS",
    "Action",
    "Budget",
    "Cost",
    "Exceeded",
    "Grid",
    "Machine",
    "Period",
    "Price",
    "PriceBook",
    "Rates",
    "Reached",
    "Setup",
    "SiteSetup",
    "Spending",
    "Spent",
    "cost_of",
    "standing",
]
