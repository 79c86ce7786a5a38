"""``cxredge segment --ray``: the stages of :mod:`cxredge.runs`, on the nodes of a Ray cluster (extra ``ray``)."""
