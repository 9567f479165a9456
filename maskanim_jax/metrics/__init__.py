"""What is measured between generated and true frames? One file a metric; `docs/metrics.md` has all definitions together.

Every metric is a `Metric` (`interface.py`): it takes batches of frames, and gives the figures of each clip and of all clips. Landmark, pose
and identity networks are in `backends/`; a figure that needs one always carries its name, as in `akd[blazepose-full]`.
"""
