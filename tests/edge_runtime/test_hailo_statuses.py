"""A status number has a name, a meaning and something to do, and the page shows the same."""

from __future__ import annotations

import runpy

import pytest

from edge_runtime.hailo_statuses import STATUSES, explain, status_in
from load.fake_hailo.device import DRIVER_PATH
from tests.docs.pages import table

# Those that programs and users meet: what Python's classes stand for, what its base class says,
# what 5.x adds, and the two that firmware and page size cause.
MET = {2, 4, 6, 7, 8, 15, 16, 18, 25, 26, 36, 48, 61, 62, 63, 64, 69, 73, 74, 76, 77, 78, 81, 82}
MET |= {85, 86, 87, 88, 91, 92, 93, 94, 95, 96, 97}


def test_every_status_that_is_met_is_in_the_table() -> None:
    assert set(STATUSES) == MET
    assert all(number == status.number for number, status in STATUSES.items())


def test_the_drivers_mismatch_stands_first_and_the_others_in_order() -> None:
    first, *others = STATUSES
    assert first == 76
    assert others == sorted(others)


@pytest.mark.parametrize("number", sorted(MET))
def test_names_are_those_of_the_driver(number: int) -> None:
    """The fake driver has its own list, made from the vendor's header by somebody else."""
    names = runpy.run_path(str(DRIVER_PATH / "hailo_platform" / "_native" / "statuses.py"))
    assert STATUSES[number].name == f"HAILO_{names['Status'](number).name}"
    assert STATUSES[number].is_of_5 == (number >= names["FIRST_OF_5"])


@pytest.mark.parametrize("number", sorted(MET))
def test_meaning_and_remedy_are_a_sentence_each(number: int) -> None:
    status = STATUSES[number]
    for text in (status.meaning, status.remedy):
        assert text[0].isupper() or text.startswith("`")
        assert text.endswith(".")
        assert ". " not in text.removesuffix(".")
        assert "  " not in text
    assert status.remedy.count("`") % 2 == 0


def test_the_remedy_for_the_drivers_mismatch_has_the_commands() -> None:
    remedy = explain(76).remedy
    assert "`sudo apt-get update && sudo apt-get full-upgrade && sudo reboot`" in remedy
    assert "/sys/module/hailo_pci/version" in remedy


def test_an_unknown_number_is_explained_as_unknown() -> None:
    assert explain(4242).title == "status 4242 HAILO_?"
    assert "not in our table" in explain(4242).meaning


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("libhailort failed with error: 76 (HAILO_INVALID_DRIVER_VERSION)", 76),
        ("[HailoRT] [error] failed, status HAILO_DRIVER_INVALID_IOCTL(86)", 86),
        ("HAILO_DRIVER_INVALID_IOCTL(86)\nstatus HAILO_INVALID_DRIVER_VERSION(76)", 76),
        ("Driver version (4.23.0) is different from library version (4.22.0)", None),
        ("HAILO_X(1234)", None),
        ("", None),
    ],
)
def test_the_number_is_found_in_what_the_library_says(text: str, number: int | None) -> None:
    assert status_in(text) == number


def test_the_page_shows_this_table() -> None:
    expected = [[str(s.number), s.name, s.meaning, s.remedy.strip("`")] for s in STATUSES.values()]
    assert table("how-to/check-an-edge-box.md", "status") == expected
