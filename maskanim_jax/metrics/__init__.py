"""Which metrics compare generated with true frames? One file per metric;
see also `docs/metrics.md`.

Every metric is a `Metric` (`interface.py`): it takes batches of frames and returns values per clip
and over all clips. Values that depend on a landmark, pose or identity network carry its name, as in
`akd[blazepose-full]`.
"""
