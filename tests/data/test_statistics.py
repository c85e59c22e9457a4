import pytest

from tunedeck.core.errors import DataError
from tunedeck.data.labelled import Example
from tunedeck.data.statistics import Statistics, describe, digest


def test_statistics_of_a_hand_counted_set():
    examples = [Example("x" * length, ("10" if length > 2 else "9",)) for length in range(1, 21)]
    assert describe(examples) == Statistics(20, {"9": 2, "10": 18}, 10.5, 10.5, 19, 20)
    assert list(describe(examples).label_counts) == ["9", "10"]


def test_every_label_of_an_example_counts():
    assert describe([Example("a", ("x", "y")), Example("b", ())]).label_counts == {"x": 1, "y": 1}


def test_nothing_cannot_be_described():
    with pytest.raises(DataError, match="no examples"):
        describe([])


def test_the_digest_sees_texts_labels_and_their_order():
    a, b = Example("很好", ("x",)), Example("b", ("x", "y"))
    variants = [[a, b], [b, a], [a], [], [a, Example("b", ("y", "x"))], [a, Example("b", ("x",))]]
    assert len({digest(variant) for variant in variants}) == len(variants)
    assert digest([a, b]) == digest(iter([a, b]))
    assert digest([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
