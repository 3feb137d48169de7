"""What the network is fed of a row: no more than a server could have known just before it."""

import numpy as np
import pyarrow as pa

from understudy import schema
from understudy.inputs import Inputs, encode

CREATED = "item_profile__created_at"
DAY_US = 86_400_000_000


def test_a_time_is_fed_as_its_age_and_is_missing_before_it_comes() -> None:
    ts = pa.array([3 * DAY_US, 3 * DAY_US, 3 * DAY_US], pa.int64()).cast(schema.TIMESTAMP)
    created = pa.array([DAY_US, None, 4 * DAY_US], pa.int64())
    table = pa.table({"ts": ts, CREATED: created, "item_profile__length": pa.array([1.5, 2.5, None])})
    inputs = Inputs.derive(
        table.schema, heads=("click",), time_zone="UTC", half_lives=("1d",), recent_events=1, surfaces=1
    )
    assert inputs.numeric == ("item_profile__length", CREATED)
    assert inputs.times == (CREATED,)
    assert CREATED in inputs.columns()
    np.testing.assert_array_equal(encode(table, inputs)["numeric"][:, 1], np.array([172_800, np.nan, np.nan], "f4"))
    assert Inputs.from_json(inputs.to_json()) == inputs
