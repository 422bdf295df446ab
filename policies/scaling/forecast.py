"""How much work will come, from what came; and how far such forecasts were off.

Two forecasts compete. `level`: all stays as it was in the last seconds. `season`: what came at the
same phase of past seasons, times today's level over the level back then (both over the same
window, so that a long one does not lag); the median over the seasons kept. The season is taken
while it was not clearly worse than the level, both over the last minutes and over the last season.

How wide a forecast has to be is measured, not assumed: forecasts for each second of the last
minutes, made as long before as a new replica needs, are compared with what came, in units that
grow with the root of what was expected, as the noise of counts does (Anscombe, "The transformation
of Poisson, binomial and negative-binomial data", 1948). A high quantile of those errors is added.
Forecasts are compared by the pinball loss of that quantile (Koenker and Bassett, "Regression
quantiles", 1978), and the better one's share of the mean load says whether it can be used at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from policies.scaling.history import Floats, Flow, History

Basis = Literal["season", "level"]
PARTS: Final = 1440  # buckets of a season; a minute of a day
TESTS: Final = 600  # moments of the last season that forecasts are tested on
_FEW: Final = 1 / 8  # of the moments to test on, below which a comparison says nothing
_FLOOR: Final = 0.05  # of the mean load: what ratios and spreads are kept from vanishing by


@dataclass(frozen=True, slots=True)
class Season:
    """What repeats, and how it is looked at; all in seconds but the last four.

    period_s: after which traffic repeats; lead_s: from deciding until a new replica serves; keep_s:
    a replica that will be needed again so soon after is kept; level_s: window of today's level;
    smooth_s: window of past seasons; recent_s: window of the forecast that all stays as it is;
    actual_s: window of the rate to be served; tested_s: how much of the past gives the errors;
    quantile: share of the time the forecast should suffice for; distrust, veto: ratios of losses to
    the level's, over a season and over the last minutes, above which the season does not count;
    limit: mean loss, as a share of the mean load, above which no forecast does.
    """

    period_s: float
    lead_s: float = 12.0
    keep_s: float = 20.0
    level_s: float = 120.0
    smooth_s: float = 30.0
    recent_s: float = 15.0
    actual_s: float = 5.0
    tested_s: float = 600.0
    quantile: float = 0.985
    distrust: float = 1.1
    veto: float = 2.0
    limit: float = 0.08

    @classmethod
    def of(cls, period_s: float, start_s: float) -> Season:
        """Return how to look at a season where a replica takes start_s to serve.

        Windows are those of a day, shorter where the season is (that of a benchmark, say). Raises
        ValueError for a season shorter than eight starts.
        """
        lead_s = 1.2 * start_s
        if period_s < 8 * lead_s:
            raise ValueError(f"a season has {8 * lead_s:g} s at least, eight times a start")
        return cls(
            period_s=period_s,
            lead_s=lead_s,
            keep_s=min(20.0, period_s / 20),
            level_s=min(120.0, period_s / 12),
            smooth_s=min(30.0, period_s / 48),
            tested_s=min(600.0, period_s / 2.4),
        )

    def past(self, seasons: int = 7) -> History:
        """Return an empty history of some seasons."""
        bucket_s = max(1.0, self.period_s / PARTS)
        return History(bucket_s, math.ceil((seasons + 0.5) * self.period_s / bucket_s))

    def recent(self) -> History:
        """Return an empty history of the last season, second by second."""
        back_s = max(self.period_s, self.tested_s) + self.lead_s + self.level_s + self.actual_s
        return History(1.0, math.ceil(back_s) + 5)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected, in work a second.

    made_at: when (s); peak: the most within lead_s + keep_s; basis: which forecast this is;
    headroom: what was added to it for its errors, in roots; loss, level_loss: mean pinball losses
    of this and of the level, over the same moments; covered: share of them that it sufficed for;
    seasons: past ones known; why_not: empty when it may be used, else `no_history` or `error`.
    """

    made_at: float
    peak: float = 0.0
    basis: Basis = "level"
    headroom: float = 0.0
    loss: float = 0.0
    level_loss: float = 0.0
    covered: float = 0.0
    seasons: int = 0
    why_not: str = ""


class _Tested(NamedTuple):
    loss: float
    level_loss: float
    headroom: float
    covered: float


def forecast(
    past: Sequence[History], recent: History, season: Season, now: float, last: Basis = "level"
) -> Forecast:
    """Forecast from what came until now.

    past, recent: as `Season` makes them; recent is fed with all that came, and each part of it with
    one of past. last: the basis of the forecast before, kept when both are about as good.
    """
    then, fine = Flow(past, now), Flow((recent,), now)
    now = fine.end_s
    model = _Model(then, fine, season, int((now - then.begin_s) / season.period_s))
    tested_s = min(season.tested_s, now - fine.begin_s - season.lead_s - season.level_s)
    if tested_s < _FEW * season.tested_s:
        return Forecast(now, why_not="no_history")
    moments = np.arange(now - tested_s, now) + 1.0
    mean = fine.over(now - tested_s, now)
    ahead = np.arange(0.0, season.lead_s + season.keep_s + 1.0)
    basis: Basis = "level"
    tested = model.tested(moments, mean)
    path = np.full_like(ahead, fine.over(now - season.recent_s, now))
    if model.seasons and (found := model.trusted(moments, mean, last)) is not None:
        basis, tested = "season", found
        path = model.seasonal(np.full_like(ahead, now), ahead)
    path = path + tested.headroom * _spread(path, mean)
    error = min(tested.loss, tested.level_loss) / max(mean, 1e-12)
    return Forecast(
        made_at=now,
        peak=max(0.0, float(path.max())),
        basis=basis,
        headroom=tested.headroom,
        loss=tested.loss,
        level_loss=tested.level_loss,
        covered=tested.covered,
        seasons=model.seasons,
        why_not="error" if error > season.limit else "",
    )


@dataclass(frozen=True, slots=True)
class _Model:
    past: Flow
    recent: Flow
    season: Season
    seasons: int

    def level(self, made_at: Floats) -> Floats:
        return self.recent.mean(made_at - self.season.recent_s, made_at)

    def seasonal(self, made_at: Floats, ahead_s: Floats) -> Floats:
        """Return point forecasts for so much later; NaN where no past season is known."""
        season, past = self.season, self.past
        level = self.recent.mean(made_at - season.level_s, made_at)
        # On both sides of the ratio, or it would mean nothing where nearly nothing comes.
        floor = _FLOOR * past.over(past.begin_s, past.end_s) + 1e-12
        half_s = season.smooth_s / 2
        found = []
        for back in range(1, self.seasons + 1):
            then = made_at - back * season.period_s
            before = past.mean(then - season.level_s, then)
            before[then - season.level_s < past.begin_s] = np.nan
            later = past.mean(then + ahead_s - half_s, then + ahead_s + half_s)
            found.append((later + floor) * (level + floor) / (before + floor) - floor)
        return np.maximum(_median(np.array(found)), 0.0)

    def tested(self, moments: Floats, mean: float) -> _Tested:
        """Test the level at moments."""
        season = self.season
        actual = self.recent.mean(moments - season.actual_s, moments)
        loss, headroom, covered = _loss(
            actual, self.level(moments - season.lead_s), mean, season.quantile
        )
        return _Tested(loss, loss, headroom, covered)

    def tested_season(self, moments: Floats, mean: float) -> _Tested | None:
        """Test the season at those moments where it is known, and the level at the same ones."""
        season = self.season
        expected = self.seasonal(moments - season.lead_s, np.full_like(moments, season.lead_s))
        known = np.isfinite(expected)
        if known.sum() < _FEW * season.tested_s:
            return None
        moments = moments[known]
        actual = self.recent.mean(moments - season.actual_s, moments)
        loss, headroom, covered = _loss(actual, expected[known], mean, season.quantile)
        level = self.level(moments - season.lead_s)
        return _Tested(loss, _loss(actual, level, mean, season.quantile)[0], headroom, covered)

    def trusted(self, moments: Floats, mean: float, last: Basis) -> _Tested | None:
        """Return how the season did in the last minutes; None where it should not count."""
        season, fine = self.season, self.recent
        lately = self.tested_season(moments, mean)
        if lately is None or lately.loss > season.veto * lately.level_loss:
            return None
        span_s = min(season.period_s, fine.end_s - fine.begin_s - season.lead_s - season.level_s)
        apart_s = max(1.0, span_s / TESTS)
        whole = self.tested_season(np.arange(fine.end_s, fine.end_s - span_s, -apart_s), mean)
        most = season.distrust if last == "season" else (1.0 + season.distrust) / 2
        return lately if whole is not None and whole.loss <= most * whole.level_loss else None


def _loss(
    actual: Floats, expected: Floats, mean: float, quantile: float
) -> tuple[float, float, float]:
    """Return mean pinball loss of the widened forecast, its headroom, the share it covers."""
    spread = _spread(expected, mean)
    headroom = float(np.quantile((actual - expected) / spread, quantile))
    short = actual - expected - headroom * spread
    loss = np.maximum(quantile * short, (quantile - 1.0) * short)
    return float(loss.mean()), headroom, float((short <= 1e-9).mean())


def _spread(expected: Floats, mean: float) -> Floats:
    """Return the unit of errors. In work a second, so that it scales with the load."""
    return np.sqrt((expected + _FLOOR * mean + 1e-12) * (mean + 1e-12))


def _median(rows: Floats) -> Floats:
    """Return the median by column over what is known (`numpy.nanmedian` takes ten times longer)."""
    if len(rows) == 1:
        return np.asarray(rows[0])
    ordered = np.sort(rows, axis=0)  # what is not known comes last
    known = np.isfinite(ordered).sum(axis=0)
    columns = np.arange(ordered.shape[1])
    lower = ordered[np.maximum(known - 1, 0) // 2, columns]
    upper = ordered[np.minimum(known // 2, len(rows) - 1), columns]
    return np.asarray(np.where(known > 0, (lower + upper) / 2, np.nan))
