"""Entities, feature views and the feature service of the lake's current feature tables."""

import os

from feast import Entity, FeatureService, FeatureView

from understudy.errors import BadInput
from understudy.features.online import current_tables
from understudy.features.repository import definitions
from understudy.lake import Lake

if "UNDERSTUDY_LAKE" not in os.environ:
    raise BadInput("UNDERSTUDY_LAKE: expected the lake's absolute path in the environment, found nothing; export it")

# Feast collects what a module of the repository names.
_found = definitions(current_tables(Lake.open(os.environ["UNDERSTUDY_LAKE"])))
_kinds = Entity | FeatureView | FeatureService
globals().update({f"{type(one).__name__}_{one.name}": one for one in _found if isinstance(one, _kinds)})
