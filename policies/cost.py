"""What serving costs: prices that stand where an operator has set none.

They only have to be right among each other: that moving data off a site costs something makes a
request stay where it is while nothing speaks for another place.
"""

from __future__ import annotations

from typing import Final

EGRESS_USD_PER_BYTE: Final = 9e-11  # 0.09 dollars a gigabyte, what large clouds list in 2026
