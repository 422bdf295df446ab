"""The price book: what holds by default, what an operator puts over it, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.cost.prices import TIERS, read_book, read_figures
from edge_runtime.errors import InvalidInput, NotFound
from policies.cost import EGRESS_USD_PER_BYTE


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "prices.yaml"


def test_the_default_book_prices_every_tier_and_says_where_each_figure_is_from() -> None:
    book = read_book()
    for tier in TIERS:
        assert book.rates(tier, "anywhere").usd_per_s > 0.0
    assert book.rates("cloud", "a").egress_usd_per_byte == EGRESS_USD_PER_BYTE
    numbers = [figure for figure in read_figures() if not isinstance(figure.value, str)]
    assert len(numbers) > 10
    for figure in numbers:
        assert figure.source
        assert figure.date >= "2020"
        assert figure.origin == "default"


def test_a_book_of_ones_own_holds_only_what_is_different(own: Path) -> None:
    own.write_text(
        "machines: {pi: {busy_w: {value: 6, source: our meter, date: 2026-05-01}}}\n"
        "sites: {plant-2: {machine: pi}}\n"
    )
    book, usual = read_book(own), read_book()
    assert book.rates("edge", "plant-2").busy_w == 6.0
    assert book.rates("edge", "plant-1") == usual.rates("edge", "plant-1")
    found = {figure.key: figure for figure in read_figures(own)}
    assert (found["machines.pi.busy_w"].source, found["machines.pi.busy_w"].origin) == (
        "our meter",
        str(own),
    )
    assert found["sites.plant-2.machine"].origin == str(own)
    assert found["machines.pi.idle_w"].origin == "default"


def test_an_empty_book_changes_nothing(own: Path) -> None:
    own.write_text("# nothing yet\n")
    assert read_book(own) == read_book()


@pytest.mark.parametrize(
    ("text", "field", "hint"),
    [
        ("machnes: {}", "machnes", "machines"),
        ("machines: {pi: {busi_w: {value: 1, source: x, date: 2026-01-01}}}", "busi_w", "busy_w"),
        ("tiers: {edge: {machine: hailobox}}", "tiers.edge.machine", "hailo-box"),
        ("tiers: {egde: {machine: pi, grid: site}}", "tiers.egde", None),
        ("sites: {a: {grid: sites}}", "sites.a.grid", "site"),
        ("machines: {pi: {busy_w: {value: -1}}}", "busy_w", None),
        ("machines: {pi: {busy_w: {value: 1, source: ''}}}", "source", None),
        ("carbon_usd_per_tonne: {value: 80}", "carbon_usd_per_tonne", None),
        ("carbon_usd_per_tonne: 80", "carbon_usd_per_tonne", None),
        ("carbon_usd_per_tonne: {value: .inf, source: x, date: 2026-01-01}", "value", None),
    ],
)
def test_what_is_wrong_is_named_with_the_nearest_that_would_be_right(
    own: Path, text: str, field: str, hint: str | None
) -> None:
    own.write_text(text)
    with pytest.raises(InvalidInput) as error:
        read_book(own)
    assert field in (error.value.field or "")
    assert str(own) in error.value.message
    if hint is not None:
        assert f"'{hint}'" in (error.value.hint or "")


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\tx"])
def test_a_file_that_is_no_book_is_refused(own: Path, text: str) -> None:
    own.write_text(text)
    with pytest.raises(InvalidInput):
        read_book(own)


def test_a_book_that_is_not_there_is_an_error_and_not_the_default(own: Path) -> None:
    with pytest.raises(NotFound):
        read_book(own)
    own.mkdir()
    with pytest.raises(InvalidInput):
        read_book(own)
