"""What a rule sees in the simulator: averages, what was spent and done, a forecast now and then."""

from __future__ import annotations

from collections import deque
from typing import Final

from policies.scaling import Capacity, Forecast, Observed, Season, forecast
from policies.scaling.bounds import HOUR_S
from policies.scaling.history import Floats

LOOK_BACK_S: Final = 30  # over which Ray Serve averages requests in progress by default
FORECAST_EVERY_S: Final = 2


class Monitor:
    """Counts while seconds pass. came: work of each second; capacity: as it is known before."""

    def __init__(
        self, season: Season | None, came: Floats, capacity: Capacity, minimum: int
    ) -> None:
        self._season = season
        self._came = came
        self._capacity = capacity
        self._minimum = minimum
        self._past = season.past() if season else None
        self._recent = season.recent() if season else None
        self._forecast: Forecast | None = None
        self._ongoing: deque[int] = deque(maxlen=LOOK_BACK_S)
        self._extra: deque[float] = deque(maxlen=int(HOUR_S))
        self._spent = 0.0
        self._idle_s = 0.0
        self._second = -1

    def pass_second(self, second: int, in_progress: int, replicas: float) -> None:
        """Count a second that is over."""
        self._second = second
        self._ongoing.append(in_progress)
        extra = max(0.0, replicas - self._minimum)
        self._spent += extra - (self._extra[0] if len(self._extra) == HOUR_S else 0.0)
        self._extra.append(extra)
        self._idle_s = 0.0 if self._came[second] else self._idle_s + 1.0
        if self._season is None or self._past is None or self._recent is None:
            return
        for history in (self._past, self._recent):
            history.add(second + 0.5, float(self._came[second]))
        if second % FORECAST_EVERY_S == 0:
            last = self._forecast.basis if self._forecast else "level"
            self._forecast = forecast((self._past,), self._recent, self._season, second + 1.0, last)

    def learn(self, done: float, busy: float, replicas: int, *, all_wait: bool) -> None:
        """Take in what replicas did in that second (`Capacity.learn`)."""
        self._capacity.learn(done, busy, replicas, all_wait=all_wait)

    def observed(self, queued: float, running: int, starting: int, target: int) -> Observed:
        """Return what is known at the end of the second."""
        return Observed(
            now=self._second + 1.0,
            rate=self._mean(3),
            fast_rate=self._mean(6),
            long_rate=self._mean(60),
            ongoing=sum(self._ongoing) / len(self._ongoing),
            queued=queued,
            running=running,
            starting=starting,
            target=target,
            capacity=self._capacity.value,
            idle_s=self._idle_s,
            extra_spent=self._spent,
            forecast=self._forecast,
        )

    def _mean(self, seconds: int) -> float:
        end = self._second + 1
        return float(self._came[max(0, end - seconds) : end].mean())
