"""Lanes that fit a device."""

from synth_consumer.engines.chattts.memory import LANE_POSITIONS, Dimensions, lanes_that_fit

_GB = 2**30


def test_numbers_of_the_published_model() -> None:
    assert Dimensions().position_bytes == 122_880
    assert 0.85e9 < Dimensions().weight_bytes < 0.95e9
    assert Dimensions(bytes_per_value=2).weight_bytes * 2 == Dimensions().weight_bytes


def test_as_many_lanes_as_wanted_or_as_fit() -> None:
    dimensions = Dimensions()

    assert lanes_that_fit(80 * _GB, 64, dimensions) == 64
    few = lanes_that_fit(4 * _GB, 64, dimensions)
    used = dimensions.weight_bytes + few * dimensions.lane_bytes()
    assert used <= 4 * _GB < used + dimensions.lane_bytes()


def test_no_lane_where_the_weights_alone_are_too_much() -> None:
    assert lanes_that_fit(_GB // 2, 8, Dimensions()) == 0


def test_shorter_lanes_cost_less() -> None:
    assert Dimensions().lane_bytes(512) < Dimensions().lane_bytes(LANE_POSITIONS)
