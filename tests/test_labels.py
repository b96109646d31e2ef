import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import InputError
from charlm.text.labels import Labels

names = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), min_size=1, max_size=5)


def test_ids_follow_frequency_then_code_point() -> None:
    labels = Labels.from_counts({"b": 2, "ä": 3, "a": 2, "Z": 2, "none": 0, "x": 9})
    assert labels.names == ("x", "ä", "Z", "a", "b")
    assert labels.size == 5
    assert [labels.find(name) for name in ("x", "b", "none", "")] == [0, 4, None, None]


@given(st.dictionaries(names, st.integers(1, 9), min_size=1))
def test_the_order_of_counting_does_not_matter(counts: dict[str, int]) -> None:
    labels = Labels.from_counts(counts)
    assert labels == Labels.from_counts(dict(reversed(counts.items())))
    assert sorted(labels.names) == sorted(counts)
    keys = [(-counts[name], name) for name in labels.names]
    assert keys == sorted(keys)
    assert Labels.from_names(list(labels.names)) == labels
    assert [labels.find(name) for name in labels.names] == list(range(labels.size))


@pytest.mark.parametrize("value", [None, "ab", ["a", 1], [], ["a", "a"], ["a", ""], {"a": 1}, ("a",), ["a\tb"], ["\n"]])
def test_what_are_no_labels(value: object) -> None:
    with pytest.raises(ValueError, match="label"):
        Labels.from_names(value)


@pytest.mark.parametrize("name", ["a\tb", "a\r", "\n", "x" * 1001, "\ud800"])
def test_what_could_be_no_label_of_a_line(name: str) -> None:
    with pytest.raises(ValueError, match=r"a label ha|label holds|surrogates"):
        Labels.from_names(["a", name])


def test_no_counts() -> None:
    with pytest.raises(ValueError, match="no labels"):
        Labels.from_counts({"a": 0})


def message(labels: Labels, name: str, what: str = "label") -> str:
    with pytest.raises(InputError) as caught:
        labels.require(name, "names.tsv: line 7", what)
    return str(caught.value)


def test_an_unknown_label_is_named_with_its_place() -> None:
    labels = Labels(("Irish", "Scottish", "Greek"))
    assert labels.require("Greek", "") == 2
    assert message(labels, "Irsh") == (
        "names.tsv: line 7: the label 'Irsh' is unknown to the model; did it mean Irish?"
    )
    assert message(labels, "IRISH").endswith("did it mean Irish?")
    assert message(labels, "B-ORG", "tag") == (
        "names.tsv: line 7: the tag 'B-ORG' is unknown to the model; it knows Irish, Scottish, Greek"
    )
    assert "\n" not in message(labels, "a\nb")


def test_a_long_list_of_labels_is_cut() -> None:
    labels = Labels(tuple(f"L{number:02}" for number in range(25)))
    assert message(labels, "?").endswith("it knows " + ", ".join(labels.names[:20]) + " and 5 more")


def test_labels_that_are_missing() -> None:
    labels = Labels(("a", "b", "c"))
    assert labels.missing(np.array([2, 2, 0])) == ["b"]
    assert labels.missing([]) == ["a", "b", "c"]
    assert labels.missing([0, 1, 2]) == []
